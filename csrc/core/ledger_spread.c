/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets what: the growth of the counters between two samples, divided among the phases in between. See ledger.h. */
#include "core/ledger_rows.h"

#include <string.h>

/* Shorter than this, a few requests that happen to come together would pass for a rate. */
#define RATE_MIN_US 100000

/* Where a quantity can grow. Disks are copied before memory is, while the job's memory figures are still empty. */
static const struct {
    size_t offset;
    unsigned phases;
} quantities[PCMIG_QUANTITY_COUNT] = {
    [PCMIG_QUANTITY_WIRE_BYTES] = {offsetof(struct pcmig_sample, memory_processed_bytes), PCMIG_LEDGER_PAGES_FLOW},
    [PCMIG_QUANTITY_NORMAL_PAGES] = {offsetof(struct pcmig_sample, normal_pages), PCMIG_LEDGER_PAGES_FLOW},
    [PCMIG_QUANTITY_ZERO_PAGES] = {offsetof(struct pcmig_sample, zero_pages), PCMIG_LEDGER_PAGES_FLOW},
    [PCMIG_QUANTITY_REQUESTS] = {offsetof(struct pcmig_sample, postcopy_requests), PCMIG_LEDGER_AFTER},
    [PCMIG_QUANTITY_DISK_BYTES] = {offsetof(struct pcmig_sample, disk_processed_bytes),
                                   PCMIG_LEDGER_BIT(SETUP) | PCMIG_LEDGER_PAGES_FLOW},
};

uint64_t pcmig_ledger_counter(const struct pcmig_sample *sample, enum pcmig_quantity quantity)
{
    uint64_t value;

    memcpy(&value, (const char *)sample + quantities[quantity].offset, sizeof(value));
    return value;
}

uint64_t pcmig_ledger_add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t pcmig_ledger_scale(uint64_t value, uint64_t numerator, uint64_t denominator)
{
    uint64_t whole, rest;

    while (numerator > UINT32_MAX || denominator > UINT32_MAX) {
        numerator >>= 1;
        denominator >>= 1;
    }
    if (denominator == 0)
        return 0;
    whole = value / denominator;
    rest = value % denominator * numerator / denominator;
    if (numerator != 0 && whole > UINT64_MAX / numerator)
        return UINT64_MAX;
    return pcmig_ledger_add(whole * numerator, rest);
}

size_t pcmig_ledger_latest(const struct pcmig_ledger *ledger, unsigned mask, size_t fallback)
{
    size_t best = fallback;
    int64_t latest = INT64_MIN;

    for (size_t i = 0; i < ledger->stay_count; i++) {
        const struct pcmig_ledger_row *row = &ledger->stays[i].row;

        if ((mask & 1u << row->phase) != 0 && row->end_us >= latest) {
            latest = row->end_us;
            best = i;
        }
    }
    return best;
}

struct pcmig_ledger_row *pcmig_ledger_running_pass(struct pcmig_ledger *ledger)
{
    struct pcmig_ledger_row *row = ledger->pass_count ? &ledger->pass_rows[ledger->pass_count - 1] : NULL;

    return row != NULL && !row->complete ? row : NULL;
}

static uint64_t beyond(uint64_t pages, uint64_t guest_pages)
{
    return guest_pages != 0 && pages > guest_pages ? pages - guest_pages : 0;
}

/* Time since the last sample spent in PHASES. */
static uint64_t unsampled_us(const struct pcmig_ledger *ledger, unsigned phases)
{
    uint64_t time = 0;

    for (size_t i = 0; i < ledger->stay_count; i++)
        time += phases & 1u << ledger->stays[i].row.phase ? (uint64_t)ledger->stays[i].unsampled_us : 0;
    return time;
}

/* Divides AMOUNT of something that happens in PHASES among the stays since the last sample, in proportion to their
 * time; SHARES has a place for each stay. */
static void divide(const struct pcmig_ledger *ledger, uint64_t amount, unsigned phases, uint64_t *shares)
{
    uint64_t time = unsampled_us(ledger, phases), passed = 0, given = 0;

    memset(shares, 0, PCMIG_LEDGER_ROWS_MAX * sizeof(*shares));
    if (time == 0) {
        shares[pcmig_ledger_latest(ledger, phases, ledger->current)] = amount;
        return;
    }
    for (size_t i = 0; i < ledger->stay_count; i++) {
        uint64_t until;

        if ((phases & 1u << ledger->stays[i].row.phase) == 0 || ledger->stays[i].unsampled_us == 0)
            continue;
        passed += (uint64_t)ledger->stays[i].unsampled_us;
        until = passed == time ? amount : pcmig_ledger_scale(amount, passed, time);
        if (until > given) {
            shares[i] = until - given;
            given = until;
        }
    }
}

/* What a counter has grown by. */
static uint64_t growth(struct pcmig_ledger *ledger, const struct pcmig_sample *sample, enum pcmig_quantity q,
                       bool final)
{
    uint64_t value = pcmig_ledger_counter(sample, q), delta;

    if (value >= ledger->seen[q]) {
        delta = value - ledger->seen[q];
        ledger->seen[q] = value;
        return delta;
    }
    if (value == 0)
        return 0; /* not reported this time */
    ledger->counters_backwards++;
    if (final || value >= ledger->seen[q] / 2)
        return 0;
    ledger->seen[q] = value; /* began anew */
    return value;
}

/* What remains moves in a straight line from one sample to the next; what it should have fallen by and did not was
 * dirtied. */
