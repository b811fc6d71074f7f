/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger adds up, whatever order and state the reports come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/ledger.h"

#define PAGE        4096u
#define GUEST_PAGES 68608u
#define MS          INT64_C(1000)
#define SECOND      INT64_C(1000000)

static struct pcmig_ledger *new_ledger(void)
{
    struct pcmig_ledger *ledger;

    ledger = pcmig_ledger_new();
    assert_non_null(ledger);
    return ledger;
}

static void event(struct pcmig_ledger *ledger, int64_t t_us, enum pcmig_event code)
{
    struct pcmig_input input = {.t_us = t_us, .kind = PCMIG_INPUT_EVENT, .code = (int64_t)code};

    pcmig_ledger_feed(ledger, &input);
}

static void action(struct pcmig_ledger *ledger, int64_t t_us, enum pcmig_action code)
{
    struct pcmig_decision decision = {.t_us = t_us, .action = code};

    pcmig_ledger_note_action(ledger, &decision);
}

static struct pcmig_input figures(enum pcmig_input_kind kind, int64_t t_us, uint64_t sent, uint64_t remaining,
                                  uint64_t iteration, uint64_t requests)
{
    return (struct pcmig_input){
        .t_us = t_us,
        .kind = kind,
        .sample = {.memory_total_bytes = (uint64_t)GUEST_PAGES * PAGE,
                   .memory_remaining_bytes = remaining * PAGE,
                   .memory_processed_bytes = sent / 4 * 9 + (sent - sent / 4) * 4104,
                   .zero_pages = sent / 4,
                   .normal_pages = sent - sent / 4,
                   .iteration = iteration,
                   .postcopy_requests = requests,
                   .page_size_bytes = PAGE,
                   .elapsed_ms = (uint64_t)(t_us / 1000),
                   .queue_bytes = -1},
    };
}

static void sample(struct pcmig_ledger *ledger, int64_t t_us, uint64_t sent, uint64_t remaining, uint64_t iteration,
                   uint64_t requests)
{
    struct pcmig_input input = figures(PCMIG_INPUT_SAMPLE, t_us, sent, remaining, iteration, requests);

    pcmig_ledger_feed(ledger, &input);
}

static void final(struct pcmig_ledger *ledger, int64_t t_us, uint64_t sent, uint64_t requests)
{
    struct pcmig_input input = figures(PCMIG_INPUT_FINAL, t_us, sent, 0, 3, requests);

    input.sample.downtime_ms = 4;
    pcmig_ledger_feed(ledger, &input);
}

static struct pcmig_ledger_row phase(const struct pcmig_ledger *ledger, size_t index, enum pcmig_phase expected)
{
    struct pcmig_ledger_row row;

    assert_true(pcmig_ledger_phase(ledger, index, &row));
    assert_string_equal(pcmig_phase_name(row.phase), pcmig_phase_name(expected));
    return row;
}

static void assert_balanced(const struct pcmig_ledger *ledger)
{
    struct pcmig_ledger_balance balance;
    char text[256];

    pcmig_ledger_balance(ledger, &balance);
    pcmig_ledger_balance_describe(&balance, text, sizeof(text));
    assert_string_equal(text, "balanced");
    assert_true(balance.final && balance.balanced);
}

