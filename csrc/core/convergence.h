/* SPDX-License-Identifier: Apache-2.0 */
/* Whether pre-copy converges: pages found dirty again per page sent, seen for long enough that it is the guest's way and not
 * a burst of its.
 *
 * From the second pass on (in the first, what was not sent yet cannot become dirty again) time is cut into windows of half a
 * second, each from one synchronisation of QEMU's bitmap to a later one: with QEMU up to 10, which synchronises at the end of a
 * pass, a window is a pass. A guest does not converge when every window of the last second and a half has a ratio above the
 * limit. A burst - a collector, a checkpoint, memory given to a new process - fills two windows at the most, and the pages
 * that it leaves are sent within a few seconds.
 *
 * Half a second and one and a half are times of guests, and not of links: they hold at any rate. Plain values, no allocation.
 */
#ifndef PCMIG_CORE_CONVERGENCE_H
#define PCMIG_CORE_CONVERGENCE_H

#include "core/passes.h"

#include <stdbool.h>
#include <stdint.h>

struct pcmig_convergence {
    /* Of the time since the ratio has been too high: pages. */
    uint64_t sent_pages;
    uint64_t dirtied_pages;
    bool failing; /* the ratio has been too high for long enough */

    /* Private. */
    bool started;
    int64_t window_us, since_us;
    uint64_t window_sent, window_dirtied, window_iteration;
    uint64_t since_sent, since_dirtied;
};

void pcmig_convergence_init(struct pcmig_convergence *convergence);

/* Takes a sample of pre-copy, after PASSES has had it. LIMIT_PERMILLE: pages dirtied per 1000 sent, from which on it does not converge. */
void pcmig_convergence_feed(struct pcmig_convergence *convergence, int64_t t_us, const struct pcmig_sample *sample,
                            const struct pcmig_passes *passes, uint64_t limit_permille);

/* Pre-copy was held back meanwhile: begins anew. */
void pcmig_convergence_pause(struct pcmig_convergence *convergence);

#endif
