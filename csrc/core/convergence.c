/* SPDX-License-Identifier: Apache-2.0 */
/* See convergence.h. */
#include "core/convergence.h"

#include <string.h>

#define WINDOW_US 500000
/* Three windows: a burst shorter than one cannot fill them. */
#define LASTS_US  1500000

void pcmig_convergence_init(struct pcmig_convergence *convergence)
{
    memset(convergence, 0, sizeof(*convergence));
}

void pcmig_convergence_pause(struct pcmig_convergence *convergence)
{
    pcmig_convergence_init(convergence);
}

static void begin_window(struct pcmig_convergence *c, int64_t t_us, uint64_t sent, uint64_t dirtied, uint64_t iteration)
{
    c->window_us = t_us;
    c->window_sent = sent;
    c->window_dirtied = dirtied;
    c->window_iteration = iteration;
}

void pcmig_convergence_feed(struct pcmig_convergence *c, int64_t t_us, const struct pcmig_sample *sample,
                            const struct pcmig_passes *passes, uint64_t limit_permille)
{
    uint64_t sent = pcmig_passes_sent_pages(sample);
    /* Had nothing been dirtied, it would fall by each page sent: so this sum grows by what is found dirty, and by nothing else. */
    uint64_t dirtied = sent + pcmig_passes_pages(sample, sample->memory_remaining_bytes);
    uint64_t window_sent, window_dirtied;

    if (passes->done == 0)
        return;
    if (!c->started || t_us < c->window_us || sent < c->window_sent || dirtied < c->window_dirtied) {
        pcmig_convergence_init(c);
        c->started = true;
        c->since_us = t_us;
        c->since_sent = sent;
        c->since_dirtied = dirtied;
        begin_window(c, t_us, sent, dirtied, sample->iteration);
        return;
    }
    if (t_us - c->window_us < WINDOW_US || (sample->iteration != 0 && sample->iteration <= c->window_iteration))
        return;
    window_sent = sent - c->window_sent;
    window_dirtied = dirtied - c->window_dirtied;
    if (window_sent == 0 && window_dirtied == 0)
        return; /* the stream stands still: neither good nor bad */
    if (window_dirtied * 1000 < window_sent * limit_permille) {
        c->since_us = t_us;
        c->since_sent = sent;
        c->since_dirtied = dirtied;
    }
    begin_window(c, t_us, sent, dirtied, sample->iteration);
    c->sent_pages = sent - c->since_sent;
    c->dirtied_pages = dirtied - c->since_dirtied;
    c->failing = t_us - c->since_us >= LASTS_US;
}
