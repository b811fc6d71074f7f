/* SPDX-License-Identifier: Apache-2.0 */
/* The pace of background pages: its bounds and its direction, not the figures of the control law. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/pacing.h"

#define MIB       INT64_C(1048576)
#define LINK_BPS  UINT64_C(125000000) /* 1 Gb/s */
#define LINK_MIB  ((int64_t)(LINK_BPS / MIB))
#define PERIOD_US INT64_C(200000)
#define PLENTY    (UINT64_C(1) << 37)

struct feeder {
    struct pcmig_params params;
    struct pcmig_pacing pacing;
    int64_t t_us;
    struct pcmig_sample sample;
};

static void begin(struct feeder *f, uint64_t link_bps)
{
    *f = (struct feeder){.t_us = 10000000, .sample = {.page_size_bytes = 4096, .queue_bytes = -1}};
    pcmig_params_defaults(&f->params);
    /* Much time, so that what is seen is the answer to requests. */
    f->params.value[PCMIG_PARAM_PACE_TIME_FACTOR_PERMILLE] = 100000;
    f->sample.memory_remaining_bytes = PLENTY;
    pcmig_pacing_begin(&f->pacing, &f->params, link_bps);
}

static enum pcmig_pacing_cause step(struct feeder *f, uint64_t requests_ps)
{
    uint64_t sent = (uint64_t)(f->pacing.pace_mib * MIB) + requests_ps * 4096;

    f->t_us += PERIOD_US;
    f->sample.postcopy_requests += requests_ps * (uint64_t)PERIOD_US / 1000000;
    sent = sent * (uint64_t)PERIOD_US / 1000000;
    f->sample.memory_remaining_bytes -= sent < f->sample.memory_remaining_bytes ? sent : 0;
    return pcmig_pacing_feed(&f->pacing, f->t_us, &f->sample);
}

static void run(struct feeder *f, uint64_t requests_ps, unsigned steps)
{
    while (steps-- > 0)
        (void)step(f, requests_ps);
}

static void begins_low(void **state)
{
    struct feeder f;

    (void)state;
    begin(&f, LINK_BPS);
    assert_in_range(f.pacing.pace_mib, f.params.value[PCMIG_PARAM_PACE_MIN_MIB], LINK_MIB / 2);
}

static void opens_and_closes(void **state)
{
    struct feeder f;
    int64_t open_mib, closed_mib;

    (void)state;
    begin(&f, LINK_BPS);
    run(&f, 20000, 10); /* 80 MB/s of requests */
    closed_mib = f.pacing.pace_mib;
    assert_true(closed_mib <= LINK_MIB / 2);
    assert_in_range(f.pacing.requests_ps, 19000, 21000);
    run(&f, 0, 50);
    open_mib = f.pacing.pace_mib;
    assert_true(open_mib > 2 * closed_mib);
    assert_true(open_mib <= LINK_MIB);
    run(&f, 20000, 10);
    assert_true(f.pacing.pace_mib < open_mib / 2);
}

static void tells_why(void **state)
{
    struct feeder f;
    bool faded = false, risen = false;

    (void)state;
    begin(&f, LINK_BPS);
    run(&f, 20000, 5);
    for (int i = 0; i < 50; i++)
        faded = step(&f, 0) == PCMIG_PACING_REQUESTS_FADE || faded;
    for (int i = 0; i < 10; i++)
        risen = step(&f, 20000) == PCMIG_PACING_REQUESTS_RISE || risen;
    assert_true(faded && risen);
}

/* "unchanged" and an equal pace are the same thing, whatever is fed. */
static void unchanged_means_equal(void **state)
{
    struct feeder f;
    uint32_t seed = 7;

    (void)state;
    begin(&f, LINK_BPS);
    for (int i = 0; i < 2000; i++) {
        int64_t before = f.pacing.pace_mib;
        enum pcmig_pacing_cause cause;

        seed = seed * 1664525 + 1013904223;
        f.sample.memory_remaining_bytes = seed % 3 == 0 ? 0 : (uint64_t)(seed >> 8) << (seed & 7);
        cause = step(&f, (seed >> 16) % 30000);
        assert_int_equal(cause == PCMIG_PACING_UNCHANGED, before == f.pacing.pace_mib);
        assert_in_range(f.pacing.pace_mib, f.params.value[PCMIG_PARAM_PACE_MIN_MIB], LINK_MIB);
    }
}

