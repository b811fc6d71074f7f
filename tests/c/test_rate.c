/* SPDX-License-Identifier: Apache-2.0 */
/* The link's rate, from what the destination has acknowledged, and how well it is known. */
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

/* QUEUE: -1 = not seen. Where there is one, it stays as it is. ZERO: zero pages, which cost 9 bytes each. */
static void run(struct feeder *f, uint64_t bps, int64_t for_us, int64_t queue, bool zero)
{
    f->sample.queue_bytes = queue;
    for (int64_t end_us = f->t_us + for_us; f->t_us < end_us; f->t_us += STEP_US) {
        uint64_t bytes = bps * (uint64_t)STEP_US / 1000000;

        pcmig_rate_feed(&f->rate, f->t_us, &f->sample);
        f->sample.memory_processed_bytes += bytes;
        if (zero)
            f->sample.zero_pages += bytes / 9;
        else
            f->sample.normal_pages += bytes / 4096 + 1;
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
    run(&f, LINK_BPS, 3 * STEP_US, -1, false);
    assert_int_equal(f.rate.link_bps, 0); /* a moment is no measurement */
    assert_int_equal(f.rate.evidence, PCMIG_RATE_UNKNOWN);
    run(&f, LINK_BPS, 5000000, -1, false);
    assert_in_range(f.rate.link_bps, LINK_BPS * 98 / 100, LINK_BPS * 102 / 100);
    assert_int_equal(f.rate.evidence, PCMIG_RATE_STREAM);
    run(&f, LINK_BPS, 5000000, 2000000, false);
    assert_int_equal(f.rate.evidence, PCMIG_RATE_LINK);
    assert_in_range(f.rate.seen_us, f.t_us - 600000, f.t_us);
    assert_in_range(pcmig_rate_queue_us(&f.rate), 150000, 170000);
}

/* QEMU fills socket buffers at once: that is not the link. */
static void buffers_are_no_link(void **state)
{
    struct feeder f = start();

    (void)state;
    f.sample.queue_bytes = 0;
    pcmig_rate_feed(&f.rate, 0, &f.sample);
    f.sample.memory_processed_bytes = 4 << 20;
    f.t_us = STEP_US;
    run(&f, LINK_BPS, 5000000, 4 << 20, false);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
}

/* Zero pages hardly use the link: known is only that it carries that much. Unless the queue is full with them. */
static void zero_pages(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS / 4, 2000000, 0, true);
    assert_int_equal(f.rate.evidence, PCMIG_RATE_LEAST);
    assert_false(pcmig_rate_known(&f.rate));
    assert_int_equal(pcmig_rate_queue_us(&f.rate), INT64_MAX);
    run(&f, LINK_BPS, 5000000, 1000000, false);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
    run(&f, LINK_BPS / 100, 5000000, 0, true);
    run(&f, LINK_BPS / 100, 5000000, -1, true);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 110 / 100);
    run(&f, LINK_BPS / 2, 5000000, 1000000, true);
    assert_in_range(f.rate.link_bps, LINK_BPS * 48 / 100, LINK_BPS * 55 / 100);
}

/* Of a guest of which most memory is zero, but that is sent at an even rate, the link is known; it was not before the
 * first pass was over. */
static void some_zero_pages(void **state)
{
    struct feeder f = start();

    (void)state;
    for (int i = 0; i < 40; i++) {
        pcmig_rate_feed(&f.rate, f.t_us += STEP_US, &f.sample);
        f.sample.memory_processed_bytes += LINK_BPS / 20;
        f.sample.normal_pages += LINK_BPS / 20 / 4096;
        f.sample.zero_pages += 2 * (LINK_BPS / 20 / 4096);
        f.sample.queue_bytes = 0;
    }
    assert_true(pcmig_rate_known(&f.rate));
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
}

/* Others come and go: the rate falls as well as it rises, and by any factor. */
static void follows_the_link(void **state)
{
    static const uint64_t links_bps[] = {LINK_BPS, LINK_BPS * 10, LINK_BPS / 4, LINK_BPS * 1000, LINK_BPS};

    (void)state;
    for (int seen = 0; seen < 2; seen++) {
        struct feeder f = start();

        for (size_t i = 0; i < sizeof(links_bps) / sizeof(links_bps[0]); i++) {
            run(&f, links_bps[i], 10000000, seen ? 4 << 20 : -1, false);
            assert_in_range(f.rate.link_bps, links_bps[i] * 99 / 100, links_bps[i] * 101 / 100);
        }
    }
}

