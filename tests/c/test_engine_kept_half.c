/* SPDX-License-Identifier: Apache-2.0 */
/* A half that libvirt keeps at the source of a guest that has arrived is ended once both hosts say that all of it has
 * crossed, and not before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/domain_files.h"
#include "two_hosts.h"

static atomic_int ended;
static atomic_int ends_ms;
static const char *_Atomic device; /* of the guest's definition */
static atomic_bool comes_home;     /* it runs at the source as soon as somebody has read that */

int virDomainDestroy(virDomainPtr domain)
{
    assert_true(at_source(domain));
    (void)usleep((useconds_t)atomic_load(&ends_ms) * 1000);
    atomic_fetch_add(&ended, 1);
    atomic_store(&hosts.source, ABSENT);
    atomic_store(&hosts.known, false);
    return 0;
}

char *virDomainGetXMLDesc(virDomainPtr domain, unsigned int flags)
{
    char *xml = NULL;

    (void)domain;
    (void)flags;
    if (atomic_exchange(&comes_home, false))
        atomic_store(&hosts.source, RUNNING);
    return asprintf(&xml, "<domain><devices>%s</devices></domain>", atomic_load(&device)) < 0 ? NULL : xml;
}

static int start(void **state)
{
    atomic_store(&ended, 0);
    atomic_store(&ends_ms, 0);
    atomic_store(&comes_home, false);
    atomic_store(&device, "<disk type='network'><source protocol='rbd'/></disk>");
    return reset(state);
}

/* The guest has arrived; libvirt at the source calls its half SOURCE, and QEMU there says QEMU of its migration. */
static void arrive(int source, const char *qemu)
{
    atomic_store(&hosts.qemu, qemu);
    atomic_store(&hosts.sent, 4096);
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

/* A busy host: what takes longer than anybody waits for is heard when it comes. */
static void a_slow_source(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.monitor_ms, 400);
    atomic_store(&ends_ms, 700);
    migration = arrived(BROKEN, "completed");
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_string_equal(pcmig_outcome_name(status_of(migration).outcome), "completed");
    assert_non_null(strstr(status_of(migration).note, "libvirt at the source kept its half"));
    assert_int_equal(atomic_load(&ended), 1);
    pcmig_migration_unref(migration);
}

/* One word of the two is not enough: it stays, whatever else QEMU says, or when it says nothing, or says it of a
 * migration that came in. */
static void one_word_is_not_enough(void **state)
{
    static const char *const doubtful[] = {NULL, "none", "postcopy-active", "postcopy-paused", "cancelled", "failed"};
    struct pcmig_migration *migration;
    int asked;

    (void)state;
    migration = arrived(BROKEN, doubtful[0]);
    for (size_t i = 0; i < sizeof(doubtful) / sizeof(doubtful[0]); i++) {
        asked = atomic_load(&hosts.questions);
        atomic_store(&hosts.qemu, doubtful[i]);
        WAIT_FOR(atomic_load(&hosts.questions) > asked + 1);
        assert_int_equal(atomic_load(&ended), 0);
    }
    atomic_store(&hosts.sent, 0);
    asked = atomic_load(&hosts.questions);
    WAIT_FOR(atomic_load(&hosts.questions) > asked + 1); /* one may have been out */
    atomic_store(&hosts.qemu, "completed");
    asked = atomic_load(&hosts.questions);
    WAIT_FOR(atomic_load(&hosts.questions) > asked + 1);
    assert_int_equal(atomic_load(&ended), 0);
    atomic_store(&hosts.sent, 4096);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&ended), 1);
}

/* Nor the other one: the guest is there, and lacks memory as far as libvirt says. */
static void without_the_destinations_word(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();
    int asked;

    (void)state;
    atomic_store(&hosts.refuses_ms, 1);
    atomic_store(&hosts.sent, 4096);
    atomic_store(&hosts.qemu, "completed");
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.source, BROKEN);
    asked = atomic_load(&hosts.looks);
    WAIT_FOR(atomic_load(&hosts.looks) > asked + 20);
    assert_int_equal(atomic_load(&ended), 0);
    assert_int_equal(atomic_load(&hosts.resumes), 0); /* all has crossed */
    atomic_store(&hosts.destination, RUNNING);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&ended), 1);
}

