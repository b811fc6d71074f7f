/* SPDX-License-Identifier: Apache-2.0 */
/* The pace of background pages: its bounds and its direction, and what it comes to on links of any rate, also on
 * those that are not as they were measured. The link of this model carries REAL bytes a second out of a socket's
 * buffer, into which QEMU writes background pages at the start of each 100 ms until the pace is used up, and
 * requested pages at any time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/pacing.h"

#define MIB       INT64_C(1048576)
#define LINK_BPS  UINT64_C(125000000) /* 1 Gb/s */
#define FAST_BPS  UINT64_C(1200000000)
#define LINK_MIB  ((int64_t)(LINK_BPS / MIB))
#define SOCKET    UINT64_C(4000000)
#define STEP_US   INT64_C(5000)
#define SLICE_US  INT64_C(100000)
#define PERIOD_US INT64_C(230000)
#define PLENTY    (UINT64_C(1) << 40)
#define ZERO_PAGE UINT64_C(9) /* bytes on the wire */

struct world {
    struct pcmig_params params;
    struct pcmig_rate rate;
    struct pcmig_pacing pacing;
    struct pcmig_sample sample;
    bool queue_seen;
    int64_t t_us, look_us;
    uint64_t real_bps, requests_ps, request_bytes;
    uint64_t queue, budget, owed_us; /* socket; left of the slice's pace; fractions of a request */
    int64_t longest_queue_us;        /* at a moment with requests */
    bool zeros;                      /* QEMU comes to zero pages: it makes, and the destination takes, so many bytes */
    uint64_t made_bps, taken_bps;
    bool zeros_asked;              /* the guest asks for zero pages, too */
    enum pcmig_pacing_cause cause; /* of the latest look */
};

/* Pre-copy has measured KNOWN_BPS (0 = nothing). */
static void begin(struct world *w, uint64_t known_bps, uint64_t real_bps)
{
    *w = (struct world){.t_us = 10000000, .real_bps = real_bps, .request_bytes = 4096, .queue_seen = true};
    w->sample = (struct pcmig_sample){.page_size_bytes = 4096, .memory_total_bytes = PLENTY};
    pcmig_params_defaults(&w->params);
    /* Much time, so that what is seen is the answer to requests. */
    w->params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 100000;
    w->sample.memory_remaining_bytes = PLENTY;
    pcmig_rate_init(&w->rate);
    for (int i = 0; known_bps > 0 && i < 40; i++) {
        w->sample.memory_processed_bytes += known_bps / 10;
        w->sample.normal_pages += known_bps / 40960;
        w->sample.queue_bytes = (int64_t)SOCKET;
        pcmig_rate_feed(&w->rate, w->t_us += 100000, &w->sample);
    }
    pcmig_rate_pause(&w->rate);
    pcmig_pacing_begin(&w->pacing, &w->params, &w->rate, 0, 0, 1000, 0, 0);
    w->look_us = w->t_us;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void send(struct world *w, uint64_t bytes)
{
    const uint64_t page = w->zeros ? ZERO_PAGE : 4096;

    bytes = least(bytes, w->sample.memory_remaining_bytes / 4096 * page + w->sample.memory_remaining_bytes % 4096);
    w->queue += bytes;
    w->sample.memory_processed_bytes += bytes;
    w->sample.memory_remaining_bytes -= least(w->sample.memory_remaining_bytes, w->zeros ? bytes / page * 4096 : bytes);
    if (w->zeros)
        w->sample.zero_pages += bytes / page;
    else
        w->sample.normal_pages += bytes / page;
}

static void step(struct world *w)
{
    uint64_t carried = (w->zeros ? w->taken_bps : w->real_bps) / (1000000 / STEP_US), room, asked;

    w->t_us += STEP_US;
    room = SOCKET + carried > w->queue ? SOCKET + carried - w->queue : 0;
    if (w->t_us % SLICE_US == 0)
        w->budget = (uint64_t)(w->pacing.pace_mib * MIB) / (1000000 / SLICE_US);
    /* A closed loop: with the socket full, what was asked for is not sent, and the guest asks for no more. */
    asked = w->requests_ps * (uint64_t)STEP_US + w->owed_us;
    w->owed_us = asked % 1000000;
    asked = least(asked / 1000000, room / w->request_bytes);
    if (w->zeros && !w->zeros_asked)
        asked = 0;
    if (asked > 0 && (int64_t)(w->queue * 1000000 / w->real_bps) > w->longest_queue_us)
        w->longest_queue_us = (int64_t)(w->queue * 1000000 / w->real_bps);
    w->sample.postcopy_requests += asked;
    asked *= w->zeros ? ZERO_PAGE : w->request_bytes;
    send(w, asked);
    room -= asked;
    if (w->zeros)
        room = least(room, w->made_bps / (1000000 / STEP_US));
    if (w->pacing.pace_mib > 0)
        room = least(room, w->budget);
    w->budget -= least(w->budget, room);
    send(w, room);
    w->queue -= least(w->queue, carried);
    if (w->t_us < w->look_us)
        return;
    w->look_us = w->t_us + PERIOD_US;
    w->sample.queue_bytes = w->queue_seen ? (int64_t)w->queue : -1;
    w->cause = pcmig_pacing_feed(&w->pacing, w->t_us, &w->sample, &w->rate);
}

static void run(struct world *w, int64_t for_us)
{
    for (int64_t end_us = w->t_us + for_us; w->t_us < end_us && w->sample.memory_remaining_bytes > 0;)
        step(w);
}

/* Seconds until BYTES have crossed. */
static double run_to_the_end(struct world *w, uint64_t bytes)
{
    int64_t start_us = w->t_us;

    w->params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1100;
    w->sample.memory_remaining_bytes = bytes;
    pcmig_pacing_begin(&w->pacing, &w->params, &w->rate, 0, 0, 1000, 0, 0);
    run(w, INT64_C(10000) * 1000000);
    assert_int_equal(w->sample.memory_remaining_bytes, 0);
    return (double)(w->t_us - start_us) / 1e6;
}

/* What is over soon has no look or two to learn from: its first pace ends it in time. A rest of 0.2 s took 0.8. */
static void a_short_rest_ends_in_time(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1100;
    w.sample.memory_remaining_bytes = LINK_BPS / 5;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, w.t_us - 1000000, 1000, w.t_us,
                       w.sample.memory_remaining_bytes);
    assert_in_range(w.pacing.pace_mib, LINK_MIB / 2, LINK_MIB);
    begin(&w, LINK_BPS, LINK_BPS);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1100;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, 0, 1000, w.t_us, PLENTY);
    assert_in_range(w.pacing.pace_mib, 1, LINK_MIB / 3); /* the others tell by what they see */
}

