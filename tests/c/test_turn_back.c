/* SPDX-License-Identifier: Apache-2.0 */
/* core/turn_back and core/unrun: every combination of facts, and every order of events that matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/turn_back.h"
#include "core/unrun.h"

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

static struct pcmig_turn_back_facts facts_of(unsigned n)
{
    return (struct pcmig_turn_back_facts){
        .unrun = (n & 1) != 0,
        .everything_sent = (n & 2) != 0,
        .sets_active = (n & 4) != 0,
        .discards_memory = (n & 8) != 0,
        .nowhere_else = (n & 16) != 0,
        .accept_newer_disks = (n & 32) != 0,
        .begun = (n & 64) != 0,
        .half = (enum pcmig_turn_back_half)(n / 128 % PCMIG_TURN_BACK_HALF_COUNT),
        .disks = (enum pcmig_turn_back_disks)(n / 128 / PCMIG_TURN_BACK_HALF_COUNT),
    };
}

static void every_combination(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned n = 0; n < 128 * PCMIG_TURN_BACK_HALF_COUNT * PCMIG_TURN_BACK_DISKS_COUNT; n++) {
        struct pcmig_turn_back_facts f = facts_of(n);
        struct pcmig_turn_back_verdict v = pcmig_turn_back_judge(&f);
        const bool has_half = f.half == PCMIG_TURN_BACK_WAITS || f.half == PCMIG_TURN_BACK_SENDS;
        const bool has_disks = f.disks != PCMIG_TURN_BACK_NO_DISKS;

        seen |= 1u << v.answer;
        assert_true(strlen(v.text) > 10);
        assert_int_equal(v.answer == PCMIG_TURN_BACK_DONE, f.half == PCMIG_TURN_BACK_RUNS);
        if (f.half == PCMIG_TURN_BACK_STOPPED) { /* all was decided the first time; of others nothing is known */
            assert_int_equal(v.answer, f.begun ? PCMIG_TURN_BACK_GO : PCMIG_TURN_BACK_NO_HALF);
            assert_int_equal(v.nothing_lost, f.begun && f.unrun);
            assert_null(v.word);
        } else if (v.answer == PCMIG_TURN_BACK_GO) {
            assert_true(has_half && !f.discards_memory);
            assert_true(!f.everything_sent || f.unrun || f.nowhere_else);
            assert_true(!has_disks || f.sets_active);
            assert_true(f.disks != PCMIG_TURN_BACK_SHARED_DISKS || f.unrun || f.accept_newer_disks);
            assert_int_equal(v.nothing_lost, f.unrun);
            assert_null(v.word);
        } else {
            assert_false(v.nothing_lost);
        }
        /* The word that is named does help, unless something else stands in the way as well. */
        if (v.word != NULL) {
            struct pcmig_turn_back_verdict after;

            f.nowhere_else = f.nowhere_else || strcmp(v.word, "--guest-is-nowhere-else") == 0;
            f.accept_newer_disks = f.accept_newer_disks || strcmp(v.word, "--accept-newer-disks") == 0;
            after = pcmig_turn_back_judge(&f);
            assert_int_not_equal(after.answer, v.answer);
        }
        /* By itself only where nothing is lost, whatever words somebody gave. */
        for (int mode = 0; mode < PCMIG_TURN_BACK_MODE_COUNT; mode++) {
            struct pcmig_turn_back_facts again = facts_of(n);

            if (pcmig_turn_back_by_itself((enum pcmig_turn_back_mode)mode, &again)) {
                assert_int_equal(mode, PCMIG_TURN_BACK_UNRUN);
                assert_true(again.unrun);
                assert_true((has_half && !again.discards_memory) ||
                            (again.half == PCMIG_TURN_BACK_STOPPED && again.begun));
            }
        }
    }
    assert_int_equal(seen, (1u << PCMIG_TURN_BACK_ANSWER_COUNT) - 1);
}

