/* SPDX-License-Identifier: Apache-2.0 */
/* When a guest that has just begun to run on this host is announced at one of its ports, and for how long.
 *
 * An announcement is a broadcast that carries the guest's address, so that every switch learns where it is now. One
 * that is sent before the port forwards reaches nobody, and one may get lost: so they begin when the port forwards, and
 * are repeated until the guest speaks there itself. What it says is mostly meant for one other machine, and teaches
 * only the switches on the way there: the first ones are sent whatever it says. Plain values, no allocation, no clock.
 */
#ifndef PCMIG_CORE_ANNOUNCE_H
#define PCMIG_CORE_ANNOUNCE_H

#include <stdbool.h>
#include <stdint.h>

/* A port that forwards no sooner is given up: twice the longest forward delay of a spanning tree, and as much again. */
#define PCMIG_ANNOUNCE_FORWARDS_WITHIN_MS 120000

struct pcmig_announce {
    int64_t for_ms;   /* no longer than that, from when the port forwards */
    int64_t since_ms; /* of the first feed, when the guest runs; -1 = none yet */
    int64_t begun_ms; /* since when the port forwards; -1 = it does not */
    unsigned step;    /* the next one that is due, counted from begun_ms */
    bool heard;       /* a frame of the guest's own, while the port forwarded */
    bool over;
};

void pcmig_announce_init(struct pcmig_announce *announce, int64_t for_ms);

/* The guest runs here. FORWARDS: the port does. HEARD: the guest has sent a frame there since the last feed. Returns
 * whether to announce it now; what was missed is not made up for. NOW_MS: of a clock that only rises. */
bool pcmig_announce_feed(struct pcmig_announce *announce, int64_t now_ms, bool forwards, bool heard);

/* How long from NOW_MS until the next one is due, or it is over; at least 0. -1: it is over. */
int64_t pcmig_announce_wait_ms(const struct pcmig_announce *announce, int64_t now_ms);

#endif
