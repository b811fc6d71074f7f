/* SPDX-License-Identifier: Apache-2.0 */
/* What a ledger tells: rows with their rates, totals, balance. See ledger.h. */
#include "core/ledger_rows.h"

#include <stdio.h>
#include <string.h>

#define SECOND_US 1000000u

static const char *const phase_names[PCMIG_PHASE_COUNT] = {
    [PCMIG_PHASE_SETUP] = "setup",           [PCMIG_PHASE_PRECOPY] = "precopy",   [PCMIG_PHASE_DRAIN] = "drain",
    [PCMIG_PHASE_SWITCHOVER] = "switchover", [PCMIG_PHASE_POSTCOPY] = "postcopy", [PCMIG_PHASE_PAUSED] = "paused",
    [PCMIG_PHASE_FINISHED] = "finished",
};

static const char *const quantity_names[PCMIG_QUANTITY_COUNT] = {
    [PCMIG_QUANTITY_WIRE_BYTES] = "wire_bytes", [PCMIG_QUANTITY_NORMAL_PAGES] = "normal_pages",
    [PCMIG_QUANTITY_ZERO_PAGES] = "zero_pages", [PCMIG_QUANTITY_REQUESTS] = "requests",
    [PCMIG_QUANTITY_DISK_BYTES] = "disk_bytes",
};

const char *pcmig_phase_name(enum pcmig_phase phase)
{
    return (unsigned)phase < PCMIG_PHASE_COUNT ? phase_names[phase] : "unknown";
}

const char *pcmig_quantity_name(enum pcmig_quantity quantity)
{
    return (unsigned)quantity < PCMIG_QUANTITY_COUNT ? quantity_names[quantity] : "unknown";
}

/* Fills in what follows from the rest of ROW. */
static void derive(const struct pcmig_ledger *ledger, struct pcmig_ledger_row *row)
{
    uint64_t time_us = row->duration_us > 0 ? (uint64_t)row->duration_us : 0;
    uint64_t wire_bytes = row->quantity[PCMIG_QUANTITY_WIRE_BYTES];
    uint64_t pages =
        pcmig_ledger_add(row->quantity[PCMIG_QUANTITY_NORMAL_PAGES], row->quantity[PCMIG_QUANTITY_ZERO_PAGES]);
    uint64_t permille;

    row->dirty_pages_ps = pcmig_ledger_scale(row->dirtied_pages, SECOND_US, time_us);
    row->send_bps = pcmig_ledger_scale(wire_bytes, SECOND_US, time_us);
    permille = pcmig_ledger_scale(row->retransmitted_pages, 1000, pages);
    row->retransmitted_permille = permille < 1000 ? (unsigned)permille : 1000;
    row->bytes_per_guest_page = ledger->guest_pages ? wire_bytes / ledger->guest_pages : 0;
}

size_t pcmig_ledger_phase_count(const struct pcmig_ledger *ledger)
{
    return ledger->stay_count;
}

bool pcmig_ledger_phase(const struct pcmig_ledger *ledger, size_t index, struct pcmig_ledger_row *out)
{
    if (index >= ledger->stay_count)
        return false;
    *out = ledger->stays[index].row;
    derive(ledger, out);
    return true;
}

size_t pcmig_ledger_pass_count(const struct pcmig_ledger *ledger)
{
    return ledger->pass_count;
}

bool pcmig_ledger_pass(const struct pcmig_ledger *ledger, size_t index, struct pcmig_ledger_row *out)
{
    if (index >= ledger->pass_count)
        return false;
    *out = ledger->pass_rows[index];
    derive(ledger, out);
    return true;
}

size_t pcmig_ledger_events(const struct pcmig_ledger *ledger, const struct pcmig_ledger_entry **entries, unsigned *lost)
{
    *entries = ledger->entries;
    if (lost != NULL)
        *lost = ledger->entries_lost;
    return ledger->entry_count;
}

static void add_row(struct pcmig_ledger_row *sum, const struct pcmig_ledger_row *row)
{
    for (int q = 0; q < PCMIG_QUANTITY_COUNT; q++)
        sum->quantity[q] = pcmig_ledger_add(sum->quantity[q], row->quantity[q]);
    sum->dirtied_pages = pcmig_ledger_add(sum->dirtied_pages, row->dirtied_pages);
    sum->retransmitted_pages = pcmig_ledger_add(sum->retransmitted_pages, row->retransmitted_pages);
    sum->duration_us += row->duration_us;
    if (row->reported_dirty_pages_ps != 0)
        sum->reported_dirty_pages_ps = row->reported_dirty_pages_ps;
    if (row->requests_peak_ps > sum->requests_peak_ps)
        sum->requests_peak_ps = row->requests_peak_ps;
    if (row->queue_peak_bytes > sum->queue_peak_bytes)
        sum->queue_peak_bytes = row->queue_peak_bytes;
    if (row->phase != PCMIG_PHASE_FINISHED && row->end_us > sum->end_us)
        sum->end_us = row->end_us;
}