static void by_itself(void **state)
{
    const struct pcmig_turn_back_facts f = {
        .half = PCMIG_TURN_BACK_WAITS, .disks = PCMIG_TURN_BACK_SHARED_DISKS, .unrun = true, .sets_active = true};
    struct pcmig_turn_back_facts ran = f;

    (void)state;
    ran.unrun = false;
    ran.accept_newer_disks = true;
    assert_true(pcmig_turn_back_by_itself(PCMIG_TURN_BACK_UNRUN, &f));
    assert_false(pcmig_turn_back_by_itself(PCMIG_TURN_BACK_ASK, &f));
    assert_false(pcmig_turn_back_by_itself(PCMIG_TURN_BACK_NEVER, &f));
    assert_false(pcmig_turn_back_by_itself(PCMIG_TURN_BACK_UNRUN, &ran));
}

static void halves(void **state)
{
    static const struct {
        const char *run_state, *migration;
        enum pcmig_turn_back_half half;
    } rows[] = {
        {"finish-migrate", "postcopy-paused", PCMIG_TURN_BACK_WAITS},
        {"finish-migrate", "postcopy-active", PCMIG_TURN_BACK_SENDS},
        {"finish-migrate", "postcopy-recover", PCMIG_TURN_BACK_SENDS},
        {"running", "postcopy-paused", PCMIG_TURN_BACK_RUNS},
        {"running", "active", PCMIG_TURN_BACK_OTHER},
        {"running", "none", PCMIG_TURN_BACK_OTHER},
        {"running", "postcopy-active", PCMIG_TURN_BACK_OTHER}, /* of a destination */
        {"finish-migrate", "device", PCMIG_TURN_BACK_OTHER},
        {"finish-migrate", "postcopy-device", PCMIG_TURN_BACK_OTHER},
        {"finish-migrate", "completed", PCMIG_TURN_BACK_OTHER},
        {"postmigrate", "completed", PCMIG_TURN_BACK_OTHER},
        {"paused", "postcopy-paused", PCMIG_TURN_BACK_STOPPED},
        {"paused", "postcopy-active", PCMIG_TURN_BACK_OTHER},
        {"paused", "none", PCMIG_TURN_BACK_OTHER},
        {"io-error", "postcopy-paused", PCMIG_TURN_BACK_OTHER},
        {"shutdown", "postcopy-paused", PCMIG_TURN_BACK_OTHER},
        {"", "", PCMIG_TURN_BACK_OTHER},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        assert_int_equal(pcmig_turn_back_half(rows[i].run_state, rows[i].migration, true), rows[i].half);
        /* An interrupted destination runs beside "postcopy-paused", too. */
        assert_int_equal(pcmig_turn_back_half(rows[i].run_state, rows[i].migration, false), PCMIG_TURN_BACK_OTHER);
    }
}

static void what_moved(void **state)
{
    static const int64_t figures[] = {-1, 0, 4096, 8192};
    const size_t count = LENGTH(figures), all = count * count * count;

    (void)state;
    for (size_t n = 0; n < all * all; n++) {
        const size_t b = n % all, a = n / all;
        const struct pcmig_turn_back_stream before = {figures[b % count], figures[b / count % count],
                                                      figures[b / count / count]};
        const struct pcmig_turn_back_stream after = {figures[a % count], figures[a / count % count],
                                                     figures[a / count / count]};
        const bool stood = a == b && before.remaining_bytes >= 0 && before.sent_bytes >= 0 && before.requests >= 0;

        assert_int_equal(pcmig_turn_back_moved(&before, &after), !stood);
    }
}

