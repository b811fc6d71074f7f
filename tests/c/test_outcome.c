/* SPDX-License-Identifier: Apache-2.0 */
/* Who has the guest: every combination of what the two hosts can say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/outcome.h"

typedef void (*check_fn)(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v);

static void for_all(check_fn check)
{
    for (int source = 0; source < PCMIG_HALF_COUNT; source++) {
        for (int destination = 0; destination < PCMIG_HALF_COUNT; destination++) {
            for (unsigned flags = 0; flags < 256; flags++) {
                struct pcmig_evidence e = {.source = (enum pcmig_half)source,
                                           .destination = (enum pcmig_half)destination,
                                           .call_succeeded = (flags & 1) != 0,
                                           .source_handed_off = (flags & 2) != 0,
                                           .job_active = (flags & 8) != 0,
                                           .job_absent = (flags & 8) == 0 && (flags & 64) != 0,
                                           .crossed = (flags & 128) != 0,
                                           .source_shut_down = (flags & 16) != 0 && source == PCMIG_HALF_ABSENT,
                                           .destination_shut_down =
                                               (flags & 32) != 0 && destination == PCMIG_HALF_ABSENT};
                struct pcmig_verdict v = pcmig_outcome_judge(&e, (flags & 4) != 0);

                check(&e, (flags & 4) != 0, &v);
            }
        }
    }
}

static bool whole(enum pcmig_half half)
{
    return half == PCMIG_HALF_RUNNING || half == PCMIG_HALF_PAUSED;
}

/* The source says nothing that contradicts the destination having the guest alone. */
static bool source_gone(enum pcmig_half half)
{
    return half == PCMIG_HALF_ABSENT || half == PCMIG_HALF_UNKNOWN;
}

static void completed_only_there(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    if (v->outcome != PCMIG_OUTCOME_COMPLETED)
        return;
    assert_true(source_gone(e->source));
    if (e->destination == PCMIG_HALF_PAUSED)
        assert_true(e->call_succeeded || e->source_handed_off);
    if (whole(e->destination))
        return;
    if (e->destination == PCMIG_HALF_ABSENT) {
        assert_int_equal(e->source, PCMIG_HALF_ABSENT);
        assert_true(e->destination_shut_down && patience_over);
        return;
    }
    /* Nobody to ask there, or it crashed there: then the source must have said so, and be gone. */
    if (e->destination == PCMIG_HALF_DEAD)
        assert_true(patience_over);
    else
        assert_int_equal(e->destination, PCMIG_HALF_UNKNOWN);
    assert_int_equal(e->source, PCMIG_HALF_ABSENT);
    assert_true(e->call_succeeded || e->source_handed_off);
}

static void failed_only_here(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    if (v->outcome != PCMIG_OUTCOME_FAILED)
        return;
    if (e->source == PCMIG_HALF_ABSENT) { /* off, and it never left */
        assert_true(e->source_shut_down && !e->destination_shut_down && patience_over);
        assert_int_equal(e->destination, PCMIG_HALF_ABSENT);
        assert_false(e->call_succeeded || e->source_handed_off);
        return;
    }
    assert_true(whole(e->source));
    assert_true(e->job_absent || (patience_over && !e->job_active && e->destination == PCMIG_HALF_ABSENT));
    assert_true(e->destination == PCMIG_HALF_ABSENT || e->destination == PCMIG_HALF_UNKNOWN ||
                e->destination == PCMIG_HALF_DEAD || e->destination == PCMIG_HALF_MIGRATING);
    if (e->destination != PCMIG_HALF_ABSENT && e->destination != PCMIG_HALF_UNKNOWN)
        assert_true(patience_over);
    if (e->source == PCMIG_HALF_PAUSED)
        assert_false(e->crossed);
}

static void patience_ends(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    (void)e;
    assert_true(v->outcome < PCMIG_OUTCOME_DETACHED); /* that one is never a verdict */
    if (patience_over)
        assert_int_not_equal(v->outcome, PCMIG_OUTCOME_RUNNING);
}

/* A verdict before patience is over does not become another one by waiting. */
static void settled_stays(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    struct pcmig_verdict later = pcmig_outcome_judge(e, true);

    if (!patience_over && v->outcome != PCMIG_OUTCOME_RUNNING) {
        assert_int_equal(later.outcome, v->outcome);
        assert_int_equal(later.advice, v->advice);
    }
}

/* Somebody who is to act is told how, and nobody is told to act on a guest that is where it should be. */
static void advice_fits(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    bool failed_half = e->source == PCMIG_HALF_POSTCOPY_FAILED || e->destination == PCMIG_HALF_POSTCOPY_FAILED;

    (void)patience_over;
    assert_non_null(v->text);
    assert_int_not_equal(strlen(v->text), 0);
    assert_int_equal(v->outcome == PCMIG_OUTCOME_NEEDS_OPERATOR, v->advice != PCMIG_ADVICE_NONE);
    if (v->advice == PCMIG_ADVICE_RESUME)
        assert_true(failed_half);
}

