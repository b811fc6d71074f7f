/* SPDX-License-Identifier: Apache-2.0 */
/* The connections that carry a guest's migration, as this host's kernel sees them: how much waits between QEMU and
 * the destination, and whether the destination still answers.
 *
 * Which connections those are (core/channels.h) is told by whom they belong to: the sockets in /proc/PID/fd of the
 * guest's QEMU, which takes that user's rights or root, or else those that were made in the guest's own cgroup, which
 * everybody may see. libvirt may connect in QEMU's place, so a caller without rights also takes a connection of
 * nobody known to one of libvirt's migration ports, if it came after the call and there is only one such place. What
 * was there before the call, what was accepted, and what leads elsewhere than the migration is never taken. When that
 * leaves it open, nothing is known, and -1 is said.
 *
 * Once known they are asked for one by one, so a look does not cost more on a host with many connections. No
 * descriptor is kept between looks. */
#ifndef PCMIG_EDGE_LINK_H
#define PCMIG_EDGE_LINK_H

#include "edge/knock.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct pcmig_link;

struct pcmig_link_args {
    const char *uuid;               /* of the guest, as it stands on QEMU's command line */
    bool adopted;                   /* the migration is under way: what is there now may be its */
    bool at_source;                 /* the guest is on this host, even if no process of it can be seen */
    const char *migrate_uri;        /* NULL = the destination chooses */
    const char *const *resume_uris; /* the other ways it may take, ends with NULL; NULL = none */
};

/* To be called right before the migrate call, which the connections are to come from. Returns NULL when memory is
 * short. */
struct pcmig_link *pcmig_link_open(const struct pcmig_link_args *args);
void pcmig_link_close(struct pcmig_link *link); /* NULL is fine */

/* What follows is for the time when libvirt says that the migration moves memory. Nothing of it blocks. */

/* Bytes that QEMU has written and the destination has not acknowledged, or -1 when that is not known. Linux >= 3.3. */
int64_t pcmig_link_queue_bytes(struct pcmig_link *link);

/* The shortest round trip that the kernel has seen on any of them, in microseconds, or -1 when that is not known. The
 * first one is measured before anything stands in a queue. Linux >= 4.6. */
int64_t pcmig_link_round_trip_us(struct pcmig_link *link);

/* The destination's address, as the latest look saw it. Returns whether there is one. */
bool pcmig_link_peer(const struct pcmig_link *link, struct sockaddr_storage *out);

/* For how long the destination has acknowledged nothing although the kernel sent something again and again:
 * milliseconds, 0 when all is well, -1 when that is not known. Counted from the last look that found it well, so an
 * idle connection that has just sent its first byte is not silent. */
int64_t pcmig_link_silence_ms(struct pcmig_link *link);

/* For a stream that this host has closed and the destination has not (it has nothing to send, so it does not notice):
 * makes its kernel reset its end (edge/knock.h). What this kernel still tries to deliver without anybody who holds it
 * stands in the way, and its next attempt may be minutes off: it is destroyed first, where CAP_NET_ADMIN allows that.
 * Connections that QEMU still has are left alone. A thread of its own waits for up to WAIT_MS for an answer. Returns
 * how many are tried. */
unsigned pcmig_link_wake(struct pcmig_link *link, int wait_ms);

/* What came of it: whether the destination's host can be reached over that way, and its end is gone. */
struct pcmig_knocked pcmig_link_woken(const struct pcmig_link *link);

#endif