/* --- the control law ---------------------------------------------------------------------------------------------- */

static void begins_low(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    assert_in_range(w.pacing.pace_mib, 1, LINK_MIB / 3);
}

static void opens_and_closes(void **state)
{
    struct world w;
    int64_t open_mib, closed_mib;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.requests_ps = 10000; /* 41 MB/s of requests */
    run(&w, 3000000);
    closed_mib = w.pacing.pace_mib;
    assert_true(closed_mib <= LINK_MIB / 3);
    assert_in_range(w.pacing.requests_ps, 9000, 11000);
    w.requests_ps = 0;
    run(&w, 5000000);
    open_mib = w.pacing.pace_mib;
    assert_true(open_mib > 2 * closed_mib);
    assert_true(open_mib <= LINK_MIB);
    w.requests_ps = 10000;
    run(&w, 1000000);
    assert_true(w.pacing.pace_mib < open_mib / 2);
}

/* No request waits for longer than it may. */
static void waits_no_longer(void **state)
{
    static const uint64_t links_bps[] = {12500000, 125000000, 312500000, 1250000000, 3000000000, 12500000000};

    (void)state;
    for (size_t i = 0; i < sizeof(links_bps) / sizeof(links_bps[0]); i++) {
        struct world w;

        begin(&w, links_bps[i], links_bps[i]);
        w.requests_ps = 1000;
        run(&w, 1000000); /* the first slices fall anywhere */
        w.longest_queue_us = 0;
        run(&w, 10000000);
        assert_in_range(w.longest_queue_us, 0, 36000);
    }
}