/* While pages are on both sides, or the source has the guest, it has not moved. */
static void not_moved(const struct pcmig_evidence *e, bool patience_over, const struct pcmig_verdict *v)
{
    (void)patience_over;
    if (e->source == PCMIG_HALF_RUNNING || e->source == PCMIG_HALF_PAUSED || e->source == PCMIG_HALF_POSTCOPY ||
        e->source == PCMIG_HALF_POSTCOPY_FAILED || e->source == PCMIG_HALF_MIGRATING || e->source == PCMIG_HALF_DEAD)
        assert_int_not_equal(v->outcome, PCMIG_OUTCOME_COMPLETED);
    if (e->destination == PCMIG_HALF_POSTCOPY || e->destination == PCMIG_HALF_POSTCOPY_FAILED)
        assert_int_not_equal(v->outcome, PCMIG_OUTCOME_COMPLETED);
}

static void all_combinations(void **state)
{
    (void)state;
    for_all(completed_only_there);
    for_all(failed_only_here);
    for_all(patience_ends);
    for_all(settled_stays);
    for_all(advice_fits);
    for_all(not_moved);
}

/* The ends that are seen in practice, at once. */
static void usual_ends(void **state)
{
    static const struct {
        enum pcmig_half source, destination;
        enum pcmig_outcome outcome;
    } rows[] = {
        {PCMIG_HALF_ABSENT, PCMIG_HALF_RUNNING, PCMIG_OUTCOME_COMPLETED},
        {PCMIG_HALF_RUNNING, PCMIG_HALF_ABSENT, PCMIG_OUTCOME_FAILED},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_OUTCOME_NEEDS_OPERATOR},
        {PCMIG_HALF_RUNNING, PCMIG_HALF_RUNNING, PCMIG_OUTCOME_RUNNING}, /* it may have moved between the questions */
        {PCMIG_HALF_POSTCOPY, PCMIG_HALF_POSTCOPY, PCMIG_OUTCOME_RUNNING},
        {PCMIG_HALF_MIGRATING, PCMIG_HALF_RUNNING, PCMIG_OUTCOME_RUNNING},
        {PCMIG_HALF_UNKNOWN, PCMIG_HALF_UNKNOWN, PCMIG_OUTCOME_RUNNING},
        {PCMIG_HALF_UNKNOWN, PCMIG_HALF_RUNNING, PCMIG_OUTCOME_RUNNING}, /* the source may yet answer */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_evidence e = {.source = rows[i].source, .destination = rows[i].destination, .job_absent = true};

        assert_int_equal(pcmig_outcome_judge(&e, false).outcome, rows[i].outcome);
    }
}

/* A half that is gone is said as soon as patience is over; nobody is sent to resume, and what is left is nobody's to
 * destroy. One that handed the guest over is not lost. */
static void lost_halves(void **state)
{
    static const struct {
        enum pcmig_half source, destination;
        bool handed_off, lost;
    } rows[] = {
        {PCMIG_HALF_ABSENT, PCMIG_HALF_POSTCOPY, false, true},
        {PCMIG_HALF_DEAD, PCMIG_HALF_POSTCOPY_FAILED, false, true},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_ABSENT, false, true},
        {PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_DEAD, false, true},
        {PCMIG_HALF_POSTCOPY, PCMIG_HALF_DEAD, false, false},
        {PCMIG_HALF_ABSENT, PCMIG_HALF_POSTCOPY, true, false},
        {PCMIG_HALF_UNKNOWN, PCMIG_HALF_POSTCOPY_FAILED, false, false},
        {PCMIG_HALF_RUNNING, PCMIG_HALF_ABSENT, false, false},
        {PCMIG_HALF_ABSENT, PCMIG_HALF_RUNNING, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_evidence e = {
            .source = rows[i].source, .destination = rows[i].destination, .source_handed_off = rows[i].handed_off};
        struct pcmig_verdict v = pcmig_outcome_judge(&e, true);

        assert_int_equal(pcmig_outcome_half_lost(&e), rows[i].lost);
        assert_int_equal(strstr(v.text, "one half of the guest is gone") != NULL, rows[i].lost);
        if (!rows[i].lost)
            continue;
        assert_int_equal(v.outcome, PCMIG_OUTCOME_NEEDS_OPERATOR);
        /* Of two halves, only the source's can go on alone. */
        assert_int_equal(v.advice, e.destination == PCMIG_HALF_ABSENT ? PCMIG_ADVICE_TURN_BACK : PCMIG_ADVICE_FORGET);
        assert_int_equal(pcmig_outcome_judge(&e, false).outcome, PCMIG_OUTCOME_RUNNING);
    }
}

