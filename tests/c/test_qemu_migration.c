/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU's answer to query-migrate says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/qemu_migration.h"

static void status_is_read(void **state)
{
    static const struct {
        const char *answer;
        const char *status; /* NULL = refused */
    } rows[] = {
        {"{\"return\":{\"status\":\"cancelled\"},\"id\":\"libvirt-42\"}", "cancelled"},
        {"{\"id\": \"libvirt-42\", \"return\": {\"ram\": {\"status\": \"no\", \"x\": [1, {}]}, \"status\": "
         "\"failed\"}}",
         "failed"},
        {"{\"return\":{\"error-desc\":\"said \\\"status\\\": {[\",\"status\":\"failed\"}}", "failed"},
        {" {\r\n\"return\" : { } } ", "none"},
        {"{\"return\":{\"blocked\":false,\"downtime\":-1.5e3}}", "none"},
        {"{\"error\":{\"class\":\"GenericError\",\"desc\":\"status\"}}", NULL},
        {"{\"return\":[]}", NULL},
        {"{\"return\":{\"status\":7}}", NULL},
        {"{\"return\":{\"status\":\"\"}}", NULL},
        {"{\"return\":{\"status\":\"can celled\"}}", NULL},
        {"{\"return\":{\"status\":\"a-status-longer-than-any-of-qemu\"}}", NULL},
        {"{\"return\":{\"status\":\"cancelled", NULL},
        {"{\"return\":{\"ram\":{\"a\":1}", NULL},
        {"{\"return\"", NULL},
        {"\"status\"", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char status[24] = "untouched";
        int result = pcmig_qemu_migration_status(rows[i].answer, strlen(rows[i].answer), status, sizeof(status));

        if (result != (rows[i].status != NULL ? 0 : -1))
            fail_msg("%s: %d", rows[i].answer, result);
        assert_string_equal(status, rows[i].status != NULL ? rows[i].status : "untouched");
    }
}

static void too_deep_is_refused(void **state)
{
    char answer[4096] = "{\"return\":{\"a\":";
    char status[24];

    (void)state;
    for (int i = 0; i < 1000; i++)
        strcat(answer, "[");
    assert_int_equal(pcmig_qemu_migration_status(answer, strlen(answer), status, sizeof(status)), -1);
}

static void only_an_end_without_a_switch_keeps_the_guest(void **state)
{
    static const char *const not_completed[] = {"",
                                                "none",
                                                "setup",
                                                "active",
                                                "postcopy-active",
                                                "postcopy-paused",
                                                "device",
                                                "completed?",
                                                "postcopy-recover",
                                                "failed",
                                                "cancelled"};
    static const char *const not_kept[] = {
        "setup",           "active",
        "cancelling",      "postcopy-active",
        "postcopy-device", "postcopy-paused",
        "completed",       "postcopy-recover",
        "pre-switchover",  "device",
        "wait-unplug",     "colo",
        "something-new",   "",
        "Cancelled",
    };

    (void)state;
    assert_true(pcmig_qemu_migration_kept("none"));
    assert_true(pcmig_qemu_migration_kept("cancelled"));
    assert_true(pcmig_qemu_migration_kept("failed"));
    assert_true(pcmig_qemu_migration_completed("completed"));
    assert_true(pcmig_qemu_migration_switches("postcopy-device"));
    assert_false(pcmig_qemu_migration_switches("postcopy-active"));
    assert_false(pcmig_qemu_migration_sends("postcopy-device"));
    for (size_t i = 0; i < sizeof(not_kept) / sizeof(not_kept[0]); i++)
        assert_false(pcmig_qemu_migration_kept(not_kept[i]));
    for (size_t i = 0; i < sizeof(not_completed) / sizeof(not_completed[0]); i++)
        assert_false(pcmig_qemu_migration_completed(not_completed[i]));
}

static void what_can_be_paused_does_not_wait(void **state)
{
    static const char *const neither[] = {"none", "active", "postcopy-recover-setup", "failed", "completed", ""};

    (void)state;
    assert_true(pcmig_qemu_migration_sends("postcopy-active"));
    assert_true(pcmig_qemu_migration_sends("postcopy-recover"));
    assert_false(pcmig_qemu_migration_sends("postcopy-paused"));
    assert_true(pcmig_qemu_migration_waits("postcopy-paused"));
    assert_false(pcmig_qemu_migration_waits("postcopy-active"));
    assert_false(pcmig_qemu_migration_waits("postcopy-recover"));
    for (size_t i = 0; i < sizeof(neither) / sizeof(neither[0]); i++)
        assert_false(pcmig_qemu_migration_sends(neither[i]) || pcmig_qemu_migration_waits(neither[i]));
}

/* Answers of QEMU 10.0 and 11.1, shortened. */
static void what_else_is_read(void **state)
{
    static const char migrate[] = "{\"return\":{\"status\":\"postcopy-paused\",\"ram\":{\"total\":118292480,"
                                  "\"remaining\":95420416,\"postcopy-requests\":2094}},\"id\":\"libvirt-9\"}";
    static const char run[] =
        "{\"return\": {\"status\": \"finish-migrate\", \"running\": false}, \"id\": \"libvirt-8\"}";
    static const char version[] =
        "{\"return\":{\"qemu\":{\"micro\":2,\"minor\":1,\"major\":11},\"package\":\"Debian\"}}";
    static const char caps[] = "{\"return\":[{\"state\":false,\"capability\":\"xbzrle\"},{\"state\":true,"
                               "\"capability\":\"postcopy-ram\"},{\"state\":false,\"capability\":\"release-ram\"}]}";
    static const char chardevs[] =
        "{\"return\":[{\"frontend-open\":true,\"filename\":\"pty:/dev/pts/1\",\"label\":\"charserial0\"},"
        "{\"frontend-open\":true,\"filename\":\"unix:/var/lib/libvirt/qemu/domain-1-g,1/monitor.sock,server=on\","
        "\"label\":\"charmonitor\"}]}";
    char text[128];

    (void)state;
#define SAY(json) json, strlen(json)
    assert_int_equal(pcmig_qemu_migration_ram(SAY(migrate), "remaining"), 95420416);
    assert_int_equal(pcmig_qemu_migration_ram(SAY(migrate), "postcopy-requests"), 2094);
    assert_int_equal(pcmig_qemu_migration_ram(SAY(migrate), "transferred"), -1);
    assert_int_equal(pcmig_qemu_migration_ram(SAY("{\"return\":{\"status\":\"postcopy-paused\"}}"), "remaining"), -1);
    assert_int_equal(pcmig_qemu_migration_ram(SAY(run), "remaining"), -1);
    assert_int_equal(pcmig_qemu_migration_ram(SAY("{\"return\":{\"ram\":{\"remaining\":-5}}}"), "remaining"), -1);
    assert_int_equal(pcmig_qemu_migration_ram(SAY("{\"return\":{\"ram\":{\"remaining\":1.5}}}"), "remaining"), -1);
    assert_int_equal(pcmig_qemu_run_state(SAY(run), text, sizeof(text)), 0);
    assert_string_equal(text, "finish-migrate");
    assert_int_equal(pcmig_qemu_run_state(SAY("{\"return\":{}}"), text, sizeof(text)), -1);
    assert_int_equal(pcmig_qemu_version(SAY(version)), 11001002);
    assert_int_equal(pcmig_qemu_version(SAY("{\"return\":{\"qemu\":{\"micro\":0,\"minor\":1000,\"major\":9}}}")), 0);
    assert_int_equal(pcmig_qemu_version(SAY(run)), 0);
    assert_int_equal(pcmig_qemu_capability(SAY(caps), "postcopy-ram"), 1);
    assert_int_equal(pcmig_qemu_capability(SAY(caps), "release-ram"), 0);
    assert_int_equal(pcmig_qemu_capability(SAY(caps), "no-such"), 0);
    assert_int_equal(pcmig_qemu_capability(SAY(run), "release-ram"), -1);
    assert_int_equal(pcmig_qemu_monitor_folder(SAY(chardevs), text, sizeof(text)), 0);
    assert_string_equal(text, "/var/lib/libvirt/qemu/domain-1-g,1");
    assert_int_equal(pcmig_qemu_monitor_folder(SAY(chardevs), text, 10), -1);
    assert_int_equal(pcmig_qemu_monitor_folder(SAY("{\"return\":[{\"label\":\"charmonitor\",\"filename\":\"fd:28\"}]}"),
                                               text, sizeof(text)),
                     -1);
    assert_int_equal(pcmig_qemu_monitor_folder(SAY(caps), text, sizeof(text)), -1);
    assert_int_equal(pcmig_qemu_text(SAY("{\"return\":\"a\\r\\n\\u00e9\\ud83d\\ude00\\\"\"}"), text, sizeof(text)), 0);
    assert_string_equal(text, "a\r\n\xc3\xa9\xf0\x9f\x98\x80\"");
    assert_int_equal(pcmig_qemu_text(SAY("{\"return\":\"\\ud83d\"}"), text, sizeof(text)), -1);
    assert_int_equal(pcmig_qemu_text(SAY("{\"return\":\"\\x41\"}"), text, sizeof(text)), -1);
    assert_int_equal(pcmig_qemu_text(SAY("{\"return\":\"\\u0000\"}"), text, sizeof(text)), -1);
    assert_int_equal(pcmig_qemu_text(SAY("{\"return\":\"too long\"}"), text, 4), -1);
    assert_true(pcmig_qemu_done(SAY("{\"return\":{},\"id\":\"x\"}")));
    assert_false(pcmig_qemu_done(SAY("{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}")));
    assert_true(
        pcmig_qemu_refused(SAY("{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}"), text, sizeof(text)));
    assert_string_equal(text, "no");
    assert_true(pcmig_qemu_refused(SAY("{\"error\":{}}"), text, sizeof(text)));
    assert_string_equal(text, "");
    assert_false(pcmig_qemu_refused(SAY("{\"return\":{}}"), text, sizeof(text)));
#undef SAY
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_is_read),
        cmocka_unit_test(what_else_is_read),
        cmocka_unit_test(too_deep_is_refused),
        cmocka_unit_test(only_an_end_without_a_switch_keeps_the_guest),
        cmocka_unit_test(what_can_be_paused_does_not_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