/* Requests never fade, and yet it must end: the bound on total time opens up. */
static void ends_in_time(void **state)
{
    struct feeder f;
    uint64_t remaining = UINT64_C(1) << 30;
    int64_t start_us, unpaced_us = (int64_t)(remaining * 1000000 / LINK_BPS);
    int64_t first_mib, highest = 0;

    (void)state;
    begin(&f, LINK_BPS);
    f.params.value[PCMIG_PARAM_PACE_TIME_FACTOR_PERMILLE] = 1100;
    pcmig_pacing_begin(&f.pacing, &f.params, LINK_BPS);
    first_mib = f.pacing.pace_mib;
    start_us = f.t_us;
    while (remaining > 0 && f.t_us - start_us < 10 * unpaced_us) {
        uint64_t sent = (uint64_t)(f.pacing.pace_mib * MIB) * (uint64_t)PERIOD_US / 1000000;

        remaining = remaining > sent ? remaining - sent : 0;
        f.sample.memory_remaining_bytes = remaining;
        (void)step(&f, 10000);
        if (f.pacing.pace_mib > highest)
            highest = f.pacing.pace_mib;
    }
    assert_int_equal(remaining, 0);
    assert_true(highest > first_mib);
    assert_true(f.t_us - start_us < 2 * unpaced_us);
}

static void link_not_known(void **state)
{
    struct feeder f;

    (void)state;
    begin(&f, 0);
    assert_int_equal(f.pacing.pace_mib, f.params.value[PCMIG_PARAM_PACE_MIN_MIB]);
    assert_int_equal(pcmig_pacing_unattended_mib(&f.pacing), 0);
    for (int i = 0; i < 100; i++) {
        int64_t before = f.pacing.pace_mib;

        (void)step(&f, 0);
        assert_true(f.pacing.pace_mib >= before);
    }
    assert_true(f.pacing.pace_mib > 1000); /* opens up */
    assert_true(f.pacing.pace_mib < 1000000);
}

/* A link so slow that any share of it is below the lowest pace. */
static void slow_link(void **state)
{
    struct feeder f;

    (void)state;
    begin(&f, 1);
    run(&f, 100, 100);
    run(&f, 0, 100);
    assert_int_equal(f.pacing.pace_mib, f.params.value[PCMIG_PARAM_PACE_MIN_MIB]);
}

static void unattended(void **state)
{
    struct feeder f;

    (void)state;
    begin(&f, LINK_BPS);
    assert_in_range(pcmig_pacing_unattended_mib(&f.pacing), f.pacing.pace_mib, LINK_MIB);
}

/* The same time twice, an earlier one, counters that fall: no division by nothing, no leap. */
static void strange_input(void **state)
{
    struct feeder f;

    (void)state;
    begin(&f, LINK_BPS);
    run(&f, 1000, 5);
    (void)pcmig_pacing_feed(&f.pacing, f.t_us, &f.sample);
    (void)pcmig_pacing_feed(&f.pacing, f.t_us - 5000000, &f.sample);
    f.sample.postcopy_requests = 0;
    f.sample.page_size_bytes = 0;
    (void)step(&f, 0);
    assert_int_equal(f.pacing.requests_ps, 0);
    f.sample.postcopy_requests = UINT64_MAX;
    f.sample.memory_remaining_bytes = UINT64_MAX;
    (void)step(&f, 0);
    f.sample.page_size_bytes = UINT64_MAX;
    (void)step(&f, 1000);
    assert_in_range(f.pacing.pace_mib, f.params.value[PCMIG_PARAM_PACE_MIN_MIB], LINK_MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_low),    cmocka_unit_test(opens_and_closes),
        cmocka_unit_test(tells_why),     cmocka_unit_test(unchanged_means_equal),
        cmocka_unit_test(ends_in_time),  cmocka_unit_test(link_not_known),
        cmocka_unit_test(slow_link),     cmocka_unit_test(unattended),
        cmocka_unit_test(strange_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
