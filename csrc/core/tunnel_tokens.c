/* SPDX-License-Identifier: Apache-2.0 */
/* See tunnel_tokens.h. */
#include "core/tunnel_tokens.h"

#define SECOND_US INT64_C(1000000)

void pcmig_tokens_fill(struct pcmig_tokens *tokens, struct pcmig_pace pace, int64_t now_us)
{
    tokens->filled_us = now_us;
    tokens->micro = pace.burst * SECOND_US;
}

bool pcmig_tokens_take(struct pcmig_tokens *tokens, struct pcmig_pace pace, int64_t now_us)
{
    const int64_t full = pace.burst * SECOND_US, passed_us = now_us - tokens->filled_us;

    if (passed_us > 0) {
        /* So long that it is full in any case would overflow. */
        tokens->micro += passed_us > 3600 * SECOND_US ? full : passed_us * pace.per_s;
        if (tokens->micro > full)
            tokens->micro = full;
        tokens->filled_us = now_us;
    }
    if (tokens->micro < SECOND_US)
        return false;
    tokens->micro -= SECOND_US;
    return true;
}
