/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a guest's migration stream waits between QEMU and the destination: the kernel's own count of bytes that
 * were written to the sockets and not yet acknowledged (socket buffers, queueing discipline and wire together).
 *
 * Source: sock_diag(7), `idiag_wqueue` of a TCP socket that is not listening (Linux >= 3.3). Only sockets of this network
 * namespace can be seen; which of them belong to the guest's QEMU is read from /proc/PID/fd, which takes that user's rights
 * or root. Without them, connections to libvirt's default migration ports (49152-49215) are taken instead.
 */
#ifndef PCMIG_EDGE_LINK_H
#define PCMIG_EDGE_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct pcmig_link;

/* UUID: of the guest, as it stands on QEMU's command line. Returns NULL when memory is short or netlink is not to be had. */
struct pcmig_link *pcmig_link_open(const char *uuid);
void pcmig_link_close(struct pcmig_link *link); /* NULL is fine */

/* Bytes that wait, or -1 when no connection of the guest can be seen. Does not block. */
int64_t pcmig_link_queue_bytes(struct pcmig_link *link);

/* The destination's address, as the latest pcmig_link_queue_bytes saw it. Returns whether there is one. */
bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out);

/* For how long the destination has acknowledged nothing although something is due: milliseconds, 0 when all is well, -1 when
 * no connection of the guest can be seen. Source: tcpi_unacked and tcpi_last_ack_recv of struct tcp_info. Does not block. */
int64_t pcmig_link_silence_ms(struct pcmig_link *link);

/* For a stream that this host has closed and the destination has not (it has nothing to send, so it does not notice):
 * makes its kernel reset its end. A connection attempt from the old port has it answer with what it believes of the old
 * connection, and this host's kernel refuses that (RFC 9293, 3.5.1, half-open connections); an orphan that still
 * tries to deliver is destroyed where CAP_NET_ADMIN allows that. Connections that QEMU still has are left alone, and none
 * comes of it where somebody listens at the old port. Blocks for up to WAIT_MS per connection. Returns how many were
 * tried. */
unsigned pcmig_link_wake(struct pcmig_link *link, int wait_ms);

#endif
