/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon counts of all its connections since it was started, for whoever watches it: handshakes, and refusals by
 * their reason, also those that the log only counts. For any thread. */
#ifndef PCMIG_TUNNEL_FIGURES_H
#define PCMIG_TUNNEL_FIGURES_H

#include "core/tunnel_frame.h"

#include <stdatomic.h>
#include <stddef.h>

enum pcmig_figure {
    PCMIG_FIGURE_ACCEPTED = 0, /* handshakes that came to their end, where the other dialled */
    PCMIG_FIGURE_DIALLED,      /* and where this host did */
    PCMIG_FIGURE_LOCKED_OUT,   /* connections that a reload has ended */
    /* Refusals of this host, from here to the verdicts: */
    PCMIG_FIGURE_TOO_OFTEN,
    PCMIG_FIGURE_TOO_MANY_NEW,
    PCMIG_FIGURE_NO_ROOM,
    PCMIG_FIGURE_EVICTED,     /* it had not shown who it is, and made room for another */
    PCMIG_FIGURE_TOO_LATE,    /* the handshake took too long */
    PCMIG_FIGURE_CERTIFICATE, /* none, or one that is not accepted */
    PCMIG_FIGURE_HANDSHAKE,   /* another reason in it */
    PCMIG_FIGURE_VERDICT,     /* and after it: this, and the verdict's number */
    PCMIG_FIGURE_COUNT = PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_VERDICT_COUNT
};

struct pcmig_figures {
    atomic_llong of[PCMIG_FIGURE_COUNT];
};

void pcmig_figures_count(struct pcmig_figures *figures, enum pcmig_figure which);

/* "handshakes_accepted=1 ... refused_name=0" into OUT; NUL-terminated, cut at SIZE. Returns its length. */
size_t pcmig_figures_print(const struct pcmig_figures *figures, char *out, size_t size);

#endif
