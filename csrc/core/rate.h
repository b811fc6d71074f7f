/* SPDX-License-Identifier: Apache-2.0 */
/* The link's rate, measured from what the destination has acknowledged while QEMU sends as fast as it can. */
#ifndef PCMIG_CORE_RATE_H
#define PCMIG_CORE_RATE_H

#include "input.h"

#include <stdbool.h>
#include <stdint.h>

struct pcmig_rate {
    uint64_t link_bps; /* bytes per second; 0 = not known yet */
    /* Private. */
    int64_t window_start_us;
    uint64_t window_start_bytes;
    bool started;
};

void pcmig_rate_init(struct pcmig_rate *rate);

/* Takes a sample of unthrottled pre-copy. */
void pcmig_rate_feed(struct pcmig_rate *rate, int64_t t_us, const struct pcmig_sample *sample);

/* Pre-copy was throttled meanwhile: the time between the last sample and the next one is not measured. */
void pcmig_rate_pause(struct pcmig_rate *rate);

#endif
