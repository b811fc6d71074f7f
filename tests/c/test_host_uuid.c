/* SPDX-License-Identifier: Apache-2.0 */
/* A host's UUID in what libvirt says of it (core/host_uuid.h). */
#include "core/host_uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define UUID "4c4c4544-0051-3510-8058-b4c04f564433"

static const struct {
    const char *capabilities;
    const char *uuid; /* "" = none */
} cases[] = {
    {"<capabilities>\n  <host>\n    <uuid>" UUID "</uuid>\n    <cpu/>\n  </host>\n</capabilities>", UUID},
    {"<capabilities><host><cpu/></host><guest><uuid>" UUID "</uuid></guest></capabilities>", ""}, /* test:///default */
    {"<capabilities><guest><uuid>" UUID "</uuid></guest></capabilities>", ""},
    {"<host><uuid>" UUID "0</uuid></host>", ""},
    {"<host><uuid>4c4c4544</uuid></host>", ""},
    {"<host><uuid></uuid></host>", ""},
    {"<host><uuid>4C4C4544-0051-3510-8058-B4C04F564433</uuid></host>", ""}, /* libvirt writes small letters */
    {"<host><uuid>" UUID, ""},
    {"<host><uuid>" UUID "</host>", ""},
    {"<host>", ""},
    {"", ""},
    {NULL, ""},
};

static void test_found_in_the_host_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[PCMIG_HOST_UUID_SIZE] = "x";

        assert_int_equal(pcmig_host_uuid(cases[i].capabilities, out), cases[i].uuid[0] != '\0');
        assert_string_equal(out, cases[i].uuid);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found_in_the_host_alone)};

    return cmocka_run_group_tests_name("host_uuid", tests, NULL, NULL);
}
