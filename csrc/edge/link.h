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

#endif
