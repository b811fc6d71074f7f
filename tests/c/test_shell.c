/* SPDX-License-Identifier: Apache-2.0 */
/* Commands to be pasted: a real shell reads back the words that went in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/shell.h"

#define UUID "6695eb01-f6a4-8304-79aa-97f2502e193f"

/* What sh passes on, each word with a newline's place taken by a NUL; OUT gets LENGTH bytes. */
static size_t through_sh(const char *command, char *out, size_t size)
{
    char path[] = "/tmp/pcmig-test-XXXXXX", line[64];
    int fd = mkstemp(path);
    size_t length;
    FILE *pipe;

    assert_true(fd >= 0);
    assert_true(dprintf(fd, "printf '%%s\\000' %s\n", command) > 0);
    (void)close(fd);
    (void)snprintf(line, sizeof(line), "sh %s", path);
    pipe = popen(line, "r");
    assert_non_null(pipe);
    length = fread(out, 1, size, pipe);
    assert_int_equal(pclose(pipe), 0);
    (void)unlink(path);
    return length;
}

static void expect_back(const char *const *words, size_t count)
{
    static char command[65536], got[65536], want[65536];
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        memcpy(want + length, words[i], strlen(words[i]) + 1);
        length += strlen(words[i]) + 1;
    }
    assert_true(pcmig_shell_command(words, count, command, sizeof(command)));
    assert_int_equal(through_sh(command, got, sizeof(got)), length);
    assert_memory_equal(got, want, length);
}

static void known_ones(void **state)
{
    static const struct {
        const char *word, *quoted;
    } rows[] = {
        {"web1", "web1"},
        {"qemu+ssh://root@b:22/system", "qemu+ssh://root@b:22/system"},
        {"", "''"},
        {"Home Assistant", "'Home Assistant'"},
        {"web's", "'web'\"'\"'s'"},
        {"a;b", "'a;b'"},
        {"~", "'~'"},
        {"tcp://[fd00::2]", "'tcp://[fd00::2]'"},
        {"qemu+ssh://b/system?socket=/x&no_verify=1", "'qemu+ssh://b/system?socket=/x&no_verify=1'"},
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(pcmig_shell_quote(rows[i].word, out, sizeof(out)), strlen(rows[i].quoted));
        assert_string_equal(out, rows[i].quoted);
    }
}

static void names_that_bite(void **state)
{
    static const char *const words[] = {
        "web's", "a'; reboot #'", "$(id)", "`id`", "say \"hi\"", "x\\y", "%s %n", "z\xc3\xbcrich", "*", "",
        "!!",    "a\tb",          "a\nb",  "#x",   "~root",      "=x",   "'''"};

    (void)state;
    expect_back(words, sizeof(words) / sizeof(words[0]));
}

/* Any bytes, in words of any length. */
static void whatever_there_is(void **state)
{
    enum { WORDS = 200, LONGEST = 60 };
    static char text[WORDS][LONGEST + 1];
    const char *words[WORDS];

    (void)state;
    srand(20261128);
    for (int i = 0; i < WORDS; i++) {
        int length = rand() % (LONGEST + 1);

        memset(text[i], 0, sizeof(text[i]));
        for (int k = 0; k < length; k++)
            text[i][k] = (char)(1 + rand() % 255);
        words[i] = text[i];
    }
    expect_back(words, WORDS);
}

/* A command that is not whole is none: half of it could do anything. */
static void too_long(void **state)
{
    static const char *const words[] = {"virsh", NULL, "destroy", "web 1"};
    char out[64];

    (void)state;
    for (size_t size = 0; size < sizeof(out); size++) {
        const bool fits = size > strlen("virsh destroy 'web 1'");

        memset(out, 'x', sizeof(out));
        assert_int_equal(pcmig_shell_command(words, 4, out, size), fits);
        if (size > 0)
            assert_string_equal(out, fits ? "virsh destroy 'web 1'" : "");
        else
            assert_int_equal(out[0], 'x');
        assert_int_equal(pcmig_shell_quote("web 1", out, size), strlen("'web 1'"));
        if (size > 0)
            assert_true(strlen(out) < size);
    }
}

static void guests(void **state)
{
    static const struct {
        const char *name;
        bool itself;
    } rows[] = {
        {"web1", true}, {"web's", true},  {"z\xc3\xbcrich", true}, {"1a", true},
        {"a-1", true},  {"-dash", false}, {"--json", false},       {"17", false},
        {"", false},    {"a\tb", false},  {"a\x7f", false},        {"11111111-1111-1111-1111-111111111111", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(pcmig_shell_guest(rows[i].name, UUID), rows[i].itself ? rows[i].name : UUID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_ones), cmocka_unit_test(names_that_bite), cmocka_unit_test(whatever_there_is),
        cmocka_unit_test(too_long),   cmocka_unit_test(guests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
