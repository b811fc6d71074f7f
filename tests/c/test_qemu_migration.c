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
    for (size_t i = 0; i < sizeof(not_kept) / sizeof(not_kept[0]); i++)
        assert_false(pcmig_qemu_migration_kept(not_kept[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_is_read),
        cmocka_unit_test(too_deep_is_refused),
        cmocka_unit_test(only_an_end_without_a_switch_keeps_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
