/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's migration of one guest: passes, bitmap, bandwidth limits, the switch, post-copy.
 *
 * From migration/ram.c and migration.c of QEMU 7.2 to 11.1: limits hold per slice of 100 ms, used up in a burst at its
 * start; pre-copy ends when what is left fits in bandwidth * downtime limit, the bandwidth being that of the last
 * slice; the bitmap is synchronised when what is left seems to fit (up to 10), or after each turn of 50 ms (11,
 * post-copy enabled); a page that the destination asks for is sent at once, beyond the limit, on a connection of its
 * own if there is one.
 */
#ifndef TESTS_SIM_QEMU_H
#define TESTS_SIM_QEMU_H

#include "guest.h"
#include "link.h"

#include "core/input.h"

enum qemu_state {
    QEMU_PRECOPY,
    QEMU_FINISHING, /* the guest stands still for the last pages of pre-copy */
    QEMU_SWITCHING, /* it stands still for the device state; pages already flow */
    QEMU_POSTCOPY,
    QEMU_COMPLETED,
    QEMU_CANCELLED
};

/* Whether anything still changes from one pass to the next. */
struct level {
    double least, before; /* pages left, of this time and of the one before */
    unsigned syncs, steady, times;
    int64_t since_us;
};

struct qemu {
    const struct scenario *scenario;
    struct guest guest;
    struct link *link;
    struct flow *flow;
    enum qemu_state state;
    bool continuous; /* QEMU 11 */
    bool quickack;   /* pcmig has page requests acknowledged at once */

    /* What libvirt sets. 0 = no limit. */
    double precopy_bps, postcopy_bps;
    double downtime_ms;
    int64_t start_postcopy_us; /* when it was asked for; -1 = it was not */

    /* Slices. */
    int64_t slice_us;                      /* start of the running one */
    double slice_bytes;                    /* sent in it */
    double bandwidth_bps, threshold_bytes; /* of the last one */
    int64_t busy_until_us;                 /* the migration thread synchronises */
    int64_t turn_us;                       /* start of the turn */
    int64_t burst_end_us;                  /* in post-copy: since when nothing flows in this slice */

    double offered_pages, page_bytes; /* of this step */
    double resume_at_bytes;           /* the device state has arrived when so much was delivered */
    int64_t resume_us;                /* the guest runs again; 0 = not known yet */

    /* Statistics. */
    uint64_t iteration, requests;
    double normal_pages, zero_pages, sent_bytes;
    double dirtied_pages, dirty_pages_ps;
    int64_t rate_us;
    struct level level;
    double others_requests;  /* of the vCPUs but the first: fractions */
    double others_in_flight; /* pages on their way to them */
    int64_t answer_us;       /* the page that the first vCPU waits for is sent */

    /* Moments; 0 = not yet. */
    int64_t stopped_us, running_us, end_us;
    bool synchronised; /* since the driver looked: it is told of the iteration */
};

void qemu_init(struct qemu *qemu, const struct scenario *s, struct link *link, unsigned index);

/* How long the next step may be, in seconds. */
double qemu_step_s(const struct qemu *qemu, int64_t now_us);

/* Before the link's step: writes of the guest, and what QEMU would send. After it: what follows from that. */
void qemu_offer(struct qemu *qemu, int64_t now_us, double dt_s);
void qemu_settle(struct qemu *qemu, int64_t now_us, double dt_s);

/* In pre-copy, one pass is like the one before: unless somebody interferes, it goes on like that. */
bool qemu_steady(const struct qemu *qemu);
/* Moves it US on, with nothing changed but its clocks and counters. */
void qemu_skip(struct qemu *qemu, int64_t us);

/* Job statistics as libvirt tells them, of a migration that began at START_US. */
void qemu_statistics(const struct qemu *qemu, int64_t now_us, int64_t start_us, struct pcmig_sample *out);
double qemu_queue_bytes(const struct qemu *qemu, int64_t now_us);

#endif