/* What is an hour old counts for nothing against what is seen now. */
static void age(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    pcmig_rate_pause(&f.rate);
    f.t_us += INT64_C(3600000000);
    run(&f, LINK_BPS / 5, 600000, 1000000, false);
    assert_in_range(f.rate.link_bps, LINK_BPS * 19 / 100, LINK_BPS * 21 / 100);
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

#define LOOK_US INT64_C(230000)

/* Post-copy of SECONDS at a pace of a fifth of what the link is thought to be. REQUESTED_BPS on top; of BUSY_EVERY
 * looks, one finds the burst of a slice in the queue. */
static void run_postcopy(struct feeder *f, uint64_t requested_bps, unsigned busy_every, int64_t seconds)
{
    uint64_t requested = 0;
    unsigned look = 0;

    pcmig_rate_pause(&f->rate);
    f->sample.memory_remaining_bytes = UINT64_C(1) << 40;
    for (int64_t end_us = f->t_us + seconds * 1000000; f->t_us < end_us; f->t_us += LOOK_US) {
        uint64_t pace_bps = f->rate.link_bps / 5;

        f->sample.queue_bytes = ++look % busy_every == 0 ? 100000 : 0;
        pcmig_rate_feed_postcopy(&f->rate, f->t_us, &f->sample, pace_bps, requested);
        f->sample.memory_processed_bytes += (pace_bps + requested_bps) * (uint64_t)LOOK_US / 1000000;
        requested += requested_bps * (uint64_t)LOOK_US / 1000000;
    }
}

/* A guest asks for most of what the link carries. Its pages go one by one and leave the queue empty, so few looks find
 * anything: that is no sign of a faster link. */
static void requests_are_no_faster_link(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    run_postcopy(&f, LINK_BPS * 79 / 100, 10, 60);
    assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 108 / 100);
}

/* Nothing is asked for and the burst is hardly ever seen: the link is many times as fast. */
static void a_faster_link_shows_in_post_copy(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    run_postcopy(&f, LINK_BPS / 100, 100, 30);
    assert_true(f.rate.link_bps > 4 * LINK_BPS);
}

/* A pace ends within a window. What went through while it held says nothing about the link, and the rest of the window
 * not more than that: a link seemed to be half as fast as it is, and its post-copy was paced for minutes. */
static void a_pace_that_ends_is_no_slower_link(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    run_postcopy(&f, 0, 10, 1);
    f.sample.queue_bytes = 1000000;
    for (int i = 0; i < 5; i++, f.t_us += LOOK_US) {
        pcmig_rate_feed_postcopy(&f.rate, f.t_us, &f.sample, 0, 0);
        f.sample.memory_processed_bytes += LINK_BPS * (uint64_t)LOOK_US / 1000000;
        assert_true(f.rate.link_bps >= LINK_BPS * 95 / 100);
    }
}

/* Zero pages that stand in the queue when others come: the destination takes them as slowly as before, and the link is
 * measured by what comes after them. */
