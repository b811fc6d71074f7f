/* SPDX-License-Identifier: Apache-2.0 */
/* See figures.h. */
#include "tunnel/figures.h"

#include <stdio.h>

/* NULL: is not counted. */
static const char *const names[] = {
    [PCMIG_FIGURE_ACCEPTED] = "handshakes_accepted",
    [PCMIG_FIGURE_DIALLED] = "handshakes_dialled",
    [PCMIG_FIGURE_LOCKED_OUT] = "locked_out",
    [PCMIG_FIGURE_TOO_OFTEN] = "refused_too_often",
    [PCMIG_FIGURE_TOO_MANY_NEW] = "refused_too_many_new",
    [PCMIG_FIGURE_NO_ROOM] = "refused_no_room",
    [PCMIG_FIGURE_EVICTED] = "refused_evicted",
    [PCMIG_FIGURE_TOO_LATE] = "refused_too_late",
    [PCMIG_FIGURE_CERTIFICATE] = "refused_certificate",
    [PCMIG_FIGURE_HANDSHAKE] = "refused_handshake",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_ACCEPTED] = NULL,
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_VERSION] = "refused_version",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_HELLO] = "refused_hello",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_PEER] = "refused_peer",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_NAME] = "refused_name",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_SOCKET] = "refused_socket",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_LIMIT] = "refused_limit",
    [PCMIG_FIGURE_VERDICT + PCMIG_TUNNEL_REFUSED_STOPPING] = "refused_stopping",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_FIGURE_COUNT, "every figure has a row");

void pcmig_figures_count(struct pcmig_figures *figures, enum pcmig_figure which)
{
    atomic_fetch_add_explicit(&figures->of[which], 1, memory_order_relaxed);
}

size_t pcmig_figures_print(const struct pcmig_figures *figures, char *out, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < PCMIG_FIGURE_COUNT && at < size; i++) {
        if (names[i] != NULL)
            at += (size_t)snprintf(out + at, size - at, "%s%s=%lld", at > 0 ? " " : "", names[i],
                                   atomic_load_explicit(&figures->of[i], memory_order_relaxed));
    }
    return at < size ? at : size - 1;
}
