/* SPDX-License-Identifier: Apache-2.0 */
/* core/guard: its table of situations, acts and sides, and what whoever asks is told. What must hold for every
 * combination of halves is in test_halves.c. */
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

/* One evidence for each situation; the acts it permits, a letter each, at the source and at the destination; and what
 * is advised where an act is refused. */
static const struct {
    struct pcmig_evidence evidence;
    const char *permits[PCMIG_SIDE_COUNT];
    const char *advice;
} rows[] = {
#define LOOK_A    "virsh -c 'A' domstate --reason 'G'"
#define LOOK_B    "virsh -c 'B' domstate --reason 'G'"
#define END_A     "virsh -c 'A' destroy 'G'"
#define END_B     "virsh -c 'B' destroy 'G'"
#define RESUME    "pcmig resume -c 'A' 'G' 'B'"
#define FORGET    "pcmig forget -c 'A' 'G'"
#define TURN_BACK "pcmig turn-back -c 'A' 'G'  # or, if it is to boot from its disks instead: " FORGET
#define POWER_OFF                                                                                                      \
    "virsh -c 'A' qemu-monitor-command 'G' --hmp system_powerdown  # or, if it does not power off by itself: " END_A
#define OR_LOST RESUME "  # or, if the silent host is lost: " FORGET
    [PCMIG_SITUATION_UNSEEN] = {{BOTH(UNKNOWN, ABSENT)}, {"srbodufF", "srbodufF"}, "pcmig check -c 'A' --peer 'B'"},
    [PCMIG_SITUATION_NOBODY] = {{BOTH(ABSENT, ABSENT)}, {"srbodufRF", "srbodufRF"}, LOOK_A "; " LOOK_B},
    [PCMIG_SITUATION_HOME_SOURCE] = {{BOTH(RUNNING, UNKNOWN)}, {"srbodufRF", "odufRF"}, LOOK_A},
    [PCMIG_SITUATION_HOME_DESTINATION] = {{BOTH(ABSENT, RUNNING)}, {"odufPF", "srbodufPF"}, LOOK_B},
    [PCMIG_SITUATION_PRECOPY] = {{BOTH(RUNNING, MIGRATING), .job_active = true}, {"", ""}, "pcmig abort -c 'A' 'G'"},
    [PCMIG_SITUATION_SWITCHING] = {{BOTH(MIGRATING, MIGRATING)}, {"", ""}, "pcmig watch -c 'A' 'G'"},
    [PCMIG_SITUATION_POSTCOPY] = {{BOTH(POSTCOPY, POSTCOPY)}, {"", ""}, "pcmig watch -c 'A' 'G'"},
    [PCMIG_SITUATION_INTERRUPTED] = {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED)}, {"M", "M"}, RESUME},
    [PCMIG_SITUATION_CUT_OFF] = {{BOTH(POSTCOPY_FAILED, UNKNOWN)},
                                 {"", ""},
                                 RESUME
                                 "  # or, if the silent host is dead: pcmig turn-back --destination-is-dead -c 'A' "
                                 "'G'"},
    [PCMIG_SITUATION_AT_SOURCE] = {{BOTH(RUNNING, ABSENT), .in_flight = true, .job_absent = true},
                                   {"srboRF", "dufRF"},
                                   RESUME},
    [PCMIG_SITUATION_LEFTOVER] = {{BOTH(RUNNING, MIGRATING), .job_absent = true}, {"RF", "dufRF"}, END_B},
    [PCMIG_SITUATION_ARRIVED] = {{BOTH(POSTCOPY, RUNNING), .source_completed = true},
                                 {"d", ""},
                                 RESUME "  # or, if the source keeps its half: " END_A},
    [PCMIG_SITUATION_AT_DESTINATION] = {{BOTH(ABSENT, RUNNING), .in_flight = true}, {"dufP", "srboPF"}, RESUME},
    [PCMIG_SITUATION_UNCONFIRMED] = {{BOTH(ABSENT, PAUSED), .in_flight = true}, {"", "r"}, "virsh -c 'B' resume 'G'"},
    [PCMIG_SITUATION_HANDED_OVER] = {{BOTH(ABSENT, UNKNOWN), .source_handed_off = true}, {"dufP", "srboP"}, LOOK_B},
    [PCMIG_SITUATION_HALF_LOST] = {{BOTH(POSTCOPY_FAILED, ABSENT)}, {"T", ""}, TURN_BACK},
    [PCMIG_SITUATION_TURNED_BACK] = {{BOTH(POSTCOPY_FAILED, ABSENT), .turned_back = true},
                                     {"boRT", "dufRF"},
                                     POWER_OFF},
    [PCMIG_SITUATION_ENDED] = {{BOTH(POSTCOPY_FAILED, ABSENT), .destination_shut_down = true}, {"dF", "dF"}, FORGET},
    [PCMIG_SITUATION_GONE] = {{BOTH(ABSENT, ABSENT), .in_flight = true}, {"F", "F"}, FORGET},
    [PCMIG_SITUATION_DOUBLE] = {{BOTH(RUNNING, RUNNING)},
                                {"", ""},
                                END_A ", or " END_B ": the copy that is not wanted"},
    [PCMIG_SITUATION_RUNS_AT_SOURCE] = {{BOTH(RUNNING, UNKNOWN), .in_flight = true, .job_absent = true},
                                        {"", ""},
                                        OR_LOST},
    [PCMIG_SITUATION_RUNS_AT_DESTINATION] = {{BOTH(UNKNOWN, RUNNING), .in_flight = true}, {"", ""}, OR_LOST},
    [PCMIG_SITUATION_SILENT] = {{BOTH(ABSENT, UNKNOWN), .in_flight = true}, {"", ""}, OR_LOST},
    [PCMIG_SITUATION_IN_DOUBT] = {{BOTH(ABSENT, RUNNING), .job_active = true}, {"", ""}, FORGET},
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
    [PCMIG_ACT_FORGET] =
        {'F', false,
         "forgetting the migration at the %s would leave nothing that keeps the guest from being lost or "
         "run twice"},
    [PCMIG_ACT_TURN_BACK] =
        {'T', false, "letting it go on at the source would run it twice, unless its other half can run no more"},
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
    if (act == PCMIG_ACT_FORGET || act == PCMIG_ACT_TURN_BACK)
        return; /* below */
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

