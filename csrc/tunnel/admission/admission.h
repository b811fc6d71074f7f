/* SPDX-License-Identifier: Apache-2.0 */
/* Connections whose peer has not shown who it is: how many there are, from where, and how often new ones may come. One
 * host that opens thousands, or stalls in its handshakes, takes no place from others, and not much of the workers'
 * time. For any thread. */
#ifndef PCMIG_TUNNEL_ADMISSION_ADMISSION_H
#define PCMIG_TUNNEL_ADMISSION_ADMISSION_H

#include "core/tunnel_tokens.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct pcmig_admission;

enum pcmig_admission_answer {
    PCMIG_ADMISSION_GRANTED = 0,
    PCMIG_ADMISSION_TOO_OFTEN,    /* from this address, in the last seconds */
    PCMIG_ADMISSION_TOO_MANY_NEW, /* from addresses that nobody was verified from yet, all together */
};

/* At most TOTAL, and OF_ONE from one address. PER_S: how many may come in a second from an address that somebody was
 * verified from; a fifth from another, and twice as many from all of those together. A burst may be greater. EVICT is
 * called for who has to make room for another, and may be called by any thread; it must not call this. NULL when memory
 * is short. */
struct pcmig_admission *pcmig_admission_new(unsigned total, unsigned of_one, unsigned per_s, void (*evict)(void *who));
void pcmig_admission_free(struct pcmig_admission *admission); /* NULL is fine */

/* Takes a place for WHO, who comes from ADDRESS (its port does not matter) at NOW_US. Where all are taken, or all that
 * an address may have, one that was there is evicted, at random: from the same address, or from that with the most. */
enum pcmig_admission_answer pcmig_admission_enter(struct pcmig_admission *admission, const struct sockaddr *address,
                                                  int64_t now_us, void *who);

/* How often one certificate may be shown, from wherever, for its addresses to be known: more often than from one
 * address, so that a host with one is never slowed by it. PER_S as above. */
struct pcmig_pace pcmig_admission_pace_of_one(unsigned per_s);

/* WHO was verified: its address may come more often from now on, if its certificate is MODERATE (keeps the pace above).
 * Else the address may as often as a stranger, and has used that up. Its place is free. */
void pcmig_admission_verified(struct pcmig_admission *admission, void *who, bool moderate, int64_t now_us);

/* WHO has no place any more, if it had one; it is not evicted after this. */
void pcmig_admission_leave(struct pcmig_admission *admission, void *who);

#endif