/* One pass at 10 s, half of a second one, drain, switch, post-copy with requests. QEMU 10's saw-tooth. */
static void postcopy(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;
    struct pcmig_ledger_totals totals;
    struct pcmig_ledger_balance balance;

    (void)state;
    event(l, 0, PCMIG_EVENT_MIGRATE_CALLED);
    event(l, 100 * MS, PCMIG_EVENT_DST_STARTED);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_SETUP);
    sample(l, 500 * MS, 0, GUEST_PAGES, 1, 0);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_PRECOPY);
    for (int i = 1; i <= 9; i++)
        sample(l, 500 * MS + i * SECOND, (uint64_t)i * 6800, GUEST_PAGES - (uint64_t)i * 6800, 1, 0);
    sample(l, 10500 * MS, 68000, 608 + 31804, 2, 0); /* the iteration event */
    sample(l, 12500 * MS, 81600, 32412 - 13600, 2, 0);
    action(l, 13 * SECOND, PCMIG_ACTION_DRAIN);
    action(l, 13400 * MS, PCMIG_ACTION_SWITCH);
    event(l, 13401 * MS, PCMIG_EVENT_SWITCH_ISSUED);
    event(l, 13410 * MS, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED);
    event(l, 13415 * MS, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_SWITCHOVER);
    event(l, 13501 * MS, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    sample(l, 14 * SECOND, 85000, 20000, 2, 600);
    sample(l, 15 * SECOND, 95000, 10000, 2, 1930);
    event(l, 16 * SECOND, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    event(l, 16100 * MS, PCMIG_EVENT_JOB_COMPLETED);
    final(l, 16101 * MS, 105000, 2000);

    assert_int_equal(pcmig_ledger_phase_count(l), 6);
    row = phase(l, 0, PCMIG_PHASE_SETUP);
    assert_int_equal(row.duration_us, 500 * MS);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_WIRE_BYTES], 0);
    row = phase(l, 1, PCMIG_PHASE_PRECOPY);
    assert_int_equal(row.start_us, 500 * MS);
    assert_int_equal(row.end_us, 13 * SECOND);
    assert_int_equal(row.remaining_start_bytes, (uint64_t)GUEST_PAGES * PAGE);
    /* The synchronisation at the switch shows 4588 more, dirtied in the 901 ms since the last sample. */
    assert_in_range(row.dirtied_pages, 31804 + 2540, 31804 + 2550);
    assert_in_range(row.retransmitted_pages, 81600 - GUEST_PAGES, 81600 - GUEST_PAGES + 1300);
    row = phase(l, 2, PCMIG_PHASE_DRAIN);
    assert_int_equal(row.duration_us, 401 * MS);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_REQUESTS], 0);
    row = phase(l, 3, PCMIG_PHASE_SWITCHOVER);
    assert_int_equal(row.duration_us, 100 * MS);
    assert_in_range(row.quantity[PCMIG_QUANTITY_REQUESTS], 90, 110); /* 600 over 599 ms, of which 100 ms here */
    assert_int_equal(row.dirtied_pages, 0);
    row = phase(l, 4, PCMIG_PHASE_POSTCOPY);
    assert_in_range(row.quantity[PCMIG_QUANTITY_REQUESTS], 1890, 1910);
    assert_int_equal(row.requests_peak_ps, 1330);
    assert_int_equal(row.remaining_end_bytes, 0);
    assert_true(row.complete);
    row = phase(l, 5, PCMIG_PHASE_FINISHED);
    assert_int_equal(row.duration_us, 0);
    assert_int_equal(row.start_us, 16 * SECOND);

    assert_int_equal(pcmig_ledger_pass_count(l), 2);
    assert_true(pcmig_ledger_pass(l, 0, &row));
    assert_true(row.complete);
    assert_int_equal(row.number, 1);
    assert_int_equal(row.duration_us, 10 * SECOND);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_NORMAL_PAGES] + row.quantity[PCMIG_QUANTITY_ZERO_PAGES], 68000);
    assert_int_equal(row.dirtied_pages, 31804);
    assert_int_equal(row.dirty_pages_ps, 3180);
    assert_int_equal(row.remaining_end_bytes, 32412 * PAGE);
    assert_true(pcmig_ledger_pass(l, 1, &row));
    assert_false(row.complete);
    assert_int_equal(row.end_us, 13401 * MS);
    assert_int_equal(row.remaining_start_bytes, 32412 * PAGE);
    assert_int_equal(row.retransmitted_permille, (15642 - 608) * 1000 / 15642); /* 608 were the first of theirs */
    assert_false(pcmig_ledger_pass(l, 2, &row));

    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.total_us, 16 * SECOND);
    assert_int_equal(totals.phase_us[PCMIG_PHASE_POSTCOPY], 2499 * MS);
    assert_int_equal(totals.downtime_reported_ms, 4);
    assert_int_equal(totals.downtime_events_us, 91 * MS);
    assert_int_equal(totals.passes, 1);
    assert_int_equal(totals.guest_pages, GUEST_PAGES);
    assert_int_equal(totals.sum.retransmitted_pages, 105000 - GUEST_PAGES);
    assert_int_equal(totals.sum.bytes_per_guest_page, totals.sum.quantity[PCMIG_QUANTITY_WIRE_BYTES] / GUEST_PAGES);
    assert_balanced(l);
    pcmig_ledger_balance(l, &balance);
    assert_int_equal(balance.last_interval[PCMIG_QUANTITY_REQUESTS], 70);
    pcmig_ledger_free(l);
}

