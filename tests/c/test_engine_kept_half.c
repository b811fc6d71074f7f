/* SPDX-License-Identifier: Apache-2.0 */
/* A half that libvirt keeps at the source of a guest that has arrived is ended once both hosts say that all of it has
 * crossed, and not before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "two_hosts.h"

static atomic_int ended;

int virDomainDestroy(virDomainPtr domain)
{
    assert_true(at_source(domain));
    assert_int_equal(atomic_load(&hosts.destination), RUNNING);
    assert_string_equal(atomic_load(&hosts.qemu), "completed");
    atomic_fetch_add(&ended, 1);
    atomic_store(&hosts.source, ABSENT);
    atomic_store(&hosts.known, false);
    return 0;
}

static int start(void **state)
{
    atomic_store(&ended, 0);
    return reset(state);
}

/* The guest has arrived; libvirt at the source calls its half SOURCE, and QEMU there says QEMU of its migration. */
static void arrive(int source, const char *qemu)
{
    atomic_store(&hosts.qemu, qemu);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.destination, RUNNING);
    atomic_store(&hosts.source, source);
}

static struct pcmig_migration *arrived(int source, const char *qemu)
{
    struct pcmig_migration *migration = adopt_postcopy();

    arrive(source, qemu);
    return migration;
}

/* What its connection broke for, and what a daemon that was restarted has made of it. */
static void the_half_is_ended(void **state)
{
    static const int halves[] = {BROKEN, SUSPENDED};

    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        struct pcmig_migration *migration;

        (void)start(state);
        migration = arrived(halves[i], "completed");
        assert_true(pcmig_migration_join(migration, PATIENCE));
        assert_string_equal(pcmig_outcome_name(status_of(migration).outcome), "completed");
        assert_non_null(strstr(status_of(migration).note, "libvirt at the source kept its half"));
        assert_int_equal(atomic_load(&ended), 1);
        assert_int_equal(atomic_load(&hosts.resumes), 0);
        pcmig_migration_unref(migration);
    }
}

/* One word of the two is not enough: it stays, whatever else QEMU says, or when it says nothing. */
static void one_word_is_not_enough(void **state)
{
    static const char *const doubtful[] = {NULL, "none", "postcopy-active", "postcopy-paused", "cancelled", "failed"};
    struct pcmig_migration *migration;

    (void)state;
    migration = arrived(BROKEN, doubtful[0]);
    for (size_t i = 0; i < sizeof(doubtful) / sizeof(doubtful[0]); i++) {
        int asked = atomic_load(&hosts.questions);

        atomic_store(&hosts.qemu, doubtful[i]);
        WAIT_FOR(atomic_load(&hosts.questions) > asked + 1);
        assert_int_equal(atomic_load(&ended), 0);
    }
    atomic_store(&hosts.refuses_ms, 1);
    atomic_store(&hosts.destination, FETCHING);
    atomic_store(&hosts.qemu, "completed");
    (void)usleep(4000000);
    assert_int_equal(atomic_load(&ended), 0);
    atomic_store(&hosts.destination, RUNNING);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&ended), 1);
}

/* libvirt would have removed the definition with it. What somebody could boot a second copy from is told. */
static void its_definition_is_told(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = arrived(BROKEN, "completed");
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_string_equal(pcmig_outcome_name(status_of(migration).outcome), "completed");
    assert_non_null(strstr(status_of(migration).operator_command, " undefine "));
    assert_int_equal(atomic_load(&hosts.undefines), 0);
    pcmig_migration_unref(migration);

    (void)start(state);
    atomic_store(&hosts.source_defined, false);
    migration = arrived(BROKEN, "completed");
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_string_equal(status_of(migration).operator_command, "");
    pcmig_migration_unref(migration);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, start)
    const struct CMUnitTest tests[] = {
        TEST(the_half_is_ended),
        TEST(one_word_is_not_enough),
        TEST(its_definition_is_told),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