/* The operator's word has a record go wherever nothing moves by itself; where no word is needed, it changes nothing. */
static void check_forgetting(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act, bool permitted)
{
    const struct pcmig_evidence *evidence = &rows[situation].evidence;
    bool moves = situation == PCMIG_SITUATION_PRECOPY || situation == PCMIG_SITUATION_SWITCHING ||
                 situation == PCMIG_SITUATION_POSTCOPY;
    struct pcmig_permission calm, p;

    if (act != PCMIG_ACT_FORGET)
        return;
    calm = pcmig_guard_may(evidence, side, act, false);
    p = pcmig_guard_may(evidence, side, act, true);
    assert_int_equal(calm.allowed, permitted);
    assert_int_equal(p.allowed, !moves);
    if (calm.allowed || moves)
        assert_string_equal(p.reason, calm.reason);
    else
        assert_non_null(strstr(p.reason, "; its record goes because the operator takes the loss"));
}

static void an_operator_who_takes_the_loss_forgets_what_does_not_move(void **state)
{
    (void)state;
    for_all(check_forgetting);
}

/* After the switch only the destination's disks are up to date: a record is what keeps the source from booting its old
 * ones. */
static void disks_that_were_copied_keep_the_record(void **state)
{
    (void)state;
    for (int situation = 0; situation < PCMIG_SITUATION_COUNT; situation++) {
        for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
            struct pcmig_evidence e = rows[situation].evidence;
            bool before = pcmig_guard_may(&e, (enum pcmig_side)side, PCMIG_ACT_FORGET, false).allowed;
            bool off = situation == PCMIG_SITUATION_GONE || situation == PCMIG_SITUATION_ENDED;

            e.disks_copied = true;
            assert_int_equal(pcmig_guard_may(&e, (enum pcmig_side)side, PCMIG_ACT_FORGET, false).allowed,
                             before && !off);
            if (off)
                assert_true(pcmig_guard_may(&e, (enum pcmig_side)side, PCMIG_ACT_FORGET, true).allowed);
        }
    }
}