/* QEMU 11: an iteration every 55 ms, dirtied pages appear steadily; pre-copy to the end. */
static void precopy(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;
    struct pcmig_ledger_totals totals;
    uint64_t sent = 0, dirtied = 0;
    int64_t t;

    (void)state;
    event(l, 0, PCMIG_EVENT_MIGRATE_CALLED);
    for (t = 55 * MS; sent < GUEST_PAGES; t += 55 * MS) {
        sample(l, t, sent, GUEST_PAGES - sent + dirtied, (uint64_t)(t / (55 * MS)), 0);
        sent += 1650;
        dirtied += 10;
    }
    event(l, t, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED);
    event(l, t + 80 * MS, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    final(l, t + 100 * MS, GUEST_PAGES + dirtied, 0);
    assert_balanced(l);
    assert_true(pcmig_ledger_pass(l, 0, &row));
    assert_in_range(row.dirtied_pages, dirtied - 30, dirtied);
    assert_in_range(row.dirty_pages_ps, 175, 185);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.downtime_events_us, 80 * MS);
    assert_int_equal(totals.sum.quantity[PCMIG_QUANTITY_REQUESTS], 0);
    assert_in_range(totals.sum.dirtied_pages, dirtied - 30, dirtied);
    assert_int_equal(totals.phase_us[PCMIG_PHASE_POSTCOPY], 0);
    pcmig_ledger_free(l);
}

/* From asking to whatever comes next, as far as it is pre-copy; each wait counts. */
static void gate(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_totals totals;

    (void)state;
    event(l, 0, PCMIG_EVENT_MIGRATE_CALLED);
    sample(l, 1 * SECOND, 100, GUEST_PAGES - 100, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.gate_us, 0);
    action(l, 2 * SECOND, PCMIG_ACTION_ASK);
    sample(l, 4 * SECOND, 400, GUEST_PAGES - 400, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.gate_us, 2 * SECOND); /* it goes on */
    action(l, 5 * SECOND, PCMIG_ACTION_UNDRAIN);  /* it was refused */
    action(l, 7 * SECOND, PCMIG_ACTION_ASK);
    action(l, 8 * SECOND, PCMIG_ACTION_DRAIN);
    action(l, 9 * SECOND, PCMIG_ACTION_UNDRAIN);
    action(l, 10 * SECOND, PCMIG_ACTION_ASK);
    event(l, 11 * SECOND, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED); /* pre-copy ended by itself */
    event(l, 12 * SECOND, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.gate_us, 5 * SECOND);
    assert_true(totals.gate_us <= totals.phase_us[PCMIG_PHASE_PRECOPY]);
    pcmig_ledger_free(l);
}

/* Before the migrate call; a turn that bounds pre-copy is none. */
static void others_first(void **state)
{
    const struct pcmig_input waits = {.t_us = 1 * SECOND, .kind = PCMIG_INPUT_TURN, .code = PCMIG_TURN_WAITING};
    const struct pcmig_input bounded = {.t_us = 26 * SECOND, .kind = PCMIG_INPUT_TURN, .code = PCMIG_TURN_BOUNDED};
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_totals totals;

    (void)state;
    pcmig_ledger_feed(l, &waits);
    pcmig_ledger_feed(l, &bounded);
    event(l, 26 * SECOND, PCMIG_EVENT_MIGRATE_CALLED);
    sample(l, 28 * SECOND, 100, GUEST_PAGES - 100, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.waited_us, 25 * SECOND);
    assert_int_equal(totals.phase_us[PCMIG_PHASE_SETUP], 27 * SECOND);
    pcmig_ledger_free(l);
}

