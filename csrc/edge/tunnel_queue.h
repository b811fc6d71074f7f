/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a guest's migration stream waits between QEMU and the destination when it goes through pcmig's tunnel:
 * the daemon's own figure (`queue_bytes` of its control socket's answer to "show NAME"). It takes the place of
 * edge/link.h, which sees TCP connections of QEMU itself, and here there are none.
 */
#ifndef PCMIG_EDGE_TUNNEL_QUEUE_H
#define PCMIG_EDGE_TUNNEL_QUEUE_H

#include <stdint.h>

struct pcmig_tunnel_queue;

/* CONTROL: path of the daemon's control socket. MIGRATE_URI: "unix:///FOLDER/NAME", whose last part is the name that
 * the daemon knows the stream by. Connects to nothing yet. Returns NULL when the URI is none of the tunnel, the path is
 * too long for a socket, or memory is short. */
struct pcmig_tunnel_queue *pcmig_tunnel_queue_open(const char *control, const char *migrate_uri);
void pcmig_tunnel_queue_close(struct pcmig_tunnel_queue *queue); /* NULL is fine */

/* Bytes that wait, or -1 when the daemon does not tell. Blocks for 50 ms at the most; a daemon that is away is not
 * tried more often than once a second. From one thread at a time. */
int64_t pcmig_tunnel_queue_bytes(struct pcmig_tunnel_queue *queue);

#endif
