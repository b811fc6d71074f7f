/* SPDX-License-Identifier: Apache-2.0 */
/* The states of the engine: every trigger in every state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/engine_state.h"

#define S(name) PCMIG_ENGINE_##name
#define T(name) PCMIG_TRIGGER_##name

static bool is_in_postcopy(enum pcmig_engine_state state)
{
    return state == S(POSTCOPY) || state == S(INTERRUPTED) || state == S(RESUMING);
}

static void every_trigger_in_every_state(void **state)
{
    (void)state;
    for (int from = 0; from < PCMIG_ENGINE_STATE_COUNT; from++) {
        for (int trigger = 0; trigger < PCMIG_TRIGGER_COUNT; trigger++) {
            enum pcmig_engine_state to =
                pcmig_engine_next((enum pcmig_engine_state)from, (enum pcmig_engine_trigger)trigger);

            assert_in_range(to, 0, PCMIG_ENGINE_STATE_COUNT - 1);
            /* What is over stays over, and only a verdict ends anything. */
            if (from == S(OVER))
                assert_int_equal(to, S(OVER));
            else
                assert_int_equal(to == S(OVER), trigger == T(FINISHED));
            /* A guest that has left is not before the switch again; a switch that came to nothing is. */
            if (is_in_postcopy((enum pcmig_engine_state)from))
                assert_false(pcmig_engine_before_switch(to));
            if (from == S(SWITCHING) && pcmig_engine_before_switch(to))
                assert_int_equal(trigger, T(SOURCE_RESUMED));
            /* Nothing begins twice. */
            if (from != S(PREPARING))
                assert_int_not_equal(to, S(PREPARING));
            if (from == S(PREPARING) && to != S(PREPARING) && to != S(OVER))
                assert_true(trigger == T(CALLED) || trigger == T(ADOPTED));
            /* libvirt's late words on the switch change nothing where more is known. */
            if (is_in_postcopy((enum pcmig_engine_state)from))
                assert_int_not_equal(to, S(SWITCHING));
            /* A trigger that has changed something has said what it has to say. */
            if (to != (enum pcmig_engine_state)from && trigger != T(SOURCE_SERVES))
                assert_int_equal(pcmig_engine_next(to, (enum pcmig_engine_trigger)trigger), to);
        }
    }
}

/* Trouble is always looked into. */
static void trouble_has_both_hosts_asked(void **state)
{
    static const enum pcmig_engine_trigger trouble[] = {T(BROKE), T(CALL_FAILED), T(CALL_SUCCEEDED)};

    (void)state;
    for (int from = S(PRECOPY); from < S(OVER); from++) {
        for (size_t i = 0; i < sizeof(trouble) / sizeof(trouble[0]); i++)
            assert_true(pcmig_engine_asks(pcmig_engine_next((enum pcmig_engine_state)from, trouble[i])));
    }
    assert_true(pcmig_engine_asks(pcmig_engine_next(S(POSTCOPY), T(HALF_ENDED))));
    assert_true(pcmig_engine_asks(pcmig_engine_next(S(POSTCOPY), T(STALLED))));
}

static void a_whole_migration(void **state)
{
    static const struct {
        enum pcmig_engine_trigger trigger;
        enum pcmig_engine_state state;
    } steps[] = {
        {T(CALLED), S(PRECOPY)},          {T(DRAIN), S(DRAINING)},
        {T(SWITCH), S(ISSUING)},          {T(UNDRAIN), S(PRECOPY)}, /* refused for too long */
        {T(DRAIN), S(DRAINING)},          {T(SWITCH), S(ISSUING)},
        {T(ISSUED), S(SWITCHING)},        {T(SOURCE_SERVES), S(SWITCHING)},
        {T(RUNS_THERE), S(POSTCOPY)},     {T(STALLED), S(CONFIRMING)},
        {T(FLOWS), S(POSTCOPY)},          {T(BROKE), S(INTERRUPTED)},
        {T(CALL_FAILED), S(INTERRUPTED)}, {T(RESUME), S(RESUMING)},
        {T(CALL_FAILED), S(INTERRUPTED)}, {T(RESUME), S(RESUMING)},
        {T(SOURCE_SERVES), S(POSTCOPY)},  {T(CALL_SUCCEEDED), S(CONFIRMING)},
        {T(FINISHED), S(OVER)},
    };
    enum pcmig_engine_state now = S(PREPARING);

    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        now = pcmig_engine_next(now, steps[i].trigger);
        assert_string_equal(pcmig_engine_state_name(now), pcmig_engine_state_name(steps[i].state));
    }
}

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_ENGINE_STATE_COUNT; i++) {
        assert_int_not_equal(strlen(pcmig_engine_state_text((enum pcmig_engine_state)i)), 0);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(pcmig_engine_state_name((enum pcmig_engine_state)i),
                                    pcmig_engine_state_name((enum pcmig_engine_state)k));
    }
    for (int i = 0; i < PCMIG_TRIGGER_COUNT; i++)
        assert_int_not_equal(strlen(pcmig_engine_trigger_text((enum pcmig_engine_trigger)i)), 0);
    assert_string_equal(pcmig_engine_state_name(PCMIG_ENGINE_STATE_COUNT), "unknown");
    assert_string_equal(pcmig_engine_state_text(PCMIG_ENGINE_STATE_COUNT), "unknown");
    assert_string_equal(pcmig_engine_trigger_text(PCMIG_TRIGGER_COUNT), "unknown");
    assert_false(pcmig_engine_asks(PCMIG_ENGINE_STATE_COUNT));
    assert_false(pcmig_engine_before_switch(PCMIG_ENGINE_STATE_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_trigger_in_every_state),
        cmocka_unit_test(trouble_has_both_hosts_asked),
        cmocka_unit_test(a_whole_migration),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