/* From a frequency on that each slice has its requests: the same number on any link. */
static void frequent_by_number(void **state)
{
    struct world slow, fast;

    (void)state;
    begin(&slow, LINK_BPS / 10, LINK_BPS / 10);
    begin(&fast, LINK_BPS, LINK_BPS);
    slow.requests_ps = fast.requests_ps = 200;
    run(&slow, 5000000);
    run(&fast, 5000000);
    assert_true(slow.pacing.pace_mib <= LINK_MIB / 10 / 3);
    assert_true(fast.pacing.pace_mib <= LINK_MIB / 3);
}

/* What a full socket holds is through in 4 ms: a pace would cost time, and save no wait. */
static void fast_link_is_not_paced(void **state)
{
    struct world w;

    (void)state;
    begin(&w, FAST_BPS, FAST_BPS);
    assert_int_equal(w.pacing.pace_mib, 0);
    w.requests_ps = 5000;
    run(&w, 5000000);
    assert_int_equal(w.pacing.pace_mib, 0);
    assert_int_equal(pcmig_pacing_unattended_mib(&w.pacing, &w.rate), 0);
    w.real_bps = LINK_BPS / 2; /* others come */
    run(&w, 5000000);
    assert_in_range(w.pacing.pace_mib, 1, LINK_MIB / 2 / 3);
    w.longest_queue_us = 0;
    run(&w, 5000000);
    assert_in_range(w.longest_queue_us, 0, 40000);
}

static void tells_why(void **state)
{
    struct world w;
    bool faded = false, risen = false;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.requests_ps = 10000;
    run(&w, 1000000);
    w.requests_ps = 0;
    for (int i = 0; i < 2000; i++) {
        step(&w);
        faded = faded || w.cause == PCMIG_PACING_REQUESTS_FADE;
    }
    w.requests_ps = 10000;
    for (int i = 0; i < 400; i++) {
        step(&w);
        risen = risen || w.cause == PCMIG_PACING_REQUESTS_RISE;
    }
    assert_true(faded && risen);
}

/* "unchanged" and an equal pace are the same thing, whatever is fed. */
static void unchanged_means_equal(void **state)
{
    struct world w;
    uint32_t seed = 7;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    for (int i = 0; i < 2000; i++) {
        int64_t before = w.pacing.pace_mib;
        enum pcmig_pacing_cause cause;

        seed = seed * 1664525 + 1013904223;
        w.t_us += PERIOD_US;
        w.sample.memory_remaining_bytes = seed % 3 == 0 ? 0 : (uint64_t)(seed >> 8) << (seed & 7);
        w.sample.postcopy_requests += (seed >> 16) % 30000;
        w.sample.memory_processed_bytes += (seed >> 4) % (LINK_BPS / 4);
        w.sample.queue_bytes = (int64_t)(seed % 5000000) - 1000000 < 0 ? -1 : (int64_t)(seed % 5000000);
        cause = pcmig_pacing_feed(&w.pacing, w.t_us, &w.sample, &w.rate);
        assert_int_equal(cause == PCMIG_PACING_UNCHANGED, before == w.pacing.pace_mib);
        assert_true(w.pacing.pace_mib >= 0);
    }
}

/* --- the bound on total time -------------------------------------------------------------------------------------- */

/* Requests never fade, and yet it must end: the bound on total time opens up. Also where remaining bytes times a
 * million are more than 64 bits hold. */
static void ends_in_time(void **state)
{
    static const struct {
        uint64_t bytes, bps;
    } rows[] = {{UINT64_C(1) << 30, LINK_BPS}, {UINT64_C(30) << 40, UINT64_C(40000000000)}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double unpaced_s = (double)rows[i].bytes / (double)rows[i].bps, took_s;
        struct world w;

        begin(&w, rows[i].bps, rows[i].bps);
        w.requests_ps = 1000;
        took_s = run_to_the_end(&w, rows[i].bytes);
        assert_true(took_s < 1.25 * (unpaced_s + 2)); /* and the pre-copy of the model, which counts */
    }
}

/* What is over soon is not waited for to be measured: it has the pace that it needs from the first look on. It ended
 * too late. */
static void a_short_one_keeps_to_its_time(void **state)
{
    double all_s;
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1010;
    w.requests_ps = 200;
    w.sample.memory_remaining_bytes = LINK_BPS / 10 * 8;
    all_s = (double)w.t_us / 1e6 + 0.8;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, 0, 1000, 0, 0);
    run(&w, INT64_C(10000) * 1000000);
    assert_true((double)w.t_us / 1e6 < all_s * 1.01 + 0.02);
}

