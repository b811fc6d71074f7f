/* SPDX-License-Identifier: Apache-2.0 */
/* How far a migration is, and how long it will still take, for people: a share that never falls, and a time with what
 * is known of it.
 *
 * Share. The first pass counts for a half: what the guest has written meanwhile is known at its end only. The other
 * half is what of the guest's memory no synchronisation has found dirty since. Within a pass less and less is left
 * (QEMU up to 10), which says nothing, and is not counted. From the switch on it is what has arrived of what was
 * missing then. The whole is reached by a migration that is completed, and by no other.
 *
 * Time. A least and a most; the most is not known as long as the guest's writing may put the end off. Pre-copy of which
 * it is seen that it has no end is told as just that.
 *
 * Fed with the inputs that the ledger is fed with. It measures by itself, as the policy looks at pre-copy only until it
 * has decided, and here nobody may act on that. Plain values, no allocation.
 */
#ifndef PCMIG_CORE_FORECAST_H
#define PCMIG_CORE_FORECAST_H

#include "core/convergence.h"
#include "core/input.h"
#include "core/ledger.h"
#include "core/passes.h"
#include "core/rate.h"

#include <stdbool.h>
#include <stdint.h>

enum pcmig_outlook {
    PCMIG_OUTLOOK_EARLY = 0,      /* too little seen */
    PCMIG_OUTLOOK_RANGE,          /* least and most */
    PCMIG_OUTLOOK_LEAST,          /* only the least is known */
    PCMIG_OUTLOOK_NOT_CONVERGING, /* pre-copy, and nobody has switched yet */
    PCMIG_OUTLOOK_INTERRUPTED,    /* post-copy, and nothing is sent */
    PCMIG_OUTLOOK_WAITS,          /* another migration of the host goes first: what is sent meanwhile says nothing */
    PCMIG_OUTLOOK_OVER,
    PCMIG_OUTLOOK_COUNT
};

struct pcmig_forecast {
    unsigned permille; /* 0..1000 */
    enum pcmig_outlook outlook;
    int64_t least_us, most_us; /* from now; -1 = not known */

    /* Private. */
    bool bounded, completed, always, moved;
    int64_t now_us;
    struct pcmig_passes passes;
    struct pcmig_convergence convergence;
    struct pcmig_rate rate;
    struct pcmig_sample sample;
    enum pcmig_phase phase;
    unsigned base_permille; /* at the switch, */
    uint64_t base_bytes;    /* with so much missing */
    int64_t window_us;      /* in post-copy, in which the fall of what is missing is measured; 0 = there is none */
    uint64_t window_bytes, fall_bps;
};

/* BOUNDED: somebody switches to post-copy when pre-copy does not end by itself. */
void pcmig_forecast_init(struct pcmig_forecast *forecast, bool bounded);

/* Takes one input; PHASE is the ledger's after it. */
void pcmig_forecast_feed(struct pcmig_forecast *forecast, const struct pcmig_input *input, enum pcmig_phase phase);

/* Others of the host go first: how fast this one will be, and from when on, is not seen. */
void pcmig_forecast_wait(struct pcmig_forecast *forecast);

/* Nobody looks after it any more, whatever was fed. PHASE: PAUSED where it waits to be resumed, otherwise FINISHED. */
void pcmig_forecast_end(struct pcmig_forecast *forecast, bool completed, enum pcmig_phase phase);

/* Completed passes as seen here, and the share of the running one. */
unsigned pcmig_forecast_passes(const struct pcmig_forecast *forecast, unsigned *permille);

const char *pcmig_outlook_name(enum pcmig_outlook outlook); /* "not-converging"; never NULL */

#endif
