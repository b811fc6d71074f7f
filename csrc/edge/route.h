/* SPDX-License-Identifier: Apache-2.0 */
/* Immediate acknowledgements towards the destination, for the time of one post-copy phase.
 *
 * Why: QEMU's destination asks for pages with small writes on a socket without TCP_NODELAY (QEMU 7.2 to 11.1), so a
 * request waits until the one before it is acknowledged. The source's kernel delays acknowledgements by 40 ms whenever
 * it has sent data just before, which is after every burst of background pages, ten times a second: the guest stands
 * still for up to 40 of every 100 ms. Measured at 100 Mb/s: longest silence after the switch 103 ms with, 44 ms without
 * the delay.
 *
 * The route option `quickack` (ip-route(8), RTAX_QUICKACK) makes the kernel acknowledge at once. The route that leads
 * to the destination is replaced by itself with this one metric added, and afterwards by itself without it. Nothing
 * else of it changes, so nothing breaks should it stay (the process is killed), and whoever changes the route meanwhile
 * wins. Needs CAP_NET_ADMIN in the network namespace of the source host. Routes of IPv4 and IPv6, Linux >= 4.13
 * (RTM_F_FIB_MATCH).
 */
#ifndef PCMIG_EDGE_ROUTE_H
#define PCMIG_EDGE_ROUTE_H

#include <stdint.h>
#include <sys/socket.h>

enum pcmig_route_result {
    PCMIG_ROUTE_OFF = 0, /* not tried */
    PCMIG_ROUTE_SET,     /* done; taken back by pcmig_route_restore */
    PCMIG_ROUTE_PRESENT, /* was so before, by an administrator or another migration of another process */
    PCMIG_ROUTE_DENIED,  /* not permitted */
    PCMIG_ROUTE_UNFIT,   /* no such route, or of a kind that cannot be changed (local, several next hops in IPv6) */
    PCMIG_ROUTE_COUNT
};

struct pcmig_route;

/* Makes acknowledgements to PEER (AF_INET or AF_INET6) immediate. With PCMIG_ROUTE_SET, *OUT is what
 * pcmig_route_restore takes; it is NULL otherwise. Migrations of one process that use the same route share the change.
 */
enum pcmig_route_result pcmig_route_quickack(const struct sockaddr_storage *peer, struct pcmig_route **out);

/* Takes the change back when its last user is gone. NULL is fine. */
void pcmig_route_restore(struct pcmig_route *route);

/* Index of the interface over which this host reaches PEER, 0 = not known. */
uint32_t pcmig_route_interface(const struct sockaddr_storage *peer);

const char *pcmig_route_result_name(enum pcmig_route_result result); /* "set"; never NULL */

#endif