/* What requests have brought is missing as soon as they fade: a pace that was to end in time together with them opens
 * at the next looks. It took the second over which the remainder is measured, for each migration that others wait for.
 */
static void what_requests_brought_is_made_up_for(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS / 10, LINK_BPS / 10);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1010;
    w.requests_ps = 1500;
    w.sample.memory_remaining_bytes = LINK_BPS;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, w.t_us, 1000, w.t_us, w.sample.memory_remaining_bytes);
    run(&w, 2500000);
    assert_in_range(w.pacing.pace_mib, 3, LINK_MIB / 10 * 8 / 10);
    w.requests_ps = 0;
    run(&w, 3 * PERIOD_US);
    assert_in_range(w.pacing.pace_mib, LINK_MIB / 10 * 8 / 10, LINK_MIB / 10);
}

/* A guest that asks for page after page fills what the pace leaves of the link. It is late, and yet a higher pace
 * brings nothing but waits: it went up to what the link carries and beyond. */
static void requests_that_fill_the_link_are_left_alone(void **state)
{
    uint64_t link_bps = LINK_BPS / 10, carried = link_bps * PERIOD_US / 1000000 * 98 / 100;
    struct world w;

    (void)state;
    begin(&w, link_bps, link_bps);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1000;
    w.sample.memory_remaining_bytes = 8 * LINK_BPS / 10;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, w.t_us, 1000, w.t_us, w.sample.memory_remaining_bytes);
    while (w.sample.memory_remaining_bytes > carried) {
        uint64_t paced = (uint64_t)(w.pacing.pace_mib * MIB) * PERIOD_US / 1000000;

        w.t_us += PERIOD_US;
        w.sample.memory_processed_bytes += carried;
        w.sample.memory_remaining_bytes -= carried;
        w.sample.postcopy_requests += (carried - least(paced, carried)) / 4096;
        w.sample.queue_bytes = w.sample.queue_bytes == 0 ? 4104 : 0; /* one is on its way */
        (void)pcmig_pacing_feed(&w.pacing, w.t_us, &w.sample, &w.rate);
        assert_in_range(w.pacing.pace_mib, 1, LINK_MIB / 10 / 2);
    }
}

/* On a link whose queue drains at once nothing is gained by a pace, but for the guest's first pages, which it asks for
 * one after the other: each would wait for the queue, a hundred of them for 0.3 s. */
static void the_first_pages_are_paced_on_a_fast_link(void **state)
{
    const uint64_t fast_bps = LINK_BPS * 100;
    struct world w;

    (void)state;
    for (int pages = 0; pages <= 300; pages += 100) {
        begin(&w, fast_bps, fast_bps);
        pcmig_pacing_rush(&w.pacing, pages);
        pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, 0, 1000, w.t_us, PLENTY);
        if (pages == 0) {
            assert_int_equal(w.pacing.pace_mib, 0);
            continue;
        }
        assert_in_range(w.pacing.pace_mib, 1, 100 * LINK_MIB / 3);
        w.requests_ps = 2000;
        run(&w, PERIOD_US);
        assert_in_range(w.pacing.pace_mib, 1, 100 * LINK_MIB / 2);
        run(&w, 3 * PERIOD_US);
        assert_int_equal(w.pacing.pace_mib, 0); /* they are there */
    }
}

/* It is late, and needs nearly all of the link: the pace stays at what is needed. It went down by a quarter in each
 * second window, and what that lost could not be made up for. */
static void a_floor_stays_at_what_is_needed(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1060;
    w.requests_ps = 110;
    w.sample.memory_remaining_bytes = 60 * LINK_BPS;
    pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, w.t_us, 1000, w.t_us, w.sample.memory_remaining_bytes);
    run(&w, 5000000);
    for (int i = 0; i < 200; i++) {
        run(&w, PERIOD_US);
        assert_in_range(w.pacing.pace_mib, LINK_MIB * 85 / 100, LINK_MIB);
    }
}

