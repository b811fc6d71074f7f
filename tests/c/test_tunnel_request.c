/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/tunnel_request.h"

#define NAME "0123456789abcdef0123456789abcdef"

static struct pcmig_tunnel_request good(const char *line)
{
    struct pcmig_tunnel_request request;
    char error[256] = "";

    if (!pcmig_tunnel_request_parse(line, strlen(line), &request, error, sizeof(error)))
        fail_msg("'%s': %s", line, error);
    return request;
}

static void opens(void **state)
{
    struct pcmig_tunnel_request r = good("open " NAME " host-b.example.org");

    (void)state;
    assert_int_equal(r.verb, PCMIG_TUNNEL_VERB_OPEN);
    assert_string_equal(r.name, NAME);
    assert_string_equal(r.peer, "host-b.example.org");
    assert_int_equal(r.port, PCMIG_TUNNEL_REQUEST_PORT);
    assert_int_equal(r.streams, 1);
    r = good("open " NAME " 10.0.0.1 1234 streams=8");
    assert_string_equal(r.peer, "10.0.0.1");
    assert_int_equal(r.port, 1234);
    assert_int_equal(r.streams, 8);
    r = good("open " NAME " [fe80::1%eth0] streams=2");
    assert_string_equal(r.peer, "fe80::1%eth0");
    assert_int_equal(r.port, PCMIG_TUNNEL_REQUEST_PORT);
    assert_int_equal(r.streams, 2);
}

static void others(void **state)
{
    (void)state;
    assert_int_equal(good("close " NAME).verb, PCMIG_TUNNEL_VERB_CLOSE);
    assert_int_equal(good("show " NAME).verb, PCMIG_TUNNEL_VERB_SHOW);
    assert_int_equal(good("list").verb, PCMIG_TUNNEL_VERB_LIST);
    assert_int_equal(good("reload").verb, PCMIG_TUNNEL_VERB_RELOAD);
    assert_int_equal(good("probe ::1 65535").port, 65535);
}

static void wrong_ones(void **state)
{
    static const struct {
        const char *line;
        const char *word; /* that the error has to name */
    } rows[] = {
        {"", "words"},
        {" ", "words"},
        {"open", "name is missing"},
        {"list ", "single spaces"},
        {" list", "single spaces"},
        {"open  " NAME " b", "single spaces"},
        {"open " NAME, "peer is missing"},
        {"open ../../../etc/passwd b", "'../../../etc/passwd'"},
        {"open 0123 b", "'0123'"},
        {"open 0123456789ABCDEF0123456789ABCDEF b", "lower-case"},
        {"open " NAME " b/c", "'b/c'"},
        {"open " NAME " -b", "'-b'"},
        {"open " NAME " []", "'[]'"},
        {"open " NAME " b 0", "'0'"},
        {"open " NAME " b 65536", "'65536'"},
        {"open " NAME " b 99999999999999999999", "1 to 65535"},
        {"open " NAME " b +5", "'+5'"},
        {"open " NAME " b streams=0", "streams=0"},
        {"open " NAME " b streams=9", "streams=9"},
        {"open " NAME " b streams=", "too much"},
        {"open " NAME " b 1 streams=2 x", "five words"},
        {"open " NAME " b 1 x", "too much"},
        {"close " NAME " x", "'x'"},
        {"probe b streams=2", "'streams=2'"},
        {"list x", "'x'"},
        {"LIST", "'LIST'"},
        {"delete " NAME, "'delete'"},
        {"\x1b[2J", "'?[2J'"},
        {"show \xff\xfe", "'\?\?'"},
    };
    struct pcmig_tunnel_request request;
    char error[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (pcmig_tunnel_request_parse(rows[i].line, strlen(rows[i].line), &request, error, sizeof(error)))
            fail_msg("'%s' was taken", rows[i].line);
        if (strstr(error, rows[i].word) == NULL)
            fail_msg("'%s': '%s' does not name %s", rows[i].line, error, rows[i].word);
    }
}

static void long_ones_and_nuls(void **state)
{
    struct pcmig_tunnel_request request;
    char line[2048], error[256];

    (void)state;
    memset(line, 'a', sizeof(line));
    assert_false(pcmig_tunnel_request_parse(line, sizeof(line), &request, error, sizeof(error)));
    assert_non_null(strstr(error, "1023"));
    memcpy(line, "probe ", 6);
    assert_true(pcmig_tunnel_request_parse(line, 6 + 255, &request, error, sizeof(error)));
    assert_int_equal(strlen(request.peer), 255);
    assert_false(pcmig_tunnel_request_parse(line, 6 + 256, &request, error, sizeof(error)));
    assert_false(pcmig_tunnel_request_parse("probe a\0b", 9, &request, error, sizeof(error)));
    assert_false(pcmig_tunnel_request_parse("list\0", 5, &request, error, sizeof(error)));
}

static void escapes(void **state)
{
    char out[64], small[5];

    (void)state;
    pcmig_tunnel_request_escape("CN=host b,O=100%\n\x7f\xc3\xa9", out, sizeof(out));
    assert_string_equal(out, "CN=host%20b,O=100%25%0A%7F%C3%A9");
    pcmig_tunnel_request_escape("a b", small, sizeof(small));
    assert_string_equal(small, "a%20");
    pcmig_tunnel_request_escape("ab c", small, sizeof(small));
    assert_string_equal(small, "ab");
    pcmig_tunnel_request_escape("", small, sizeof(small));
    assert_string_equal(small, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens),      cmocka_unit_test(others),
        cmocka_unit_test(wrong_ones), cmocka_unit_test(long_ones_and_nuls),
        cmocka_unit_test(escapes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