/* libvirt's word at the destination and QEMU's at the source, both: or the half stays, as old as it may be. */
static void a_half_of_a_guest_that_has_arrived(void **state)
{
    (void)state;
    for (int source = 0; source < PCMIG_HALF_COUNT; source++) {
        for (int destination = 0; destination < PCMIG_HALF_COUNT; destination++) {
            const struct pcmig_evidence e = {.source = (enum pcmig_half)source,
                                             .destination = (enum pcmig_half)destination,
                                             .in_flight = true,
                                             .crossed = true};
            struct pcmig_evidence completed = e;
            bool before, with;

            completed.source_completed = true;
            before = pcmig_guard_may(&e, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false).allowed;
            with = pcmig_guard_may(&completed, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false).allowed;
            if (pcmig_situation_of(&e) == PCMIG_SITUATION_ARRIVED && source != PCMIG_HALF_ABSENT)
                assert_false(before);
            assert_int_equal(with, before || (destination == PCMIG_HALF_RUNNING &&
                                              pcmig_situation_of(&e) == PCMIG_SITUATION_ARRIVED));
        }
    }
}

/* By which halves a guest may turn back, without a word and on somebody's word that its destination is dead; and what
 * is advised where it may not. */
static void turning_back(void **state)
{
    static const struct {
        struct pcmig_evidence evidence;
        bool calm, by_word;
        const char *advice;
    } cases[] = {
        {{BOTH(POSTCOPY_FAILED, ABSENT)}, true, true, NULL},
        {{BOTH(POSTCOPY, ABSENT)}, true, true, NULL},
        {{BOTH(PAUSED, ABSENT), .in_flight = true, .crossed = true}, true, true, NULL},
        {{BOTH(MIGRATING, ABSENT), .in_flight = true, .crossed = true}, true, true, NULL},
        {{BOTH(POSTCOPY_FAILED, UNKNOWN)}, false, true, "pcmig resume"},
        {{BOTH(POSTCOPY, UNKNOWN)}, false, true, "pcmig resume"},
        /* It may be shutting down: what is ended then takes the owner's word along. */
        {{BOTH(POSTCOPY_FAILED, DEAD)}, false, false, LOOK_B "  # or, if it says crashed: " END_B "; pcmig turn-back"},
        /* It lives there, whatever somebody says: it can be resumed. */
        {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED)}, false, false, "pcmig resume"},
        {{BOTH(POSTCOPY_FAILED, POSTCOPY)}, false, false, "pcmig resume"},
        {{BOTH(POSTCOPY, POSTCOPY)}, false, false, "pcmig watch"},
        {{BOTH(POSTCOPY_FAILED, RUNNING)}, false, false, "pcmig resume"},
        {{BOTH(POSTCOPY_FAILED, MIGRATING)}, false, false, "pcmig resume"},
        /* It powered itself off there: nothing is to go on. */
        {{BOTH(POSTCOPY_FAILED, ABSENT), .destination_shut_down = true}, false, false, "pcmig forget"},
        /* Nothing is left here that could go on. */
        {{BOTH(ABSENT, POSTCOPY_FAILED)}, false, false, "pcmig forget"},
        {{BOTH(ABSENT, ABSENT), .in_flight = true, .crossed = true}, false, false, "pcmig forget"},
        {{BOTH(UNKNOWN, POSTCOPY_FAILED)}, false, false, "pcmig resume"},
        /* It never left. */
        {{BOTH(PAUSED, ABSENT), .in_flight = true, .job_absent = true}, false, false, "pcmig resume"},
        {{BOTH(POSTCOPY_FAILED, ABSENT), .source_handed_off = true}, false, false, NULL},
        /* It has turned back already. */
        {{BOTH(POSTCOPY_FAILED, UNKNOWN), .turned_back = true}, true, true, NULL},
        {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED), .turned_back = true}, true, true, NULL},
        {{BOTH(POSTCOPY_FAILED, RUNNING), .turned_back = true}, false, false, END_A ", or " END_B},
    };
    static const struct pcmig_guard_names names = {"G", "A", "B"};

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        for (int word = 0; word < 2; word++) {
            struct pcmig_permission p =
                pcmig_guard_may(&cases[i].evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_TURN_BACK, word != 0);
            char advice[256] = "";

            if (p.allowed != (word != 0 ? cases[i].by_word : cases[i].calm))
                fail_msg("case %zu, word %d: %s", i, word, p.reason);
            assert_false(
                pcmig_guard_may(&cases[i].evidence, PCMIG_SIDE_DESTINATION, PCMIG_ACT_TURN_BACK, word != 0).allowed);
            if (p.allowed)
                continue;
            assert_true(pcmig_guard_advice(p.advice, &names, advice, sizeof(advice)));
            if (cases[i].advice != NULL && strncmp(advice, cases[i].advice, strlen(cases[i].advice)) != 0)
                fail_msg("case %zu: %s", i, advice);
        }
    }
}