/* A guest that was shut down needs no memory any more: told as what it is, once patience is over. */
static void shut_down(void **state)
{
    static const struct {
        struct pcmig_evidence e;
        enum pcmig_outcome outcome;
        enum pcmig_advice advice;
        const char *text;
    } rows[] = {
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_ABSENT, .source_shut_down = true},
         PCMIG_OUTCOME_FAILED,
         PCMIG_ADVICE_NONE,
         "before it could move"},
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_ABSENT, .destination_shut_down = true},
         PCMIG_OUTCOME_COMPLETED,
         PCMIG_ADVICE_NONE,
         "off there"},
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_ABSENT, .call_succeeded = true, .destination_shut_down = true},
         PCMIG_OUTCOME_COMPLETED,
         PCMIG_ADVICE_NONE,
         "off there"},
        {{PCMIG_HALF_POSTCOPY_FAILED, PCMIG_HALF_ABSENT, .destination_shut_down = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         PCMIG_ADVICE_END_AND_FORGET,
         "nothing is lost"},
        {{PCMIG_HALF_POSTCOPY, PCMIG_HALF_ABSENT, .destination_shut_down = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         PCMIG_ADVICE_END_AND_FORGET,
         "nothing is lost"},
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_ABSENT, .call_succeeded = true, .source_shut_down = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         PCMIG_ADVICE_FORGET,
         "on neither host"},
        {{PCMIG_HALF_MIGRATING, PCMIG_HALF_ABSENT, .destination_shut_down = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         PCMIG_ADVICE_FORGET,
         "do not agree"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_verdict v = pcmig_outcome_judge(&rows[i].e, true);

        assert_int_equal(v.outcome, rows[i].outcome);
        assert_int_equal(v.advice, rows[i].advice);
        assert_non_null(strstr(v.text, rows[i].text));
        assert_int_equal(pcmig_outcome_judge(&rows[i].e, false).outcome, PCMIG_OUTCOME_RUNNING);
    }
}

/* A crash keeps the guest's process, where its definition asks for that: it is told where, and is not said to be gone.
 * While its memory is on the way nothing is lost. */
static void crashed(void **state)
{
    static const struct {
        struct pcmig_evidence e;
        enum pcmig_outcome outcome;
        const char *text;
    } rows[] = {
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_DEAD, .source_handed_off = true},
         PCMIG_OUTCOME_COMPLETED,
         "has crashed at the destination"},
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_DEAD, .call_succeeded = true},
         PCMIG_OUTCOME_COMPLETED,
         "has crashed at the destination"},
        {{PCMIG_HALF_ABSENT, PCMIG_HALF_DEAD, .in_flight = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         "has crashed at the destination"},
        {{PCMIG_HALF_DEAD, PCMIG_HALF_ABSENT, .in_flight = true},
         PCMIG_OUTCOME_NEEDS_OPERATOR,
         "has crashed at the source"},
    };
    struct pcmig_evidence half = {.source = PCMIG_HALF_POSTCOPY, .destination = PCMIG_HALF_DEAD, .crossed = true};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_verdict v = pcmig_outcome_judge(&rows[i].e, true);

        assert_int_equal(v.outcome, rows[i].outcome);
        assert_non_null(strstr(v.text, rows[i].text));
        assert_int_equal(pcmig_outcome_judge(&rows[i].e, false).outcome, PCMIG_OUTCOME_RUNNING);
    }
    assert_false(pcmig_outcome_half_lost(&half));
    half.source = PCMIG_HALF_POSTCOPY_FAILED;
    assert_true(pcmig_outcome_half_lost(&half));
    half.destination = PCMIG_HALF_ABSENT;
    half.source = PCMIG_HALF_POSTCOPY;
    assert_true(pcmig_outcome_half_lost(&half));
}

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_OUTCOME_COUNT; i++) {
        for (int k = 0; k < i; k++)
            assert_string_not_equal(pcmig_outcome_name((enum pcmig_outcome)i),
                                    pcmig_outcome_name((enum pcmig_outcome)k));
    }
    assert_string_equal(pcmig_outcome_name(PCMIG_OUTCOME_NEEDS_OPERATOR), "needs-operator");
    assert_string_equal(pcmig_outcome_name(PCMIG_OUTCOME_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_combinations), cmocka_unit_test(usual_ends), cmocka_unit_test(lost_halves),
        cmocka_unit_test(shut_down),        cmocka_unit_test(crashed),    cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