static void spread_remaining(struct pcmig_ledger *ledger, const struct pcmig_sample *sample, uint64_t sent_pages)
{
    struct pcmig_ledger_row *pass = pcmig_ledger_running_pass(ledger);
    uint64_t from, to = sample->memory_remaining_bytes, shares[PCMIG_LEDGER_ROWS_MAX], at;
    uint64_t have = pcmig_ledger_add(sent_pages, pcmig_passes_pages(sample, to)), had;

    if (!ledger->has_remaining) {
        ledger->has_remaining = true;
        ledger->remaining_bytes = sample->memory_total_bytes;
    }
    from = ledger->remaining_bytes;
    ledger->remaining_bytes = to;
    divide(ledger, from > to ? from - to : to - from, PCMIG_LEDGER_PAGES_FLOW, shares);
    at = from;
    for (size_t i = 0; i < ledger->stay_count; i++) {
        struct pcmig_ledger_stay *stay = &ledger->stays[i];

        if (stay->unsampled_us == 0 && shares[i] == 0 && stay->has_remaining)
            continue;
        if (!stay->has_remaining)
            stay->row.remaining_start_bytes = at;
        stay->has_remaining = true;
        at = from > to ? at - shares[i] : at + shares[i];
        stay->row.remaining_end_bytes = at;
        if (pass != NULL && (PCMIG_LEDGER_AT_SOURCE & 1u << stay->row.phase) != 0)
            pass->remaining_end_bytes = at;
    }
    /* After the switch QEMU's remainder may grow (whole host pages are sent again), but the guest dirties nothing. */
    if (unsampled_us(ledger, PCMIG_LEDGER_DIRTIES) == 0 &&
        (PCMIG_LEDGER_DIRTIES & 1u << pcmig_ledger_phase_now(ledger)) == 0)
        return;
    had = pcmig_passes_pages(sample, from);
    divide(ledger, have > had ? have - had : 0, PCMIG_LEDGER_DIRTIES, shares);
    for (size_t i = 0; i < ledger->stay_count; i++) {
        struct pcmig_ledger_row *row = &ledger->stays[i].row;

        row->dirtied_pages = pcmig_ledger_add(row->dirtied_pages, shares[i]);
        if (pass != NULL)
            pass->dirtied_pages = pcmig_ledger_add(pass->dirtied_pages, shares[i]);
    }
}

static void note_request_rate(struct pcmig_ledger *ledger)
{
    unsigned phases = quantities[PCMIG_QUANTITY_REQUESTS].phases;
    uint64_t requests = ledger->counted[PCMIG_QUANTITY_REQUESTS], rate;
    int64_t window_us = ledger->now_us - ledger->requests_since_us;
    struct pcmig_ledger_row *row = &ledger->stays[pcmig_ledger_latest(ledger, phases, ledger->current)].row;

    if (window_us < RATE_MIN_US)
        return;
    rate = pcmig_ledger_scale(requests - ledger->requests_before, 1000000, (uint64_t)window_us);
    if (rate > row->requests_peak_ps)
        row->requests_peak_ps = rate;
    ledger->requests_since_us = ledger->now_us;
    ledger->requests_before = requests;
}

void pcmig_ledger_spread(struct pcmig_ledger *ledger, const struct pcmig_sample *sample, bool final)
{
    struct pcmig_ledger_row *pass = pcmig_ledger_running_pass(ledger);
    uint64_t shares[PCMIG_LEDGER_ROWS_MAX], pages[PCMIG_LEDGER_ROWS_MAX] = {0}, sent_pages = 0, sent, delta;

    sent = pcmig_ledger_add(ledger->counted[PCMIG_QUANTITY_NORMAL_PAGES], ledger->counted[PCMIG_QUANTITY_ZERO_PAGES]);
    for (int q = 0; q < PCMIG_QUANTITY_COUNT; q++) {
        delta = growth(ledger, sample, (enum pcmig_quantity)q, final);
        divide(ledger, delta, quantities[q].phases, shares);
        ledger->counted[q] = pcmig_ledger_add(ledger->counted[q], delta);
        if (final)
            ledger->last_interval[q] = pcmig_ledger_add(ledger->last_interval[q], delta);
        for (size_t i = 0; i < ledger->stay_count; i++) {
            struct pcmig_ledger_row *row = &ledger->stays[i].row;

            row->quantity[q] = pcmig_ledger_add(row->quantity[q], shares[i]);
            if (pass != NULL && (PCMIG_LEDGER_AT_SOURCE & 1u << row->phase) != 0)
                pass->quantity[q] = pcmig_ledger_add(pass->quantity[q], shares[i]);
            if (q == PCMIG_QUANTITY_NORMAL_PAGES || q == PCMIG_QUANTITY_ZERO_PAGES)
                pages[i] = pcmig_ledger_add(pages[i], shares[i]);
        }
    }
    for (size_t i = 0; i < ledger->stay_count; i++) {
        struct pcmig_ledger_row *row = &ledger->stays[i].row;
        uint64_t until = pcmig_ledger_add(sent, pages[i]);
        uint64_t again = beyond(until, ledger->guest_pages) - beyond(sent, ledger->guest_pages);

        row->retransmitted_pages = pcmig_ledger_add(row->retransmitted_pages, again);
        if (pass != NULL && (PCMIG_LEDGER_AT_SOURCE & 1u << row->phase) != 0)
            pass->retransmitted_pages = pcmig_ledger_add(pass->retransmitted_pages, again);
        sent = until;
        sent_pages = pcmig_ledger_add(sent_pages, pages[i]);
    }
    if (sample->memory_total_bytes != 0)
        spread_remaining(ledger, sample, sent_pages);
    for (size_t i = 0; i < ledger->stay_count; i++)
        ledger->stays[i].unsampled_us = 0;
    note_request_rate(ledger);
}
