/* SPDX-License-Identifier: Apache-2.0 */
/* The table of flags, the text of nova.conf, and names of old. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/flags.h"

/* TEXT on the heap without a final NUL, so that a sanitizer sees a byte read too far. */
static int parse(const char *text, size_t len, struct pcmig_flags *flags, struct pcmig_flags_error *err)
{
    char *copy = malloc(len > 0 ? len : 1);
    int rc;

    assert_non_null(copy);
    memcpy(copy, text, len);
    rc = pcmig_flags_parse(copy, len, flags, err);
    if (rc < 0)
        err->token = text + err->offset;
    free(copy);
    return rc;
}

static uint32_t bits_of(const char *text)
{
    struct pcmig_flags flags = {0, NULL};
    struct pcmig_flags_error err;

    assert_int_equal(parse(text, strlen(text), &flags, &err), 0);
    return flags.bits;
}

static struct pcmig_flags_error error_of(const char *text, size_t len)
{
    struct pcmig_flags flags = {42, "untouched"};
    struct pcmig_flags_error err = {0};

    assert_int_equal(parse(text, len, &flags, &err), -1);
    assert_int_equal(flags.bits, 42);
    assert_string_equal(flags.policy, "untouched");
    return err;
}

static void table_is_sound(void **state)
{
    const struct pcmig_flags_row *row;
    uint32_t seen = 0, before = 0;

    (void)state;
    for (size_t i = 0; (row = pcmig_flags_row(i)) != NULL; i++) {
        assert_int_equal(row->bit & (row->bit - 1), 0);
        assert_true(row->bit > before);
        assert_true(row->since > 0 && row->since <= PCMIG_FLAGS_VERSION(12, 8, 0));
        assert_true(strlen(row->doc) > 10 && row->doc[strlen(row->doc) - 1] == '.');
        for (const char *c = row->name; *c != '\0'; c++)
            assert_true((*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '_');
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(row->name, pcmig_flags_row(j)->name);
        before = row->bit;
        seen |= row->bit;
    }
    assert_int_equal(seen, PCMIG_FLAGS_ALL);
    assert_null(pcmig_flags_row(SIZE_MAX));
    assert_null(pcmig_flags_old_name(SIZE_MAX));
}

static void old_names(void **state)
{
    struct pcmig_flags flags;
    struct pcmig_flags_error err;
    const struct pcmig_flags_old_name *old;

    (void)state;
    assert_int_equal(parse("VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY", 34, &flags, &err), 0);
    assert_int_equal(flags.bits, PCMIG_FLAG_POSTCOPY);
    assert_string_equal(flags.policy, "first-pass");
    assert_int_equal(parse("enable_postcopy", 15, &flags, &err), 0);
    assert_int_equal(flags.bits, PCMIG_FLAG_POSTCOPY);
    assert_null(flags.policy);
    /* The policy stays, whatever comes after it, and the old bit of it, TLS, is not set by either name. */
    assert_int_equal(parse("POSTCOPY_AFTER_PRECOPY,ENABLE_POSTCOPY,LIVE", 43, &flags, &err), 0);
    assert_int_equal(flags.bits, PCMIG_FLAG_POSTCOPY | PCMIG_FLAG_LIVE);
    assert_string_equal(flags.policy, "first-pass");
    for (size_t i = 0; (old = pcmig_flags_old_name(i)) != NULL; i++) {
        assert_int_equal(old->bit & PCMIG_FLAG_TLS, 0);
        for (size_t j = 0; j < PCMIG_FLAGS_COUNT; j++)
            assert_string_not_equal(old->name, pcmig_flags_row(j)->name);
    }
}

static void every_name_in_every_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        const struct pcmig_flags_row *row = pcmig_flags_row(i);
        char text[128];

        assert_int_equal(bits_of(row->name), row->bit);
        (void)snprintf(text, sizeof(text), "VIR_MIGRATE_%s", row->name);
        assert_int_equal(bits_of(text), row->bit);
        for (char *c = text; *c != '\0'; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        assert_int_equal(bits_of(text), row->bit);
        assert_int_equal(bits_of(text + strlen("VIR_MIGRATE_")), row->bit);
    }
}

