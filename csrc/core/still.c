/* SPDX-License-Identifier: Apache-2.0 */
/* See still.h. */
#include "core/still.h"

bool pcmig_still_feed(struct pcmig_still *still, int64_t now_us, uint64_t figure, int64_t limit_us)
{
    if (figure != still->figure) {
        *still = (struct pcmig_still){.figure = figure, .since_us = now_us};
        return false;
    }
    if (limit_us <= 0 || still->told || now_us - still->since_us < limit_us)
        return false;
    still->told = true;
    return true;
}

int64_t pcmig_still_due_us(const struct pcmig_still *still, int64_t limit_us)
{
    return limit_us <= 0 || still->told || still->since_us > INT64_MAX - limit_us ? INT64_MAX
                                                                                  : still->since_us + limit_us;
}
