/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the file that the migrations of a host share: what is taken for a row is in bounds, goes into the file
 * and comes back the same, and each row gets an answer that makes sense. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/turns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* No fuzzer finds a checksum: it is put right, and the bytes are any. */
static void mend(unsigned char bytes[PCMIG_TURNS_ROW_BYTES])
{
    const uint64_t magic = UINT64_C(0x574f5247494d4350);
    uint64_t sum = UINT64_C(14695981039346656037);

    memcpy(bytes, &magic, sizeof(magic));
    for (size_t i = 0; i < PCMIG_TURNS_ROW_BYTES - 8; i++)
        sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
    memcpy(bytes + PCMIG_TURNS_ROW_BYTES - 8, &sum, sizeof(sum));
}

static void check_row(const struct pcmig_turns_row *row)
{
    unsigned char bytes[PCMIG_TURNS_ROW_BYTES];
    struct pcmig_turns_row again;

    require(row->phase > PCMIG_TURNS_NONE && row->phase < PCMIG_TURNS_PHASE_COUNT &&
            row->fill < PCMIG_TURNS_FILL_COUNT);
    require(row->since_us >= 0 && row->stamp_us >= 0 && row->queue_bytes >= -1 && row->bound_mib >= 0 &&
            row->setup_us >= 0);
    require(memchr(row->name, 0, sizeof(row->name)) != NULL);
    pcmig_turns_pack(row, bytes);
    require(pcmig_turns_unpack(bytes, &again));
    require(again.total_bytes == row->total_bytes && again.queue_bytes == row->queue_bytes);
    require(strcmp(again.name, row->name) == 0);
}

static void check_answer(const struct pcmig_turns_answer *answer, size_t count, size_t me)
{
    require((unsigned)answer->turn < PCMIG_TURN_COUNT);
    require(answer->waits_for >= -1 && answer->waits_for < (int)count && answer->waits_for != (int)me);
    require((answer->turn == PCMIG_TURN_BOUNDED) == (answer->bound_mib > 0));
    require((answer->turn == PCMIG_TURN_FREE) == (answer->waits_for < 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pcmig_turns_row rows[PCMIG_TURNS_ROWS];
    size_t count = 0;
    int64_t now_us = 0;

    for (size_t at = 0; at < size && count < PCMIG_TURNS_ROWS; at += PCMIG_TURNS_ROW_BYTES) {
        unsigned char bytes[PCMIG_TURNS_ROW_BYTES] = {0};
        size_t part = size - at < sizeof(bytes) ? size - at : sizeof(bytes);

        memcpy(bytes, data + at, part);
        (void)pcmig_turns_unpack(bytes, &rows[count]);
        mend(bytes);
        if (!pcmig_turns_unpack(bytes, &rows[count]))
            continue;
        rows[count].number = (uint32_t)count;
        check_row(&rows[count]);
        now_us = rows[count].stamp_us > now_us ? rows[count].stamp_us : now_us;
        count++;
    }
    for (size_t me = 0; me < count; me++) {
        struct pcmig_turns_answer answer;

        pcmig_turns_decide(rows, count, me, now_us, &answer);
        check_answer(&answer, count, me);
    }
    return 0;
}
