/* SPDX-License-Identifier: Apache-2.0 */
/* Which host a URI names, and whether that is this one (core/uri.h). */
#include "core/uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct {
    const char *uri;
    const char *host; /* NULL = none */
    bool here;        /* to a machine of the name "a" */
} cases[] = {
    {NULL, NULL, true},
    {"qemu:///system", NULL, true},
    {"qemu+unix:///system?socket=/run/x", NULL, true},
    {"qemu+unix://?socket=/run/x", NULL, true},
    {"qemu+tcp://localhost/system", "localhost", true},
    {"qemu+tcp://LocalHost:16509/system", "LocalHost", true},
    {"qemu+tcp://127.0.0.1/system", "127.0.0.1", true},
    {"qemu+tcp://127.4.5.6:1/system", "127.4.5.6", true},
    {"tcp://[::1]:49152", "::1", true},
    {"qemu+ssh://root@a/system", "a", true},
    {"qemu+ssh://root@A:22/system", "A", true},
    {"qemu+tcp://ab/system", "ab", false},
    {"qemu+tcp://b/system", "b", false},
    {"qemu+ssh://me@b.example.org:22/system?command=/x://y", "b.example.org", false},
    {"tcp://10.0.0.2", "10.0.0.2", false},
    {"tcp://[fd00::2]:49152", "fd00::2", false},
    {"tcp://[fd00::2", "fd00::2", false}, /* whoever opens it will say what is wrong */
    {"tcp://[", NULL, true},
    {"localhosts://localhosts", "localhosts", false},
    {"my-alias", NULL, false},
    {"", NULL, false},
};

static void test_hosts(void **state)
{
    char host[32];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(pcmig_uri_host(cases[i].uri, host, sizeof(host)), cases[i].host != NULL);
        if (cases[i].host != NULL)
            assert_string_equal(host, cases[i].host);
        assert_int_equal(pcmig_uri_is_here(cases[i].uri, "a"), cases[i].here);
    }
}

static void test_bounds(void **state)
{
    char host[4];

    (void)state;
    assert_true(pcmig_uri_host("tcp://abc:1", host, sizeof(host)));
    assert_string_equal(host, "abc");
    assert_false(pcmig_uri_host("tcp://abcd", host, sizeof(host)));
    assert_false(pcmig_uri_is_here("tcp://a", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
