/* SPDX-License-Identifier: Apache-2.0 */
/* Whether pre-copy converges: pages found dirty again per page sent, seen for long enough that it is the guest's way
 * and not a burst of its.
 *
 * From the second pass on (in the first, what was not sent yet cannot become dirty again) time is cut into windows,
 * each from one synchronisation of QEMU's bitmap to a later one: with QEMU up to 10, which synchronises at the end
 * of a pass, a window is a pass. What counts is the lowest ratio among the last windows, three at the most, which
 * together have lasted long enough. A burst - a collector, a checkpoint, memory given to a new process - is over
 * before it has filled three, and the pages that it leaves are sent once.
 *
 * Long enough is an eighteenth of the time since the first page, so that looking never costs more than that and leaves
 * time to the pace; no less than 0.15 s, and no more than a second and a half: bursts are the guests', and as long on a
 * fast link as on a slow one. Plain values, no allocation.
 */
#ifndef PCMIG_CORE_CONVERGENCE_H
#define PCMIG_CORE_CONVERGENCE_H

#include "core/passes.h"

#include <stdbool.h>
#include <stdint.h>

#define PCMIG_CONVERGENCE_WINDOWS 3

struct pcmig_convergence_window {
    int64_t took_us;
    uint64_t sent_pages, dirtied_pages, synchronisations; /* 0 = not reported */
};

struct pcmig_convergence {
    bool known;                             /* seen for long enough: */
    struct pcmig_convergence_window lowest; /* the window with the lowest ratio */

    /* Private. */
    bool started;
    int64_t first_us; /* of the first sample with a page; -1 = there was none yet */
    int64_t window_us;
    uint64_t window_sent, window_dirtied, window_iteration, last_iteration;
    struct pcmig_convergence_window windows[PCMIG_CONVERGENCE_WINDOWS]; /* the latest first */
};

void pcmig_convergence_init(struct pcmig_convergence *convergence);

/* Takes a sample of pre-copy at T_US since the start, after PASSES has had it. */
void pcmig_convergence_feed(struct pcmig_convergence *convergence, int64_t t_us, const struct pcmig_sample *sample,
                            const struct pcmig_passes *passes);

/* How long a window lasts at the least, T_US after the start. */
int64_t pcmig_convergence_window_us(const struct pcmig_convergence *convergence, int64_t t_us);

/* Pages dirtied per 1000 sent in WINDOW. */
uint64_t pcmig_convergence_permille(const struct pcmig_convergence_window *window);

/* Pre-copy was held back meanwhile: begins anew. */
void pcmig_convergence_pause(struct pcmig_convergence *convergence);

#endif
