/* SPDX-License-Identifier: Apache-2.0 */
/* How many unverified connections there are, and from where: one host that opens thousands, or stalls in its
 * handshakes, takes no place from others. For any thread. */
#ifndef PCMIG_TUNNEL_ADMISSION_H
#define PCMIG_TUNNEL_ADMISSION_H

#include <sys/socket.h>

struct pcmig_admission;

/* At most TOTAL, and OF_ONE from one address. NULL when memory is short. */
struct pcmig_admission *pcmig_admission_new(unsigned total, unsigned of_one);
void pcmig_admission_free(struct pcmig_admission *admission); /* NULL is fine */

/* A slot for a connection from ADDRESS (its port does not matter); -1: all are taken, -2: this address has enough. */
int pcmig_admission_enter(struct pcmig_admission *admission, const struct sockaddr *address);
void pcmig_admission_leave(struct pcmig_admission *admission, int slot); /* a negative one is fine */

#endif
