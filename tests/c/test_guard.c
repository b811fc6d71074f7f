/* core/guard: its table of situations, acts and sides, and what whoever asks is told. What must hold for every combination of
 * halves is in test_halves.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/guard.h"

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))
#define BOTH(s, d)    .source = PCMIG_HALF_##s, .destination = PCMIG_HALF_##d

static const struct pcmig_guard_names nobody = {NULL, NULL, NULL};

/* One evidence for each situation; the acts it permits, a letter each, at the source and at the destination; and what is
 * advised where an act is refused. */
static const struct {
    struct pcmig_evidence evidence;
    const char *permits[PCMIG_SIDE_COUNT];
    const char *advice;
} rows[] = {
#define LOOK_A "virsh -c 'A' domstate --reason 'G'"
#define LOOK_B "virsh -c 'B' domstate --reason 'G'"
    [PCMIG_SITUATION_UNSEEN] = {{BOTH(UNKNOWN, ABSENT)}, {"srboduf", "srboduf"}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_NOBODY] = {{BOTH(ABSENT, ABSENT)}, {"srbodufR", "srbodufR"}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_HOME_SOURCE] = {{BOTH(RUNNING, UNKNOWN)}, {"srbodufR", "odufR"}, LOOK_A},
    [PCMIG_SITUATION_HOME_DESTINATION] = {{BOTH(ABSENT, RUNNING)}, {"odufP", "srbodufP"}, LOOK_B},
    [PCMIG_SITUATION_PRECOPY] = {{BOTH(RUNNING, MIGRATING), .job_active = true}, {"", ""}, "pcmig abort -c 'A' 'G'"},
    [PCMIG_SITUATION_SWITCHING] = {{BOTH(MIGRATING, MIGRATING)}, {"", ""}, "pcmig watch -c 'A' 'G'"},
    [PCMIG_SITUATION_POSTCOPY] = {{BOTH(POSTCOPY, POSTCOPY)}, {"", ""}, "pcmig watch -c 'A' 'G'"},
    [PCMIG_SITUATION_INTERRUPTED] = {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED)},
                                     {"M", "M"},
                                     "pcmig resume -c 'A' 'G' 'B'"},
    [PCMIG_SITUATION_CUT_OFF] = {{BOTH(POSTCOPY_FAILED, UNKNOWN)}, {"", ""}, "pcmig resume -c 'A' 'G' 'B'"},
    [PCMIG_SITUATION_AT_SOURCE] = {{BOTH(RUNNING, ABSENT), .in_flight = true, .job_absent = true},
                                   {"srboR", "dufR"},
                                   LOOK_A},
    [PCMIG_SITUATION_LEFTOVER] = {{BOTH(RUNNING, MIGRATING), .job_absent = true},
                                  {"R", "dufR"},
                                  "virsh -c 'B' destroy 'G'"},
    [PCMIG_SITUATION_ARRIVED] = {{BOTH(POSTCOPY, RUNNING)}, {"", ""}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_AT_DESTINATION] = {{BOTH(ABSENT, RUNNING), .in_flight = true}, {"dufP", "srboP"}, LOOK_B},
    [PCMIG_SITUATION_UNCONFIRMED] = {{BOTH(ABSENT, PAUSED), .in_flight = true}, {"", "r"}, LOOK_B},
    [PCMIG_SITUATION_HANDED_OVER] = {{BOTH(ABSENT, UNKNOWN), .source_handed_off = true}, {"dufP", "srboP"}, LOOK_B},
    [PCMIG_SITUATION_HALF_LOST] = {{BOTH(ABSENT, POSTCOPY_FAILED)}, {"", ""}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_GONE] = {{BOTH(ABSENT, ABSENT), .in_flight = true},
                              {"", ""},
                              "virsh -c 'A' dominfo 'G'; virsh -c 'B' dominfo 'G'"},
    [PCMIG_SITUATION_DOUBLE] = {{BOTH(RUNNING, RUNNING)},
                                {"", ""},
                                "virsh -c 'A' destroy 'G', or virsh -c 'B' destroy 'G': the copy that is not wanted"},
    [PCMIG_SITUATION_SILENT] = {{BOTH(ABSENT, UNKNOWN), .in_flight = true}, {"", ""}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_IN_DOUBT] = {{BOTH(ABSENT, RUNNING), .job_active = true}, {"", ""}, LOOK_A "; " LOOK_B},
};
_Static_assert(LENGTH(rows) == PCMIG_SITUATION_COUNT, "every situation has a row");

