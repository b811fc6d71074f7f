/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that a failed switch left stopped at the source runs again there, when no other copy of it can be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "two_hosts.h"

/* Whoever killed libvirtd in the switch left the guest stopped, and nothing at the destination. */
static void left_stopped(int source, const char *qemu)
{
    atomic_store(&hosts.source, source);
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.qemu, qemu);
}

static void failed_switch_runs_again(void **state)
{
    static const int halves[] = {STOPPED, API_ERROR};

    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        struct pcmig_migration *migration;

        (void)reset(state);
        left_stopped(halves[i], "cancelled");
        migration = adopt(PCMIG_POLICY_AUTO);
        assert_true(pcmig_migration_join(migration, PATIENCE));
        assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_FAILED);
        assert_non_null(strstr(status_of(migration).text, "left it stopped"));
        assert_int_equal(atomic_load(&hosts.runs), 1);
        pcmig_migration_unref(migration);
    }
}

/* A QEMU that may have given the guest away, or says nothing, keeps it stopped. */
static void doubt_keeps_it_stopped(void **state)
{
    static const char *const doubtful[] = {NULL, "completed", "postcopy-paused", "active", "cancelling"};
    struct pcmig_migration *migration;

    (void)state;
    left_stopped(STOPPED, doubtful[0]);
    migration = adopt(PCMIG_POLICY_AUTO);
    for (size_t i = 0; i < sizeof(doubtful) / sizeof(doubtful[0]); i++) {
        int asked = atomic_load(&hosts.questions);

        atomic_store(&hosts.qemu, doubtful[i]);
        WAIT_FOR(atomic_load(&hosts.questions) > asked);
        assert_int_equal(atomic_load(&hosts.runs), 0);
    }
    atomic_store(&hosts.qemu, "cancelled");
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.runs), 1);
}

static void suspended_by_a_user_stays_so(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    left_stopped(SUSPENDED, "cancelled");
    migration = adopt(PCMIG_POLICY_AUTO);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.questions), 0);
    assert_int_equal(atomic_load(&hosts.runs), 0);
}

/* A save stops the guest and needs it so; a snapshot or a dump likewise. */
static void stopped_for_another_job(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    left_stopped(STOPPED, "cancelled");
    atomic_store(&hosts.operation, VIR_DOMAIN_JOB_OPERATION_SAVE);
    atomic_store(&hosts.job, true);
    migration = adopt(PCMIG_POLICY_AUTO);
    (void)usleep(2500000);
    assert_int_equal(atomic_load(&hosts.runs), 0);
    assert_int_equal(atomic_load(&hosts.questions), 0);
    atomic_store(&hosts.job, false);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.runs), 1);
}

/* The destination ran: its memory was newer, whatever the source says afterwards. */
static void source_of_a_postcopy_is_never_run(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    left_stopped(STOPPED, "cancelled");
    (void)usleep(2500000);
    assert_int_equal(atomic_load(&hosts.questions), 0);
    assert_int_equal(atomic_load(&hosts.runs), 0);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(failed_switch_runs_again),          TEST(doubt_keeps_it_stopped),
        TEST(suspended_by_a_user_stays_so),      TEST(stopped_for_another_job),
        TEST(source_of_a_postcopy_is_never_run),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
