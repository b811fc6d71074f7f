/* SPDX-License-Identifier: Apache-2.0 */
/* Having another host notice that a connection is gone here. */
#ifndef PCMIG_EDGE_KNOCK_H
#define PCMIG_EDGE_KNOCK_H

#include "edge/sock_diag.h"

#include <stddef.h>
#include <stdint.h>

/* What has come of the attempts so far. */
struct pcmig_knocks;

struct pcmig_knocks *pcmig_knocks_open(void); /* NULL when memory is short */
/* Attempts that are under way go on. */
void pcmig_knocks_close(struct pcmig_knocks *knocks); /* NULL is fine */

/* What the latest of them came to. Calls of pcmig_knock are counted from 1. */
struct pcmig_knocked {
    uint32_t begun; /* how many there have been */
    /* The latest of them that is answered, or over without an answer; 0 = none yet. One of which no attempt could be
     * made does not count: without CAP_NET_ADMIN the port of a connection that the kernel still holds cannot be had. */
    uint32_t latest;
    /* How many attempts of that one were answered, by whoever has the old connection's address: whatever it said, it
     * was reached, and nothing of the old connection is left there. */
    uint32_t answers;
};
struct pcmig_knocked pcmig_knocked(const struct pcmig_knocks *knocks);

/* A connection attempt from the old port of each of COUNT connections has the other end answer with what it believes
 * of the old connection, and this host's kernel refuses that (RFC 9293, 3.5.1, half-open connections): the other end
 * is reset. None comes of it where somebody listens at the old port. All at once, and on a thread of its own, which
 * waits for up to WAIT_MS and ends: the caller does not wait, unless there is no thread to be had. */
void pcmig_knock(struct pcmig_knocks *knocks, const struct pcmig_socket *sockets, size_t count, int wait_ms);

#endif
