/* SPDX-License-Identifier: Apache-2.0 */
/* What auto decides on links from 100 Mb/s to 100 Gb/s, under limits of QEMU's that others set, and for guests that
 * write in bursts. The guest of this model has a hot set that is dirty again as soon as it was sent, or writes what
 * a test tells it to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/policy.h"

#define PAGE    UINT64_C(4096)
#define GB      UINT64_C(1000000000)
#define STEP_US INT64_C(50000)

struct world {
    struct pcmig_params params;
    struct pcmig_policy *policy;
    struct pcmig_decision decision;
    bool rare; /* QEMU up to 10: the bitmap is synchronised at the end of a pass */
    uint64_t total, hot, bps;
    int64_t qemu_limit_ms;
    int64_t t_us;
    uint64_t sent, counted, wire, remaining, dirty; /* bytes */
    uint64_t written_bps;                           /* besides the hot set, everywhere */
    unsigned encoded_percent;                       /* of what is sent again, as XBZRLE */
    uint64_t encoded, iteration;
    int64_t still_us; /* after each step QEMU stands still for so long, and every other look finds the queue empty */
    bool before;      /* statistics are those from just before each synchronisation */
    bool finished;
};

static struct world w;

static void begin(enum pcmig_policy_kind kind, uint64_t total, uint64_t hot, uint64_t bps)
{
    pcmig_policy_free(w.policy);
    pcmig_params_defaults(&w.params);
    w = (struct world){.params = w.params,
                       .total = total,
                       .hot = hot,
                       .bps = bps,
                       .qemu_limit_ms = 300,
                       .remaining = total,
                       .iteration = 1};
    w.policy = pcmig_policy_new(kind, &w.params, false);
    assert_non_null(w.policy);
}

static void under_nova(void)
{
    pcmig_policy_free(w.policy);
    w.params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] = 500; /* its last step */
    w.params.value[PCMIG_PARAM_DOWNTIME_CONTROL] = 0;
    w.policy = pcmig_policy_new(PCMIG_POLICY_AUTO, &w.params, false);
    assert_non_null(w.policy);
}

static int drop(void **state)
{
    (void)state;
    pcmig_policy_free(w.policy);
    memset(&w, 0, sizeof(w));
    return 0;
}

static void tell(enum pcmig_input_kind kind, int64_t code)
{
    struct pcmig_input input = {.t_us = w.t_us, .kind = kind, .code = code};

    pcmig_policy_feed(w.policy, &input, &w.decision);
    if (kind == PCMIG_INPUT_DOWNTIME_LIMIT)
        w.qemu_limit_ms = code;
}

static void synchronise(void)
{
    w.remaining += w.dirty;
    w.dirty = 0;
    w.iteration++;
    w.finished = w.sent >= w.total && w.remaining <= w.bps / 1000 * (uint64_t)w.qemu_limit_ms;
}

static void step(void)
{
    uint64_t bytes = w.bps / (1000000 / STEP_US), again, seen;
    bool first = w.sent < w.total;
    struct pcmig_input input = {.kind = PCMIG_INPUT_SAMPLE};

    w.t_us += STEP_US + w.still_us;
    if (bytes > w.remaining)
        bytes = w.remaining;
    w.sent += bytes;
    w.remaining -= bytes;
    again = first ? 0 : bytes * w.encoded_percent / 100;
    w.encoded += again;
    w.counted += bytes - again;
    w.wire += bytes - again / 2;
    /* Hot pages that were sent are dirty at once; in the first pass those that were reached. */
    w.dirty += w.written_bps / (1000000 / STEP_US);
    if (w.dirty + w.remaining < (first ? w.hot * (w.sent / 1000) / (w.total / 1000) : w.hot))
        w.dirty = (first ? w.hot * (w.sent / 1000) / (w.total / 1000) : w.hot) - w.remaining;
    seen = w.remaining;
    if (w.rare ? w.remaining == 0 : true)
        synchronise();
    if (!w.before)
        seen = w.remaining;
    input.t_us = w.t_us;
    input.sample = (struct pcmig_sample){
        .page_size_bytes = PAGE,
        .memory_total_bytes = w.total,
        .memory_processed_bytes = w.wire,
        .normal_pages = w.counted / PAGE,
        .encoded_pages = w.encoded / PAGE,
        .memory_remaining_bytes = seen,
        .iteration = w.iteration,
        .queue_bytes = w.still_us > 0 && w.iteration % 2 == 0 ? 0 : 4000000,
    };
    pcmig_policy_feed(w.policy, &input, &w.decision);
}

