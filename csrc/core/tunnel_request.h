/* SPDX-License-Identifier: Apache-2.0 */
/* One line of the tunnel daemon's control socket, and how values stand in its answers.
 *
 *   open NAME PEER [PORT] [streams=K]    close NAME    show NAME    list    probe PEER [PORT]    reload    peers
 * metrics
 *
 * Words are separated by single spaces. Values in, values out; no allocation. */
#ifndef PCMIG_CORE_TUNNEL_REQUEST_H
#define PCMIG_CORE_TUNNEL_REQUEST_H

#include "core/tunnel_frame.h"

#include <stddef.h>

#define PCMIG_TUNNEL_REQUEST_LINE_BYTES 1024 /* a request, with its newline, at most */
#define PCMIG_TUNNEL_REQUEST_PEER_LEN   255
#define PCMIG_TUNNEL_REQUEST_PORT       16516 /* where a daemon listens unless told otherwise */

enum pcmig_tunnel_verb {
    PCMIG_TUNNEL_VERB_OPEN = 0,
    PCMIG_TUNNEL_VERB_CLOSE,
    PCMIG_TUNNEL_VERB_SHOW,
    PCMIG_TUNNEL_VERB_LIST,
    PCMIG_TUNNEL_VERB_PROBE,
    PCMIG_TUNNEL_VERB_RELOAD,
    PCMIG_TUNNEL_VERB_PEERS,
    PCMIG_TUNNEL_VERB_METRICS,
    PCMIG_TUNNEL_VERB_COUNT
};

struct pcmig_tunnel_request {
    enum pcmig_tunnel_verb verb;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];         /* open, close, show */
    char peer[PCMIG_TUNNEL_REQUEST_PEER_LEN + 1]; /* open, probe: host name or address, without brackets */
    uint16_t port;                                /* open, probe */
    uint8_t streams;                              /* open: TCP connections for each stream */
};

/* LINE of LEN characters, without the newline. Returns true; or false with a sentence in ERROR, which names the word at
 * fault (what cannot be printed is shown as '?'). */
bool pcmig_tunnel_request_parse(const char *line, size_t len, struct pcmig_tunnel_request *out, char *error,
                                size_t error_size);

/* VALUE as it stands behind "key=" in an answer: '%' and whatever is not printable ASCII as %XX. Writes at most SIZE
 * bytes with NUL, cut at a whole escape. */
void pcmig_tunnel_request_escape(const char *value, char *out, size_t size);

#endif
