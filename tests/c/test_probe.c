/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the probe that read text, names and made-up trees. Real users and nodes: tests/unit/test_probe.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int parse(const char *text, int64_t *out, size_t count)
{
    return pcmig_probe_parse_ints(text, strlen(text), out, count);
}

static void test_ints_are_read(void **state)
{
    int64_t v[3] = {7, 7, 7};

    (void)state;
    assert_int_equal(parse("15\n", v, 1), 1);
    assert_int_equal(v[0], 15);
    assert_int_equal(parse("4096\t16384\t4194304\n", v, 3), 3);
    assert_int_equal(v[2], 4194304);
    assert_int_equal(parse("  -1 ", v, 3), 1);
    assert_int_equal(v[0], -1);
    assert_int_equal(parse("9223372036854775807", v, 1), 1);
    assert_true(v[0] == INT64_MAX);
    assert_int_equal(parse("", v, 3), 0);
    assert_int_equal(parse(" \n", v, 3), 0);
}

static void test_what_is_no_int_is_refused_whole(void **state)
{
    static const char *const bad[] = {
        "x", "1 x", "1x", "-", "--1", "1-", "+1", "0x10", "1 2 3 4", "9223372036854775808", "1,2"};
    int64_t v[3] = {7, 7, 7};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse(bad[i], v, 3), -1);
    assert_int_equal(pcmig_probe_parse_ints("1\0"
                                            "2",
                                            3, v, 3),
                     -1); /* a NUL is no blank */
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(v[i], 7);
}

static void put(const char *root, const char *path, const char *text)
{
    char full[512];

    snprintf(full, sizeof(full), "%s", root);
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(full, sizeof(full), "%s%.*s", root, (int)(slash - path), path);
        mkdir(full, 0755);
    }
    snprintf(full, sizeof(full), "%s%s", root, path);
    FILE *file = fopen(full, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_made_up_tree(void **state)
{
    static const struct {
        const char *path, *text;
    } files[] = {
        {"/proc/sys/vm/unprivileged_userfaultfd", "1\n"},
        {"/proc/sys/net/ipv4/tcp_retries2", "5"},
        {"/proc/sys/net/ipv4/tcp_rmem", "1 2"}, /* too few: the third stays unknown */
        {"/proc/sys/kernel/osrelease", "6.1.0-test\n"},
        {"/proc/self/status", "Name:\tx\nSeccomp:\t2\n"},
        {"/sys/kernel/security/lockdown", "none integrity [confidentiality]\n"},
        {"/dev/userfaultfd", ""},
    };
    char root[] = "/tmp/pcmig-test-probe-XXXXXX", command[64];
    struct pcmig_probe probe;

    (void)state;
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        put(root, files[i].path, files[i].text);
    assert_int_equal(pcmig_probe_read(root, &probe), 0);
    snprintf(command, sizeof(command), "rm -r %s", root);
    assert_int_equal(system(command), 0);

    assert_int_equal(probe.unprivileged_userfaultfd, 1);
    assert_int_equal(probe.tcp_retries2, 5);
    assert_int_equal(probe.tcp_rmem_bytes[1], 2);
    assert_int_equal(probe.tcp_rmem_bytes[2], PCMIG_PROBE_UNKNOWN);
    assert_int_equal(probe.max_map_count, PCMIG_PROBE_UNKNOWN);
    assert_string_equal(probe.kernel, "6.1.0-test");
    assert_string_equal(probe.lockdown, "confidentiality");
    assert_int_equal(probe.seccomp, 2);
    assert_true(probe.node.exists);
    assert_false(probe.node.is_device);
    assert_int_equal(probe.self.node.step, PCMIG_UFFD_STEP_OPEN);
    assert_int_equal(probe.self.node.error, ENOTTY);
}

static void test_long_root_is_refused(void **state)
{
    static char root[8192];
    static struct pcmig_probe probe;

    (void)state;
    memset(root, '/', sizeof(root) - 1);
    assert_int_equal(pcmig_probe_read(root, &probe), -1);
}

static void test_identities(void **state)
{
    struct pcmig_uffd_identity who;
    char err[128] = "";

    (void)state;
    assert_int_equal(pcmig_uffd_identify("root", NULL, &who, err, sizeof(err)), 0);
    assert_int_equal(who.uid, 0);
    assert_true(who.group_count >= 1);
    assert_int_equal(pcmig_uffd_identify("+4321", "+8765", &who, err, sizeof(err)), 0);
    assert_int_equal(who.uid, 4321);
    assert_int_equal(who.gid, 8765);
    assert_int_equal(pcmig_uffd_identify("4294967295", NULL, &who, err, sizeof(err)), -1);
    assert_string_equal(err, "there is no user '4294967295' on this host");
    assert_int_equal(pcmig_uffd_identify("root", "no-such-group", &who, err, sizeof(err)), -1);
    assert_string_equal(err, "there is no group 'no-such-group' on this host");
}

static void test_trying_as_oneself_needs_no_right(void **state)
{
    struct pcmig_uffd_identity who = {.uid = geteuid(), .gid = getegid(), .keep_capabilities = true};
    struct pcmig_uffd_report direct, child;

    (void)state;
    pcmig_uffd_try("/dev/userfaultfd", &direct);
    assert_int_equal(pcmig_uffd_try_as(&who, "/dev/userfaultfd", 5000, &child), 0);
    assert_int_equal(child.syscall.step, direct.syscall.step);
    assert_int_equal(child.node.step, direct.node.step);
    assert_true(child.syscall.features == direct.syscall.features);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ints_are_read), cmocka_unit_test(test_what_is_no_int_is_refused_whole),
        cmocka_unit_test(test_made_up_tree),  cmocka_unit_test(test_long_root_is_refused),
        cmocka_unit_test(test_identities),    cmocka_unit_test(test_trying_as_oneself_needs_no_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