static void zero_pages_in_the_queue(void **state)
{
    struct feeder f = start();
    uint64_t queue = 4000000;

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    pcmig_rate_pause(&f.rate);
    f.sample.memory_remaining_bytes = UINT64_C(1) << 40;
    for (int i = 0; i < 20; i++, f.t_us += LOOK_US) {
        f.sample.queue_bytes = (int64_t)queue;
        f.sample.memory_processed_bytes += 230000; /* a MB/s */
        f.sample.zero_pages += 25000;
        pcmig_rate_feed_postcopy(&f.rate, f.t_us, &f.sample, LINK_BPS, 0);
    }
    assert_in_range(pcmig_rate_now_bps(&f.rate), 900000, 1100000);
    for (; queue > 0; f.t_us += LOOK_US) {
        f.sample.queue_bytes = (int64_t)queue;
        f.sample.memory_processed_bytes += 8192;
        f.sample.normal_pages += 2;
        pcmig_rate_feed_postcopy(&f.rate, f.t_us, &f.sample, LINK_BPS, 0);
        assert_in_range(f.rate.link_bps, LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
        queue -= queue > 230000 ? 230000 : queue;
    }
    for (int i = 0; i < 3; i++, f.t_us += LOOK_US) {
        f.sample.queue_bytes = 0;
        f.sample.memory_processed_bytes += 1000000;
        f.sample.normal_pages += 244;
        pcmig_rate_feed_postcopy(&f.rate, f.t_us, &f.sample, LINK_BPS, 0);
    }
    assert_in_range(pcmig_rate_now_bps(&f.rate), LINK_BPS * 95 / 100, LINK_BPS * 105 / 100);
}

/* More than is sent is tried for as long as zero pages come, and the rate stays in its bounds. */
static void zero_pages_for_minutes(void **state)
{
    struct feeder f = start();

    (void)state;
    run(&f, LINK_BPS, 5000000, 1000000, false);
    pcmig_rate_pause(&f.rate);
    f.sample.memory_remaining_bytes = UINT64_C(1) << 40;
    for (int i = 0; i < 1200; i++, f.t_us += LOOK_US) {
        const uint64_t before = pcmig_rate_now_bps(&f.rate);

        f.sample.queue_bytes = i < 6 ? 4000000 : 0;
        f.sample.memory_processed_bytes += i < 6 ? 230000 : LINK_BPS * (uint64_t)LOOK_US / 1000000;
        f.sample.zero_pages += 25000;
        pcmig_rate_feed_postcopy(&f.rate, f.t_us, &f.sample, LINK_BPS, 0);
        if (i >= 12)
            assert_true(pcmig_rate_now_bps(&f.rate) >= before);
    }
}

/* Counters that fall, a clock that stands still or goes back, a queue larger than all that was sent. */
static void strange_input(void **state)
{
    struct feeder f = start();
    uint64_t before;

    (void)state;
    run(&f, LINK_BPS, 3000000, 1000000, false);
    before = f.rate.link_bps;
    pcmig_rate_feed(&f.rate, f.t_us, &f.sample);
    pcmig_rate_feed(&f.rate, f.t_us - 1000000, &f.sample);
    f.sample.memory_processed_bytes = 0;
    pcmig_rate_feed(&f.rate, f.t_us + 1000000, &f.sample);
    f.sample.queue_bytes = INT64_MAX;
    pcmig_rate_feed(&f.rate, f.t_us + 1200000, &f.sample);
    assert_in_range(f.rate.link_bps, before * 7 / 10, before * 11 / 10);
    f.sample.memory_processed_bytes = UINT64_MAX;
    f.sample.queue_bytes = 0;
    pcmig_rate_feed(&f.rate, f.t_us + 3000000, &f.sample);
    f.sample.memory_processed_bytes = UINT64_MAX - 1;
    pcmig_rate_feed(&f.rate, INT64_C(1) << 53, &f.sample);
    assert_true(pcmig_rate_queue_us(&f.rate) >= 0);
}

static void times(void **state)
{
    (void)state;
    assert_int_equal(pcmig_rate_time_us(0, 0), 0);
    assert_true(pcmig_rate_time_us(1, 0) > INT64_C(1) << 60);
    assert_int_equal(pcmig_rate_time_us(12500000, 12500000), 1000000);
    assert_int_equal(pcmig_rate_time_us(UINT64_C(20) << 40, UINT64_C(1) << 30), INT64_C(20480) * 1000000);
    assert_true(pcmig_rate_time_us(UINT64_MAX, 1) > 0);
    assert_true(pcmig_rate_time_us(UINT64_MAX, UINT64_MAX) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady),
        cmocka_unit_test(buffers_are_no_link),
        cmocka_unit_test(zero_pages),
        cmocka_unit_test(some_zero_pages),
        cmocka_unit_test(follows_the_link),
        cmocka_unit_test(age),
        cmocka_unit_test(disks_count),
        cmocka_unit_test(strange_input),
        cmocka_unit_test(times),
        cmocka_unit_test(requests_are_no_faster_link),
        cmocka_unit_test(a_faster_link_shows_in_post_copy),
        cmocka_unit_test(a_pace_that_ends_is_no_slower_link),
        cmocka_unit_test(zero_pages_in_the_queue),
        cmocka_unit_test(zero_pages_for_minutes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