static void names(void **state)
{
    (void)state;
    for (int i = 0; i < PCMIG_TURN_BACK_HALF_COUNT; i++) {
        const char *name = pcmig_turn_back_half_name((enum pcmig_turn_back_half)i);

        assert_int_equal(pcmig_turn_back_half_find(name, strlen(name)), i);
    }
    for (int i = 0; i < PCMIG_TURN_BACK_DISKS_COUNT; i++) {
        const char *name = pcmig_turn_back_disks_name((enum pcmig_turn_back_disks)i);

        assert_int_equal(pcmig_turn_back_disks_find(name, strlen(name)), i);
    }
    for (int i = 0; i < PCMIG_TURN_BACK_MODE_COUNT; i++) {
        const char *name = pcmig_turn_back_mode_name((enum pcmig_turn_back_mode)i);

        assert_int_equal(pcmig_turn_back_mode_find(name, strlen(name)), i);
    }
    assert_int_equal(pcmig_turn_back_mode_find("unru", 4), -1);
    assert_string_equal(pcmig_turn_back_answer_name(PCMIG_TURN_BACK_NEWER_DISKS), "newer-disks");
    assert_string_equal(pcmig_turn_back_answer_name(PCMIG_TURN_BACK_ANSWER_COUNT), "unknown");
    assert_string_equal(pcmig_turn_back_half_name(PCMIG_TURN_BACK_HALF_COUNT), "unknown");
    assert_string_equal(pcmig_turn_back_disks_name(PCMIG_TURN_BACK_DISKS_COUNT), "unknown");
    assert_string_equal(pcmig_turn_back_mode_name(PCMIG_TURN_BACK_MODE_COUNT), "unknown");
}

/* --- what events prove -------------------------------------------------------------------------------------------- */

/* 'L' listens, 'G' a gap; 'S' the destination's half starts, 'E' ends; 'r' 'm' 'o' 'f' it runs, whole, for another
 * reason, or its post-copy breaks; 'p' that breaks before it ran; 'i' the switch is issued; the half is asked: 'M'
 * migrating, 'A' absent, 'U' silent, 'C' in post-copy, 'P' paused, 'R' running; post-copy broken, it is paused 'B' or
 * runs 'F'. */
static struct pcmig_unrun told(const char *story)
{
    static const struct {
        char letter;
        enum pcmig_event event;
        bool paused;
    } events[] = {
        {'S', PCMIG_EVENT_DST_STARTED, false},          {'E', PCMIG_EVENT_DST_STOPPED, false},
        {'r', PCMIG_EVENT_DST_RESUMED_POSTCOPY, false}, {'m', PCMIG_EVENT_DST_RESUMED_MIGRATED, false},
        {'o', PCMIG_EVENT_DST_RESUMED_OTHER, false},    {'f', PCMIG_EVENT_DST_POSTCOPY_FAILED, false},
        {'p', PCMIG_EVENT_DST_POSTCOPY_FAILED, true},   {'i', PCMIG_EVENT_SWITCH_ISSUED, false},
    };
    static const struct {
        char letter;
        enum pcmig_half half;
        bool runs;
    } halves_seen[] = {
        {'M', PCMIG_HALF_MIGRATING, false},       {'A', PCMIG_HALF_ABSENT, false},
        {'U', PCMIG_HALF_UNKNOWN, false},         {'C', PCMIG_HALF_POSTCOPY, false},
        {'P', PCMIG_HALF_PAUSED, false},          {'R', PCMIG_HALF_RUNNING, false},
        {'B', PCMIG_HALF_POSTCOPY_FAILED, false}, {'F', PCMIG_HALF_POSTCOPY_FAILED, true},
    };
    struct pcmig_unrun unrun = {0};

    for (const char *at = story; *at != '\0'; at++) {
        if (*at == 'L')
            pcmig_unrun_listens(&unrun);
        if (*at == 'G')
            pcmig_unrun_gap(&unrun);
        for (size_t i = 0; i < LENGTH(events); i++) {
            if (events[i].letter == *at)
                pcmig_unrun_event(&unrun, &(struct pcmig_input){.code = events[i].event, .paused = events[i].paused});
        }
        for (size_t i = 0; i < LENGTH(halves_seen); i++) {
            if (halves_seen[i].letter == *at)
                pcmig_unrun_half(&unrun, halves_seen[i].half, halves_seen[i].runs);
        }
    }
    return unrun;
}