/* Others came, and wait for it: it has less time from now on. */
static void makes_haste_for_others(void **state)
{
    int64_t took_us[2];

    (void)state;
    for (int others = 0; others < 2; others++) {
        struct world w;

        begin(&w, LINK_BPS / 10, LINK_BPS / 10);
        w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1300;
        w.requests_ps = 300;
        w.sample.memory_remaining_bytes = LINK_BPS;
        pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, w.t_us, 1000, w.t_us, w.sample.memory_remaining_bytes);
        if (others)
            pcmig_pacing_share(&w.pacing, 15);
        took_us[others] = w.t_us;
        run(&w, INT64_C(10000) * 1000000);
        took_us[others] = w.t_us - took_us[others];
    }
    assert_in_range(took_us[0], 11500000, 13500000);
    assert_in_range(took_us[1], 9700000, 11000000); /* the last of it is in the socket by then */
}

/* While others wait for the link, what requests leave of it is not left idle: one after the other lost a second of it.
 * For as long as they fill it themselves they have it as before. */
static void leaves_nothing_idle_for_others(void **state)
{
    static const struct {
        int64_t others;
        uint64_t requests_ps;
        int64_t least, most; /* percent of the link */
    } cases[] = {{0, 3000, 28, 31}, {1, 3000, 58, 61}, {2, 3000, 84, 90}, {2, 15000, 40, 48}, {2, 30000, 19, 21}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;

        begin(&w, LINK_BPS, LINK_BPS);
        pcmig_pacing_share(&w.pacing, cases[i].others);
        w.requests_ps = cases[i].requests_ps;
        run(&w, 3 * PERIOD_US);
        assert_in_range(w.pacing.pace_mib, LINK_MIB * cases[i].least / 100, LINK_MIB * cases[i].most / 100);
    }
}

/* Requests have faded: at the next look the link is theirs who come after. It took five looks. */
static void opens_at_once_for_others(void **state)
{
    int64_t pace_mib[2];

    (void)state;
    for (int others = 0; others < 2; others++) {
        struct world w;

        begin(&w, LINK_BPS, LINK_BPS);
        pcmig_pacing_share(&w.pacing, others);
        w.requests_ps = 20000;
        run(&w, 10 * PERIOD_US);
        w.requests_ps = 0;
        run(&w, 2 * PERIOD_US);
        pace_mib[others] = w.pacing.pace_mib;
    }
    assert_in_range(pace_mib[0], LINK_MIB * 40 / 100, LINK_MIB * 75 / 100);
    assert_in_range(pace_mib[1], LINK_MIB * 85 / 100, LINK_MIB * 90 / 100);
}

/* --- a link that is not as it was measured ------------------------------------------------------------------------ */

/* Measured while four shared it, alone now. It took 110 s. */
static void faster_than_measured(void **state)
{
    struct world w;

    (void)state;
    for (int seen = 0; seen < 2; seen++) {
        begin(&w, FAST_BPS / 4, FAST_BPS);
        w.queue_seen = seen != 0;
        w.requests_ps = 5000;
        assert_true(run_to_the_end(&w, UINT64_C(30000000000)) < (seen ? 1.4 : 2.2) * 25);
    }
    begin(&w, LINK_BPS / 40, LINK_BPS / 10); /* on 100 Mb/s as well */
    w.requests_ps = 300;
    assert_true(run_to_the_end(&w, 400000000) < 1.5 * 32);
}

/* Several streams of pre-copy against one of post-copy, or others came: the pace is a share of what is there. */
static void slower_than_measured(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS * 6, LINK_BPS);
    w.requests_ps = 1000;
    run(&w, 4000000);
    assert_in_range(w.rate.link_bps, LINK_BPS * 8 / 10, LINK_BPS * 12 / 10);
    assert_true(w.pacing.pace_mib < LINK_MIB / 2);
    w.longest_queue_us = 0;
    run(&w, 5000000);
    assert_in_range(w.longest_queue_us, 0, 40000);
}

/* Nothing but zero pages was seen (30 MB/s of them): no measure of the link. It took 2200 s. */
static void zero_pages_at_the_start(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0, FAST_BPS);
    for (int i = 0; i < 20; i++) {
        w.sample.memory_processed_bytes += 3000000;
        w.sample.zero_pages += 300000;
        w.sample.queue_bytes = i % 2 == 0 ? 0 : 20000;
        pcmig_rate_feed(&w.rate, w.t_us += 100000, &w.sample);
    }
    assert_false(pcmig_rate_known(&w.rate));
    pcmig_rate_pause(&w.rate);
    w.requests_ps = 5000;
    assert_true(run_to_the_end(&w, UINT64_C(60000000000)) < 1.3 * 50);
}

