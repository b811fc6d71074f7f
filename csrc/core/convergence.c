/* SPDX-License-Identifier: Apache-2.0 */
/* See convergence.h. */
#include "core/convergence.h"

#include <string.h>

#define LASTS_MIN_US     150000
#define LASTS_MAX_US     1500000
/* Of the time since the first page. With a nineteenth a burst at the end of a first pass fills three windows. */
#define LASTS_DIVISOR    18
/* QEMU's first synchronisation belongs to the set-up; the second follows pages. */
#define SECOND_ITERATION 2

void pcmig_convergence_init(struct pcmig_convergence *convergence)
{
    memset(convergence, 0, sizeof(*convergence));
    convergence->first_us = -1;
}

void pcmig_convergence_pause(struct pcmig_convergence *convergence)
{
    int64_t first_us = convergence->first_us;

    pcmig_convergence_init(convergence);
    convergence->first_us = first_us;
}

uint64_t pcmig_convergence_permille(const struct pcmig_convergence_window *window)
{
    return window->sent_pages == 0 ? (window->dirtied_pages == 0 ? 0 : 1000000)
                                   : window->dirtied_pages * 1000 / window->sent_pages;
}

/* The set-up and a wait for other migrations are no part of it: nothing is learnt of the guest meanwhile. */
static int64_t lasts_us(const struct pcmig_convergence *c, int64_t t_us)
{
    int64_t us = c->first_us >= 0 && t_us > c->first_us ? (t_us - c->first_us) / LASTS_DIVISOR : 0;

    return us < LASTS_MIN_US ? LASTS_MIN_US : us > LASTS_MAX_US ? LASTS_MAX_US : us;
}

int64_t pcmig_convergence_window_us(const struct pcmig_convergence *convergence, int64_t t_us)
{
    return lasts_us(convergence, t_us) / PCMIG_CONVERGENCE_WINDOWS;
}

static void judge(struct pcmig_convergence *c, int64_t long_enough_us)
{
    int64_t seen_us = 0;

    c->known = false;
    for (int i = 0; i < PCMIG_CONVERGENCE_WINDOWS && c->windows[i].took_us > 0 && !c->known; i++) {
        if (i == 0 || pcmig_convergence_permille(&c->windows[i]) < pcmig_convergence_permille(&c->lowest))
            c->lowest = c->windows[i];
        seen_us += c->windows[i].took_us;
        c->known = seen_us >= long_enough_us;
    }
}

/* QEMU up to 10 synchronises when what is left seems to fit in the downtime limit: of a pass of a second that may be a
 * third of its pages. What is found from there on is found in the next pass. QEMU 11 has synchronised for the first
 * time when it has sent for 55 ms, which is hardly a pass. */
static bool ended_by_synchronisation(const struct pcmig_passes *passes, const struct pcmig_sample *sample)
{
    return sample->iteration == SECOND_ITERATION &&
           passes->running.sent_pages >= passes->running.start_remaining_pages / 2;
}

void pcmig_convergence_feed(struct pcmig_convergence *c, int64_t t_us, const struct pcmig_sample *sample,
                            const struct pcmig_passes *passes)
{
    uint64_t sent = pcmig_passes_sent_pages(sample);
    /* Had nothing been dirtied, what remains would fall by each page sent: so this sum grows by what is found dirty,
     * and by nothing else. */
    uint64_t dirtied = sent + pcmig_passes_pages(sample, sample->memory_remaining_bytes);
    int64_t long_enough_us;
    /* Between two synchronisations less and less is left, and nothing is found: a window that ended or began there
     * would hold what was found without all that was sent for it. */
    bool between = sample->iteration != 0 && sample->iteration == c->last_iteration;

    if (c->first_us < 0 && sent > 0)
        c->first_us = t_us;
    long_enough_us = lasts_us(c, t_us);
    c->last_iteration = sample->iteration;
    if (between || (passes->done == 0 && !ended_by_synchronisation(passes, sample)))
        return;
    if (!c->started || t_us < c->window_us || sent < c->window_sent || dirtied < c->window_dirtied) {
        pcmig_convergence_pause(c);
        c->started = true;
        c->last_iteration = sample->iteration;
    } else {
        if (t_us - c->window_us < pcmig_convergence_window_us(c, t_us) ||
            (sample->iteration != 0 && sample->iteration <= c->window_iteration))
            return;
        if (sent == c->window_sent && dirtied == c->window_dirtied)
            return; /* the stream stands still: neither good nor bad */
        memmove(c->windows + 1, c->windows, sizeof(c->windows) - sizeof(c->windows[0]));
        c->windows[0] = (struct pcmig_convergence_window){.took_us = t_us - c->window_us,
                                                          .sent_pages = sent - c->window_sent,
                                                          .dirtied_pages = dirtied - c->window_dirtied,
                                                          .synchronisations = sample->iteration - c->window_iteration};
        judge(c, long_enough_us);
    }
    c->window_us = t_us;
    c->window_sent = sent;
    c->window_dirtied = dirtied;
    c->window_iteration = sample->iteration;
}
