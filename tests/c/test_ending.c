/* SPDX-License-Identifier: Apache-2.0 */
/* What is done next with a migration whose end is looked for: every set of facts, every pair of halves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/ending.h"

/* What stands in the way of a verdict. */
#define NO_VERDICT                                                                                                     \
    (PCMIG_FACT_FLOWS | PCMIG_FACT_RECOVERING | PCMIG_FACT_BEING_ASKED | PCMIG_FACT_JOB_UNTOLD | PCMIG_FACT_STOPPED |  \
     PCMIG_FACT_HALF_KEPT | PCMIG_FACT_OPEN | PCMIG_FACT_CALL_RUNS | PCMIG_FACT_NO_FIGURES)

static void every_set_of_facts(void **state)
{
    (void)state;
    for (unsigned facts = 0; facts <= PCMIG_FACTS; facts++) {
        enum pcmig_ending_step step = pcmig_ending_next(facts);

        /* A verdict only when nothing is left to be done. */
        assert_int_equal(step == PCMIG_ENDING_FINISH, facts == 0);
        /* Nothing is tidied up before it is certain how it ended, */
        if ((facts & NO_VERDICT) != 0)
            assert_true(step == PCMIG_ENDING_WAIT || step == PCMIG_ENDING_STEER || step == PCMIG_ENDING_RESTART ||
                        step == PCMIG_ENDING_END_HALF);
        /* and each step has its reason. */
        assert_int_equal(step == PCMIG_ENDING_STEER, (facts & PCMIG_FACT_FLOWS) != 0);
        if (step == PCMIG_ENDING_RESTART)
            assert_int_equal(facts & (PCMIG_FACT_STOPPED | PCMIG_FACT_BEING_ASKED | PCMIG_FACT_RECOVERING),
                             PCMIG_FACT_STOPPED);
        if (step == PCMIG_ENDING_END_HALF)
            assert_int_equal(facts & (PCMIG_FACT_HALF_KEPT | PCMIG_FACT_BEING_ASKED | PCMIG_FACT_RECOVERING |
                                      PCMIG_FACT_STOPPED | PCMIG_FACT_FLOWS),
                             PCMIG_FACT_HALF_KEPT);
        if (step == PCMIG_ENDING_RESTORE)
            assert_true((facts & PCMIG_FACT_SLOWED) != 0);
        if (step == PCMIG_ENDING_CLEAR)
            assert_true((facts & PCMIG_FACT_LEFTOVER) != 0);
        if (step == PCMIG_ENDING_AUTOSTART)
            assert_int_equal(facts & ~(unsigned)PCMIG_FACT_UNCOUNTED, PCMIG_FACT_AUTOSTART);
        assert_string_not_equal(pcmig_ending_step_name(step), "unknown");
    }
    assert_string_equal(pcmig_ending_step_name(PCMIG_ENDING_STEP_COUNT), "unknown");
}

/* Waiting ends, but for what recovery heals and what goes on; and what is lost is told soon. */
static void patience(void **state)
{
    (void)state;
    for (int n = 0; n < PCMIG_HALF_COUNT * PCMIG_HALF_COUNT * 4; n++) {
        struct pcmig_evidence e = {.source = (enum pcmig_half)(n / 4 % PCMIG_HALF_COUNT),
                                   .destination = (enum pcmig_half)(n / 4 / PCMIG_HALF_COUNT),
                                   .job_active = (n & 1) != 0,
                                   .job_absent = (n & 1) == 0,
                                   .in_flight = true};
        int64_t us = pcmig_ending_patience_us(&e, (n & 2) != 0);
        bool both = e.source == PCMIG_HALF_POSTCOPY && e.destination == PCMIG_HALF_POSTCOPY;

        assert_true(us > 0);
        if ((n & 2) == 0 && !both)
            assert_true(us <= INT64_C(180000000));
        if (both)
            assert_int_equal(us, INT64_MAX);
        if (pcmig_outcome_half_lost(&e))
            assert_true(us <= 15000000);
        if (e.source == PCMIG_HALF_ABSENT && e.destination == PCMIG_HALF_DEAD) /* a crash is not waited out */
            assert_int_equal(us, 15000000);
        if (e.source == PCMIG_HALF_UNKNOWN && e.destination == PCMIG_HALF_RUNNING) /* nothing is at stake any more */
            assert_int_equal(us, 15000000);
        if (e.source == PCMIG_HALF_POSTCOPY && e.destination == PCMIG_HALF_DEAD) /* its memory arrives yet */
            assert_true(us > 15000000);
        if ((n & 2) != 0 && e.source == PCMIG_HALF_POSTCOPY_FAILED && e.destination == PCMIG_HALF_UNKNOWN)
            assert_int_equal(us, INT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_of_facts),
        cmocka_unit_test(patience),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
