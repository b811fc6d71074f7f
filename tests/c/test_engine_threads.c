/* SPDX-License-Identifier: Apache-2.0 */
/* One migration used from many threads at once; made for the thread sanitizer. Nothing is migrated: libvirt's own test
 * driver is the source, and the destination refuses, has the guest already, or cannot take it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/migration.h"
#include "engine_host.h"
#include "fair_clock.h"

#define REFUSED "qemu+tcp://127.0.0.1:1/system"
#define READERS 3

struct shared {
    struct pcmig_migration *migration;
    atomic_int started;
    atomic_int over;
};

static int64_t total_us(struct pcmig_migration *migration)
{
    struct pcmig_ledger *ledger = pcmig_migration_ledger(migration);
    struct pcmig_ledger_totals totals;

    assert_non_null(ledger);
    pcmig_ledger_totals(ledger, &totals);
    pcmig_ledger_free(ledger);
    return totals.total_us;
}

static void *read_all(void *arg)
{
    struct shared *shared = arg;
    struct pcmig_migration_status status;
    struct pcmig_decision decisions[4];

    while (!atomic_load(&shared->over)) {
        pcmig_migration_status(shared->migration, &status);
        (void)pcmig_migration_decisions(shared->migration, 0, decisions, 4);
        assert_true(total_us(shared->migration) >= 0);
        pcmig_migration_clear(shared->migration);
        (void)pcmig_migration_join(shared->migration, 1);
    }
    return NULL;
}

static void *start_one(void *arg)
{
    struct shared *shared = arg;

    if (pcmig_migration_start(shared->migration) == 0)
        (void)atomic_fetch_add(&shared->started, 1);
    return NULL;
}

static void *ask_for_things(void *arg)
{
    struct shared *shared = arg;

    /* Refused before the start and after the end, which is as good. */
    while (!atomic_load(&shared->over)) {
        (void)pcmig_migration_request(shared->migration, PCMIG_REQUEST_SWITCH);
        (void)pcmig_migration_set_bandwidth(shared->migration, 10);
        (void)pcmig_migration_request(shared->migration, PCMIG_REQUEST_ABORT);
        (void)usleep(1000);
    }
    return NULL;
}

static struct pcmig_migration *make(const char *source, const char *destination)
{
    static const char *const disks[] = {"vda", "vdb", NULL};
    struct pcmig_migration_args args = {
        .source_uri = source,
        .dest_uri = destination,
        .domain = "test",
        .disks = disks,
        .connect_timeout_ms = 10000,
    };
    struct pcmig_migration *migration;

    pcmig_params_defaults(&args.params);
    migration = pcmig_migration_new(&args);
    assert_non_null(migration);
    return migration;
}

/* Starts from two threads while others read and ask; returns the text of the outcome. */
static void run(const char *source, const char *destination, struct pcmig_migration_status *status)
{
    struct shared shared = {.migration = make(source, destination)};
    pthread_t readers[READERS], starters[2], asker;

    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_all, &shared), 0);
    assert_int_equal(pthread_create(&asker, NULL, ask_for_things, &shared), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&starters[i], NULL, start_one, &shared), 0);
    for (int i = 0; i < 2; i++)
        (void)pthread_join(starters[i], NULL);
    assert_int_equal(atomic_load(&shared.started), 1);
    assert_true(pcmig_migration_join(shared.migration, 60000));
    atomic_store(&shared.over, 1);
    for (int i = 0; i < READERS; i++)
        (void)pthread_join(readers[i], NULL);
    (void)pthread_join(asker, NULL);
    pcmig_migration_status(shared.migration, status);
    pcmig_migration_unref(shared.migration);
}

static void refused_destination(void **state)
{
    struct pcmig_migration_status status;

    (void)state;
    for (int i = 0; i < 5; i++) {
        run("test:///default", REFUSED, &status);
        assert_int_equal(status.outcome, PCMIG_OUTCOME_FAILED);
        assert_non_null(strstr(status.text, REFUSED));
        assert_int_equal(status.phase, PCMIG_PHASE_FINISHED);
    }
}

static void refused_source(void **state)
{
    struct pcmig_migration_status status;

    (void)state;
    run(REFUSED, "test:///default", &status);
    assert_int_equal(status.outcome, PCMIG_OUTCOME_FAILED);
    assert_non_null(strstr(status.text, REFUSED));
}

/* The migrate call is made and fails: control, call and event thread all run. */
static void refused_call(void **state)
{
    struct pcmig_migration_status status;
    struct engine_host host;

    (void)state;
    assert_int_equal(engine_host_make(&host, "<node></node>"), 0);
    for (int i = 0; i < 5; i++) {
        run("test:///default", host.uri, &status);
        assert_int_equal(status.outcome, PCMIG_OUTCOME_FAILED);
        assert_non_null(strstr(status.text, "the guest runs on at the source"));
    }
    (void)engine_host_drop(&host);
}

/* It would be loaded at the guest's next start there, over disks that have gone on. */
static void saved_state_there(void **state)
{
    static const char node[] =
        "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>test</name>"
        "<uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><memory>8192</memory><os><type>hvm</type></os>"
        "<test:runstate>5</test:runstate><test:hasmanagedsave/></domain></node>";
    struct pcmig_migration_status status;
    struct engine_host host;

    (void)state;
    assert_int_equal(engine_host_make(&host, node), 0);
    run("test:///default", host.uri, &status);
    assert_int_equal(status.outcome, PCMIG_OUTCOME_FAILED);
    assert_non_null(strstr(status.text, "saved state"));
    assert_non_null(strstr(status.text, "managedsave-remove 6695eb01"));
    (void)engine_host_drop(&host);
}

/* Whoever made it may drop it while it runs. */
static void dropped_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct pcmig_migration *migration = make("test:///default", REFUSED);

        if (i % 2 == 0)
            assert_int_equal(pcmig_migration_start(migration), 0);
        pcmig_migration_unref(migration);
    }
    (void)usleep(500000); /* what was started ends by itself */
}

static void many_at_once(void **state)
{
    struct pcmig_migration *migrations[50];

    (void)state;
    for (size_t i = 0; i < 50; i++) {
        migrations[i] = make("test:///default", REFUSED);
        assert_int_equal(pcmig_migration_start(migrations[i]), 0);
    }
    for (size_t i = 0; i < 50; i++) {
        assert_true(pcmig_migration_join(migrations[i], 60000));
        assert_false(pcmig_migration_request(migrations[i], PCMIG_REQUEST_ABORT) == 0);
        pcmig_migration_unref(migrations[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_destination), cmocka_unit_test(refused_source),  cmocka_unit_test(refused_call),
        cmocka_unit_test(saved_state_there),   cmocka_unit_test(dropped_at_once), cmocka_unit_test(many_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
