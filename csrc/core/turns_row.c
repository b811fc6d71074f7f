/* SPDX-License-Identifier: Apache-2.0 */
/* A row as it lies in the file that the migrations of a host share. See turns.h. */
#include "core/turns.h"

#include <string.h>

/* "PCMIGROW": an empty row is all zeros. */
#define MAGIC      UINT64_C(0x574f5247494d4350)
#define NAME_AT    144
#define CHECK_AT   (PCMIG_TURNS_ROW_BYTES - 8)
/* No figure of a real host comes near; products with 1000 stay inside 64 bits. */
#define FIGURE_MAX (UINT64_C(1) << 50)

/* FNV-1a: tells a row that is half old and half new. Nobody is kept from forging one who may write the file. */
static uint64_t checksum(const unsigned char *bytes, size_t count)
{
    uint64_t sum = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
    return sum;
}

/* The figures in the order in which they lie there, eight bytes each. All programs that read them run on this host. */
#define FIGURES   18
/* In the last one, which older versions leave 0: the pace, from -1 on, and above it the gate. */
#define GATE_AT   40
#define PACE_MASK ((UINT64_C(1) << GATE_AT) - 1)

void pcmig_turns_pack(const struct pcmig_turns_row *row, unsigned char bytes[PCMIG_TURNS_ROW_BYTES])
{
    const uint64_t figures[FIGURES] = {
        MAGIC,
        row->link,
        row->network,
        row->phase,
        row->fill,
        (uint64_t)row->since_us,
        (uint64_t)row->phase_us,
        (uint64_t)row->turn_us,
        (uint64_t)row->stamp_us,
        (uint64_t)row->moved_us,
        row->total_bytes,
        row->remaining_bytes,
        row->send_bps,
        row->link_bps,
        (uint64_t)(row->queue_bytes + 1), /* -1 is not known */
        (uint64_t)row->bound_mib,
        (uint64_t)row->setup_us,
        ((uint64_t)(row->pace_mib + 1) & PACE_MASK) | (uint64_t)row->gate << GATE_AT,
    };
    uint64_t sum;

    _Static_assert(sizeof(figures) <= NAME_AT && NAME_AT + PCMIG_TURNS_NAME_SIZE <= CHECK_AT,
                   "the parts do not overlap");
    memset(bytes, 0, PCMIG_TURNS_ROW_BYTES);
    if (row->phase == PCMIG_TURNS_NONE)
        return;
    memcpy(bytes, figures, sizeof(figures));
    memcpy(bytes + NAME_AT, row->name, strnlen(row->name, PCMIG_TURNS_NAME_SIZE - 1));
    sum = checksum(bytes, CHECK_AT);
    memcpy(bytes + CHECK_AT, &sum, sizeof(sum));
}

static uint64_t bounded(uint64_t figure)
{
    return figure < FIGURE_MAX ? figure : FIGURE_MAX;
}

bool pcmig_turns_unpack(const unsigned char bytes[PCMIG_TURNS_ROW_BYTES], struct pcmig_turns_row *row)
{
    uint64_t figures[FIGURES], sum;

    memcpy(figures, bytes, sizeof(figures));
    memcpy(&sum, bytes + CHECK_AT, sizeof(sum));
    if (figures[0] != MAGIC || sum != checksum(bytes, CHECK_AT) || figures[1] > UINT32_MAX || figures[2] > UINT32_MAX ||
        figures[3] <= PCMIG_TURNS_NONE || figures[3] >= PCMIG_TURNS_PHASE_COUNT || figures[4] >= PCMIG_TURNS_FILL_COUNT)
        return false;
    *row = (struct pcmig_turns_row){
        .link = (uint32_t)figures[1],
        .network = (uint32_t)figures[2],
        .phase = (enum pcmig_turns_phase)figures[3],
        .fill = (enum pcmig_turns_fill)figures[4],
        .since_us = (int64_t)bounded(figures[5]),
        .phase_us = (int64_t)bounded(figures[6]),
        .turn_us = (int64_t)bounded(figures[7]),
        .stamp_us = (int64_t)bounded(figures[8]),
        .moved_us = (int64_t)bounded(figures[9]),
        .total_bytes = bounded(figures[10]),
        .remaining_bytes = bounded(figures[11]),
        .send_bps = bounded(figures[12]),
        .link_bps = bounded(figures[13]),
        .queue_bytes = (int64_t)bounded(figures[14]) - 1,
        .bound_mib = (int64_t)bounded(figures[15]),
        .setup_us = (int64_t)bounded(figures[16]),
        .pace_mib = (int64_t)(figures[17] & PACE_MASK) - 1,
        .gate = figures[17] >> GATE_AT < PCMIG_GATE_STATE_COUNT ? (enum pcmig_gate_state)(figures[17] >> GATE_AT)
                                                                : PCMIG_GATE_NONE,
    };
    memcpy(row->name, bytes + NAME_AT, PCMIG_TURNS_NAME_SIZE - 1);
    /* It is shown to people. Bytes above ASCII are letters of some language. */
    for (char *c = row->name; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == '\x7f')
            *c = '?';
    }
    return true;
}
