/* SPDX-License-Identifier: Apache-2.0 */
/* What is shown of somebody else's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/excerpt.h"

static void one_line(void **state)
{
    static const struct {
        const char *text, *line;
    } cases[] = {
        {"Connection refused", "Connection refused"},
        {"", ""},
        {" \r\n", ""},
        {"Authorized users only.\r\nroot@b: Permission denied (publickey).\r\n",
         "Authorized users only. root@b: Permission denied (publickey)."},
        {"@@@@@@@@@@@@@@@@@@@\r\n@    WARNING: CHANGED!    @\r\n@@@@@@@@@@@@@@@@@@@\r\nIt is",
         "@ WARNING: CHANGED! @ It is"},
        {"a -- b, a@b, ----", "a -- b, a@b, ----"},
        {"the host \342\200\230b\342\200\231", "the host \342\200\230b\342\200\231"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[128];

        pcmig_excerpt(cases[i].text, out, sizeof(out));
        assert_string_equal(out, cases[i].line);
    }
}

static void the_end_is_kept(void **state)
{
    char text[2000], out[100];

    (void)state;
    memset(text, 'b', sizeof(text));
    strcpy(text, "Cannot recv data: ");
    text[strlen(text)] = 'b';
    strcpy(text + sizeof(text) - 40, " Host key verification failed.");
    pcmig_excerpt(text, out, sizeof(out));
    assert_int_equal(strlen(out), sizeof(out) - 1);
    assert_int_equal(strncmp(out, "Cannot recv data: bbb", 21), 0);
    assert_non_null(strstr(out, "b ... bbb"));
    assert_non_null(strstr(out, " Host key verification failed."));
}

/* At whatever length: all that is there arrives, or a gap stands for it. */
static void every_length(void **state)
{
    (void)state;
    for (size_t len = 0; len < 80; len++) {
        char text[81], out[32];

        for (size_t i = 0; i < len; i++)
            text[i] = (char)('a' + i % 26);
        text[len] = '\0';
        pcmig_excerpt(text, out, sizeof(out));
        if (len < sizeof(out)) {
            assert_string_equal(out, text);
        } else {
            assert_int_equal(strlen(out), sizeof(out) - 1);
            assert_string_equal(out + sizeof(out) - 1 - 19, text + len - 19);
        }
    }
}

static void no_character_is_cut(void **state)
{
    (void)state;
    for (size_t from = 0; from < 3; from++) {
        char text[200] = "", out[32];

        memset(text, 'x', from);
        for (size_t i = from; i + 3 < sizeof(text); i += 3)
            memcpy(text + i, "\342\200\230", 3);
        pcmig_excerpt(text, out, sizeof(out));
        for (size_t i = 0; out[i] != '\0'; i++) {
            if ((unsigned char)out[i] == 0xe2)
                assert_memory_equal(out + i, "\342\200\230", 3);
            else
                assert_true((unsigned char)out[i] < 0x80 || (i > 0 && ((unsigned char)out[i] & 0xc0) == 0x80));
        }
        assert_true(((unsigned char)out[0] & 0xc0) != 0x80);
        assert_true(((unsigned char)strstr(out, " ... ")[5] & 0xc0) != 0x80);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line),
        cmocka_unit_test(the_end_is_kept),
        cmocka_unit_test(every_length),
        cmocka_unit_test(no_character_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