static void what_proves_it(void **state)
{
    static const struct {
        const char *story;
        bool certain;
    } rows[] =
        {
            {"LSiE", true},    {"LSMiMEA", true}, {"LSiEU", true},   {"LSESiE", true}, /* of two, the last ended too */
            {"LSipE", true},   {"LSiBE", true},   {"LSipBEA", true},                   /* it could not be had run */
            {"LSi", false},    {"LSip", false},                                        /* it may still begin to run */
            {"LSiprE", false}, {"LSirpE", false}, {"LSiFE", false},  {"LSirBE", false},
            {"LSirE", false},  {"LSimE", false},  {"LSioE", false},  {"LSifE", false},
            {"LSEr", false},   {"SiE", false}, /* nobody listened from the beginning */
            {"LGSiE", false},  {"LSGiE", false},  {"LSiGE", false},  {"LSiEG", false},
            {"LSiCE", false},  {"LSiPE", false},  {"LSiRE", false},  {"LSiEC", false},
            {"LSiEM", false},  {"LSiES", false},  {"LSiA", false},   {"LSiUA", false},
            {"", false},       {"L", false},      {"E", false},
        };

    (void)state;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        const struct pcmig_unrun unrun = told(rows[i].story);

        if (pcmig_unrun_certain(&unrun) != rows[i].certain)
            fail_msg("%s", rows[i].story);
    }
}

/* The host has no half any more and told nobody. */
static void what_was_not_told(void **state)
{
    static const struct {
        const char *story;
        bool untold;
    } rows[] = {
        {"LSiA", true},   {"LSiMA", true},  {"LSiMUA", true}, {"LSipA", true},  {"LSiAA", true},
        {"LSiE", false},  {"LSiEA", false}, {"LSiM", false},  {"LSi", false},   {"LA", false},
        {"LSirA", false}, {"LSiCA", false}, {"SiMA", false},  {"LGSiA", false}, {"LSiGA", false},
        {"LSiAG", false}, {"LSiAM", false}, {"LSiAS", false}, {"LSiAr", false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        const struct pcmig_unrun unrun = told(rows[i].story);

        if (pcmig_unrun_untold(&unrun) != rows[i].untold)
            fail_msg("%s", rows[i].story);
    }
}

static void who_saw_the_end(void **state)
{
    static const struct {
        const char *story;
        bool seen;
    } rows[] = {
        {"LSirE", true},   {"CE", true},      {"GCE", true},                      /* an event, whoever listens */
        {"LSirCA", true},  {"CA", true},      {"CUA", true},     {"GCA", true},   /* on one connection */
        {"LSirEG", true},  {"CAG", true},     {"CEGA", true},    {"CAGU", true},  /* it stays so */
        {"A", false},      {"LA", false},     {"GA", false},     {"U", false},    /* never seen there */
        {"CGA", false},    {"LSirGA", false}, {"CGUA", false},   {"CUGA", false}, /* a daemon that began anew */
        {"LSirES", false}, {"CAC", false},    {"CEC", false},    {"CAM", false},  /* there is another half */
        {"CACA", true},    {"CACGA", false},  {"CEGCGA", false}, {"", false},
        {"LSir", false},   {"C", false},      {"CG", false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        const struct pcmig_unrun unrun = told(rows[i].story);

        if (pcmig_unrun_seen_end(&unrun) != rows[i].seen)
            fail_msg("%s", rows[i].story);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination),
        cmocka_unit_test(by_itself),
        cmocka_unit_test(halves),
        cmocka_unit_test(names),
        cmocka_unit_test(what_moved),
        cmocka_unit_test(what_proves_it),
        cmocka_unit_test(what_was_not_told),
        cmocka_unit_test(who_saw_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