/* A large guest: minutes of zero pages, which the destination takes at 6 MB/s on a link of any rate, and a second in
 * which it takes next to none; then others, and zero pages again. The link was taken for one of 1 MB/s from then on,
 * and what is not zero crossed at that (on the bed 64 GiB, of which 60 MB at 10 MB/s; 512 GiB took more than eight
 * minutes). */
static void zero_pages_are_no_slower_link(void **state)
{
    static const uint64_t links[] = {LINK_BPS, FAST_BPS, 25 * LINK_BPS};

    (void)state;
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        const uint64_t part = UINT64_C(8) << 30;
        struct world w;
        int64_t start_us;

        begin(&w, links[i], links[i]);
        w.params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] = 1100;
        pcmig_pacing_begin(&w.pacing, &w.params, &w.rate, 0, 0, 1000, 0, 0);
        w.made_bps = 20000000;
        w.taken_bps = 6000000;
        w.zeros = true;
        run(&w, 20000000);
        w.taken_bps = 0; /* others have the processor */
        run(&w, 1500000);
        w.taken_bps = 6000000;
        run(&w, 20000000);
        /* Little stands in the queue by then, which a request would wait for. */
        assert_in_range(w.queue, 0, w.taken_bps / 4);
        w.sample.memory_remaining_bytes = 3 * part;
        w.zeros = false;
        for (start_us = w.t_us; w.sample.memory_remaining_bytes > 2 * part;)
            step(&w);
        assert_in_range(w.t_us - start_us, 0, part * 1300 / (links[i] / 1000) + 1500000);
        w.zeros = w.zeros_asked = true;
        w.requests_ps = 60;
        for (start_us = w.t_us; w.sample.memory_remaining_bytes > 0;)
            step(&w);
        assert_in_range(w.t_us - start_us, 0, 2 * part / 4096 * ZERO_PAGE * 1300 / (w.taken_bps / 1000) + 1500000);
        assert_in_range(w.rate.link_bps, links[i] * 9 / 10, links[i] * 2);
    }
}

/* The same where nobody had measured the link: what a request would wait for is known all the same. */
static void zero_pages_of_a_link_that_is_not_known(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0, LINK_BPS);
    w.made_bps = 20000000;
    w.taken_bps = 6000000;
    w.zeros = true;
    run(&w, 20000000);
    assert_in_range(w.queue, 0, w.taken_bps / 4);
    assert_in_range(w.pacing.pace_mib, 3, 12);
}

/* Zero pages come and go, for two seconds each time: the link is not lost sight of. */
static void zero_pages_in_between(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.made_bps = 20000000;
    w.taken_bps = 6000000;
    for (int i = 0; i < 100; i++) {
        w.zeros = i % 2 == 0;
        run(&w, 2000000);
    }
    assert_in_range(w.rate.link_bps, LINK_BPS / 3, LINK_BPS * 2);
    w.real_bps = LINK_BPS / 10; /* others come */
    for (int i = 0; i < 100; i++) {
        w.zeros = i % 2 == 0;
        run(&w, 2000000);
    }
    assert_in_range(w.rate.link_bps, 0, LINK_BPS / 4);
}

/* A bandwidth of 1 MiB/s was forgotten, and is what was measured. It took 9688 s. */
static void recovers_from_a_drained_link(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0, FAST_BPS);
    for (int i = 0; i < 40; i++) {
        w.sample.memory_processed_bytes += (uint64_t)MIB / 10;
        w.sample.normal_pages += 25;
        w.sample.queue_bytes = 0;
        pcmig_rate_feed(&w.rate, w.t_us += 100000, &w.sample);
    }
    pcmig_rate_pause(&w.rate);
    w.requests_ps = 500;
    assert_true(run_to_the_end(&w, UINT64_C(30000000000)) < 1.3 * 25);
}