/* Until the decision to drain, or the end of pre-copy, or FOR_S. Returns the seconds since the start. */
static double run(double for_s)
{
    while ((double)w.t_us < for_s * 1e6 && !w.finished) {
        step();
        if (w.decision.action == PCMIG_ACTION_DRAIN)
            break;
    }
    return (double)w.t_us / 1e6;
}

static const char *decided(void)
{
    return w.finished ? "finished" : pcmig_reason_name(w.decision.reason);
}

/* --- the limit that is in force ----------------------------------------------------------------------------------- */

/* Nova's limit is 50 ms for hours, and 500 at last; a hot set between the two was waited for for 4800 s and more. */
static void nova_steps(void **state)
{
    (void)state;
    for (int rare = 0; rare < 2; rare++) {
        double pass_s = 64 * 1.073741824 / 1.2;

        begin(PCMIG_POLICY_AUTO, UINT64_C(64) << 30, 300000000, 1200000000);
        under_nova();
        w.rare = rare != 0;
        tell(PCMIG_INPUT_DOWNTIME_LIMIT, 50);
        assert_true(run(4800) < pass_s + 10);
        assert_string_equal(decided(), "not-converging");
    }
}

/* Nobody told the limit in force, or QEMU has its own opinion of the rate: the wait for its end is bounded. */
static void what_fits_is_not_waited_for_for_ever(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, UINT64_C(64) << 30, 300000000, 1200000000);
    w.qemu_limit_ms = 50;
    assert_true(run(4800) < 64 * 1.073741824 / 1.2 + 10);
    assert_string_equal(decided(), "not-converging");
    /* The guest of 112 MiB that rewrites 4 MiB, seen on a cloud at 100 Mb/s: still in pre-copy after 200 s. */
    begin(PCMIG_POLICY_AUTO, UINT64_C(112) << 20, 4 << 20, 12500000);
    under_nova();
    tell(PCMIG_INPUT_DOWNTIME_LIMIT, 50);
    assert_true(run(200) < 112 * 1.048576 / 12.5 + 10);
    assert_string_equal(decided(), "not-converging");
}

/* QEMU 11 synchronises all the time, and what is left falls in between: statistics that always come just before say
 * that it fits in Nova's 50 ms, and what each synchronisation finds does not. */
static void what_each_synchronisation_finds_counts(void **state)
{
    double pass_s = 64 * 1.073741824 / 1.2;

    (void)state;
    begin(PCMIG_POLICY_AUTO, UINT64_C(64) << 30, 100000000, 1200000000);
    under_nova();
    w.before = true;
    tell(PCMIG_INPUT_DOWNTIME_LIMIT, 40);
    assert_true(run(4800) < pass_s + 2);
    assert_string_equal(decided(), "not-converging");
}

/* A limit that is raised counts from then on. */
static void raised_limit(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, UINT64_C(64) << 30, 300000000, 1200000000);
    under_nova();
    tell(PCMIG_INPUT_DOWNTIME_LIMIT, 50);
    (void)run(30);
    tell(PCMIG_INPUT_DOWNTIME_LIMIT, 275);
    (void)run(4800);
    assert_string_equal(decided(), "finished");
}

/* The link becomes a quarter of what it was: what fits in the limit is a quarter as well. */
static void slower_link(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, UINT64_C(64) << 30, 200000000, 1200000000);
    (void)run(30);
    w.bps = 300000000;
    assert_true(run(3600) < 30 + 35 / 0.3 + 10);
    assert_string_equal(decided(), "not-converging");
}

