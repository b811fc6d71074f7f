/* SPDX-License-Identifier: Apache-2.0 */
/* Passes over the guest's memory, counted in pages.
 *
 * QEMU's iteration number does not say how often memory was gone through: QEMU up to 10 synchronises the dirty bitmap
 * once per pass, QEMU 11 with post-copy enabled every 55 ms. So a pass is measured: the first one ends when every
 * page has been sent once, the n-th when as many pages were sent as remained when it began. The iteration number is
 * used for one thing only: a pass does not end before the bitmap was synchronised after its start, because until then
 * QEMU 10 reports a remainder that falls to zero, and the next pass would begin with a remainder that means nothing.
 *
 * Feed it samples of pre-copy only. Plain values, no allocation: embed it, copy it.
 */
#ifndef PCMIG_CORE_PASSES_H
#define PCMIG_CORE_PASSES_H

#include "core/input.h"

#include <stdbool.h>
#include <stdint.h>

struct pcmig_pass {
    unsigned number;                /* 1 = the first; 0 = there is none yet */
    int64_t start_us;               /* of the sample the pass began with; 0 for the first pass */
    int64_t end_us;                 /* of the latest sample: for a pass that is over, its end */
    uint64_t start_remaining_pages; /* dirty or never sent when it began */
    uint64_t sent_pages;            /* pages sent since it began, in whatever form */
    uint64_t remaining_pages;       /* at end_us; at the end of a pass this is what the next one begins with */
    uint64_t dirtied_pages;         /* clean when it began or sent since, and found dirty (again). QEMU 10: 0 until the
                                     synchronisation that ends the pass; QEMU 11: grows steadily */
};

struct pcmig_passes {
    unsigned done;             /* passes completed */
    struct pcmig_pass running; /* number == done + 1 once the first usable sample has come, 0 before */
    struct pcmig_pass last;    /* the latest completed one, number == done */

    /* Private. */
    unsigned tolerance_permille;
    uint64_t sent_at_start_pages;
    uint64_t iteration_at_start;
};

/* TOLERANCE_PERMILLE: a pass may be that much short of its pages when a synchronisation comes, since QEMU up to 10
 * synchronises already when what remains would fit in the downtime limit. Above 999 counts as 999. */
#define PCMIG_PASSES_TOLERANCE_PERMILLE 20
void pcmig_passes_init(struct pcmig_passes *passes, unsigned tolerance_permille);

/* Takes a sample seen at T_US. Returns whether it ended a pass (at most one: see `last`). A sample older than the
 * latest one, by its time or its page counters, changes nothing; neither does one without a memory total. */
bool pcmig_passes_feed(struct pcmig_passes *passes, int64_t t_us, const struct pcmig_sample *sample);

/* Share of the running pass, 0..1000. */
unsigned pcmig_passes_permille(const struct pcmig_passes *passes);

/* Of the guest's pages as QEMU counts them; before it has said, those of most machines. */
uint64_t pcmig_passes_page_bytes(const struct pcmig_sample *sample);

/* Guest pages in BYTES of guest memory, and pages sent so far, as SAMPLE tells; never above 2^52. */
uint64_t pcmig_passes_pages(const struct pcmig_sample *sample, uint64_t bytes);
uint64_t pcmig_passes_sent_pages(const struct pcmig_sample *sample);

#endif
