/* SPDX-License-Identifier: Apache-2.0 */
#include "core/forecast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGE  UINT64_C(4096)
#define TOTAL UINT64_C(65536)

static void sample(struct pcmig_forecast *f, int64_t t_us, uint64_t sent, uint64_t left, uint64_t iteration)
{
    struct pcmig_input input = {.t_us = t_us,
                                .kind = PCMIG_INPUT_SAMPLE,
                                .sample = {.memory_total_bytes = TOTAL * PAGE,
                                           .memory_remaining_bytes = left * PAGE,
                                           .memory_processed_bytes = sent * PAGE,
                                           .memory_bps = 10000 * PAGE,
                                           .normal_pages = sent,
                                           .iteration = iteration,
                                           .page_size_bytes = PAGE,
                                           .queue_bytes = -1}};

    pcmig_forecast_feed(f, &input, f->moved ? PCMIG_PHASE_POSTCOPY : PCMIG_PHASE_PRECOPY);
}

static void event(struct pcmig_forecast *f, int64_t t_us, enum pcmig_event code, enum pcmig_phase phase)
{
    const struct pcmig_input input = {.t_us = t_us, .kind = PCMIG_INPUT_EVENT, .code = code};

    pcmig_forecast_feed(f, &input, phase);
}

static void test_the_first_pass_is_a_half(void **state)
{
    struct pcmig_forecast f;

    (void)state;
    pcmig_forecast_init(&f, false);
    assert_int_equal(f.permille, 0);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_EARLY);
    sample(&f, 1000000, TOTAL / 2, TOTAL / 2, 1);
    assert_int_equal(f.permille, 250);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_LEAST);
    assert_int_equal(f.most_us, -1);
    /* At its end QEMU synchronises, and a quarter is dirty again. */
    sample(&f, 2000000, TOTAL, TOTAL / 4, 2);
    assert_int_equal(f.permille, 875);
    /* Within the next pass less and less is left, which says nothing. */
    sample(&f, 2300000, TOTAL + TOTAL / 5, TOTAL / 20, 2);
    assert_int_equal(f.permille, 875);
}

static void test_post_copy_goes_on_where_pre_copy_was(void **state)
{
    struct pcmig_forecast f;

    (void)state;
    pcmig_forecast_init(&f, true);
    sample(&f, 1000000, TOTAL / 2, TOTAL / 2, 1);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_RANGE); /* somebody switches, so there is an end */
    event(&f, 1100000, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY, PCMIG_PHASE_SWITCHOVER);
    sample(&f, 1200000, TOTAL / 2, TOTAL, 2);
    assert_int_equal(f.permille, 250);
    sample(&f, 1300000, TOTAL, TOTAL / 2, 2);
    assert_int_equal(f.permille, 625);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_RANGE);
    event(&f, 1400000, PCMIG_EVENT_SRC_POSTCOPY_FAILED, PCMIG_PHASE_PAUSED);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_INTERRUPTED);
    assert_int_equal(f.most_us, -1);
    sample(&f, 1500000, 2 * TOTAL, 0, 2);
    assert_int_equal(f.permille, 999);
    event(&f, 1600000, PCMIG_EVENT_DST_RESUMED_MIGRATED, PCMIG_PHASE_FINISHED);
    assert_int_equal(f.permille, 1000);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_OVER);
}

static void test_disks_count_as_well(void **state)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_SAMPLE,
                                .sample = {.disk_total_bytes = 1000 * PAGE, .disk_remaining_bytes = 500 * PAGE}};
    struct pcmig_forecast f;

    (void)state;
    pcmig_forecast_init(&f, false);
    pcmig_forecast_feed(&f, &input, PCMIG_PHASE_PRECOPY); /* nothing is said of memory yet */
    assert_int_equal(f.permille, 250);
    input.sample.memory_total_bytes = input.sample.memory_remaining_bytes = 1000 * PAGE;
    input.sample.disk_remaining_bytes = 0;
    pcmig_forecast_feed(&f, &input, PCMIG_PHASE_PRECOPY);
    assert_int_equal(f.permille, 500);
}

static void test_an_end_that_is_none_is_not_whole(void **state)
{
    struct pcmig_input end = {.t_us = 2000000, .kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_CALL_SUCCEEDED};
    struct pcmig_forecast f;

    (void)state;
    pcmig_forecast_init(&f, false);
    sample(&f, 1000000, TOTAL / 2, TOTAL / 2, 1);
    pcmig_forecast_end(&f, false, PCMIG_PHASE_FINISHED);
    assert_int_equal(f.permille, 250);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_OVER);
    pcmig_forecast_end(&f, true, PCMIG_PHASE_FINISHED);
    assert_int_equal(f.permille, 1000);
    /* What libvirt called one was none: post-copy goes on without it, or a person has to resume it. */
    pcmig_forecast_init(&f, false);
    pcmig_forecast_feed(&f, &end, PCMIG_PHASE_POSTCOPY);
    assert_int_equal(f.permille, 1000);
    pcmig_forecast_end(&f, false, PCMIG_PHASE_FINISHED);
    assert_int_equal(f.permille, 999);
}