/* The guest waits for what QEMU has still to send, and for what stands in the queue before it: 4 MB in this world. */
static void the_queue_is_part_of_the_pause(void **state)
{
    static const struct {
        uint64_t bps;
        int64_t qemu_ms;
    } links[] = {{12500000, 300 / 4}, {40000000, 200}, {125000000, 268}, {UINT64_C(1250000000), 297}};

    (void)state;
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        begin(PCMIG_POLICY_NEVER, UINT64_C(16) << 30, 0, links[i].bps);
        assert_int_equal(pcmig_policy_qemu_downtime_ms(w.policy, 0), 300); /* nothing is known of the link yet */
        (void)run(5);
        assert_in_range(pcmig_policy_qemu_downtime_ms(w.policy, 0), links[i].qemu_ms - 3, links[i].qemu_ms + 3);
        assert_int_equal(pcmig_policy_qemu_downtime_ms(w.policy, links[i].qemu_ms + 10), links[i].qemu_ms + 10);
    }
}

/* --- bursts ------------------------------------------------------------------------------------------------------- */

/* As much as 0.2 s can write at 6 GB/s, early in the second pass, and nothing after it: 4 s more of pre-copy move
 * it. */
static void a_burst_is_no_verdict(void **state)
{
    static const uint64_t links_bps[] = {12500000, 125000000, 1200000000, 3000000000, 12000000000};

    (void)state;
    for (size_t i = 0; i < sizeof(links_bps) / sizeof(links_bps[0]); i++) {
        begin(PCMIG_POLICY_AUTO, links_bps[i] * 20, links_bps[i], links_bps[i]);
        while (w.sent < w.total)
            (void)run((double)(w.t_us + STEP_US) / 1e6);
        w.hot = 0;
        (void)run((double)w.t_us / 1e6 + 0.2);
        w.written_bps = links_bps[i] * 5;
        (void)run((double)w.t_us / 1e6 + 0.2);
        w.written_bps = 0;
        (void)run(1000);
        assert_string_equal(decided(), "finished");
    }
}

/* A guest that goes on writing is known for one soon, on any link. */
static void what_lasts_is_one(void **state)
{
    static const uint64_t links_bps[] = {12500000, 125000000, 1200000000, 3000000000, 12000000000};

    (void)state;
    for (size_t i = 0; i < sizeof(links_bps) / sizeof(links_bps[0]); i++) {
        begin(PCMIG_POLICY_AUTO, links_bps[i] * 20, links_bps[i] * 10, links_bps[i]);
        assert_true(run(1000) < 20 + 3);
        /* Where the first pass is cut, half of what is dirtied in it is yet to be sent for the first time. */
        assert_true(strcmp(decided(), "not-converging") == 0 || strcmp(decided(), "too-slow") == 0);
    }
}

/* It is known before all is used up that going on may cost, 7.5 %. It took 9 % where a first pass lasts 8 s. */
static void what_lasts_is_known_in_time(void **state)
{
    static const uint64_t links_bps[] = {12500000, 125000000, 1200000000, 3000000000, 12000000000};

    (void)state;
    for (size_t i = 0; i < sizeof(links_bps) / sizeof(links_bps[0]); i++) {
        begin(PCMIG_POLICY_AUTO, links_bps[i] * 8, links_bps[i], links_bps[i]);
        assert_true(run(1000) < 8 * 1.075);
        assert_string_equal(decided(), "not-converging");
    }
}

/* QEMU 11 stands still while it synchronises, which post-copy does not. Where that makes pre-copy half as fast, also a
 * guest that writes nothing is switched, and soon: it went to the end in twice the time. Where it costs little, or the
 * queue goes on meanwhile, it is not. */
