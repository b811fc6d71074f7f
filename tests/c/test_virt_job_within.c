/* SPDX-License-Identifier: Apache-2.0 */
/* A question to libvirt with a time limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <libvirt/libvirt.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "edge/virt.h"
#include "fair_clock.h"

#define MS          1000
#define PATIENCE_MS 60000

static atomic_bool stands_still; /* QEMU */
static atomic_int asked, answered;

/* libvirt waits for QEMU. */
int virDomainGetJobStats(virDomainPtr domain, int *type, virTypedParameterPtr *params, int *count, unsigned int flags)
{
    (void)domain;
    (void)flags;
    *params = NULL;
    *count = 0;
    *type = VIR_DOMAIN_JOB_UNBOUNDED;
    atomic_fetch_add(&asked, 1);
    while (atomic_load(&stands_still))
        (void)usleep(MS);
    atomic_fetch_add(&answered, 1);
    return 0;
}

/* Of this process. */
static int threads(void)
{
    DIR *folder = opendir("/proc/self/task");
    int count = 0;

    assert_non_null(folder);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        count += entry->d_name[0] != '.';
    (void)closedir(folder);
    return count;
}

static void who_asks_does_not_wait_for_a_qemu_that_stands_still(void **state)
{
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn *conn = pcmig_virt_open("test:///default", 10000, &error);
    struct pcmig_virt_domain *domain;
    struct pcmig_virt_job job;
    int others;

    (void)state;
    assert_non_null(conn);
    domain = pcmig_virt_lookup(conn, "test", &error);
    assert_non_null(domain);
    assert_int_equal(pcmig_virt_job_within(domain, 60000, &job, &error), 0);
    assert_int_equal(job.kind, PCMIG_VIRT_JOB_MIGRATION);

    /* For as long as it is not told otherwise: who waited for it would never come back. */
    others = threads();
    atomic_store(&stands_still, true);
    assert_int_equal(pcmig_virt_job_within(domain, 200, &job, &error), -1);
    assert_int_equal(pcmig_virt_classify(&error), PCMIG_VIRT_FAILURE_BUSY);
    assert_non_null(strstr(error.message, "QEMU does not answer"));
    assert_int_equal(job.kind, PCMIG_VIRT_JOB_NONE);

    /* Who cancels does not either. */
    assert_int_equal(pcmig_virt_abort(domain, true, 3000, &error), -1);

    /* The question keeps what it needs, whoever asked it. */
    pcmig_virt_domain_free(domain);
    pcmig_virt_close(conn);
    atomic_store(&stands_still, false);
    for (int waited_ms = 0; (atomic_load(&answered) < 3 || threads() > others) && waited_ms < PATIENCE_MS; waited_ms++)
        (void)usleep(MS);
    assert_int_equal(atomic_load(&answered), 3);
    assert_int_equal(atomic_load(&asked), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_asks_does_not_wait_for_a_qemu_that_stands_still)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