static void no_final(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_balance balance;
    struct pcmig_ledger_totals totals;
    char text[64];

    (void)state;
    pcmig_ledger_totals(l, &totals); /* nothing fed at all */
    assert_int_equal(totals.total_us, 0);
    assert_int_equal(pcmig_ledger_phase_count(l), 0);
    sample(l, SECOND, 100, GUEST_PAGES - 100, 1, 0);
    pcmig_ledger_balance(l, &balance);
    assert_false(balance.final);
    assert_int_equal(pcmig_ledger_balance_describe(&balance, text, sizeof(text)), 19);
    assert_string_equal(text, "no final statistics");
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.downtime_reported_ms, -1);
    assert_int_equal(totals.downtime_events_us, -1);
    pcmig_ledger_free(l);
}

/* Final statistics that lie below what samples showed cannot be made to fit. */
static void off_by(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_input input;
    struct pcmig_ledger_balance balance;
    char text[256];

    (void)state;
    sample(l, SECOND, 0, GUEST_PAGES, 1, 0);
    event(l, 2 * SECOND, PCMIG_EVENT_SWITCH_ISSUED);
    sample(l, 3 * SECOND, 40000, 28608, 1, 500);
    input = figures(PCMIG_INPUT_FINAL, 4 * SECOND, 68608, 0, 1, 497);
    input.sample.normal_pages = 29988; /* the sample had 30000 */
    pcmig_ledger_feed(l, &input);
    pcmig_ledger_balance(l, &balance);
    assert_true(balance.final);
    assert_false(balance.balanced);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_NORMAL_PAGES], 12);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_REQUESTS], 3);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_ZERO_PAGES], 0);
    pcmig_ledger_balance_describe(&balance, text, sizeof(text));
    assert_string_equal(text, "not balanced: normal_pages +12, requests +3");
    pcmig_ledger_free(l);
}

static void backwards(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_totals totals;
    struct pcmig_ledger_balance balance;
    struct pcmig_input input;

    (void)state;
    sample(l, SECOND, 1000, GUEST_PAGES - 1000, 1, 0);
    sample(l, 2 * SECOND, 20000, GUEST_PAGES - 20000, 1, 0);
    /* Late: libvirt took it before the one above. */
    input = figures(PCMIG_INPUT_SAMPLE, 1500 * MS, 9000, GUEST_PAGES - 9000, 1, 0);
    input.t_us = 2100 * MS;
    pcmig_ledger_feed(l, &input);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.late_samples, 1);
    assert_int_equal(totals.counters_backwards, 0);
    assert_int_equal(totals.sum.quantity[PCMIG_QUANTITY_NORMAL_PAGES], 15000);
    /* A report without memory figures. */
    memset(&input, 0, sizeof(input));
    input.t_us = 2200 * MS;
    input.sample.queue_bytes = -1;
    pcmig_ledger_feed(l, &input);
    sample(l, 2300 * MS, 20040, GUEST_PAGES - 20040, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.counters_backwards, 0);
    assert_int_equal(totals.sum.quantity[PCMIG_QUANTITY_NORMAL_PAGES], 15030);
    /* A little less, twice: nothing new, and nothing counted twice when it catches up. */
    sample(l, 2400 * MS, 20000, GUEST_PAGES - 20000, 1, 0);
    sample(l, 2500 * MS, 20080, GUEST_PAGES - 20080, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.counters_backwards, 3); /* wire bytes, normal, zero */
    assert_int_equal(totals.sum.quantity[PCMIG_QUANTITY_NORMAL_PAGES], 15060);
    /* Begun anew: goes on from zero, and the balance says what is too much. */
    sample(l, 3 * SECOND, 400, GUEST_PAGES - 400, 1, 0);
    final(l, 4 * SECOND, 68608, 0);
    pcmig_ledger_balance(l, &balance);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_NORMAL_PAGES], 15060);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_ZERO_PAGES], 5020);
    pcmig_ledger_free(l);
}

