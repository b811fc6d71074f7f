/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's memory and its vCPUs.
 *
 * Memory is a few sets of pages, each written at random at a rate of its own; a set knows how many of its pages are
 * dirty, not which, so that a guest of 4 TiB costs no more than one of 256 MiB. Figures are expected values. The first
 * vCPU is exact all the same: it meets missing pages one by one, at moments drawn from a seeded generator, and what it
 * does shows as heartbeats. The other vCPUs stand still for the part of the time that the mean of the same process
 * says.
 */
#ifndef TESTS_SIM_GUEST_H
#define TESTS_SIM_GUEST_H

#include "scenario.h"

enum set_kind { SET_CORE_RW, SET_CORE_RO, SET_HOT, SET_WARM, SET_BURST, SET_IDLE, SET_ZERO, SET_COUNT };

/* Pages of 4 KiB. */
struct set {
    double pages;
    double writes_ps;  /* at full rate */
    double touches_ps; /* writes and reads, in post-copy */
    double scan_ps;    /* read in turn, likewise */
    double unscanned;  /* since the guest runs at the destination */
    double left;       /* in QEMU's bitmap: to be sent, or after the switch: missing */
    double behind;     /* of them, those that the running pass has gone by: for the next one */
    double fresh;      /* of those left, never sent so far: side by side at the end of memory */
    double dirty;      /* written since the bitmap was synchronised; not in it */
    double dirty_left; /* likewise, but still in it as well: sent once more than needed */
};

struct guest {
    struct set sets[SET_COUNT];
    double pages;
    double place;     /* of the pass, 0 to 1 of the guest's addresses */
    double host_page; /* in pages of 4 KiB: what a request brings */
    double vcpus;
    double lost_s; /* time that the vCPUs stood still, their mean */
    uint64_t random;
    /* The first vCPU. */
    bool left_source;             /* stopped there, for good */
    bool runs;                    /* at the destination */
    bool blocked;                 /* a page is on its way */
    int64_t next_us;              /* when that page comes, or when the next missing one is met */
    int64_t since_us;             /* it has run since then without meeting one */
    double core_missing;          /* host pages that have to come before the first heartbeat */
    int64_t beat_us, beat_due_us; /* the last heartbeat, the next */
    int64_t silence_switch_us;    /* -1 = there was no heartbeat since */
    int64_t silence_later_us;
};

void guest_init(struct guest *guest, const struct scenario *s, uint64_t seed);

/* Writes memory for DT_S at the source. */
void guest_write(struct guest *guest, const struct scenario *s, int64_t now_us, double dt_s);

double guest_left(const struct guest *guest);       /* pages in the bitmap */
double guest_next(const struct guest *guest);       /* of them, those that this pass still comes to */
double guest_next_zero(const struct guest *guest);  /* of those: zero pages */
void guest_sent(struct guest *guest, double pages); /* PAGES of what this pass comes to; at its end the next begins */
double guest_synchronise(struct guest *guest);      /* returns the pages found dirty */

/* The source's vCPUs stop. */
void guest_stop(struct guest *guest, int64_t now_us);
/* What is left is missing at the destination; of a host page, all is missing if any of it is. */
void guest_spread_to_host_pages(struct guest *guest);
/* The vCPUs run at the destination; with MISSING pages the first heartbeat waits for those of the core. */
void guest_resume(struct guest *guest, int64_t now_us, bool missing);

/* Missing pages met per second by one vCPU that runs. */
double guest_faults_ps(const struct guest *guest);
/* Takes one host page, met at random or, for the first heartbeat, of the core, out of what is missing. */
void guest_fetch(struct guest *guest, double host_pages, bool core);

/* The first vCPU meets a missing page, which takes LATENCY_US; or the page that it waits for comes. Each at next_us. */
void guest_meet(struct guest *guest, int64_t latency_us);
void guest_go_on(struct guest *guest);
/* Time has come to NOW_US: heartbeats, and when the next missing page will be met. */
void guest_reach(struct guest *guest, int64_t now_us);

double guest_random(struct guest *guest); /* 0 < x <= 1 */

#endif