/* Each act: its letter above, whether an owner who insists may do it, and what is said where it is refused. */
static const struct {
    char letter;
    bool removes;
    const char *refusal; /* %s is the side */
} acts[] = {
    [PCMIG_ACT_START] = {'s', false, "starting it at the %s would boot a second copy, or one from old disks"},
    [PCMIG_ACT_RESUME] = {'r', false, "resuming the half at the %s would let old memory run, or a second copy"},
    [PCMIG_ACT_REBOOT] = {'b', false,
                          "rebooting it at the %s would throw its half away there and may boot a second copy"},
    [PCMIG_ACT_SHUTDOWN] = {'o', false, "shutting it down at the %s would end a half that is still needed"},
    [PCMIG_ACT_DESTROY] = {'d', true, "destroying the half at the %s may lose memory that nobody else has"},
    [PCMIG_ACT_UNDEFINE] = {'u', true, "undefining it at the %s may leave a guest that nobody can start again"},
    [PCMIG_ACT_DELETE_FILES] = {'f', true, "deleting its files at the %s may lose the only good ones"},
    [PCMIG_ACT_ROLLBACK] = {'R', false, "a rollback would destroy the destination's half"},
    [PCMIG_ACT_POST_MIGRATION] = {'P', false, "what follows a migration would remove the source's half and its files"},
    [PCMIG_ACT_MIGRATE_RESUME] = {'M', false, "resuming the migration takes both halves, one of them interrupted"},
};
_Static_assert(LENGTH(acts) == PCMIG_ACT_COUNT, "every act has a row");

/* FORMAT with the name of SIDE for its %s, if it has one. */
static void with_side(char *out, size_t size, const char *format, enum pcmig_side side)
{
    const char *at = strstr(format, "%s");
    int length = at == NULL ? (int)strlen(format) : (int)(at - format);

    snprintf(out, size, "%.*s%s%s", length, format, at == NULL ? "" : pcmig_side_name(side), at == NULL ? "" : at + 2);
}

static void assert_advice(const char *template, const char *expected)
{
    static const struct pcmig_guard_names names = {"G", "A", "B"};
    char text[256];

    assert_non_null(template);
    assert_true(pcmig_guard_advice(template, &names, text, sizeof(text)));
    assert_string_equal(text, expected);
}

typedef void (*check_fn)(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act, bool permitted);

static void for_all(check_fn check)
{
    for (int situation = 0; situation < PCMIG_SITUATION_COUNT; situation++) {
        for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
            for (int act = 0; act < PCMIG_ACT_COUNT; act++)
                check((enum pcmig_situation)situation, (enum pcmig_side)side, (enum pcmig_act)act,
                      strchr(rows[situation].permits[side], acts[act].letter) != NULL);
        }
    }
}

static void check_permits(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act, bool permitted)
{
    if (pcmig_guard_permits(situation, side, act) != permitted) {
        print_message("%s: %s at the %s\n", pcmig_situation_name(situation), pcmig_act_name(act),
                      pcmig_side_name(side));
        fail();
    }
}

/* What is taken away or added by mistake shows here. */
static void the_table(void **state)
{
    (void)state;
    for_all(check_permits);
}

