/* SPDX-License-Identifier: Apache-2.0 */
/* One model of the link: what the stream carries, how well that is known, and how long a page waits in its queue.
 *
 * Not every time in which bytes were sent tells something about the link. While more waits in the queue than the
 * link takes away, what the destination acknowledges is the link's rate. QEMU that sends as fast as it can, without
 * such a queue, is itself the narrow place, and its rate is what this stream will go on at. In both cases the
 * estimate follows, down as well as up. What is left - zero pages, which hardly use the link, or a QEMU held back by
 * its bandwidth - shows a least rate, which can only raise it.
 *
 * In post-copy QEMU is held back on purpose, so the link shows in two other ways. A pace that is not reached
 * although there is much to send: the link carries no more. And the share of looks that find something in the queue:
 * what the pace let through, divided by that share, is the rate at which it drains. So an estimate from before the
 * switch (several streams of multifd, other traffic that has ended since, a bandwidth that was forgotten) is put right
 * within seconds.
 *
 * Zero pages are a few bytes each, and in post-copy the destination maps every one of them: where it gets little else
 * it is the narrow place, at a few MB/s on a link of any rate (measured: 5 to 9 MB/s, half a million to a million pages
 * a second, QEMU 11). A queue of them holds a request up like any other, so a pace has to heed that rate while they
 * last; but it says nothing of the link, and is measured apart. A guest of 500 GiB has minutes of them.
 *
 * Plain values, no allocation.
 */
#ifndef PCMIG_CORE_RATE_H
#define PCMIG_CORE_RATE_H

#include "input.h"

#include <stdbool.h>
#include <stdint.h>

enum pcmig_rate_evidence {
    PCMIG_RATE_UNKNOWN = 0, /* nothing measured */
    PCMIG_RATE_LEAST,       /* the link carries at least that much */
    PCMIG_RATE_STREAM,      /* QEMU sent as fast as it could */
    PCMIG_RATE_LINK,        /* the link was the narrow place */
};

/* Of looks that may have others between them. */
struct pcmig_rate_window {
    int64_t took_us;
    uint64_t bytes;       /* that the destination has acknowledged, */
    uint64_t requested;   /* and of them what was asked for */
    uint64_t paced_bytes; /* what the pace would have let through */
    int64_t queue_low, queue_high;
    unsigned looks, busy_looks;
};

struct pcmig_rate {
    uint64_t link_bps; /* bytes per second; 0 = not known yet */
    enum pcmig_rate_evidence evidence;
    int64_t seen_us;     /* when that evidence came last */
    int64_t queue_bytes; /* most that stood in the queue while QEMU was not held back; -1 = the queue cannot be seen */
    bool zeros;          /* in post-copy: what is taken away are zero pages, nearly all, */
    uint64_t zero_bps;   /* of which so much is taken away; 0 = not known */

    /* Private: what is being measured. */
    bool started;
    struct pcmig_sample last;
    int64_t last_us;
    uint64_t last_requested;
    uint64_t zeros_until;              /* the bytes sent when the latest of them were: other pages come after that */
    uint64_t zero_pages, normal_pages; /* in the window of pre-copy */
    struct pcmig_rate_window window, zeroing; /* the latter: while zero pages come in post-copy */
};

void pcmig_rate_init(struct pcmig_rate *rate);

/* Takes a sample of pre-copy that nobody holds back. */
void pcmig_rate_feed(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample);

/* Takes a sample of post-copy. PACE_BPS was in force since the one before (0 = unlimited); REQUESTED_BYTES were sent
 * since the switch because they were asked for. */
void pcmig_rate_feed_postcopy(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample,
                              uint64_t pace_bps, uint64_t requested_bytes);

/* QEMU was held back meanwhile: the time between the last sample and the next one is not measured. */
void pcmig_rate_pause(struct pcmig_rate *rate);

/* At what rate that which is sent now is taken away: the link's, or less while zero pages come. */
uint64_t pcmig_rate_now_bps(const struct pcmig_rate *rate);

/* Whether the rate is more than a lower bound. */
bool pcmig_rate_known(const struct pcmig_rate *rate);

/* How long what stands in the queue of an unhindered QEMU holds up whatever comes behind it. INT64_MAX when the rate
 * is not known. */
int64_t pcmig_rate_queue_us(const struct pcmig_rate *rate);

/* Time that BYTES need at BPS, in us; no less than 0 and no more than INT64_MAX / 4. BPS 0 counts as next to
 * nothing. */
int64_t pcmig_rate_time_us(uint64_t bytes, uint64_t bps);

/* What held QEMU back is gone: the link carries PERMILLE of what was seen. */
void pcmig_rate_faster(struct pcmig_rate *rate, uint64_t permille);

/* Somebody else has measured it: BPS counts as long as nothing better is known. */
void pcmig_rate_told(struct pcmig_rate *rate, int64_t t_us, int64_t bps);

#endif
