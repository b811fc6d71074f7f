/* SPDX-License-Identifier: Apache-2.0 */
/* How often something may happen: a bucket of tokens that fills with time. */
#ifndef PCMIG_CORE_TUNNEL_TOKENS_H
#define PCMIG_CORE_TUNNEL_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

struct pcmig_pace {
    unsigned burst, per_s; /* at once after a pause, and then */
};

struct pcmig_tokens {
    int64_t filled_us;
    int64_t micro; /* millionths of a token */
};

/* As after a long pause. */
void pcmig_tokens_fill(struct pcmig_tokens *tokens, struct pcmig_pace pace, int64_t now_us);

/* Whether it may happen once more at NOW_US. */
bool pcmig_tokens_take(struct pcmig_tokens *tokens, struct pcmig_pace pace, int64_t now_us);

#endif