/* What a person may end once the migration is forgotten: halves that are of no use, and nothing that is the guest. */
static void what_is_left(void **state)
{
    static const struct {
        struct pcmig_evidence evidence;
        const char *rest;
    } cases[] = {
        {{BOTH(ABSENT, POSTCOPY_FAILED), .in_flight = true}, END_B},
        {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED), .turned_back = true}, END_B},
        {{BOTH(POSTCOPY_FAILED, ABSENT), .turned_back = true}, NULL},
        {{BOTH(POSTCOPY_FAILED, ABSENT), .in_flight = true}, END_A},
        {{BOTH(POSTCOPY_FAILED, ABSENT), .in_flight = true, .destination_shut_down = true}, END_A},
        {{BOTH(DEAD, POSTCOPY), .in_flight = true}, END_A "; " END_B},
        {{BOTH(POSTCOPY_FAILED, UNKNOWN), .in_flight = true}, END_A},
        {{BOTH(POSTCOPY_FAILED, POSTCOPY_FAILED), .in_flight = true}, END_A "; " END_B},
        {{BOTH(ABSENT, DEAD), .in_flight = true}, END_B},
        {{BOTH(ABSENT, ABSENT), .in_flight = true}, NULL},
        {{BOTH(RUNNING, MIGRATING), .in_flight = true, .job_absent = true}, END_B},
        {{BOTH(POSTCOPY_FAILED, RUNNING), .in_flight = true}, END_A},
        {{BOTH(RUNNING, RUNNING), .in_flight = true}, END_A ", or " END_B ": the copy that is not wanted"},
        {{BOTH(RUNNING, ABSENT), .in_flight = true, .job_absent = true}, NULL},
        {{BOTH(ABSENT, RUNNING), .in_flight = true}, NULL},
        {{BOTH(ABSENT, PAUSED), .in_flight = true}, NULL},
        {{BOTH(RUNNING, UNKNOWN), .in_flight = true}, NULL},
        {{BOTH(PAUSED, UNKNOWN), .in_flight = true}, NULL},
        {{BOTH(DEAD, PAUSED), .in_flight = true}, NULL},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *rest = pcmig_guard_rest(&cases[i].evidence);

        if (cases[i].rest == NULL)
            assert_null(rest);
        else
            assert_advice(rest, cases[i].rest);
    }
}

/* Two commands that only look help nobody out of these. */
static void every_dead_end_has_a_way_out(void **state)
{
    static const enum pcmig_situation ends[] = {
        PCMIG_SITUATION_GONE,    PCMIG_SITUATION_ENDED,    PCMIG_SITUATION_HALF_LOST,   PCMIG_SITUATION_SILENT,
        PCMIG_SITUATION_DOUBLE,  PCMIG_SITUATION_UNSEEN,   PCMIG_SITUATION_IN_DOUBT,    PCMIG_SITUATION_CUT_OFF,
        PCMIG_SITUATION_ARRIVED, PCMIG_SITUATION_LEFTOVER, PCMIG_SITUATION_UNCONFIRMED,
    };

    (void)state;
    for (int i = 0; i < PCMIG_SITUATION_COUNT; i++)
        assert_non_null(pcmig_guard_situation_advice((enum pcmig_situation)i));
    for (size_t i = 0; i < LENGTH(ends); i++) {
        const char *advice = pcmig_guard_situation_advice(ends[i]);

        assert_null(strstr(advice, "domstate"));
        assert_null(strstr(advice, "dominfo"));
    }
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
        cmocka_unit_test(an_operator_who_takes_the_loss_forgets_what_does_not_move),
        cmocka_unit_test(disks_that_were_copied_keep_the_record),
        cmocka_unit_test(a_half_of_a_guest_that_has_arrived),
        cmocka_unit_test(turning_back),
        cmocka_unit_test(what_is_left),
        cmocka_unit_test(every_dead_end_has_a_way_out),
        cmocka_unit_test(advice_without_names),
        cmocka_unit_test(names_are_not_expanded),
        cmocka_unit_test(advice_for_a_shell),
        cmocka_unit_test(advice_is_cut),
        cmocka_unit_test(names_are_found_as_they_are_written),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