static void what_stands_still_is_too_slow(void **state)
{
    static const uint64_t bps = 1200000000;

    (void)state;
    begin(PCMIG_POLICY_AUTO, bps * 200, 0, bps);
    w.still_us = 60000;
    assert_true(run(1000) < 10);
    assert_string_equal(decided(), "too-slow");

    begin(PCMIG_POLICY_AUTO, bps * 200, 0, bps);
    w.still_us = 10000;
    (void)run(1000);
    assert_string_equal(decided(), "finished");

    begin(PCMIG_POLICY_AUTO, bps * 200, 0, bps);
    w.rare = true; /* QEMU up to 10 */
    w.still_us = 60000;
    (void)run(1000);
    assert_string_equal(decided(), "finished");
}

/* A guest whose passes become shorter, though slowly. What a second pass has cost counts, and what is foreseen comes on
 * top of it: both together were up to twice what pre-copy may cost. */
static void what_it_has_cost_counts_with_what_it_will(void **state)
{
    static const uint64_t bps = 125000000;
    double left_s;

    (void)state;
    begin(PCMIG_POLICY_AUTO, bps * 500, bps * 40, bps);
    w.rare = true;
    while (w.sent < w.total)
        (void)run((double)(w.t_us + STEP_US) / 1e6);
    w.hot = bps * 24; /* 40 s of the link in the second pass, and 24 in each that follows */
    left_s = run(5000) + (double)w.remaining / (double)bps;
    assert_string_not_equal(decided(), "finished");
    assert_true(left_s < 500 + 40 + 24 + 3);
}

/* Another migration over the link has measured it: that counts until this one has. */
static void told_of_the_link(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_IMMEDIATE, GB, 0, 125000000);
    tell(PCMIG_INPUT_LINK_RATE, 120000000);
    assert_int_equal(pcmig_policy_link_bps(w.policy), 120000000);
    assert_true(run(10) < 0.2); /* there is nothing to wait for */
    assert_string_equal(decided(), "immediate");

    begin(PCMIG_POLICY_AUTO, GB * 10, 0, 125000000);
    (void)run(3);
    tell(PCMIG_INPUT_LINK_RATE, 1000000);
    assert_in_range(pcmig_policy_link_bps(w.policy), 120000000, 130000000);
}

/* Bursts without end: after each the rest looks like little, and what it all has cost counts as well. It went on
 * until so much time had passed, and then what was left came on top. */
static void bursts_without_end(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, GB * 14 / 10, GB);
    while (w.sent < w.total)
        (void)run((double)(w.t_us + STEP_US) / 1e6);
    w.hot = 0;
    for (int i = 0; i < 100 && w.decision.action != PCMIG_ACTION_DRAIN; i++) {
        (void)run((double)w.t_us / 1e6 + 0.8);
        w.dirty += w.decision.action != PCMIG_ACTION_DRAIN ? GB * 8 / 10 : 0;
    }
    assert_int_equal(w.decision.action, PCMIG_ACTION_DRAIN);
    assert_true((double)w.t_us / 1e6 + (double)w.remaining / GB < 21.4 * 1.075 + 0.6);
}

/* Nearly all is written again, and yet the next pass is short enough. */
static void the_next_pass_is_the_last(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, 0, GB);
    w.written_bps = GB * 7 / 10;
    w.rare = true;
    tell(PCMIG_INPUT_DOWNTIME_LIMIT, 12000);
    (void)run(1000);
    assert_string_equal(decided(), "finished");
}

/* --- known early -------------------------------------------------------------------------------------------------- */

/* QEMU 10 tells what was dirtied at the end of a pass only. With its own sampling, the first pass is enough. */
static void known_after_the_first_pass(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, 10 * GB, GB);
    w.rare = true;
    assert_true(run(1000) > 29); /* without */
    assert_string_equal(decided(), "not-converging");
    begin(PCMIG_POLICY_AUTO, 20 * GB, 10 * GB, GB);
    w.rare = true;
    (void)run(2);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * GB));
    assert_true(run(1000) < 20.6);
    assert_string_equal(decided(), "dirty-rate");
    assert_int_equal(w.decision.a, 3 * GB);
}