void pcmig_ledger_downtimes(const struct pcmig_ledger *ledger, int64_t *events_us, int64_t *reported_ms)
{
    *reported_ms = -1;
    if (ledger->final && ledger->final_sample.downtime_ms != 0)
        *reported_ms =
            ledger->final_sample.downtime_ms < INT64_MAX ? (int64_t)ledger->final_sample.downtime_ms : INT64_MAX;
    *events_us = -1;
    if (ledger->suspended_us >= 0 && ledger->resumed_us >= 0)
        *events_us = ledger->resumed_us > ledger->suspended_us ? ledger->resumed_us - ledger->suspended_us : 0;
}

const struct pcmig_latency *pcmig_ledger_latency(const struct pcmig_ledger *ledger)
{
    return &ledger->latency;
}

void pcmig_ledger_totals(const struct pcmig_ledger *ledger, struct pcmig_ledger_totals *out)
{
    struct pcmig_ledger_row *sum = &out->sum;

    memset(out, 0, sizeof(*out));
    sum->phase = pcmig_ledger_phase_now(ledger);
    sum->complete = sum->phase == PCMIG_PHASE_FINISHED;
    sum->start_us = ledger->start_us;
    sum->end_us = ledger->start_us;
    sum->queue_peak_bytes = -1;
    sum->remaining_start_bytes = ledger->stay_count ? ledger->stays[0].row.remaining_start_bytes : 0;
    sum->remaining_end_bytes = ledger->remaining_bytes;
    for (size_t i = 0; i < ledger->stay_count; i++) {
        const struct pcmig_ledger_row *row = &ledger->stays[i].row;

        add_row(sum, row);
        out->phase_us[row->phase] += row->duration_us;
    }
    derive(ledger, sum);

    out->gate_us = ledger->gate_us;
    out->waited_us = ledger->waited_us;
    out->total_us = sum->duration_us;
    out->guest_pages = ledger->guest_pages;
    out->page_size_bytes = ledger->page_size_bytes;
    out->passes = ledger->passes.done;
    pcmig_ledger_downtimes(ledger, &out->downtime_events_us, &out->downtime_reported_ms);
    out->late_samples = ledger->late_samples;
    out->counters_backwards = ledger->counters_backwards;
}

static int64_t difference(uint64_t a, uint64_t b)
{
    if (a >= b)
        return a - b > INT64_MAX ? INT64_MAX : (int64_t)(a - b);
    return b - a > INT64_MAX ? -INT64_MAX : -(int64_t)(b - a);
}

void pcmig_ledger_balance(const struct pcmig_ledger *ledger, struct pcmig_ledger_balance *out)
{
    memset(out, 0, sizeof(*out));
    if (!ledger->final)
        return;
    out->final = true;
    out->balanced = true;
    for (int q = 0; q < PCMIG_QUANTITY_COUNT; q++) {
        for (size_t i = 0; i < ledger->stay_count; i++)
            out->phases[q] = pcmig_ledger_add(out->phases[q], ledger->stays[i].row.quantity[q]);
        out->reported[q] = pcmig_ledger_counter(&ledger->final_sample, (enum pcmig_quantity)q);
        out->last_interval[q] = ledger->last_interval[q];
        out->difference[q] = difference(out->phases[q], out->reported[q]);
        if (out->difference[q] != 0)
            out->balanced = false;
    }
}

int pcmig_ledger_balance_describe(const struct pcmig_ledger_balance *balance, char *buf, size_t size)
{
    char text[256];
    size_t used;

    if (!balance->final)
        return snprintf(buf, size, "no final statistics");
    if (balance->balanced)
        return snprintf(buf, size, "balanced");
    used = (size_t)snprintf(text, sizeof(text), "not balanced:");
    for (int q = 0; q < PCMIG_QUANTITY_COUNT && used < sizeof(text); q++) {
        if (balance->difference[q] != 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %s %+lld", text[used - 1] == ':' ? "" : ",",
                                     quantity_names[q], (long long)balance->difference[q]);
    }
    return snprintf(buf, size, "%s", text);
}
