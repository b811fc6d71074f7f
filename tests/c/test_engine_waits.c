/* SPDX-License-Identifier: Apache-2.0 */
/* What does not come to its end before the switch, paused guests, and a guest that starts with its host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/clock.h"
#include "two_hosts.h"

static struct {
    atomic_int source, destination; /* as libvirt has it */
    atomic_int refusals;            /* of the destination, still to come; -1 = for ever */
} autostart;

int virDomainSetAutostart(virDomainPtr domain, int on)
{
    if (at_source(domain)) {
        atomic_store(&autostart.source, on);
        return 0;
    }
    if (atomic_load(&autostart.refusals) != 0) {
        if (atomic_load(&autostart.refusals) > 0)
            atomic_fetch_sub(&autostart.refusals, 1);
        return -1;
    }
    atomic_store(&autostart.destination, on);
    return 0;
}

static struct {
    atomic_int refusals; /* of the destination, still to come */
    atomic_int count;
} destroys;

/* The source goes on as soon as its other end is gone, and what was cancelled ends. */
int virDomainDestroy(virDomainPtr domain)
{
    assert_false(at_source(domain));
    if (atomic_load(&destroys.refusals) > 0) {
        atomic_fetch_sub(&destroys.refusals, 1);
        return -1;
    }
    atomic_fetch_add(&destroys.count, 1);
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    return 0;
}

static int start(void **state)
{
    atomic_store(&destroys.refusals, 0);
    atomic_store(&destroys.count, 0);
    atomic_store(&autostart.source, 1);
    atomic_store(&autostart.destination, 0);
    atomic_store(&autostart.refusals, 0);
    return reset(state);
}

static struct pcmig_migration *begin_with(bool adopted, bool starts_with_host, enum pcmig_policy_kind policy,
                                          int64_t still_ms)
{
    struct pcmig_migration_args args = {
        .source_uri = SOURCE,
        .dest_uri = dest_host.uri,
        .domain = UUID,
        .policy = policy,
        .flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_PERSIST_DEST,
        .recover = true,
        .adopt = adopted,
        .autostart = starts_with_host,
        .connect_timeout_ms = 10000,
    };
    struct pcmig_migration *migration;

    pcmig_params_defaults(&args.params);
    args.params.value[PCMIG_PARAM_STILL_MS] = still_ms;
    migration = pcmig_migration_new(&args);
    assert_non_null(migration);
    assert_int_equal(pcmig_migration_start(migration), 0);
    return migration;
}

#define SAYS(migration, text) (strstr(status_of(migration).note, (text)) != NULL)

/* A cancellation in the moment at which QEMU begins can have it stand still: it is held until something has moved. */
static void abort_waits_for_the_first_figures(void **state)
{
    struct pcmig_migration *migration;
    int64_t asked_us;
    int aborts;

    (void)state;
    atomic_store(&hosts.memory_mib, 0);
    migration = adopt(PCMIG_POLICY_MANUAL);
    (void)usleep(100000);
    asked_us = pcmig_clock_us();
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    (void)usleep(500000);
    aborts = atomic_load(&hosts.aborts);
    if (pcmig_clock_us() - asked_us < 2000000) /* on a busy machine it may be held no longer */
        assert_int_equal(aborts, 0);
    atomic_store(&hosts.memory_mib, 256);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.aborts), 1);
}

/* But a setup that hangs is cancelled as well. */
static void abort_does_not_wait_for_ever(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.memory_mib, 0);
    migration = adopt(PCMIG_POLICY_MANUAL);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.aborts), 1);
}

/* libvirt took it, and nothing ends: the source is freed where that throws away nothing that anybody needs. What cannot
 * be done from here is named, and tried again. */
static void abort_that_does_not_end(void **state)
{
    static const struct {
        int destination;
        int refusals;
        bool named;
        bool freed;
    } rows[] = {{ARRIVING, 0, false, true}, {ARRIVING, 1, true, true}, {SUSPENDED, 0, false, false}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_migration *migration;
        char command[256], note[sizeof(status_of(migration).note)];
        int64_t asked_us;
        int removed;

        (void)start(state);
        atomic_store(&hosts.abort_hangs, true);
        atomic_store(&hosts.destination, rows[i].destination);
        atomic_store(&destroys.refusals, rows[i].refusals);
        migration = begin_with(true, false, PCMIG_POLICY_MANUAL, 0);
        WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
        asked_us = pcmig_clock_us();
        assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
        WAIT_FOR(atomic_load(&hosts.aborts) == 1);
        (void)usleep(1000000);
        removed = atomic_load(&destroys.count);
        memcpy(note, status_of(migration).note, sizeof(note));
        if (pcmig_clock_us() - asked_us < 5000000) { /* on a busy machine this may have taken as long as it waits */
            assert_string_equal(note, "");
            assert_int_equal(removed, 0);
        }
        if (rows[i].named || !rows[i].freed) {
            WAIT_FOR(SAYS(migration, "has not ended"));
            (void)snprintf(command, sizeof(command), "virsh -c %s destroy " UUID, dest_host.uri);
            assert_int_equal(SAYS(migration, command), rows[i].named);
            assert_false(SAYS(migration, "safe"));
        }
        if (rows[i].freed) {
            WAIT_FOR(SAYS(migration, "the empty half at the destination was removed"));
        } else {
            (void)usleep(2500000);
            atomic_store(&hosts.destination, ABSENT);
            atomic_store(&hosts.job, false);
        }
        expect_end(migration, PCMIG_OUTCOME_FAILED);
        assert_int_equal(atomic_load(&destroys.count), rows[i].freed ? 1 : 0);
    }
}

