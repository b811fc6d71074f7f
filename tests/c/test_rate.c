/* SPDX-License-Identifier: Apache-2.0 */
/* The link's rate, from what the destination has acknowledged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/rate.h"

#define LINK_BPS UINT64_C(12500000) /* 100 Mb/s */
#define STEP_US  INT64_C(50000)

struct feeder {
    struct pcmig_rate rate;
    int64_t t_us;
    struct pcmig_sample sample;
};

static void run(struct feeder *f, uint64_t bps, int64_t for_us)
{
    for (int64_t end_us = f->t_us + for_us; f->t_us < end_us; f->t_us += STEP_US) {
        pcmig_rate_feed(&f->rate, f->t_us, &f->sample);
        f->sample.memory_processed_bytes += bps * (uint64_t)STEP_US / 1000000;
    }
}

static struct feeder start(void)
{
    struct feeder f = {.sample = {.memory_total_bytes = 1 << 28, .queue_bytes = -1}};

    pcmig_rate_init(&f.rate);
    return f;
}

static void steady(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 3 * STEP_US);
    assert_int_equal(f.rate.link_bps, 0); /* a moment is no measurement */
    run(&f, LINK_BPS, 5000000);
    assert_in_range(f.rate.link_bps, LINK_BPS * 98 / 100, LINK_BPS * 102 / 100);
}

/* QEMU fills socket buffers at once: that is not the link. */
static void buffers_are_no_link(void **state)
{
    struct feeder f = start();

    (void)state;
    f.sample.queue_bytes = 0;
    pcmig_rate_feed(&f.rate, 0, &f.sample);
    f.sample.memory_processed_bytes = 4 << 20;
    f.sample.queue_bytes = 4 << 20;
    f.t_us = STEP_US;
    run(&f, LINK_BPS, 5000000);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
}

/* Zero pages and pauses: QEMU had little to send. */
static void idle_says_nothing(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000);
    run(&f, LINK_BPS / 100, 5000000);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
}

static void follows_a_faster_link(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 3000000);
    run(&f, LINK_BPS * 10, 10000000);
    assert_in_range(f.rate.link_bps, LINK_BPS * 9, LINK_BPS * 11);
}

/* Disks go over the same link. */
static void disks_count(void **state)
{
    struct feeder f = start();

    (void)state;
    for (; f.t_us < 3000000; f.t_us += STEP_US) {
        pcmig_rate_feed(&f.rate, f.t_us, &f.sample);
        f.sample.disk_processed_bytes += LINK_BPS * (uint64_t)STEP_US / 1000000;
    }
    assert_in_range(f.rate.link_bps, LINK_BPS * 98 / 100, LINK_BPS * 102 / 100);
}

/* Counters that fall, a clock that stands still or goes back, a queue larger than all that was sent. */
static void strange_input(void **state)
{
    struct feeder f = start();
    uint64_t before;

    (void)state;
    run(&f, LINK_BPS, 3000000);
    before = f.rate.link_bps;
    pcmig_rate_feed(&f.rate, f.t_us, &f.sample);
    pcmig_rate_feed(&f.rate, f.t_us - 1000000, &f.sample);
    f.sample.memory_processed_bytes = 0;
    pcmig_rate_feed(&f.rate, f.t_us + 1000000, &f.sample);
    f.sample.queue_bytes = INT64_MAX;
    pcmig_rate_feed(&f.rate, f.t_us + 2000000, &f.sample);
    assert_in_range(f.rate.link_bps, before * 7 / 10, before * 11 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady),
        cmocka_unit_test(buffers_are_no_link),
        cmocka_unit_test(idle_says_nothing),
        cmocka_unit_test(follows_a_faster_link),
        cmocka_unit_test(disks_count),
        cmocka_unit_test(strange_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