/* A remainder that grows after the switch is not the guest's doing at the source. */
static void nothing_dirtied_after(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_totals totals;

    (void)state;
    sample(l, 0, 0, GUEST_PAGES, 1, 0);
    sample(l, SECOND, 1000, GUEST_PAGES - 900, 1, 0);
    event(l, SECOND, PCMIG_EVENT_SWITCH_ISSUED);
    event(l, SECOND, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    sample(l, 2 * SECOND, 2000, GUEST_PAGES, 1, 0);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.sum.dirtied_pages, 100);
    pcmig_ledger_free(l);
}

/* Time that runs backwards stands still instead. */
static void old_times(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_totals totals;

    (void)state;
    event(l, -5, PCMIG_EVENT_MIGRATE_CALLED);
    event(l, SECOND, PCMIG_EVENT_DST_STARTED);
    sample(l, 500 * MS, 10, GUEST_PAGES - 10, 1, 0);
    event(l, INT64_MIN, PCMIG_EVENT_SWITCH_ISSUED);
    event(l, INT64_MAX, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.phase_us[PCMIG_PHASE_SETUP], SECOND);
    assert_true(totals.total_us > 0);
    assert_true(totals.sum.complete);
    pcmig_ledger_free(l);
}

/* libvirt has the figures of its last moment, as of a pre-copy that goes on. */
static void adopted_when_it_was_broken(void **state)
{
    static const enum pcmig_event told[] = {PCMIG_EVENT_SRC_POSTCOPY_FAILED, PCMIG_EVENT_DST_POSTCOPY_FAILED};

    (void)state;
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        struct pcmig_ledger *l = new_ledger();

        sample(l, 0, 10000, 58608, 1, 0);
        assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_PRECOPY);
        event(l, SECOND, told[i]);
        sample(l, 2 * SECOND, 10000, 58608, 1, 0);
        assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_PAUSED);
        event(l, 3 * SECOND, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
        assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_POSTCOPY);
        pcmig_ledger_free(l);
    }
}

static void paused(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;

    (void)state;
    sample(l, 0, 0, GUEST_PAGES, 1, 0);
    event(l, SECOND, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY); /* the destination is not heard: no end of a switchover */
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_POSTCOPY);
    sample(l, 2 * SECOND, 10000, 58608, 1, 100);
    event(l, 3 * SECOND, PCMIG_EVENT_SRC_POSTCOPY_FAILED);
    event(l, 3 * SECOND, PCMIG_EVENT_DST_POSTCOPY_FAILED);
    event(l, 4 * SECOND, PCMIG_EVENT_CALL_FAILED);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_PAUSED);
    event(l, 13 * SECOND, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
    event(l, 13 * SECOND, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    sample(l, 14 * SECOND, 30000, 38608, 1, 300);
    row = phase(l, 3, PCMIG_PHASE_PAUSED);
    assert_int_equal(row.duration_us, 10 * SECOND);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_NORMAL_PAGES], 0);
    row = phase(l, 2, PCMIG_PHASE_POSTCOPY);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_REQUESTS], 200);
    row = phase(l, 4, PCMIG_PHASE_POSTCOPY);
    assert_int_equal(row.quantity[PCMIG_QUANTITY_REQUESTS], 100);
    assert_false(row.complete);
    pcmig_ledger_free(l);
}

