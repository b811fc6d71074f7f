/* SPDX-License-Identifier: Apache-2.0 */
/* Whether nothing moves any more: a figure that should grow and does not, told once. Pure, plain values. */
#ifndef PCMIG_CORE_STILL_H
#define PCMIG_CORE_STILL_H

#include <stdbool.h>
#include <stdint.h>

struct pcmig_still {
    uint64_t figure;  /* as seen last */
    int64_t since_us; /* when it became so */
    bool told;
};

/* The figure is FIGURE at NOW_US, and LIMIT_US is long (0 = nothing is). Returns true when it has not changed for so
 * long, once until it has changed. */
bool pcmig_still_feed(struct pcmig_still *still, int64_t now_us, uint64_t figure, int64_t limit_us);

/* When it may become true without any news; INT64_MAX = not before the figure changes. */
int64_t pcmig_still_due_us(const struct pcmig_still *still, int64_t limit_us);

#endif
