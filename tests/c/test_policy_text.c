/* SPDX-License-Identifier: Apache-2.0 */
/* Policies as people type them, and decisions as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/policy.h"

static void good(void **state)
{
    static const struct {
        const char *text;
        enum pcmig_policy_kind kind;
        int param; /* -1 = none */
        int64_t value;
    } rows[] = {
        {"auto", PCMIG_POLICY_AUTO, -1, 0},
        {"first-pass", PCMIG_POLICY_FIRST_PASS, -1, 0},
        {"passes=3", PCMIG_POLICY_PASSES, PCMIG_PARAM_PASSES, 3},
        {"passes=1000000", PCMIG_POLICY_PASSES, PCMIG_PARAM_PASSES, 1000000},
        {"deadline=20", PCMIG_POLICY_DEADLINE, PCMIG_PARAM_DEADLINE_MS, 20000},
        {"deadline=0.001", PCMIG_POLICY_DEADLINE, PCMIG_PARAM_DEADLINE_MS, 1},
        {"deadline=2.5", PCMIG_POLICY_DEADLINE, PCMIG_PARAM_DEADLINE_MS, 2500},
        {"immediate", PCMIG_POLICY_IMMEDIATE, -1, 0},
        {"manual", PCMIG_POLICY_MANUAL, -1, 0},
        {"never", PCMIG_POLICY_NEVER, -1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum pcmig_policy_kind kind = PCMIG_POLICY_KIND_COUNT;
        struct pcmig_params params, expected;
        char err[256];

        pcmig_params_defaults(&params);
        expected = params;
        if (rows[i].param >= 0)
            expected.value[rows[i].param] = rows[i].value;
        assert_int_equal(pcmig_policy_parse(rows[i].text, strlen(rows[i].text), &kind, &params, err, sizeof(err)), 0);
        assert_int_equal(kind, rows[i].kind);
        assert_memory_equal(&params, &expected, sizeof(params));
    }
}

/* The message holds what was given and what would be right. */
static void bad(void **state)
{
    static const struct {
        const char *text, *given, *right;
    } rows[] = {
        {"", "\"\"", "first-pass"},
        {"Auto", "\"Auto\"", "auto"},
        {"auto ", "\"auto \"", "auto"},
        {"auto=1", "=1", "takes no value"},
        {"passes", "passes", "passes=N"},
        {"deadline", "deadline", "deadline=SECONDS"},
        {"passes=", "\"\"", "from 1 to"},
        {"passes=0", "\"0\"", "from 1 to"},
        {"passes=1.5", "\"1.5\"", "passes"},
        {"passes=1000001", "\"1000001\"", "to 1000000"},
        {"passes=-1", "\"-1\"", "from 1 to"},
        {"passes=99999999999999999999999", "99999", "from 1 to"},
        {"deadline=5.", "\"5.\"", "seconds"},
        {"deadline=.5", "\".5\"", "seconds"},
        {"deadline=0.0001", "\"0.0001\"", "0.001"},
        {"deadline=1s", "\"1s\"", "seconds"},
        {"deadline=1e3", "\"1e3\"", "seconds"},
        {"=", "\"=\"", "manual"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum pcmig_policy_kind kind = PCMIG_POLICY_KIND_COUNT;
        struct pcmig_params params, before;
        char err[256] = "";

        pcmig_params_defaults(&params);
        before = params;
        assert_int_equal(pcmig_policy_parse(rows[i].text, strlen(rows[i].text), &kind, &params, err, sizeof(err)), -1);
        assert_non_null(strstr(err, rows[i].given));
        assert_non_null(strstr(err, rows[i].right));
        assert_int_equal(kind, PCMIG_POLICY_KIND_COUNT);
        assert_memory_equal(&params, &before, sizeof(params));
    }
}

/* What is too long to show is cut between characters. */
static void long_text(void **state)
{
    static const char *const starts[] = {"", "passes=", "auto="};

    (void)state;
    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        for (size_t shift = 0; shift < 3; shift++) {
            char text[256] = "", err[256];
            enum pcmig_policy_kind kind;
            struct pcmig_params params;
            const char *cut;

            strcat(text, starts[s]);
            strncat(text, "aa", shift);
            while (strlen(text) < 200)
                strcat(text, "\xe2\x82\xac");
            pcmig_params_defaults(&params);
            assert_int_equal(pcmig_policy_parse(text, strlen(text), &kind, &params, err, sizeof(err)), -1);
            cut = strrchr(err, '"');
            assert_non_null(cut);
            assert_int_equal((unsigned char)cut[-1], 0xac); /* a whole character */
        }
    }
}

static void names_and_sentences(void **state)
{
    struct pcmig_decision d = {.a = INT64_MIN, .b = INT64_MIN, .c = INT64_MIN};
    char text[256];

    (void)state;
    for (int i = 0; i < PCMIG_REASON_COUNT; i++) {
        d.reason = (enum pcmig_reason)i;
        assert_in_range(pcmig_decision_describe(&d, text, sizeof(text)), 1, sizeof(text) - 1);
        assert_null(strchr(text, '%'));
        assert_string_not_equal(pcmig_reason_name(d.reason), "unknown");
        for (int k = 0; k < i; k++)
            assert_string_not_equal(pcmig_reason_name(d.reason), pcmig_reason_name((enum pcmig_reason)k));
    }
    d.reason = PCMIG_REASON_COUNT;
    assert_in_range(pcmig_decision_describe(&d, text, sizeof(text)), 1, sizeof(text) - 1);
    assert_string_equal(pcmig_reason_name(PCMIG_REASON_COUNT), "unknown");
    assert_string_equal(pcmig_action_name(PCMIG_ACTION_COUNT), "unknown");
    assert_string_equal(pcmig_action_name(PCMIG_ACTION_SET_PACE), "set-pace");
    assert_string_equal(pcmig_policy_kind_name(PCMIG_POLICY_KIND_COUNT), "unknown");
    d = (struct pcmig_decision){.reason = PCMIG_REASON_DEADLINE, .a = 20001};
    (void)pcmig_decision_describe(&d, text, sizeof(text));
    assert_non_null(strstr(text, "20001 ms"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(bad),
        cmocka_unit_test(long_text),
        cmocka_unit_test(names_and_sentences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
