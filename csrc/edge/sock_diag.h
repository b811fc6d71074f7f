/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's view of this network namespace's TCP sockets: sock_diag(7), Linux >= 3.3, open to every user.
 *
 * One socket that is known by its addresses costs microseconds to ask for; a list of all costs milliseconds on a host
 * with ten thousands of them, so it is for finding, and not for watching. */
#ifndef PCMIG_EDGE_SOCK_DIAG_H
#define PCMIG_EDGE_SOCK_DIAG_H

#include <linux/inet_diag.h>
#include <stdbool.h>
#include <stdint.h>

struct pcmig_socket {
    uint8_t family;
    uint8_t state;              /* TCP_ESTABLISHED, ... */
    struct inet_diag_sockid id; /* ports and addresses in network order; the cookie is unique until the next boot */
    uint32_t inode;             /* 0 = no process holds it any more */
    int64_t queue_bytes; /* written, not yet acknowledged: socket buffer, queueing discipline and wire together */
    uint64_t cgroup;     /* of cgroup v2, where it was made; 0 = not told (Linux < 5.9) */
    bool has_info;       /* the rest is known */
    uint32_t unacked_segments;
    uint32_t timeouts;            /* retransmissions for which nothing came back, in a row */
    uint32_t probes;              /* of a closed window, that nothing answered, in a row */
    uint32_t acknowledged_ms_ago; /* anything */
    uint32_t received_ms_ago;     /* data */
    uint32_t round_trip_us;       /* the shortest; 0 = not told (Linux < 4.6) */
};

/* A descriptor for the questions below, to be closed by close(2), or -1 with errno. Opening one takes microseconds. */
int pcmig_sock_diag_open(void);

/* Calls ROW for each socket in one of STATES (bits 1 << TCP_...), of both address families. Returns 0, or -1 when the
 * list broke off. Blocks for as long as the kernel takes. */
int pcmig_sock_diag_list(int fd, uint32_t states, void (*row)(void *context, const struct pcmig_socket *socket),
                         void *context);

/* Asks again for the one that was seen before, by its addresses and its cookie. INFO: also what needs CPU. Returns 0,
 * or -1 when it is gone. OUT may be SOCKET. */
int pcmig_sock_diag_one(int fd, const struct pcmig_socket *socket, bool info, struct pcmig_socket *out);

/* The same, whatever is there at these addresses by now. */
int pcmig_sock_diag_at(int fd, const struct pcmig_socket *socket, struct pcmig_socket *out);

/* Has the kernel abort it (CAP_NET_ADMIN, a kernel with CONFIG_INET_DIAG_DESTROY). Returns 0 or -1. */
int pcmig_sock_diag_destroy(int fd, const struct pcmig_socket *socket);

#endif