static void white_space_and_commas(void **state)
{
    static const char *const texts[] = {
        "VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY",
        "live,postcopy",
        " Live ,\tPostCopy ",
        "LIVE,POSTCOPY,",
        "LIVE, POSTCOPY, ,",
        ",,LIVE,,POSTCOPY",
        "VIR_MIGRATE_LIVE,\n    VIR_MIGRATE_POSTCOPY\r\n",
        "\v\fLIVE POSTCOPY",
        "LIVE,LIVE,POSTCOPY,POSTCOPY",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(bits_of(texts[i]), PCMIG_FLAG_LIVE | PCMIG_FLAG_POSTCOPY);
    assert_int_equal(bits_of(""), 0);
    assert_int_equal(bits_of(" , ,\n"), 0);
    /* Nova's own default until it removed the option. */
    assert_int_equal(
        bits_of("VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, VIR_MIGRATE_TUNNELLED"),
        PCMIG_FLAG_UNDEFINE_SOURCE | PCMIG_FLAG_PEER2PEER | PCMIG_FLAG_LIVE | PCMIG_FLAG_TUNNELLED);
}

static void positions(void **state)
{
    static const struct {
        const char *text;
        size_t offset;
        size_t len;
        unsigned item;
    } cases[] = {
        {"NO", 0, 2, 1},
        {"LIVE, NO", 6, 2, 2},
        {" ,, LIVE,,\n NO, POSTCOPY", 12, 2, 2},
        {"LIVE,POSTCOPY,VIR_MIGRATE_", 14, 12, 3},
        {"LIVE VIR_MIGRATE_VIR_MIGRATE_LIVE", 5, 28, 2},
        {"LIVE|POSTCOPY", 0, 13, 1},
        {"LIVE, \\\n POSTCOPY", 6, 1, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pcmig_flags_error err = error_of(cases[i].text, strlen(cases[i].text));

        assert_int_equal(err.offset, cases[i].offset);
        assert_int_equal(err.len, cases[i].len);
        assert_int_equal(err.item, cases[i].item);
    }
}

static void nearest(void **state)
{
    static const struct {
        const char *token;
        const char *name;
    } cases[] = {
        {"TUNNELED", "TUNNELLED"},
        {"VIR_MIGRATE_TUNNELED", "TUNNELLED"},
        {"LIFE", "LIVE"},
        {"evil", NULL},
        {"TSL", "TLS"},
        {"post_copy", "POSTCOPY"},
        {"PEER_2_PEER", "PEER2PEER"},
        {"PEER2PEAR", "PEER2PEER"},
        {"AUTOCONVERGE", "AUTO_CONVERGE"},
        {"ENABLE_POST_COPY", "ENABLE_POSTCOPY"},
        {"VIR_MIGRATION_LIVE", "LIVE"},
        {"VIR_MIGRATE_XYZ", NULL},
        {"POSTCOPYAFTERPRECOPY", "POSTCOPY_AFTER_PRECOPY"},
        {"", NULL},
        {"VIR_MIGRATE_", NULL},
        {"shared", NULL},
        {"virmigrate_live", "LIVE"},
        {"ZERO-COPY", "ZEROCOPY"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *name = pcmig_flags_nearest(cases[i].token, strlen(cases[i].token));

        if (cases[i].name == NULL) {
            assert_null(name);
        } else {
            assert_non_null(name);
            assert_string_equal(name, cases[i].name);
        }
    }
}

/* Each name with one edit somewhere is still known to be meant, unless the edit makes another name of it. */
static void nearest_after_one_edit(void **state)
{
    (void)state;
    for (size_t i = 0; i < PCMIG_FLAGS_COUNT; i++) {
        const char *name = pcmig_flags_row(i)->name;
        const size_t len = strlen(name);

        for (size_t at = 0; at < len; at++) {
            char text[64];
            const char *found;

            memcpy(text, name, len);
            text[at] = '#';
            found = pcmig_flags_nearest(text, len);
            assert_non_null(found);
            assert_string_equal(found, name);
        }
    }
}

static void messages(void **state)
{
    char buf[512];
    struct pcmig_flags_error err = error_of("LIVE, VIR_MIGRATE_LIFE", 22);
    int len;

    (void)state;
    len = pcmig_flags_error_describe(&err, buf, sizeof(buf));
    assert_int_equal(len, strlen(buf));
    assert_string_equal(buf,
                        "flag 2, \"VIR_MIGRATE_LIFE\" at character 7, is no migration flag of libvirt: did you mean "
                        "VIR_MIGRATE_LIVE?");
    err = error_of("QWERTY", 6);
    (void)pcmig_flags_error_describe(&err, buf, sizeof(buf));
    assert_string_equal(buf, "flag 1, \"QWERTY\" at character 1, is no migration flag of libvirt");
    assert_int_equal(pcmig_flags_error_describe(&err, NULL, 0), strlen(buf));
}

static void embedded_nul(void **state)
{
    char buf[512];
    struct pcmig_flags_error err = error_of("LIVE\0,POSTCOPY", 14);

    (void)state;
    assert_int_equal(err.offset, 0);
    assert_int_equal(err.len, 5);
    assert_string_equal(err.suggestion, "LIVE");
    (void)pcmig_flags_error_describe(&err, buf, sizeof(buf));
    assert_non_null(strstr(buf, "\"LIVE\\x00\""));
    err = error_of("LIVE,\0", 6);
    assert_int_equal(err.offset, 5);
    assert_int_equal(err.item, 2);
}

/* What stands in files of others, and is told as what it is. Quotation marks and the like are seen in values that were
 * copied from web pages, from shell scripts and into templates. */
static void mistakes(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"\"LIVE, PEER2PEER\"", "flag 1 has a quotation mark (\") at character 1: leave it out"},
        {"LIVE, PEER2PEER'", "flag 2 has a quotation mark (') at character 16: leave it out"},
        {"\\\"LIVE",
         "flag 1 has a backslash (\\) at character 1: leave it out; in nova.conf a line that is indented goes "
         "on with the one before; it has a quotation mark (\") at character 2: leave it out"},
        {"\\\nLIVE",
         "flag 1 has a backslash (\\) at character 1: leave it out; in nova.conf a line that is indented goes "
         "on with the one before"},
        {"[\"LIVE\", \"POSTCOPY\"]",
         "flag 1 has a bracket ([) at character 1: leave it out; it has a quotation mark (\") "
         "at character 2: leave it out"},
        {"\xe2\x80\x9cLIVE\xef\xbc\x8cPOSTCOPY\xe2\x80\x9d",
         "flag 1 has a typographic quotation mark (U+201C) at character 1: leave it out; it has a full-width comma "
         "(U+FF0C) at character 6: write a plain comma between flags"},
        {"LIVE,\xc2\xa0POSTCOPY", "flag 2 has a no-break space (U+00A0) at character 6: write a plain space, or none"},
        {"live_migration_flag=LIVE", "flag 1, \"live_migration_flag=LIVE\" at character 1, begins with the name of the "
                                     "option: leave out the name and the sign behind it"},
        {"Block-Migration-Flags: LIVE",
         "flag 1, \"Block-Migration-Flags:\" at character 1, begins with the name of the "
         "option: leave out the name and the sign behind it"},
        {"LIVE, VIR_MIGRATE_TUNNELLEDVIR_MIGRATE_NON_SHARED_INC",
         "flag 2, \"VIR_MIGRATE_TUNNELLEDVIR_MIGRATE_NON_SHARED_INC\" at character 7, is several flags in one: write a "
         "comma between them"},
        {"livepostcopy_resumetls",
         "flag 1, \"livepostcopy_resumetls\" at character 1, is several flags in one: write a comma between them"},
        {"LIVEX", "flag 1, \"LIVEX\" at character 1, is no migration flag of libvirt: did you mean VIR_MIGRATE_LIVE?"},
        {"LIVE # as the page says",
         "flag 2 has a number sign (#) at character 6: a comment has to stand on a line of its "
         "own"},
        {"%{def_option}, UNSAFE",
         "flag 1 has a sign of templates (%) at character 1: nothing was put in for a template's "
         "variable: write the flags themselves"},
        {"\xff\xc0\xe2\x80", "flag 1, \"\\xff\\xc0\\xe2\\x80\" at character 1, is no migration flag of libvirt"},
        {"\xf0\x9f\x98\x80",
         "flag 1 has a character that no flag has (U+1F600) at character 1: flags are plain capital "
         "letters, digits and underscores"},
    };
    char buf[PCMIG_FLAGS_MESSAGE_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pcmig_flags_error err = error_of(cases[i].text, strlen(cases[i].text));

        assert_int_equal(pcmig_flags_error_describe(&err, buf, sizeof(buf)), strlen(cases[i].message));
        assert_string_equal(buf, cases[i].message);
        assert_int_equal(pcmig_flags_error_describe(&err, buf, 10), strlen(cases[i].message));
        assert_int_equal(strlen(buf), 9);
    }
}

static void overlong_tokens(void **state)
{
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE), buf[512];
    struct pcmig_flags flags;
    struct pcmig_flags_error err;

    (void)state;
    assert_non_null(text);
    memset(text, '\xff', SIZE);
    assert_int_equal(pcmig_flags_parse(text, SIZE, &flags, &err), -1);
    assert_int_equal(err.len, SIZE);
    assert_null(err.suggestion);
    assert_true(pcmig_flags_error_describe(&err, buf, sizeof(buf)) < (int)sizeof(buf));
    assert_non_null(strstr(buf, "\\xff...\""));
    memset(text, ',', SIZE);
    assert_int_equal(pcmig_flags_parse(text, SIZE, &flags, &err), 0);
    assert_int_equal(flags.bits, 0);
    for (size_t len = 60; len < 70; len++) { /* around the longest token that gets a suggestion */
        memset(text, 'X', len);
        assert_null(pcmig_flags_nearest(text, len));
    }
    free(text);
}

