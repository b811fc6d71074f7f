/* SPDX-License-Identifier: Apache-2.0 */
/* A job that is no migration (a backup, a save) is none of ours: it is not taken for a migration, and never ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "two_hosts.h"

#define BACKUP   VIR_DOMAIN_JOB_OPERATION_BACKUP
#define SNAPSHOT VIR_DOMAIN_JOB_OPERATION_SNAPSHOT

/* Nothing of the guest is anywhere else. */
static void other_job(int operation)
{
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.operation, operation);
    atomic_store(&hosts.job, true);
}

static void what_libvirt_says(void **state)
{
    static const struct {
        int operation; /* -1 = it does not tell, as libvirt before 3.3 */
        enum pcmig_virt_job_kind kind;
        const char *name;
    } rows[] = {
        {-1, PCMIG_VIRT_JOB_MIGRATION, NULL},
        {VIR_DOMAIN_JOB_OPERATION_UNKNOWN, PCMIG_VIRT_JOB_MIGRATION, NULL},
        {VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, PCMIG_VIRT_JOB_MIGRATION, NULL},
        {VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, PCMIG_VIRT_JOB_MIGRATION, NULL},
        {VIR_DOMAIN_JOB_OPERATION_SAVE, PCMIG_VIRT_JOB_OTHER, "save"},
        {VIR_DOMAIN_JOB_OPERATION_RESTORE, PCMIG_VIRT_JOB_OTHER, "restore"},
        {SNAPSHOT, PCMIG_VIRT_JOB_OTHER, "snapshot"},
        {VIR_DOMAIN_JOB_OPERATION_DUMP, PCMIG_VIRT_JOB_OTHER, "dump"},
        {BACKUP, PCMIG_VIRT_JOB_OTHER, "backup"},
        {10, PCMIG_VIRT_JOB_OTHER, "snapshot delete"},
        {99, PCMIG_VIRT_JOB_OTHER, "job of another kind"}, /* of a libvirt to come */
    };
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn *conn = pcmig_virt_open(SOURCE, 10000, &error);
    struct pcmig_virt_domain *domain = conn != NULL ? pcmig_virt_lookup(conn, UUID, &error) : NULL;

    (void)state;
    assert_non_null(domain);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const bool migrates = rows[i].kind == PCMIG_VIRT_JOB_MIGRATION;
        struct pcmig_virt_job job;

        (void)reset(NULL);
        other_job(rows[i].operation);
        assert_int_equal(pcmig_virt_job(domain, &job, &error), 0);
        assert_int_equal(job.kind, rows[i].kind);
        assert_int_equal(job.sample.memory_total_bytes, migrates ? 256 * MIB : 0);
        if (rows[i].name != NULL)
            assert_string_equal(job.name, rows[i].name);
        else
            assert_null(job.name);
        assert_int_equal(pcmig_virt_abort(domain, true, 3000, &error), migrates ? 0 : -1);
        assert_int_equal(atomic_load(&hosts.aborts), migrates);
        assert_int_equal(atomic_load(&hosts.job), !migrates);
        if (!migrates)
            assert_non_null(strstr(error.message, rows[i].name));
    }
    pcmig_virt_domain_free(domain);
    pcmig_virt_close(conn);
}

/* What may take hours is told before anything begins, with its name and what would end it. */
static void backup_is_told_at_once(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    other_job(BACKUP);
    migration = begin(false, PCMIG_POLICY_AUTO);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_FAILED);
    assert_non_null(strstr(status_of(migration).text, "backup"));
    assert_non_null(strstr(status_of(migration).text, "virsh -c " SOURCE " domjobabort test"));
    pcmig_migration_unref(migration);
    assert_int_equal(atomic_load(&hosts.calls), 0);
    assert_int_equal(atomic_load(&hosts.aborts), 0);
}

/* Of virsh, or of another pcmig, and to wherever it goes: who begins a second one neither steers nor ends the first. */
static void migration_of_another(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    other_job(VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT);
    migration = begin(false, PCMIG_POLICY_IMMEDIATE);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_FAILED);
    assert_non_null(strstr(status_of(migration).text, "another migration"));
    pcmig_migration_unref(migration);
    assert_int_equal(atomic_load(&hosts.calls), 0);
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    assert_int_equal(atomic_load(&hosts.switches), 0);
}

/* libvirt waits for what is short; where it waited in vain, the migration has failed, and nothing goes on without its
 * call. */
static void snapshot_is_waited_for_by_libvirt(void **state)
{
    (void)state;
    other_job(SNAPSHOT);
    expect_end(begin(false, PCMIG_POLICY_AUTO), PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.calls), 1);
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    assert_int_equal(atomic_load(&hosts.switches), 0);
}

/* Ctrl-C while the call waits for a job of somebody else's ends that one not. */
static void cancelling_spares_it(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    other_job(SNAPSHOT);
    atomic_store(&hosts.call_ms, 800);
    migration = begin(false, PCMIG_POLICY_AUTO);
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    assert_true(atomic_load(&hosts.job));
}

/* Nobody's migration to look after. */
static void nothing_to_adopt(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    other_job(BACKUP);
    migration = adopt(PCMIG_POLICY_IMMEDIATE);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    assert_int_equal(atomic_load(&hosts.switches), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(what_libvirt_says),    TEST(backup_is_told_at_once), TEST(snapshot_is_waited_for_by_libvirt),
        TEST(cancelling_spares_it), TEST(nothing_to_adopt),       TEST(migration_of_another),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