static void test_a_stream_that_waits_to_be_resumed_is_not_over(void **state)
{
    struct pcmig_forecast f;

    (void)state;
    pcmig_forecast_init(&f, false);
    sample(&f, 1000000, TOTAL / 2, TOTAL / 2, 1);
    pcmig_forecast_end(&f, false, PCMIG_PHASE_PAUSED);
    assert_int_equal(f.permille, 250);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_INTERRUPTED);
    assert_int_equal(f.least_us, -1);
    assert_int_equal(f.most_us, -1);
}

/* Passes of which each leaves PERMILLE of what it began with, as QEMU up to 10 tells them. */
static void converge(struct pcmig_forecast *f, uint64_t permille)
{
    uint64_t left = TOTAL, sent = 0;
    int64_t t_us = 0;

    pcmig_forecast_init(f, true);
    for (uint64_t pass = 1; pass <= 5; pass++) {
        for (uint64_t part = 1; part < 4; part++) {
            t_us += 1000000;
            sample(f, t_us, sent + left * part / 4, left - left * part / 4, pass);
        }
        sent += left;
        left = left * permille / 1000;
        t_us += 1000000;
        sample(f, t_us, sent, left, pass + 1);
    }
}

static void test_an_end_that_is_far_off_has_no_most(void **state)
{
    struct pcmig_forecast f;

    (void)state;
    converge(&f, 500);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_RANGE);
    assert_true(f.most_us > f.least_us);
    /* Each pass leaves most of the one before: a little more of it, and the end is twice as far. */
    for (uint64_t permille = 700; permille <= 900; permille += 100) {
        converge(&f, permille);
        assert_int_equal(f.outlook, PCMIG_OUTLOOK_LEAST);
        assert_true(f.least_us > 0);
        assert_int_equal(f.most_us, -1);
    }
    converge(&f, 1100);
    assert_int_equal(f.outlook, PCMIG_OUTLOOK_NOT_CONVERGING);
}

/* One that is seen not to converge stays so until it is seen to: not until it is a little better for a moment. */
static void test_a_guest_at_the_edge_does_not_flicker(void **state)
{
    static const uint64_t permilles[] = {1000, 1000, 940, 990, 940, 930, 990, 940};
    uint64_t left = TOTAL, sent = 0, pass = 1;
    struct pcmig_forecast f;
    unsigned changes = 0;
    int64_t t_us = 0;

    (void)state;
    pcmig_forecast_init(&f, true);
    for (size_t i = 0; i < sizeof(permilles) / sizeof(permilles[0]); i++) {
        for (uint64_t part = 1; part < 4; part++) {
            t_us += 1000000;
            sample(&f, t_us, sent + left * part / 4, left - left * part / 4, pass);
        }
        sent += left;
        left = left * permilles[i] / 1000;
        t_us += 1000000;
        sample(&f, t_us, sent, left, ++pass);
        changes += i >= 2 && f.outlook != PCMIG_OUTLOOK_NOT_CONVERGING;
    }
    assert_int_equal(changes, 0);
    for (int i = 0; i < 4; i++) {
        sent += left;
        left /= 2;
        t_us += 4000000;
        sample(&f, t_us, sent, left, ++pass);
    }
    assert_int_not_equal(f.outlook, PCMIG_OUTLOOK_NOT_CONVERGING);
}

static void test_one_that_waits_for_others_tells_no_time(void **state)
{
    struct pcmig_forecast f;

    (void)state;
    converge(&f, 500);
    pcmig_forecast_wait(&f);
    assert_string_equal(pcmig_outlook_name(f.outlook), "waits");
    assert_true(f.least_us == -1 && f.most_us == -1);
}

static void test_every_outlook_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_OUTLOOK_COUNT; i++)
        assert_string_not_equal(pcmig_outlook_name((enum pcmig_outlook)i), "unknown");
    assert_string_equal(pcmig_outlook_name(PCMIG_OUTLOOK_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_pass_is_a_half),
        cmocka_unit_test(test_post_copy_goes_on_where_pre_copy_was),
        cmocka_unit_test(test_disks_count_as_well),
        cmocka_unit_test(test_an_end_that_is_none_is_not_whole),
        cmocka_unit_test(test_a_stream_that_waits_to_be_resumed_is_not_over),
        cmocka_unit_test(test_an_end_that_is_far_off_has_no_most),
        cmocka_unit_test(test_a_guest_at_the_edge_does_not_flicker),
        cmocka_unit_test(test_one_that_waits_for_others_tells_no_time),
        cmocka_unit_test(test_every_outlook_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