static void render(void **state)
{
    char buf[1024], small[8];

    (void)state;
    assert_int_equal(pcmig_flags_render(0, buf, sizeof(buf)), 0);
    assert_string_equal(buf, "");
    assert_int_equal(pcmig_flags_render(PCMIG_FLAG_POSTCOPY | PCMIG_FLAG_LIVE, buf, sizeof(buf)), 38);
    assert_string_equal(buf, "VIR_MIGRATE_LIVE, VIR_MIGRATE_POSTCOPY");
    (void)pcmig_flags_render(PCMIG_FLAG_LIVE | 0x80000000u | 0x200000u, buf, sizeof(buf));
    assert_string_equal(buf, "VIR_MIGRATE_LIVE, 0x80200000");
    (void)pcmig_flags_render(0x80000000u, buf, sizeof(buf));
    assert_string_equal(buf, "0x80000000");
    memset(small, 'x', sizeof(small));
    assert_int_equal(pcmig_flags_render(PCMIG_FLAG_LIVE, small, sizeof(small)), 16);
    assert_string_equal(small, "VIR_MIG");
    assert_int_equal(pcmig_flags_render(PCMIG_FLAG_LIVE, small, 1), 16);
    assert_string_equal(small, "");
    assert_int_equal(pcmig_flags_render(PCMIG_FLAG_LIVE, NULL, 0), 16);
    assert_true(pcmig_flags_render(UINT32_MAX, buf, sizeof(buf)) < sizeof(buf));
}

static void round_trip_of_every_set(void **state)
{
    struct pcmig_flags flags;
    struct pcmig_flags_error err;
    char buf[1024];

    (void)state;
    for (uint32_t bits = 0; bits <= PCMIG_FLAGS_ALL; bits += 1 + bits % 7) {
        const size_t len = pcmig_flags_render(bits, buf, sizeof(buf));

        assert_true(len < sizeof(buf));
        if (pcmig_flags_parse(buf, len, &flags, &err) < 0 || flags.bits != bits || flags.policy != NULL)
            fail_msg("0x%x does not read back: %s", (unsigned)bits, buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(old_names),
        cmocka_unit_test(every_name_in_every_form),
        cmocka_unit_test(white_space_and_commas),
        cmocka_unit_test(positions),
        cmocka_unit_test(nearest),
        cmocka_unit_test(nearest_after_one_edit),
        cmocka_unit_test(messages),
        cmocka_unit_test(embedded_nul),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(overlong_tokens),
        cmocka_unit_test(render),
        cmocka_unit_test(round_trip_of_every_set),
    };

    return cmocka_run_group_tests_name("flags", tests, NULL, NULL);
}
