/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing moves: told once, after a while, and again when it happens again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/still.h"

#define LIMIT 60

static void told_once(void **state)
{
    struct pcmig_still still = {0};
    int told = 0;

    (void)state;
    for (int64_t t = 0; t < 1000; t++) {
        const bool due = pcmig_still_due_us(&still, LIMIT) <= t;
        const bool now = pcmig_still_feed(&still, t, 0, LIMIT);

        assert_int_equal(now, t == LIMIT);
        assert_int_equal(now, due);
        told += now;
    }
    assert_int_equal(told, 1);
    assert_true(pcmig_still_due_us(&still, LIMIT) == INT64_MAX);
}

static void again_when_it_has_moved(void **state)
{
    struct pcmig_still still = {0};

    (void)state;
    assert_true(pcmig_still_feed(&still, 100, 0, LIMIT));
    assert_false(pcmig_still_feed(&still, 200, 7, LIMIT));
    assert_int_equal(pcmig_still_due_us(&still, LIMIT), 260);
    assert_false(pcmig_still_feed(&still, 259, 7, LIMIT));
    assert_true(pcmig_still_feed(&still, 260, 7, LIMIT));
    assert_false(pcmig_still_feed(&still, 261, 7, LIMIT));
}

static void what_moves_is_never_told(void **state)
{
    struct pcmig_still still = {0};

    (void)state;
    for (int64_t t = 1; t < 1000; t++)
        assert_false(pcmig_still_feed(&still, t * 50, (uint64_t)t, LIMIT));
}

static void no_limit(void **state)
{
    struct pcmig_still still = {0};

    (void)state;
    assert_false(pcmig_still_feed(&still, INT64_MAX, 0, 0));
    assert_true(pcmig_still_due_us(&still, 0) == INT64_MAX);
    still.since_us = INT64_MAX - 1;
    assert_true(pcmig_still_due_us(&still, LIMIT) == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_once),
        cmocka_unit_test(again_when_it_has_moved),
        cmocka_unit_test(what_moves_is_never_told),
        cmocka_unit_test(no_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