static void nothing_is_sent(void **state)
{
    struct pcmig_migration *migration = begin_with(true, false, PCMIG_POLICY_MANUAL, 500);

    (void)state;
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    WAIT_FOR(SAYS(migration, "nothing was sent for 0 s"));
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    expect_end(migration, PCMIG_OUTCOME_FAILED);

    (void)start(state);
    atomic_store(&hosts.memory_mib, 0);
    migration = begin_with(true, false, PCMIG_POLICY_MANUAL, 500);
    WAIT_FOR(SAYS(migration, "setting the migration up"));
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

static void too_late_to_cancel(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.switch_hangs, true);
    migration = begin_with(true, false, PCMIG_POLICY_IMMEDIATE, 0);
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_SWITCHOVER);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    WAIT_FOR(SAYS(migration, "too late to cancel"));
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Whatever the policy: pre-copy moves it, without post-copy, and it arrives as it was. */
static void paused_guest(void **state)
{
    static const enum pcmig_policy_kind policies[] = {PCMIG_POLICY_AUTO, PCMIG_POLICY_IMMEDIATE, PCMIG_POLICY_NEVER};

    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        struct pcmig_migration *migration;

        (void)start(state);
        atomic_store(&hosts.source, SUSPENDED);
        atomic_store(&hosts.destination, ABSENT);
        atomic_store(&hosts.job, false);
        atomic_store(&hosts.call_ms, PATIENCE);
        atomic_store(&hosts.arrives, SUSPENDED);
        migration = begin_with(false, false, policies[i], 0);
        WAIT_FOR(SAYS(migration, "the guest is paused"));
        (void)usleep(500000); /* the policy has had time to switch it */
        atomic_store(&hosts.call_ms, 0);
        assert_true(pcmig_migration_join(migration, PATIENCE));
        assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_COMPLETED);
        assert_non_null(strstr(status_of(migration).text, "paused there"));
        pcmig_migration_unref(migration);
        assert_int_equal(atomic_load(&hosts.switches), 0);
        assert_int_equal(atomic_load(&hosts.call_flags) & VIR_MIGRATE_POSTCOPY, 0);
        assert_int_equal(atomic_load(&hosts.runs), 0);
    }
}

/* A migration of a paused guest that fails leaves it paused, however libvirt calls that. */
static void paused_guest_stays_so(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.source, SUSPENDED);
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.call_ms, PATIENCE);
    migration = begin_with(false, false, PCMIG_POLICY_AUTO, 0);
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    atomic_store(&hosts.source, STOPPED);
    atomic_store(&hosts.call_ms, 0);
    (void)usleep(2500000);
    assert_int_equal(atomic_load(&hosts.runs), 0);
    assert_int_equal(atomic_load(&hosts.questions), 0);
    atomic_store(&hosts.source, SUSPENDED);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.runs), 0);
}

static void starts_with_the_host_that_has_it(void **state)
{
    static const struct {
        bool asked;
        int refusals;
        bool source_keeps;
        int source, destination;
        bool told;
    } rows[] = {
        {true, 0, false, 1, 1, false}, /* the definition went, and libvirt removed the link with it */
        {true, 3, false, 1, 1, false}, /* another job held it for a moment */
        {true, 0, true, 0, 1, false},  /* the source keeps a definition, which must boot no second copy */
        {false, 0, true, 1, 0, false}, {true, -1, true, 1, 0, true},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_migration *migration;
        char command[256];

        (void)start(state);
        atomic_store(&autostart.refusals, rows[i].refusals);
        atomic_store(&hosts.source_defined, rows[i].source_keeps);
        all_has_arrived();
        migration = begin_with(true, rows[i].asked, PCMIG_POLICY_AUTO, 0);
        assert_true(pcmig_migration_join(migration, PATIENCE));
        assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_COMPLETED);
        assert_int_equal(atomic_load(&autostart.source), rows[i].source);
        assert_int_equal(atomic_load(&autostart.destination), rows[i].destination);
        (void)snprintf(command, sizeof(command), "virsh -c %s autostart ", dest_host.uri);
        assert_int_equal(SAYS(migration, command), rows[i].told);
        pcmig_migration_unref(migration);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, start)
    const struct CMUnitTest tests[] = {
        TEST(abort_waits_for_the_first_figures),
        TEST(abort_does_not_wait_for_ever),
        TEST(abort_that_does_not_end),
        TEST(nothing_is_sent),
        TEST(too_late_to_cancel),
        TEST(paused_guest),
        TEST(paused_guest_stays_so),
        TEST(starts_with_the_host_that_has_it),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
