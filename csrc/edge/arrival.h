/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a migration's stream at the destination, as this host's kernel sees it. A QEMU in post-copy that waits for
 * its source sends nothing, sets no keepalive on these sockets (QEMU 10 and 11), and so never learns that nobody is
 * there any more. libvirt passes nothing on to it: all that it does with an incoming guest waits for the migration. */
#ifndef PCMIG_EDGE_ARRIVAL_H
#define PCMIG_EDGE_ARRIVAL_H

#include <stdint.h>

struct pcmig_arrival {
    unsigned connections; /* that QEMU accepted at one of libvirt's migration ports, and that stand */
    int64_t silent_ms;    /* for so long none of them has brought anything; -1 = there are none */
};

/* Of the guest with this UUID, whose QEMU runs on this host. Returns 0, or -1 with errno: ESRCH = no such QEMU here,
 * EACCES = who runs this may not see which sockets it has (its user with CAP_SYS_PTRACE, or root). */
int pcmig_arrival_look(const char *uuid, struct pcmig_arrival *out);

/* Has the kernel reset them: QEMU notices at once, keeps what it has and waits to be resumed. Where they carried a
 * post-copy nothing is lost; a migration in pre-copy ends, and its guest runs on at the source. The other end is told,
 * if it can be reached. Returns how many were reset, or -1 as above; EPERM: no CAP_NET_ADMIN, or a kernel without
 * CONFIG_INET_DIAG_DESTROY. */
int pcmig_arrival_reset(const char *uuid);

#endif