/* QEMU 11 tells what was dirtied within the first pass as well. Half of what is sent is dirty again, for a guest of
 * which the sampling says that it writes more than the link carries: sent in vain as soon as it is worth half of what
 * gentleness may cost, 0.75 s of 20. It was waited for to the end of the pass. Not when there is a deadline until which
 * to wait. */
static void known_within_the_first_pass(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, 0, GB);
    w.written_bps = GB / 2;
    (void)run(1);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * GB));
    assert_in_range(run(1000) * 1000, 1300, 2000);
    assert_string_equal(decided(), "dirty-rate");
    begin(PCMIG_POLICY_DEADLINE, 20 * GB, 0, GB);
    w.written_bps = GB / 2;
    (void)run(1);
    assert_true(run(1000) > 19.0);
    assert_true(run(1000) > 19.0);
    /* Little of what is sent is dirty again: the whole pass is worth it. */
    begin(PCMIG_POLICY_AUTO, 20 * GB, 0, GB);
    w.written_bps = GB / 100;
    (void)run(1);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * GB));
    assert_true(run(1000) > 19.0);
}

/* On a slow link the same guest would be silent for 0.1 s longer, while it asks for the pages of its kernel that the
 * pass did not bring: there the pass goes on to its end. */
static void a_slow_link_has_its_first_pass(void **state)
{
    (void)state;
    for (uint64_t mbps = 100; mbps <= 1000; mbps += 900) {
        uint64_t bps = mbps * 117000;

        begin(PCMIG_POLICY_AUTO, 20 * bps, 0, bps);
        w.written_bps = bps / 2;
        (void)run(1);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * bps));
        assert_in_range(run(1000) * 1000, mbps == 100 ? 19500 : 1300, mbps == 100 ? 20600 : 2000);
        assert_string_equal(decided(), "dirty-rate");
    }
}

/* What the guest asks for first is as much for a large guest as for a small one, and what is sent in vain is not: a
 * pass of ten minutes is cut for it. It cost a large guest five minutes that it was silent for 0.1 s less. */
static void a_slow_link_does_not_send_for_ever(void **state)
{
    const uint64_t bps = 100 * UINT64_C(117000);

    (void)state;
    begin(PCMIG_POLICY_AUTO, 600 * bps, 0, bps);
    w.written_bps = bps / 2;
    (void)run(1);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * bps));
    assert_in_range(run(1000), 10, 120);
    assert_string_equal(decided(), "dirty-rate");
}

/* QEMU 11 stands still for a third of the time. With a round trip of 15 ms the guest would be silent for seconds, was
 * it switched for that: it has its first pass. */
static void a_far_guest_has_its_first_pass(void **state)
{
    double at[2];

    (void)state;
    for (int far = 0; far < 2; far++) {
        begin(PCMIG_POLICY_AUTO, 60 * GB, 0, GB);
        w.still_us = STEP_US / 2;
        w.written_bps = GB / 1000;
        (void)run(1);
        tell(PCMIG_INPUT_ROUND_TRIP, far ? 15000 : 20);
        at[far] = run(1000);
    }
    assert_in_range(at[0], 1, 20);
    assert_in_range(at[1], 80, 200);
}

/* What the guest asks for first takes a round trip each. Where that is long, the first pass goes on until little of it
 * is missing, as long as that costs no more than it may. */
static void a_long_round_trip_has_more_of_its_first_pass(void **state)
{
    const uint64_t bps = 1000 * UINT64_C(117000);
    double at[2];

    (void)state;
    for (int far = 0; far < 2; far++) {
        begin(PCMIG_POLICY_AUTO, 20 * bps, 0, bps);
        w.written_bps = bps / 10;
        (void)run(1);
        tell(PCMIG_INPUT_ROUND_TRIP, far ? 1000 : 20);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * bps));
        at[far] = run(1000);
        assert_string_equal(decided(), "dirty-rate");
    }
    assert_true(at[0] < 12);
    assert_in_range(at[1] * 10, at[0] * 10 + 30, 190);
}

