/* SPDX-License-Identifier: Apache-2.0 */
/* When a guest is announced, and when that ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/announce.h"

#include <stdbool.h>
#include <stdio.h>

#define FOR_MS   30000
#define BEGIN_MS 5000 /* of a clock that does not begin with the guest */

/* Feeds it every millisecond from FROM_MS to UNTIL_MS, and writes when it was to announce. Returns how many times. */
static size_t times(struct pcmig_announce *announce, int64_t from_ms, int64_t until_ms, bool forwards, int64_t heard_ms,
                    int64_t *out, size_t max)
{
    size_t count = 0;

    for (int64_t now_ms = from_ms; now_ms < until_ms; now_ms++) {
        if (pcmig_announce_feed(announce, now_ms, forwards, now_ms == heard_ms)) {
            assert_true(count < max);
            out[count++] = now_ms;
        }
    }
    return count;
}

static void expect(const int64_t *got, size_t count, const int64_t *wanted, size_t wanted_count)
{
    assert_int_equal(count, wanted_count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(got[i], wanted[i]);
}

#define EXPECT(got, count, ...)                                                                                        \
    do {                                                                                                               \
        const int64_t wanted[] = {__VA_ARGS__};                                                                        \
        expect(got, count, wanted, sizeof(wanted) / sizeof(wanted[0]));                                                \
    } while (0)

static void a_guest_that_says_nothing(void **state)
{
    struct pcmig_announce announce;
    int64_t out[64];
    size_t count;

    (void)state;
    pcmig_announce_init(&announce, FOR_MS);
    count = times(&announce, BEGIN_MS, BEGIN_MS + 4000, true, -1, out, 64);
    EXPECT(out, count, 5000, 5100, 5300, 5700, 6700, 7700, 8700);
    assert_false(announce.over);
    count = times(&announce, BEGIN_MS + 4000, BEGIN_MS + 40000, true, -1, out, 64);
    assert_int_equal(count, 26); /* until 30 s are over: the last one at 29.7 s */
    assert_int_equal(out[25], BEGIN_MS + 29700);
    assert_true(announce.over);
    assert_int_equal(pcmig_announce_wait_ms(&announce, BEGIN_MS + 40000), -1);
}

/* What it says teaches only the switches on the way: the early ones are sent nevertheless, and no more. */
static void a_guest_that_speaks(void **state)
{
    const int64_t heard_ms[] = {BEGIN_MS, BEGIN_MS + 3, BEGIN_MS + 650};
    struct pcmig_announce announce;
    int64_t out[64];

    (void)state;
    for (size_t i = 0; i < sizeof(heard_ms) / sizeof(heard_ms[0]); i++) {
        pcmig_announce_init(&announce, FOR_MS);
        const size_t count = times(&announce, BEGIN_MS, BEGIN_MS + 40000, true, heard_ms[i], out, 64);

        EXPECT(out, count, 5000, 5100, 5300, 5700);
        assert_true(announce.over && announce.heard);
    }
    pcmig_announce_init(&announce, FOR_MS);
    const size_t count = times(&announce, BEGIN_MS, BEGIN_MS + 40000, true, BEGIN_MS + 2000, out, 64);

    EXPECT(out, count, 5000, 5100, 5300, 5700, 6700);
    assert_true(announce.over);
}

/* Announcements that reach nobody are not sent; the whole schedule begins when the port forwards. */
static void a_port_that_does_not_forward_yet(void **state)
{
    struct pcmig_announce announce;
    int64_t out[64];
    size_t count;

    (void)state;
    pcmig_announce_init(&announce, FOR_MS);
    /* What the guest said there nobody has learned from. */
    count = times(&announce, BEGIN_MS, BEGIN_MS + 25000, false, BEGIN_MS + 10, out, 64);
    assert_int_equal(count, 0);
    assert_false(announce.over || announce.heard);
    assert_int_equal(pcmig_announce_wait_ms(&announce, BEGIN_MS + 25000), 95000);
    count = times(&announce, BEGIN_MS + 25000, BEGIN_MS + 27000, true, BEGIN_MS + 25001, out, 64);
    EXPECT(out, count, 30000, 30100, 30300, 30700);
    assert_true(announce.over);
}

static void a_port_that_stops_forwarding(void **state)
{
    struct pcmig_announce announce;
    int64_t out[64];
    size_t count;

    (void)state;
    pcmig_announce_init(&announce, FOR_MS);
    count = times(&announce, BEGIN_MS, BEGIN_MS + 200, true, BEGIN_MS + 1, out, 64);
    EXPECT(out, count, 5000, 5100);
    count = times(&announce, BEGIN_MS + 200, BEGIN_MS + 5000, false, -1, out, 64);
    assert_int_equal(count, 0);
    count = times(&announce, BEGIN_MS + 5000, BEGIN_MS + 7000, true, -1, out, 64);
    EXPECT(out, count, 10000, 10100, 10300, 10700, 11700);
    assert_false(announce.heard);
}

static void a_port_that_never_forwards(void **state)
{
    struct pcmig_announce announce;
    int64_t out[1];

    (void)state;
    pcmig_announce_init(&announce, FOR_MS);
    assert_int_equal(times(&announce, 0, PCMIG_ANNOUNCE_FORWARDS_WITHIN_MS, false, -1, out, 1), 0);
    assert_false(announce.over);
    assert_false(pcmig_announce_feed(&announce, PCMIG_ANNOUNCE_FORWARDS_WITHIN_MS, false, false));
    assert_true(announce.over);
    assert_false(pcmig_announce_feed(&announce, PCMIG_ANNOUNCE_FORWARDS_WITHIN_MS + 1, true, false));
}

/* Whoever feeds it may be late: one is sent, and the schedule goes on. */
static void late(void **state)
{
    struct pcmig_announce announce;

    (void)state;
    pcmig_announce_init(&announce, FOR_MS);
    assert_int_equal(pcmig_announce_wait_ms(&announce, 77), 0);
    assert_true(pcmig_announce_feed(&announce, 0, true, false));
    assert_int_equal(pcmig_announce_wait_ms(&announce, 0), 100);
    assert_true(pcmig_announce_feed(&announce, 450, true, false));
    assert_false(pcmig_announce_feed(&announce, 451, true, true));
    assert_int_equal(pcmig_announce_wait_ms(&announce, 451), 249);
    assert_int_equal(pcmig_announce_wait_ms(&announce, 900), 0);
    assert_true(pcmig_announce_feed(&announce, 2500, true, false));
    assert_true(announce.over); /* it was heard, and the early ones are over */
}

/* None at all may be wanted. */
static void no_time(void **state)
{
    struct pcmig_announce announce;

    (void)state;
    pcmig_announce_init(&announce, 0);
    assert_true(pcmig_announce_feed(&announce, 9, true, false));
    assert_true(announce.over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_says_nothing),
        cmocka_unit_test(a_guest_that_speaks),
        cmocka_unit_test(a_port_that_does_not_forward_yet),
        cmocka_unit_test(a_port_that_stops_forwarding),
        cmocka_unit_test(a_port_that_never_forwards),
        cmocka_unit_test(late),
        cmocka_unit_test(no_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