/* 500 requests a second of 2 MiB each are most of the link, and not 2 MB/s of it: background pages stay back. */
static void huge_pages(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.requests_ps = 40;
    w.request_bytes = 2 * (uint64_t)MIB;
    run(&w, 5000000);
    assert_in_range(w.pacing.page_bytes, MIB, 3 * MIB);
    assert_true(w.pacing.pace_mib <= LINK_MIB * 3 / 10);
}

static void link_not_known(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0, UINT64_C(100000000000)); /* no link in sight */
    assert_int_equal(w.pacing.pace_mib, 1);
    assert_int_equal(pcmig_pacing_unattended_mib(&w.pacing, &w.rate), 0);
    run(&w, 5000000);
    assert_true(w.pacing.pace_mib == 0 || w.pacing.pace_mib > 30); /* opens up */
}

/* A link so slow that any share of it is below the lowest pace. */
static void slow_link(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1000, 1000);
    w.requests_ps = 1;
    run(&w, 10000000);
    assert_int_equal(w.pacing.pace_mib, 1);
}

static void unattended(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    assert_in_range(pcmig_pacing_unattended_mib(&w.pacing, &w.rate), w.pacing.pace_mib, LINK_MIB);
}

/* The same time twice, an earlier one, counters that fall: no division by nothing, no leap. */
static void strange_input(void **state)
{
    struct world w;

    (void)state;
    begin(&w, LINK_BPS, LINK_BPS);
    w.requests_ps = 1000;
    run(&w, 1000000);
    (void)pcmig_pacing_feed(&w.pacing, w.t_us, &w.sample, &w.rate);
    (void)pcmig_pacing_feed(&w.pacing, w.t_us - 5000000, &w.sample, &w.rate);
    w.sample.postcopy_requests = 0;
    w.sample.page_size_bytes = 0;
    w.sample.memory_processed_bytes = 0;
    (void)pcmig_pacing_feed(&w.pacing, w.t_us + 1000000, &w.sample, &w.rate);
    assert_int_equal(w.pacing.requests_ps, 0);
    w.sample.postcopy_requests = UINT64_MAX;
    w.sample.memory_remaining_bytes = UINT64_MAX;
    w.sample.memory_processed_bytes = UINT64_MAX;
    (void)pcmig_pacing_feed(&w.pacing, w.t_us + 2000000, &w.sample, &w.rate);
    w.sample.page_size_bytes = UINT64_MAX;
    (void)pcmig_pacing_feed(&w.pacing, w.t_us + 3000000, &w.sample, &w.rate);
    (void)pcmig_pacing_feed(&w.pacing, INT64_C(1) << 53, &w.sample, &w.rate);
    assert_true(w.pacing.pace_mib >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_low),
        cmocka_unit_test(a_short_rest_ends_in_time),
        cmocka_unit_test(a_short_one_keeps_to_its_time),
        cmocka_unit_test(what_requests_brought_is_made_up_for),
        cmocka_unit_test(makes_haste_for_others),
        cmocka_unit_test(leaves_nothing_idle_for_others),
        cmocka_unit_test(opens_at_once_for_others),
        cmocka_unit_test(requests_that_fill_the_link_are_left_alone),
        cmocka_unit_test(the_first_pages_are_paced_on_a_fast_link),
        cmocka_unit_test(a_floor_stays_at_what_is_needed),
        cmocka_unit_test(opens_and_closes),
        cmocka_unit_test(waits_no_longer),
        cmocka_unit_test(frequent_by_number),
        cmocka_unit_test(fast_link_is_not_paced),
        cmocka_unit_test(tells_why),
        cmocka_unit_test(unchanged_means_equal),
        cmocka_unit_test(ends_in_time),
        cmocka_unit_test(faster_than_measured),
        cmocka_unit_test(slower_than_measured),
        cmocka_unit_test(zero_pages_at_the_start),
        cmocka_unit_test(zero_pages_are_no_slower_link),
        cmocka_unit_test(zero_pages_of_a_link_that_is_not_known),
        cmocka_unit_test(zero_pages_in_between),
        cmocka_unit_test(recovers_from_a_drained_link),
        cmocka_unit_test(huge_pages),
        cmocka_unit_test(link_not_known),
        cmocka_unit_test(slow_link),
        cmocka_unit_test(unattended),
        cmocka_unit_test(strange_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
