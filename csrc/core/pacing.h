/* SPDX-License-Identifier: Apache-2.0 */
/* How fast background pages may go once the guest runs at the destination.
 *
 * QEMU's post-copy bandwidth bounds what it sends in every 100 ms; page requests are answered even when that is used
 * up (QEMU >= 5.0, migration_rate_limit()). Background pages go first, in a burst at the start of each 100 ms, so
 * the bound holds for them alone, and what requests ask for comes on top. A request that comes in the burst waits
 * for it: at a pace of a quarter of the link's rate up to 25 ms, on a link of any rate. So what a request may have
 * to wait (parameter `request_wait_ms`) is the share of the link that background pages get while requests are
 * frequent.
 *
 * Without a pace a request waits for what the sockets and the link hold. On a fast link that is less than the burst
 * of any pace: there, background pages are not held back at all.
 *
 * Control law, once per sample. Background pages get what requests leave of the link: every page that arrives before
 * the guest asks for it is a stall less. They begin low, because the first pages after the switch are all asked for;
 * while requests are frequent they get at the most the share above, for the sake of the wait, and nearly all as
 * requests fade: closing at once, opening over a few samples. Frequent are requests by their number, as each of them
 * is a wait of the guest, on a fast link as on a slow one.
 *
 * The bound on total time: requests bring pages too, so what counts is how fast the remainder falls. When it falls
 * too slowly to end in time, the pace is raised by what is missing, and lowered again once there is time to spare - or
 * where requests fill the link, and there is nothing to be had.
 *
 * Plain values, no allocation.
 */
#ifndef PCMIG_CORE_PACING_H
#define PCMIG_CORE_PACING_H

#include "input.h"
#include "params.h"
#include "rate.h"

#include <stdbool.h>
#include <stdint.h>

enum pcmig_pacing_cause {
    PCMIG_PACING_UNCHANGED = 0,
    PCMIG_PACING_REQUESTS_RISE,
    PCMIG_PACING_REQUESTS_FADE,
    PCMIG_PACING_TIME_BOUND,
    PCMIG_PACING_FAST_LINK, /* nothing is gained by a pace */
};

struct pcmig_pacing {
    int64_t pace_mib;     /* in force; 0 = unlimited */
    uint64_t requests_ps; /* of the last interval */
    uint64_t page_bytes;  /* that a request brings: the host's pages, which may be huge */
    /* Private. */
    struct pcmig_params params;
    int64_t last_us;
    int64_t baseline_us;    /* when it would have ended, switched as early as pre-copy could be judged; 0 = not known */
    int64_t sharers;        /* of what it may take longer */
    int64_t rush_pages;     /* that the guest asks for first, one after the other */
    bool rushed;            /* it has got them */
    int64_t waited_us;      /* before the migrate call, which is none of its time */
    unsigned wire_permille; /* of what is missing: no zero pages */
    int64_t finish_by_us;   /* the bound on total time; 0 until what remains is known */
    int64_t shared_us;      /* of what that would allow otherwise, left to the others */
    uint64_t finish_link_bps; /* as it was reckoned with */
    int64_t window_us;        /* start of the window in which the fall of the remainder is measured */
    uint64_t window_remaining_bytes, window_processed_bytes;
    int64_t floor_mib; /* what the bound on total time asks for; 0 = nothing */
    uint64_t last_requests, last_processed_bytes;
    uint64_t requests, beyond_pace_bytes; /* seen under a pace: they tell what one brings */
    uint64_t paced_bytes;
    uint64_t requested_bytes; /* sent since the switch because they were asked for */
    uint64_t busy_permille;   /* 0 = requests have faded, 1000 = frequent */
    uint64_t requests_bps;    /* bytes that requests take of the link, smoothed */
    bool has_last;
};

/* Begins at the switch. Sets the first pace. BASELINE_US: see above. WAITED_US of the time before the switch do not
 * count as the migration's. Of what is missing WIRE_PERMILLE have to be sent; the rest are zero pages. REMAINING_BYTES
 * at T_US: what is over soon begins with the pace that ends it in time. */
void pcmig_pacing_begin(struct pcmig_pacing *pacing, const struct pcmig_params *params, const struct pcmig_rate *rate,
                        int64_t baseline_us, int64_t waited_us, unsigned wire_permille, int64_t t_us,
                        uint64_t remaining_bytes);

/* The guest will ask for PAGES of its pages one after the other before it gives a sign of life. Begin keeps it. */
void pcmig_pacing_rush(struct pcmig_pacing *pacing, int64_t pages);

/* Others wait, and what the whole may take longer than an unpaced migration is shared with so many of them from now on.
 * Begin keeps it. */
void pcmig_pacing_share(struct pcmig_pacing *pacing, int64_t sharers);

/* Takes a sample of post-copy, which RATE learns from as well. Updates `pace_mib` and says why it changed. */
enum pcmig_pacing_cause pcmig_pacing_feed(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample,
                                          struct pcmig_rate *rate);

/* A pace that does without steering: what is left behind when nobody looks any more; 0 = unlimited. */
int64_t pcmig_pacing_unattended_mib(const struct pcmig_pacing *pacing, const struct pcmig_rate *rate);

#endif