static void check_answer(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act, bool permitted)
{
    const struct pcmig_evidence *evidence = &rows[situation].evidence;
    struct pcmig_permission p = pcmig_guard_may(evidence, side, act, false);
    enum pcmig_half own = side == PCMIG_SIDE_SOURCE ? evidence->source : evidence->destination;
    const char *text = pcmig_situation_text(situation);
    char refusal[128], expected[sizeof(p.reason)];

    assert_int_equal(p.situation, situation);
    if (!permitted && act == PCMIG_ACT_DESTROY && own == PCMIG_HALF_ABSENT) {
        snprintf(expected, sizeof(expected), "%s; there is nothing to destroy", text);
        assert_string_equal(p.reason, expected);
        permitted = true;
    }
    assert_int_equal(p.allowed, permitted);
    if (permitted) {
        assert_null(p.advice);
        assert_int_equal(strncmp(p.reason, text, strlen(text)), 0);
        assert_int_equal(strncmp(p.reason + strlen(text), "; ", 2), 0);
        return;
    }
    with_side(refusal, sizeof(refusal), acts[act].refusal, side);
    snprintf(expected, sizeof(expected), "%s; %s", text, refusal);
    assert_string_equal(p.reason, expected);
    assert_advice(p.advice, rows[situation].advice);
}

static void whoever_is_refused_is_told_why_and_what_helps(void **state)
{
    (void)state;
    for_all(check_answer);
}

static void check_insisting(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act, bool permitted)
{
    const struct pcmig_evidence *evidence = &rows[situation].evidence;
    enum pcmig_half other = side == PCMIG_SIDE_SOURCE ? evidence->destination : evidence->source;
    struct pcmig_permission calm = pcmig_guard_may(evidence, side, act, false);
    struct pcmig_permission p = pcmig_guard_may(evidence, side, act, true);
    char expected[sizeof(p.reason)];

    (void)permitted;
    if (calm.allowed || !acts[act].removes) {
        assert_memory_equal(p.reason, calm.reason, strlen(calm.reason) + 1);
        assert_int_equal(p.allowed, calm.allowed);
        assert_ptr_equal(p.advice, calm.advice);
        return;
    }
    assert_true(p.allowed);
    snprintf(expected, sizeof(expected),
             "%s; it is removed at the %s because its owner insists, and cannot be brought back",
             pcmig_situation_text(situation), pcmig_side_name(side));
    assert_string_equal(p.reason, expected);
    if (other == PCMIG_HALF_ABSENT)
        assert_null(p.advice);
    else
        assert_advice(p.advice, side == PCMIG_SIDE_SOURCE ? "virsh -c 'B' destroy 'G'" : "virsh -c 'A' destroy 'G'");
}

static void an_owner_who_insists_removes_and_nothing_else(void **state)
{
    (void)state;
    for_all(check_insisting);
}

static void advice_without_names(void **state)
{
    char out[64];

    (void)state;
    assert_true(pcmig_guard_advice("pcmig resume -c '%s' '%g' '%d'", &nobody, out, sizeof(out)));
    assert_string_equal(out, "pcmig resume -c 'SOURCEURI' 'GUEST' 'DESTURI'");
    assert_true(pcmig_guard_advice("", &nobody, out, sizeof(out)));
    assert_string_equal(out, "");
    /* A percent sign of its own, one at the end, and a letter that stands for nothing. */
    assert_true(pcmig_guard_advice("100%% %x 5%", &nobody, out, sizeof(out)));
    assert_string_equal(out, "100% % 5%");
}

/* Names come from users: none of their letters is taken for a template. */
static void names_are_not_expanded(void **state)
{
    static const struct pcmig_guard_names names = {"%s%g%", "%d", "b"};
    char out[32];

    (void)state;
    assert_true(pcmig_guard_advice("%g %s %d", &names, out, sizeof(out)));
    assert_string_equal(out, "%s%g% %d b");
}

/* A shell reads each name back as it is. */
static void advice_for_a_shell(void **state)
{
    static const struct pcmig_guard_names names = {"web's", "qemu+ssh://a/system?x='1'", NULL};
    char out[128];

    (void)state;
    assert_true(pcmig_guard_advice("pcmig resume -c '%s' '%g' '%d', %g", &names, out, sizeof(out)));
    assert_string_equal(out, "pcmig resume -c 'qemu+ssh://a/system?x='\"'\"'1'\"'\"'' 'web'\"'\"'s' 'DESTURI', web's");
}

