/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP sockets that other daemons connect to. For the control thread, or without threads. */
#ifndef PCMIG_TUNNEL_ADMISSION_LISTENERS_H
#define PCMIG_TUNNEL_ADMISSION_LISTENERS_H

#include "tunnel/internal.h"

/* Listens where RULES say, and no longer where they do not: all of it, or nothing and false with a sentence in ERROR.
 * Sockets with the same address stay, with whoever waits in them. */
bool pcmig_listeners_change(struct pcmig_tunnel *tunnel, const struct pcmig_rules *rules,
                            char error[PCMIG_TUNNEL_ERROR_BYTES]);

/* Accepts what has waited for a descriptor to be free. */
void pcmig_listeners_look(struct pcmig_tunnel *tunnel);

/* Ports, in the order of the rules' list; returns how many. */
size_t pcmig_listeners_ports(const struct pcmig_tunnel *tunnel, uint16_t *ports, size_t size);

void pcmig_listeners_close(struct pcmig_tunnel *tunnel);

#endif
