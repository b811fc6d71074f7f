/* SPDX-License-Identifier: Apache-2.0 */
/* What one migration says of itself to the others of its host (turns.h): its row, from its phase and its samples.
 *
 * Plain values, no allocation.
 */
#ifndef PCMIG_CORE_TURNS_METER_H
#define PCMIG_CORE_TURNS_METER_H

#include "core/input.h"
#include "core/ledger.h"
#include "core/turns.h"

#include <stdbool.h>
#include <stdint.h>

struct pcmig_turns_meter {
    struct pcmig_turns_row row;
    /* Private. */
    int64_t window_us; /* start of the window in which the rate is measured */
    uint64_t window_bytes;
    uint64_t moved_bytes;
    int64_t unbounded_us; /* since when nothing bounds pre-copy; 0 = something does */
    int64_t filled_us;    /* when bytes were last seen to wait for the link */
    uint64_t peak_ps;     /* of page requests, in this stay in post-copy */
};

/* A migration that comes at NOW_US, of the host's monotonic clock as all times here. Its call waits until a phase is
 * set. LINK: interface index of NETWORK, 0 = not known. TOTAL_BYTES: of the guest's memory, 0 = not known. */
void pcmig_turns_meter_init(struct pcmig_turns_meter *meter, int64_t now_us, const char *name, uint32_t network,
                            uint32_t link, uint64_t total_bytes);

/* Its call was made, and this is its phase by the ledger. A phase that is over is an empty row. */
void pcmig_turns_meter_phase(struct pcmig_turns_meter *meter, int64_t now_us, enum pcmig_phase phase);

/* A sample; LINK_BPS and REQUESTS_PS as the policy has them. */
void pcmig_turns_meter_sample(struct pcmig_turns_meter *meter, int64_t now_us, const struct pcmig_sample *sample,
                              uint64_t link_bps, uint64_t requests_ps);

/* What it may do, and does from now on. */
void pcmig_turns_meter_answer(struct pcmig_turns_meter *meter, int64_t now_us, const struct pcmig_turns_answer *answer);

#endif