/* As libvirt writes them (12.8). */
static void what_may_lie_in_files(void **state)
{
    static const struct {
        const char *xml;
        bool files;
    } rows[] = {
        {NULL, true}, /* nothing is known */
        {"<domain/>", false},
        {"<disk type='file'><source file='/d.qcow2' index='1'/></disk>", true},
        {"<disk type='network'><source protocol='rbd' name='v/d'/><backingStore/></disk>", false},
        {"<disk type='network'><backingStore type='file'><source file='/base'/></backingStore></disk>", true},
        {"<disk type='block'><source dev='/dev/vg/d' index='1'/></disk>", false},
        {"<disk type='volume'><source pool='nfs' volume='d.qcow2' index='1'/></disk>", true},
        {"<disk type='dir'><source dir='/var/fat'/></disk>", true},
        {"<memory model='nvdimm'><source><path>/nvdimm</path></source></memory>", true},
        {"<os><loader type='pflash'>/code.fd</loader><nvram template='/t.fd'>/v.fd</nvram></os>", true},
        {"<os firmware='efi'><varstore template='/t.json' path='/v.json'/></os>", true},
        {"<tpm model='tpm-crb'><backend type='emulator'/></tpm>", true},
        {"<serial type='pty'><log file='/console.log' append='off'/></serial>", false},
        {"<serial type='file'><source path='/mnt/console.log'/></serial>", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (pcmig_domain_files(rows[i].xml) != rows[i].files)
            fail_msg("%s: not %d", rows[i].xml, rows[i].files);
    }
}

/* virDomainDestroy would give them back to their owner. */
static void files_that_both_hosts_may_use(void **state)
{
    static const char *const files[] = {
        "<disk type='file'><source file='/mnt/nfs/disk.qcow2'/></disk>",
        "<tpm model='tpm-crb'><backend type='emulator'/></tpm>",
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct pcmig_migration *migration;
        int asked;

        (void)start(state);
        atomic_store(&device, files[i]);
        migration = arrived(BROKEN, "completed");
        asked = atomic_load(&hosts.questions);
        WAIT_FOR(atomic_load(&hosts.questions) > asked + 2);
        assert_int_equal(atomic_load(&ended), 0);
        all_has_arrived(); /* somebody did it */
        expect_end(migration, PCMIG_OUTCOME_COMPLETED);
        assert_int_equal(atomic_load(&ended), 0);
    }
}

/* Those of disks that were not among the copied ones. */
static void files_that_were_not_copied(void **state)
{
    static const char *const disks[] = {"vda", NULL};
    struct pcmig_migration *migration;
    int asked;

    (void)state;
    atomic_store(&device, "<disk type='file'><source file='/mnt/nfs/disk.qcow2'/></disk>");
    copied_disks = disks;
    migration = arrived(BROKEN, "completed");
    copied_disks = NULL;
    asked = atomic_load(&hosts.questions);
    WAIT_FOR(atomic_load(&hosts.questions) > asked + 2);
    assert_int_equal(atomic_load(&ended), 0);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&ended), 0);
}

/* The order was given while a broken half was there, and is carried out later: what has come to run since, as the guest
 * was brought back, is not ended. */
static void one_that_runs_by_then(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&comes_home, true);
    migration = arrived(BROKEN, "completed");
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_false(atomic_load(&comes_home));
    assert_int_equal(atomic_load(&ended), 0);
    pcmig_migration_unref(migration);
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
        TEST(a_slow_source),
        TEST(one_word_is_not_enough),
        TEST(without_the_destinations_word),
        cmocka_unit_test(what_may_lie_in_files),
        TEST(files_that_both_hosts_may_use),
        TEST(files_that_were_not_copied),
        TEST(one_that_runs_by_then),
        TEST(its_definition_is_told),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