/* It may cost more than that, as long as it is a smaller part of the time than the silence is of 0.6 s: the guest was
 * silent for 0.2 s to save a fifth of the time. Those who wait do not pay for it. */
static void a_long_round_trip_is_worth_some_time(void **state)
{
    static const struct {
        int64_t round_trip_us, behind;
        double least, most; /* seconds until the switch, of a first pass of 20 */
    } cases[] = {{1000, 0, 17, 20}, {200, 0, 1, 12}, {1000, 1, 1, 12}};
    const uint64_t bps = 1000 * UINT64_C(117000);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double at;

        begin(PCMIG_POLICY_AUTO, 20 * bps, 0, bps);
        w.written_bps = bps / 4;
        (void)run(1);
        tell(PCMIG_INPUT_ROUND_TRIP, cases[i].round_trip_us);
        tell(PCMIG_INPUT_BEHIND, cases[i].behind);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * bps));
        at = run(1000);
        assert_string_equal(decided(), "dirty-rate");
        assert_true(at > cases[i].least && at < cases[i].most);
    }
}

/* Post-copy sends a huge page as a whole for each small one of it that is missing: what a first pass sends of a guest
 * that does not converge is sent in vain from the start, with QEMU 10 too. */
static void huge_pages_make_a_first_pass_vain(void **state)
{
    const uint64_t bps = 1000 * UINT64_C(117000);

    (void)state;
    for (int huge = 0; huge < 2; huge++) {
        begin(PCMIG_POLICY_AUTO, 20 * bps, 10 * bps, bps);
        w.rare = true;
        (void)run(1);
        if (huge)
            tell(PCMIG_INPUT_HOST_PAGE, 2 << 20);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(bps * 9 / 10 + bps / 50));
        assert_in_range(run(1000) * 10, huge ? 10 : 199, huge ? 20 : 206);
        assert_string_equal(decided(), "dirty-rate");
    }
}

/* When a guest of which the sampling says that it does not converge is switched, at 100 Mb/s, in seconds of 20 that a
 * pass takes, with so many migrations that wait for it. */
static double switched_before(int64_t behind, bool rare)
{
    const uint64_t bps = 11700000;

    begin(PCMIG_POLICY_AUTO, 20 * bps, rare ? 10 * bps : 0, bps);
    w.rare = rare;
    w.written_bps = rare ? 0 : bps / 2;
    (void)run(1);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(bps * 9 / 10 + bps / 50));
    tell(PCMIG_INPUT_BEHIND, behind);
    return run(1000);
}

/* The time in which pages are sent in vain is lost to each that waits. The more of them there are, the sooner the first
 * pass is cut; with QEMU 11, which stands still for longer at the switch, less so. It was sent to its end for whoever
 * waited. */
static void those_who_wait_are_reckoned_with(void **state)
{
    (void)state;
    assert_in_range(switched_before(0, true) * 10, 199, 206);
    assert_in_range(switched_before(1, true) * 10, 130, 145);
    assert_in_range(switched_before(2, true) * 10, 75, 90);
    assert_in_range(switched_before(3, true) * 10, 25, 40);
    assert_in_range(switched_before(1000000, true) * 10, 8, 30);
    assert_string_equal(decided(), "dirty-rate");
    assert_in_range(switched_before(2, false) * 10, 195, 206);
    assert_in_range(switched_before(4, false) * 10, 145, 165);
    assert_in_range(switched_before(7, false) * 10, 10, 30);
    assert_string_equal(decided(), "dirty-rate");
    assert_in_range(switched_before(-1, true) * 10, 199, 206);
}

/* To learn from a second pass what a guest is like, a second of the link, is worth its time alone, and not when others
 * wait. A guest that does converge is not switched for whoever waits. */
