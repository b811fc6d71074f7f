/* SPDX-License-Identifier: Apache-2.0 */
/* Another host's daemon: its name and the addresses behind it. */
#ifndef PCMIG_TUNNEL_PEER_H
#define PCMIG_TUNNEL_PEER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define PCMIG_PEER_ADDRESSES  8
#define PCMIG_PEER_TEXT_BYTES 80 /* "[address]:port" */

struct pcmig_peer {
    atomic_uint references;
    char name[256]; /* what its certificate has to have */
    uint16_t port;
    unsigned count;
    struct {
        struct sockaddr_storage address;
        socklen_t len;
    } addresses[PCMIG_PEER_ADDRESSES];
};

/* Without addresses yet; one reference is the caller's. NULL when memory is short. */
struct pcmig_peer *pcmig_peer_new(const char *name, uint16_t port);
struct pcmig_peer *pcmig_peer_ref(struct pcmig_peer *peer);
void pcmig_peer_unref(struct pcmig_peer *peer); /* NULL is fine */

/* Finds the addresses; may wait for a name server. NULL, or a sentence (static) that says why there are none. */
const char *pcmig_peer_resolve(struct pcmig_peer *peer);

/* A TCP socket on its way to address AT: non-blocking, and writable when it is decided. -1 with errno. */
int pcmig_peer_connect(const struct pcmig_peer *peer, unsigned at, const char *congestion);

/* The options of a TCP connection between daemons: small queues, nothing held back. */
void pcmig_peer_tune(int fd);

/* TCP's congestion control (tcp(7), TCP_CONGESTION) of FD, which is not connected yet: by NAME; "host": as the host has
 * it; NULL: cubic where the kernel has it. Not BBR by itself: without the fq queueing discipline it paces each
 * connection with timers, which on a fast link costs as much as moving the bytes does. False with errno when the kernel
 * does not take NAME. */
bool pcmig_peer_set_congestion(int fd, const char *name);

/* After that: a sentence in ERROR. */
void pcmig_peer_explain_congestion(const char *name, char *error, size_t error_size);

#define PCMIG_PEER_CONGESTION_BYTES 16 /* TCP_CA_NAME_MAX of Linux */

/* Its name; "" when it cannot be told. */
void pcmig_peer_congestion(int fd, char name[PCMIG_PEER_CONGESTION_BYTES]);

/* Bounds what the kernel may hold of what the peer has sent and nobody has read: about BYTES. Where this process may
 * not say so (net.core.rmem_max is less than half of it, and no CAP_NET_ADMIN), the kernel decides by itself as before.
 */
void pcmig_peer_bound_unread(int fd, int bytes);

/* ADDRESS as text. */
void pcmig_peer_print(const struct sockaddr *address, socklen_t len, char text[PCMIG_PEER_TEXT_BYTES]);

/* A listening TCP socket at "HOST:PORT", "[ADDRESS]:PORT" or "*:PORT" (both versions of IP); numbers only. PORT 0: any,
 * see pcmig_peer_local_port. BESIDE: pcmig_peer_share_port holds for it from the start. An address that the host
 * does not have yet will do. -1 with a sentence in ERROR; otherwise ERROR is "", or what to warn of. */
int pcmig_peer_listen(const char *where, const char *congestion, bool beside, char *error, size_t error_size);

/* Whether other sockets of this user may listen on FD's port as well, if theirs say so too. */
void pcmig_peer_share_port(int fd, bool may);
uint16_t pcmig_peer_local_port(int fd); /* 0 when it cannot be told */

#endif
