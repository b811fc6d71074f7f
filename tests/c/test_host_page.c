/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages in what libvirt says of a guest (core/host_page.h). */
#include "core/host_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BACKING(text)                                                                                                  \
    "<domain type='kvm'><memoryBacking>" text "</memoryBacking><page size='4096' unit='KiB'/></domain>"

static const struct {
    const char *xml;
    int64_t bytes;
} cases[] = {
    {BACKING("<hugepages/>"), 2 << 20},
    {BACKING("<hugepages>\n      <page size='2048' unit='KiB'/>\n    </hugepages>"), 2 << 20},
    {BACKING("<hugepages><page size='1048576' unit='KiB' nodeset='0'/><page size='2048' unit='KiB'/></hugepages>"),
     1 << 30},
    {BACKING("<nosharepages/>"), 0},
    {BACKING("<hugepages><page size='99999999999999999999' unit='KiB'/></hugepages>"), 2 << 20},
    {BACKING("<hugepages><page size='0' unit='KiB'/></hugepages>"), 2 << 20},
    {BACKING("<hugepages><page size='1' unit='GiB'/></hugepages>"), 2 << 20}, /* not libvirt's writer */
    {"<domain type='kvm'><hugepages/></domain>", 0},
    {"<domain><memoryBacking><hugepages/>", 0},
    {"<domain/>", 0},
    {"", 0},
    {NULL, 0},
};

static void of_the_first_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(pcmig_host_page_bytes(cases[i].xml), cases[i].bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_the_first_size)};

    return cmocka_run_group_tests_name("host_page", tests, NULL, NULL);
}
