/* SPDX-License-Identifier: Apache-2.0 */
/* Whose socket is behind a NAME at the destination.
 *
 * All guests of a host may have one user, so a file's owner does not tell them apart, and one of them could put a
 * socket of its own in place of another's. But nobody knows a NAME before a QEMU has made its socket: it is 128 random
 * bits; after that, /proc/net/unix has it. So the socket that was there first is the right one, and its process is the
 * right one for as long as the NAME is of use: a guest that is resumed listens again. The kernel tells both: inotify
 * whether anything was removed, renamed or made anew under the NAME, and the socket which process listens
 * (SO_PEERCRED). Numbers of processes are used again, so it is noted, too, which one of those that have the number in
 * turn: by its inode (Linux 6.9), or by when it began where /proc shows that; elsewhere the number has to do.
 *
 * What is known outlives the daemon: DIR/known/NAME is a symbolic link to a text. */
#ifndef PCMIG_TUNNEL_LOCAL_ARRIVALS_H
#define PCMIG_TUNNEL_LOCAL_ARRIVALS_H

#include "tunnel/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pcmig_arrivals;

/* Watches DIR from now on. What is known of a NAME is forgotten KEEP_MS after it was last of use. NULL with a sentence
 * of at most ERROR_BYTES in ERROR. */
struct pcmig_arrivals *pcmig_arrivals_new(const char *dir, int64_t keep_ms, char *error, size_t error_bytes);
void pcmig_arrivals_free(struct pcmig_arrivals *arrivals); /* NULL is fine */

/* Has LOOP take note of what happens as it happens. Returns 0, or an error number. LOOP has ended when ARRIVALS is
 * freed. */
int pcmig_arrivals_watch(struct pcmig_arrivals *arrivals, struct pcmig_loop *loop);

/* FD is connected to the socket NAME, whose inode is INO. True when its process is the right one, and remembered as
 * such. False with a sentence in ERROR. From any thread. */
bool pcmig_arrivals_is_right(struct pcmig_arrivals *arrivals, const char *name, ino_t ino, int fd, char *error,
                             size_t error_bytes);

/* Forgets what is too old, and begins anew where the kernel could not tell of all that happened: whatever is bound to a
 * NAME by then, in the folder or taken out of it, is refused. To be called now and then; once a minute it does
 * anything. */
void pcmig_arrivals_tidy(struct pcmig_arrivals *arrivals);

#endif