/* Our call failed, the job in libvirtd did not. */
static void weak_end(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;

    (void)state;
    sample(l, SECOND, 100, GUEST_PAGES, 1, 0);
    event(l, 2 * SECOND, PCMIG_EVENT_CALL_FAILED);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_FINISHED);
    sample(l, 3 * SECOND, 100, GUEST_PAGES, 1, 0);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_FINISHED);
    sample(l, 4 * SECOND, 6000, GUEST_PAGES - 6000, 1, 0);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_PRECOPY);
    event(l, 5 * SECOND, PCMIG_EVENT_CALL_FAILED);
    event(l, 6 * SECOND, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_POSTCOPY);
    event(l, 7 * SECOND, PCMIG_EVENT_JOB_COMPLETED);
    sample(l, 8 * SECOND, 9000, GUEST_PAGES - 9000, 1, 0);
    assert_int_equal(pcmig_ledger_phase_now(l), PCMIG_PHASE_FINISHED);
    phase(l, 3, PCMIG_PHASE_PRECOPY);
    row = phase(l, 5, PCMIG_PHASE_POSTCOPY);
    /* 2250 came in one second of pre-copy and one of post-copy. */
    assert_int_equal(row.quantity[PCMIG_QUANTITY_NORMAL_PAGES], 1125);
    pcmig_ledger_free(l);
}

/* Hundreds of passes and drains: the tables stay as large as they are, and everything still adds up. */
static void many(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;
    struct pcmig_ledger_totals totals;
    const struct pcmig_ledger_entry *entries;
    unsigned lost;
    uint64_t sent = 0, in_passes = 0;
    int64_t t = 0;

    (void)state;
    sample(l, t, 0, GUEST_PAGES, 1, 0);
    for (uint64_t i = 2; i < 400; i++) {
        sent += i == 2 ? GUEST_PAGES : 1000;
        t += SECOND;
        sample(l, t, sent, 1000, i, 0);
        action(l, t, i % 2 ? PCMIG_ACTION_DRAIN : PCMIG_ACTION_UNDRAIN);
        action(l, t, PCMIG_ACTION_SET_PACE);
    }
    event(l, t, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED);
    event(l, t + 5, PCMIG_EVENT_DST_RESUMED_MIGRATED);
    final(l, t + 10, sent + 1000, 0);
    assert_balanced(l);
    pcmig_ledger_totals(l, &totals);
    assert_int_equal(totals.passes, 398);
    assert_int_equal(pcmig_ledger_pass_count(l), 256);
    assert_true(pcmig_ledger_pass(l, 255, &row));
    assert_int_equal(row.merged, 399 - 256);
    for (size_t i = 0; pcmig_ledger_pass(l, i, &row); i++)
        in_passes += row.quantity[PCMIG_QUANTITY_NORMAL_PAGES] + row.quantity[PCMIG_QUANTITY_ZERO_PAGES];
    assert_in_range(in_passes, sent, sent + 1000);
    assert_true(pcmig_ledger_phase_count(l) <= 64 + PCMIG_PHASE_COUNT);
    assert_int_equal(totals.total_us, t + 5);
    assert_int_equal(totals.phase_us[PCMIG_PHASE_SWITCHOVER], 5);
    assert_int_equal(pcmig_ledger_events(l, &entries, &lost), 256);
    assert_true(lost > 100);
    pcmig_ledger_free(l);
}

