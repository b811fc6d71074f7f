/* SPDX-License-Identifier: Apache-2.0 */
/* Having another host notice that a connection is gone here. */
#ifndef PCMIG_EDGE_KNOCK_H
#define PCMIG_EDGE_KNOCK_H

#include "edge/sock_diag.h"

#include <stddef.h>

/* A connection attempt from the old port of each of COUNT connections has the other end answer with what it believes
 * of the old connection, and this host's kernel refuses that (RFC 9293, 3.5.1, half-open connections): the other end
 * is reset. None comes of it where somebody listens at the old port. All at once, and on a thread of its own, which
 * waits for up to WAIT_MS and ends: the caller does not wait, unless there is no thread to be had. */
void pcmig_knock(const struct pcmig_socket *sockets, size_t count, int wait_ms);

#endif
