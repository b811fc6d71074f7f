/* SPDX-License-Identifier: Apache-2.0 */
/* The local socket of one open name, on the source host: QEMU connects there, and each of its connections becomes a
 * stream to the peer. For the control thread. */
#ifndef PCMIG_TUNNEL_LOCAL_DOOR_H
#define PCMIG_TUNNEL_LOCAL_DOOR_H

#include "core/tunnel_request.h"
#include "tunnel/internal.h"
#include "tunnel/peer.h"
#include "tunnel/local/place.h"

struct pcmig_door {
    struct pcmig_tunnel *tunnel;
    struct pcmig_source source;
    char name[PCMIG_TUNNEL_NAME_LEN + 1];
    struct pcmig_peer *peer;
    unsigned connections;            /* TCP, of each stream */
    struct pcmig_stream_order *last; /* of the latest stream */
    bool late;                       /* a connection found no descriptor: see pcmig_door_look */
    bool told;                       /* who asked for it knows that it is open */
    uint64_t number;                 /* no other one has, before or after */
    struct pcmig_task grave;
    struct pcmig_door *next;
};

/* Binds and listens. NULL with a sentence in ERROR. Takes a reference of PEER. */
struct pcmig_door *pcmig_door_open(struct pcmig_tunnel *tunnel, const char *name, struct pcmig_peer *peer,
                                   unsigned connections, char error[PCMIG_PLACE_ERROR_BYTES]);

/* To be called now and then: takes who had to wait for a descriptor, of whom epoll does not tell again. */
void pcmig_door_look(struct pcmig_door *door);

/* Removes the socket; streams go on. The memory goes at the end of the loop's round. NULL is fine. */
void pcmig_door_close(struct pcmig_door *door);

#endif