static void entries(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    const struct pcmig_ledger_entry *list;
    struct pcmig_input request = {.t_us = 3, .kind = PCMIG_INPUT_REQUEST, .code = PCMIG_REQUEST_SWITCH};
    static const struct pcmig_ledger_entry expected[] = {
        {0, PCMIG_LEDGER_ENTRY_PHASE, PCMIG_PHASE_SETUP},
        {1, PCMIG_LEDGER_ENTRY_EVENT, PCMIG_EVENT_MIGRATE_CALLED},
        {2, PCMIG_LEDGER_ENTRY_PHASE, PCMIG_PHASE_PRECOPY},
        {3, PCMIG_LEDGER_ENTRY_REQUEST, PCMIG_REQUEST_SWITCH},
        {3, PCMIG_LEDGER_ENTRY_ACTION, PCMIG_ACTION_DRAIN},
        {3, PCMIG_LEDGER_ENTRY_PHASE, PCMIG_PHASE_DRAIN},
        {4, PCMIG_LEDGER_ENTRY_EVENT, PCMIG_EVENT_SWITCH_REFUSED},
        {6, PCMIG_LEDGER_ENTRY_ACTION, PCMIG_ACTION_UNDRAIN},
        {6, PCMIG_LEDGER_ENTRY_PHASE, PCMIG_PHASE_PRECOPY},
    };
    struct pcmig_input iteration = {.t_us = 2, .kind = PCMIG_INPUT_ITERATION, .code = 1};
    struct pcmig_input tick = {.t_us = 0, .kind = PCMIG_INPUT_TICK};

    (void)state;
    pcmig_ledger_feed(l, &tick);
    event(l, 1, PCMIG_EVENT_MIGRATE_CALLED);
    pcmig_ledger_feed(l, &iteration);
    pcmig_ledger_feed(l, &request);
    action(l, 3, PCMIG_ACTION_DRAIN);
    event(l, 4, PCMIG_EVENT_SWITCH_REFUSED);
    event(l, 5, PCMIG_EVENT_SWITCH_REFUSED);
    action(l, 6, PCMIG_ACTION_UNDRAIN);
    event(l, 7, (enum pcmig_event)99);
    request.code = INT64_MAX;
    pcmig_ledger_feed(l, &request);
    assert_int_equal(pcmig_ledger_events(l, &list, NULL), sizeof(expected) / sizeof(expected[0]));
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_int_equal(list[i].t_us, expected[i].t_us);
        assert_int_equal(list[i].kind, expected[i].kind);
        assert_int_equal(list[i].code, expected[i].code);
    }
    pcmig_ledger_free(l);
}

/* Absurd figures stay absurd, but none wraps. */
static void extremes(void **state)
{
    struct pcmig_ledger *l = new_ledger();
    struct pcmig_ledger_row row;
    struct pcmig_ledger_totals totals;
    struct pcmig_ledger_balance balance;
    struct pcmig_input input = figures(PCMIG_INPUT_SAMPLE, 1, 5, 5, 1, 0);

    (void)state;
    pcmig_ledger_feed(l, &input);
    memset(&input.sample, 0xff, sizeof(input.sample));
    input.t_us = 2;
    pcmig_ledger_feed(l, &input);
    event(l, 3, PCMIG_EVENT_SWITCH_ISSUED);
    input.sample.normal_pages = 1;
    pcmig_ledger_feed(l, &input);
    input.sample.normal_pages = UINT64_MAX;
    input.t_us = INT64_MAX;
    pcmig_ledger_feed(l, &input);
    input.kind = PCMIG_INPUT_FINAL;
    input.sample.normal_pages = 0;
    pcmig_ledger_feed(l, &input);
    pcmig_ledger_totals(l, &totals);
    assert_true(totals.sum.quantity[PCMIG_QUANTITY_NORMAL_PAGES] == UINT64_MAX);
    assert_true(totals.sum.retransmitted_permille <= 1000);
    pcmig_ledger_balance(l, &balance);
    assert_int_equal(balance.difference[PCMIG_QUANTITY_NORMAL_PAGES], INT64_MAX);
    for (size_t i = 0; pcmig_ledger_phase(l, i, &row); i++)
        assert_true(row.duration_us >= 0 && row.retransmitted_permille <= 1000);
    pcmig_ledger_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(postcopy),
        cmocka_unit_test(precopy),
        cmocka_unit_test(gate),
        cmocka_unit_test(others_first),
        cmocka_unit_test(no_final),
        cmocka_unit_test(off_by),
        cmocka_unit_test(backwards),
        cmocka_unit_test(old_times),
        cmocka_unit_test(nothing_dirtied_after),
        cmocka_unit_test(adopted_when_it_was_broken),
        cmocka_unit_test(paused),
        cmocka_unit_test(weak_end),
        cmocka_unit_test(many),
        cmocka_unit_test(entries),
        cmocka_unit_test(extremes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