static void a_second_pass_is_dear_to_those_who_wait(void **state)
{
    (void)state;
    for (int64_t behind = 0; behind <= 1000; behind += behind > 0 ? 999 : 1) {
        begin(PCMIG_POLICY_AUTO, 20 * GB, GB, GB);
        w.rare = true;
        (void)run(1);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(GB * 8 / 10));
        tell(PCMIG_INPUT_BEHIND, behind);
        if (behind == 0)
            assert_true(run(1000) > 21);
        else
            assert_true(run(1000) < 20.5);
        assert_string_not_equal(decided(), "finished");

        begin(PCMIG_POLICY_AUTO, 20 * GB, GB / 5, GB);
        w.rare = true;
        (void)run(1);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(GB / 5));
        tell(PCMIG_INPUT_BEHIND, behind);
        (void)run(1000);
        assert_string_equal(decided(), "finished");
    }
}

/* A pass that began under a bound for the sake of others: what was sampled and what is left say as much as in any
 * other. Such a guest paid a whole pass more before it was switched, and all that waited for it as well. */
static void known_although_it_was_bounded(void **state)
{
    (void)state;
    for (int rare = 0; rare < 2; rare++) {
        begin(PCMIG_POLICY_AUTO, 20 * GB, rare ? 10 * GB : 0, GB);
        w.rare = rare != 0;
        w.written_bps = rare ? 0 : GB / 2;
        tell(PCMIG_INPUT_TURN, PCMIG_TURN_BOUNDED);
        (void)run(1);
        tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * GB));
        tell(PCMIG_INPUT_TURN, PCMIG_TURN_FREE);
        assert_true(run(1000) < (rare ? 20.6 : 2));
        assert_string_equal(decided(), "dirty-rate");
    }
}

/* The sampling alone leaves a doubt, and a second pass would cost 15 s of 20 to see: with what the first has left, it
 * is clear. A guest that writes slowly everywhere leaves as much, and its next passes are short. */
static void a_dear_second_pass_is_foreseen(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, 15 * GB, GB);
    w.rare = true;
    (void)run(2);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(GB * 8 / 10));
    assert_true(run(1000) < 20.6);
    assert_string_equal(decided(), "dirty-rate");
    begin(PCMIG_POLICY_AUTO, 20 * GB, 0, GB);
    w.rare = true;
    w.written_bps = GB / 10;
    (void)run(2);
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(GB / 10));
    (void)run(1000);
    assert_string_equal(decided(), "finished");
}

/* A guest that wrote while it was sampled, and hardly since: it is not judged by that. Nor is one that writes
 * little. */
static void sampled_long_ago(void **state)
{
    (void)state;
    begin(PCMIG_POLICY_AUTO, 20 * GB, GB / 2, GB);
    w.rare = true;
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(3 * GB));
    (void)run(20.1);
    assert_string_not_equal(decided(), "dirty-rate");
    begin(PCMIG_POLICY_AUTO, 20 * GB, 10 * GB, GB);
    w.rare = true;
    tell(PCMIG_INPUT_DIRTY_RATE, (int64_t)(GB / 10));
    (void)run(25);
    assert_string_equal(decided(), "gathering");
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

/* XBZRLE: what goes encoded is sent as well, and a pass ends. */
static void encoded_pages_count(void **state)
{
    unsigned passes, permille;

    (void)state;
    begin(PCMIG_POLICY_PASSES, 20 * GB, 5 * GB, GB);
    w.encoded_percent = 90;
    pcmig_policy_free(w.policy);
    w.params.value[PCMIG_PARAM_PASSES] = 3;
    w.policy = pcmig_policy_new(PCMIG_POLICY_PASSES, &w.params, false);
    assert_true(run(1000) < 20 + 5 + 5 + 2);
    assert_string_equal(decided(), "passes-done");
    pcmig_policy_progress(w.policy, &passes, &permille);
    assert_int_equal(passes, 3);
}

