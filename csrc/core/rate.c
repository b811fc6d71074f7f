/* SPDX-License-Identifier: Apache-2.0 */
/* See rate.h. */
#include "core/rate.h"

#include <string.h>

/* Long enough that a burst of a socket buffer or a token bucket is a small part of it. */
#define WINDOW_US     500000
/* A window in which QEMU had less to send than the link carries (zero pages, a pause) says nothing about the link. */
#define IDLE_PERMILLE 700

void pcmig_rate_init(struct pcmig_rate *rate)
{
    memset(rate, 0, sizeof(*rate));
}

void pcmig_rate_feed(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample)
{
    uint64_t queued = sample->queue_bytes > 0 ? (uint64_t)sample->queue_bytes : 0;
    uint64_t sent = sample->memory_processed_bytes + sample->disk_processed_bytes;
    uint64_t acked = sent > queued ? sent - queued : 0;
    uint64_t bps;

    if (!rate->started || acked < rate->window_start_bytes) {
        rate->started = true;
        rate->window_start_us = t_us;
        rate->window_start_bytes = acked;
        return;
    }
    if (t_us - rate->window_start_us < WINDOW_US)
        return;
    bps = (acked - rate->window_start_bytes) / 1000 * 1000000 / (uint64_t)((t_us - rate->window_start_us) / 1000);
    if (rate->link_bps == 0 || bps > rate->link_bps)
        rate->link_bps = rate->link_bps == 0 ? bps : rate->link_bps + (bps - rate->link_bps) / 2;
    else if (bps >= rate->link_bps / 1000 * IDLE_PERMILLE)
        rate->link_bps -= (rate->link_bps - bps) / 4;
    rate->window_start_us = t_us;
    rate->window_start_bytes = acked;
}

void pcmig_rate_pause(struct pcmig_rate *rate)
{
    rate->started = false;
}
