/* SPDX-License-Identifier: Apache-2.0 */
/* See turns_meter.h. */
#include "core/turns_meter.h"

#include <stdio.h>
#include <string.h>

/* Shorter windows show QEMU's slices of 100 ms rather than its rate. */
#define WINDOW_US      300000
/* Bytes wait for the link when it takes that long for what is queued. What is only on its way takes a round trip, less
 * than that within a data centre; over a longer distance every migration seems to fill the link, and goes alone. */
#define FILL_QUEUE_US  1000
/* Nothing has waited for so long at full speed: there is room beside it. */
#define SLACK_PROOF_US 1000000
/* The rush is over when requests have come down to this part of the most that were seen, and not before so long. */
#define RUSH_DIVISOR   8
#define RUSH_MIN_US    400000

void pcmig_turns_meter_init(struct pcmig_turns_meter *meter, int64_t now_us, const char *name, uint32_t network,
                            uint32_t link, uint64_t total_bytes)
{
    memset(meter, 0, sizeof(*meter));
    meter->row = (struct pcmig_turns_row){
        .network = network,
        .link = link,
        .phase = PCMIG_TURNS_WAITING,
        .since_us = now_us,
        .phase_us = now_us,
        .stamp_us = now_us,
        .moved_us = now_us,
        .total_bytes = total_bytes,
        .remaining_bytes = total_bytes,
        .queue_bytes = -1,
        .pace_mib = -1,
    };
    snprintf(meter->row.name, sizeof(meter->row.name), "%s", name);
}

static void enter(struct pcmig_turns_meter *meter, int64_t now_us, enum pcmig_turns_phase phase)
{
    meter->row.stamp_us = now_us;
    if (meter->row.phase == phase)
        return;
    meter->row.phase = phase;
    meter->row.phase_us = now_us;
    meter->row.moved_us = now_us;
    meter->unbounded_us = 0;
}

void pcmig_turns_meter_phase(struct pcmig_turns_meter *meter, int64_t now_us, enum pcmig_phase phase)
{
    static const enum pcmig_turns_phase phases[] = {
        [PCMIG_PHASE_SETUP] = PCMIG_TURNS_PRECOPY, [PCMIG_PHASE_PRECOPY] = PCMIG_TURNS_PRECOPY,
        [PCMIG_PHASE_DRAIN] = PCMIG_TURNS_DRAIN,   [PCMIG_PHASE_SWITCHOVER] = PCMIG_TURNS_RUSH,
        [PCMIG_PHASE_POSTCOPY] = PCMIG_TURNS_RUSH, [PCMIG_PHASE_PAUSED] = PCMIG_TURNS_PAUSED,
        [PCMIG_PHASE_FINISHED] = PCMIG_TURNS_NONE,
    };
    enum pcmig_turns_phase now = (unsigned)phase < PCMIG_PHASE_COUNT ? phases[phase] : PCMIG_TURNS_NONE;

    _Static_assert(sizeof(phases) / sizeof(phases[0]) == PCMIG_PHASE_COUNT, "every phase is one of the row");
    if (now == PCMIG_TURNS_RUSH && meter->row.phase == PCMIG_TURNS_POSTCOPY)
        now = PCMIG_TURNS_POSTCOPY; /* the rush is over */
    if (now == PCMIG_TURNS_RUSH && meter->row.phase != PCMIG_TURNS_RUSH)
        meter->peak_ps = 0;
    enter(meter, now_us, now);
}

static void measure_rate(struct pcmig_turns_meter *meter, int64_t now_us, uint64_t sent)
{
    if (meter->window_us == 0 || sent < meter->window_bytes) {
        meter->window_us = now_us;
        meter->window_bytes = sent;
    } else if (now_us - meter->window_us >= WINDOW_US) {
        meter->row.send_bps =
            (sent - meter->window_bytes) / 1000 * 1000000 / (uint64_t)((now_us - meter->window_us) / 1000);
        meter->window_us = now_us;
        meter->window_bytes = sent;
    }
}

static void measure_fill(struct pcmig_turns_meter *meter, int64_t now_us, int64_t queue_bytes)
{
    struct pcmig_turns_row *row = &meter->row;

    if (row->phase != PCMIG_TURNS_PRECOPY || meter->unbounded_us == 0 || queue_bytes < 0 || row->send_bps == 0)
        return;
    if ((uint64_t)queue_bytes / FILL_QUEUE_US >= row->send_bps / 1000000) {
        meter->filled_us = now_us;
        row->fill = PCMIG_TURNS_FILLS;
        return;
    }
    if (now_us - meter->unbounded_us >= SLACK_PROOF_US && now_us - meter->filled_us >= SLACK_PROOF_US)
        row->fill = PCMIG_TURNS_FILL_SLACK;
}

void pcmig_turns_meter_sample(struct pcmig_turns_meter *meter, int64_t now_us, const struct pcmig_sample *sample,
                              uint64_t link_bps, uint64_t requests_ps)
{
    struct pcmig_turns_row *row = &meter->row;
    uint64_t sent = sample->memory_processed_bytes + sample->disk_processed_bytes;

    row->stamp_us = now_us;
    row->queue_bytes = sample->queue_bytes;
    row->link_bps = link_bps;
    if (sample->memory_total_bytes != 0) {
        row->total_bytes = sample->memory_total_bytes + sample->disk_total_bytes;
        row->remaining_bytes = sample->memory_remaining_bytes + sample->disk_remaining_bytes;
    }
    if (sent != meter->moved_bytes) {
        meter->moved_bytes = sent;
        row->moved_us = now_us;
        if (row->phase == PCMIG_TURNS_PRECOPY && row->setup_us == 0)
            row->setup_us = now_us > row->phase_us ? now_us - row->phase_us : 1;
    }
    measure_rate(meter, now_us, sent);
    measure_fill(meter, now_us, sample->queue_bytes);
    if (requests_ps > meter->peak_ps)
        meter->peak_ps = requests_ps;
    if (row->phase == PCMIG_TURNS_RUSH && now_us - row->phase_us >= RUSH_MIN_US && meter->peak_ps != 0 &&
        requests_ps <= meter->peak_ps / RUSH_DIVISOR)
        enter(meter, now_us, PCMIG_TURNS_POSTCOPY);
}

/* It has not begun at full speed: two took the turn at the same moment, or another one sends already. */
static bool may_step_back(const struct pcmig_turns_row *row, int64_t now_us)
{
    return row->setup_us == 0 || now_us - row->turn_us < SLACK_PROOF_US;
}

void pcmig_turns_meter_answer(struct pcmig_turns_meter *meter, int64_t now_us, const struct pcmig_turns_answer *answer)
{
    struct pcmig_turns_row *row = &meter->row;

    row->stamp_us = now_us;
    row->bound_mib = answer->bound_mib;
    if (answer->bound_mib != 0 || row->phase != PCMIG_TURNS_PRECOPY)
        meter->unbounded_us = 0;
    else if (meter->unbounded_us == 0)
        meter->unbounded_us = now_us;
    if (row->turn_us == 0 && (answer->turn == PCMIG_TURN_FREE || row->phase > PCMIG_TURNS_PRECOPY))
        row->turn_us = now_us;
    else if (row->phase == PCMIG_TURNS_WAITING ||
             (row->phase == PCMIG_TURNS_PRECOPY && answer->bound_mib != 0 && may_step_back(row, now_us)))
        row->turn_us = answer->turn == PCMIG_TURN_FREE ? row->turn_us : 0;
}