/* Disks come first and take ten minutes: immediate waits for a measure of the link when the memory begins. */
static void immediate_counts_from_the_memory(void **state)
{
    struct pcmig_input tick = {.kind = PCMIG_INPUT_TICK};

    (void)state;
    begin(PCMIG_POLICY_IMMEDIATE, 20 * GB, 5 * GB, GB);
    for (; w.t_us < INT64_C(600000000); w.t_us += 500000) {
        tick.t_us = w.t_us;
        pcmig_policy_feed(w.policy, &tick, &w.decision);
    }
    assert_in_range(run(1000) * 1000, 600150, 601200);
    assert_string_equal(decided(), "immediate");
    assert_in_range(pcmig_policy_link_bps(w.policy), GB * 9 / 10, GB * 11 / 10);
}

/* libvirt accepted the switch, and QEMU waits for state that it cannot move in post-copy: not at 1 MiB/s. */
static void a_switch_that_does_not_come(void **state)
{
    struct pcmig_input queue = {.kind = PCMIG_INPUT_QUEUE}, tick = {.kind = PCMIG_INPUT_TICK};
    int64_t issued_us;

    (void)state;
    begin(PCMIG_POLICY_FIRST_PASS, 20 * GB, 5 * GB, GB);
    (void)run(1000);
    for (int i = 0; i < 10 && w.decision.action != PCMIG_ACTION_SWITCH; i++) {
        queue.t_us = w.t_us += 5000;
        pcmig_policy_feed(w.policy, &queue, &w.decision);
    }
    assert_int_equal(w.decision.action, PCMIG_ACTION_SWITCH);
    tell(PCMIG_INPUT_EVENT, PCMIG_EVENT_SWITCH_ISSUED);
    issued_us = w.t_us;
    for (int i = 0; i < 10 && w.decision.action != PCMIG_ACTION_UNDRAIN; i++) {
        tick.t_us = w.t_us = w.decision.next_us;
        pcmig_policy_feed(w.policy, &tick, &w.decision);
    }
    assert_string_equal(decided(), "switch-late");
    assert_in_range(w.t_us - issued_us, 1000000, 2600000);
    tell(PCMIG_INPUT_REQUEST, PCMIG_REQUEST_ABORT);
    assert_int_equal(w.decision.action, PCMIG_ACTION_KEEP);
    assert_string_equal(decided(), "too-late");
    tell(PCMIG_INPUT_EVENT, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
    assert_int_equal(w.decision.action, PCMIG_ACTION_KEEP); /* its pace is set */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, drop)
    const struct CMUnitTest tests[] = {
        TEST(nova_steps),
        TEST(what_fits_is_not_waited_for_for_ever),
        TEST(what_each_synchronisation_finds_counts),
        TEST(raised_limit),
        TEST(slower_link),
        TEST(the_queue_is_part_of_the_pause),
        TEST(a_burst_is_no_verdict),
        TEST(what_lasts_is_one),
        TEST(what_lasts_is_known_in_time),
        TEST(what_stands_still_is_too_slow),
        TEST(what_it_has_cost_counts_with_what_it_will),
        TEST(told_of_the_link),
        TEST(bursts_without_end),
        TEST(the_next_pass_is_the_last),
        TEST(known_after_the_first_pass),
        TEST(known_within_the_first_pass),
        TEST(a_slow_link_has_its_first_pass),
        TEST(known_although_it_was_bounded),
        TEST(a_long_round_trip_has_more_of_its_first_pass),
        TEST(a_long_round_trip_is_worth_some_time),
        TEST(a_slow_link_does_not_send_for_ever),
        TEST(a_far_guest_has_its_first_pass),
        TEST(huge_pages_make_a_first_pass_vain),
        TEST(those_who_wait_are_reckoned_with),
        TEST(a_second_pass_is_dear_to_those_who_wait),
        TEST(a_dear_second_pass_is_foreseen),
        TEST(sampled_long_ago),
        TEST(encoded_pages_count),
        TEST(immediate_counts_from_the_memory),
        TEST(a_switch_that_does_not_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
