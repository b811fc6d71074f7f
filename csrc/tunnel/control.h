/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: requests (core/tunnel_request.h) one a line, answers one a line, "ok ..." or "error ...". For the
 * control thread, but for what is said otherwise. */
#ifndef PCMIG_TUNNEL_CONTROL_H
#define PCMIG_TUNNEL_CONTROL_H

#include "tunnel/tunnel.h"

struct pcmig_control;

/* Binds the socket. NULL with a sentence in ERROR. Before the control thread is started. */
struct pcmig_control *pcmig_control_new(struct pcmig_tunnel *tunnel, char error[PCMIG_TUNNEL_ERROR_BYTES]);

/* Removes the sockets, its own and those of open names. After the control thread has ended and its loop was drained. */
void pcmig_control_free(struct pcmig_control *control);

/* The number of the latest `reload` that waits for its answer, or 0. From any thread. */
unsigned pcmig_control_reload_asked(struct pcmig_tunnel *tunnel);

/* Answers those up to that number with the line TEXT. False when memory is short. From any thread. */
bool pcmig_control_answer_reload(struct pcmig_tunnel *tunnel, unsigned upto, const char *text);

/* Drops names that have had no stream for long, and takes connections that had to wait for a descriptor: call it now
 * and then. */
void pcmig_control_tidy(struct pcmig_control *control);

#endif