static void advice_is_cut(void **state)
{
    static const struct pcmig_guard_names names = {"guest", "a:", "b:"};
    char out[12];

    (void)state;
    assert_true(pcmig_guard_advice("%g %s %d", &names, out, sizeof(out)));
    assert_string_equal(out, "guest a: b:");
    assert_false(pcmig_guard_advice("%g %s %d.", &names, out, sizeof(out)));
    assert_string_equal(out, "guest a: b:");
    assert_false(pcmig_guard_advice("%g", &names, out, 1));
    assert_string_equal(out, "");
}

static void names_are_found_as_they_are_written(void **state)
{
    static const char *const strangers[] = {"",      "START",          "star",    "starts",
                                            "reset", "migrate_resume", "unknown", "left"};

    (void)state;
    for (int i = 0; i < PCMIG_ACT_COUNT; i++)
        assert_int_equal(pcmig_act_find(pcmig_act_name((enum pcmig_act)i), strlen(pcmig_act_name((enum pcmig_act)i))),
                         i);
    for (int i = 0; i < PCMIG_SIDE_COUNT; i++)
        assert_int_equal(
            pcmig_side_find(pcmig_side_name((enum pcmig_side)i), strlen(pcmig_side_name((enum pcmig_side)i))), i);
    for (size_t i = 0; i < LENGTH(strangers); i++) {
        assert_int_equal(pcmig_act_find(strangers[i], strlen(strangers[i])), -1);
        assert_int_equal(pcmig_side_find(strangers[i], strlen(strangers[i])), -1);
    }
    /* LEN counts, not the terminator. */
    assert_int_equal(pcmig_act_find("rebooting", 6), PCMIG_ACT_REBOOT);
    assert_int_equal(pcmig_side_find("sources", 6), PCMIG_SIDE_SOURCE);
    assert_string_equal(pcmig_act_name(PCMIG_ACT_COUNT), "unknown");
    assert_string_equal(pcmig_side_name(PCMIG_SIDE_COUNT), "unknown");
}

/* Values that no caller should have: refused, whoever insists. */
static void nonsense_is_refused(void **state)
{
    const struct pcmig_evidence *calm = &rows[PCMIG_SITUATION_HOME_SOURCE].evidence;
    struct pcmig_evidence odd = {.source = (enum pcmig_half)99, .destination = PCMIG_HALF_RUNNING};
    struct pcmig_permission p = pcmig_guard_may(calm, PCMIG_SIDE_SOURCE, PCMIG_ACT_COUNT, true);

    (void)state;
    assert_false(p.allowed);
    assert_string_equal(p.reason, "no such act or side");
    p = pcmig_guard_may(calm, PCMIG_SIDE_COUNT, PCMIG_ACT_DESTROY, true);
    assert_false(p.allowed);
    assert_string_equal(p.reason, "no such act or side");
    assert_advice(p.advice, LOOK_A);
    p = pcmig_guard_may(&odd, PCMIG_SIDE_DESTINATION, PCMIG_ACT_START, true);
    assert_false(p.allowed);
    assert_int_equal(p.situation, PCMIG_SITUATION_IN_DOUBT);
    assert_false(pcmig_guard_permits(PCMIG_SITUATION_COUNT, PCMIG_SIDE_SOURCE, PCMIG_ACT_START));
    assert_false(pcmig_guard_permits(PCMIG_SITUATION_NOBODY, PCMIG_SIDE_COUNT, PCMIG_ACT_START));
    assert_false(pcmig_guard_permits(PCMIG_SITUATION_NOBODY, PCMIG_SIDE_SOURCE, PCMIG_ACT_COUNT));
    assert_ptr_equal(pcmig_guard_situation_advice(PCMIG_SITUATION_COUNT),
                     pcmig_guard_situation_advice(PCMIG_SITUATION_IN_DOUBT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(whoever_is_refused_is_told_why_and_what_helps),
        cmocka_unit_test(an_owner_who_insists_removes_and_nothing_else),
        cmocka_unit_test(advice_without_names),
        cmocka_unit_test(names_are_not_expanded),
        cmocka_unit_test(advice_for_a_shell),
        cmocka_unit_test(advice_is_cut),
        cmocka_unit_test(names_are_found_as_they_are_written),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
