/* SPDX-License-Identifier: Apache-2.0 */
/* The engine takes over a migration that is under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>

#include "edge/clock.h"
#include "engine/internal.h"
#include "two_hosts.h"

static atomic_int quickened;

enum pcmig_route_result pcmig_route_quickack(const struct sockaddr_storage *peer, struct pcmig_route **out)
{
    assert_int_equal(peer->ss_family, AF_INET);
    *out = NULL;
    atomic_fetch_add(&quickened, 1);
    return PCMIG_ROUTE_PRESENT;
}

void pcmig_route_restore(struct pcmig_route *route)
{
    assert_null(route);
}

uint32_t pcmig_route_interface(const struct sockaddr_storage *peer)
{
    (void)peer;
    return 0;
}

const char *pcmig_route_result_name(enum pcmig_route_result result)
{
    (void)result;
    return "";
}

/* The policy decides as if it had begun the migration itself, and no second one is begun. */
static void precopy_is_steered(void **state)
{
    struct pcmig_migration *migration = adopt(PCMIG_POLICY_MANUAL);

    (void)state;
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_PRECOPY);
    (void)usleep(200000);
    assert_int_equal(atomic_load(&hosts.switches), 0);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_SWITCH), 0);
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_POSTCOPY);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.calls), 0);
}

static bool told_that_it_left(const struct pcmig_migration *migration)
{
    struct pollfd watched = {.fd = pcmig_migration_left_fd(migration), .events = POLLIN};

    return poll(&watched, 1, 0) == 1;
}

static void see(struct pcmig_migration *migration, enum pcmig_event event)
{
    const struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = event};

    pcmig_migration_post(migration, &input);
}

/* Processors that stop say so only with the switch: libvirt tells of a migration that fails in the same words. */
static void guest_leaves_with_the_switch(void **state)
{
    struct pcmig_migration *migration = adopt(PCMIG_POLICY_MANUAL);

    (void)state;
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_PRECOPY);
    see(migration, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_SWITCHOVER);
    assert_false(status_of(migration).left || told_that_it_left(migration));
    see(migration, PCMIG_EVENT_SWITCH_ISSUED);
    WAIT_FOR(status_of(migration).left);
    WAIT_FOR(told_that_it_left(migration));
    see(migration, PCMIG_EVENT_SRC_RESUMED); /* the switch came to nothing */
    WAIT_FOR(!status_of(migration).left);
    assert_true(told_that_it_left(migration));
    see(migration, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    WAIT_FOR(status_of(migration).left);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Whoever waits for it hears of a migration that ended without. */
static void guest_that_stays_is_told_of_as_well(void **state)
{
    struct pcmig_migration *migration = adopt(PCMIG_POLICY_MANUAL);

    (void)state;
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_PRECOPY);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    WAIT_FOR(status_of(migration).outcome == PCMIG_OUTCOME_FAILED);
    WAIT_FOR(told_that_it_left(migration));
    assert_false(status_of(migration).left);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

/* Of a destination that does not answer nobody waits for anything, and no attempts to reach it pile up. */
static void steering_does_not_wait_for_the_destination(void **state)
{
    struct pcmig_migration *migration;
    int64_t begun_us, from_us;

    (void)state;
    atomic_store(&attempts, 0);
    atomic_store(&no_answer, true);
    from_us = pcmig_clock_us();
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    for (int64_t mib = 5; mib < 25; mib++) {
        begun_us = pcmig_clock_us();
        assert_int_equal(pcmig_migration_set_bandwidth(migration, mib), 0);
        WAIT_FOR(atomic_load(&hosts.precopy_mib) == (unsigned long)mib);
        assert_true(pcmig_clock_us() - begun_us < 5000000);
        (void)usleep(200000);
    }
    /* One, and on a busy machine another each 10 s; was one every 4 s, each of which was waited for, for 10 s. */
    assert_in_range(atomic_load(&attempts), 1, 1 + (pcmig_clock_us() - from_us) / 10000000);
    atomic_store(&no_answer, false);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

/* Whoever looked after it may have been killed in a drain. */
static void precopy_gets_its_bandwidth_back(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.precopy_mib, 1);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&hosts.precopy_mib) > 1);
    assert_int_equal(atomic_load(&hosts.precopy_mib), INT64_MAX / MIB);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

/* The source says "paused" and no more, as after a restart of its daemon, and the destination has nothing. What was
 * known before is not forgotten: here, that the switch had been issued. */
static void what_stands_still_after_the_switch_is_old(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.qemu, NULL);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.source, SUSPENDED);
    atomic_store(&hosts.destination, ABSENT);
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_FAILED); /* nothing was known */
    migration = adopt_crossed();
    expect_end(migration, PCMIG_OUTCOME_NEEDS_OPERATOR);
    assert_int_equal(atomic_load(&hosts.runs), 0);
}

/* libvirt says "running (post-copy failed)" of a guest that turned back, and of an interrupted destination, for which a
 * record of an older migration takes this host for its source. QEMU tells them apart; as long as it says nothing,
 * nothing is ordered. */
static void one_that_runs_is_asked_whether_it_turned_back(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.source, HALF(VIR_DOMAIN_RUNNING, 11));
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.qemu, "postcopy-paused");
    atomic_store(&hosts.goes_out, true);
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_FAILED); /* it is at the source */
    atomic_store(&hosts.goes_out, false);
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_NEEDS_OPERATOR);

    atomic_store(&hosts.qemu, NULL);
    atomic_store(&hosts.destination, BROKEN);
    migration = adopt(PCMIG_POLICY_AUTO);
    WAIT_FOR(strstr(status_of(migration).recovery.text, "QEMU at the source") != NULL);
    (void)usleep(1200000);
    assert_int_equal(atomic_load(&hosts.resumes), 0);
    atomic_store(&hosts.goes_out, true);
    atomic_store(&hosts.qemu, "postcopy-paused");
    expect_end(migration, PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.resumes), 0);
}

/* A pause at the destination is a success only where the source, or libvirt's call, says that all of the memory was
 * sent. */
static void pause_at_the_destination_needs_proof(void **state)
{
    (void)state;
    all_has_arrived();
    atomic_store(&hosts.destination, SUSPENDED);
    atomic_store(&hosts.known, true); /* shut off because it migrated */
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_COMPLETED);
    atomic_store(&hosts.known, false);
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_NEEDS_OPERATOR);
}

static void precopy_is_switched_by_the_policy(void **state)
{
    struct pcmig_migration *migration = adopt(PCMIG_POLICY_IMMEDIATE);

    (void)state;
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

static void precopy_is_cancelled(void **state)
{
    struct pcmig_migration *migration = adopt(PCMIG_POLICY_MANUAL);

    (void)state;
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

static void postcopy_is_followed(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    (void)usleep(300000);
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_RUNNING);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.calls), 0);
}

static void interruption_is_healed(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.job, false);
    migration = adopt(PCMIG_POLICY_AUTO);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.resumes), 1);
    assert_int_equal(atomic_load(&hosts.calls), 1);
}

/* Both daemons answer and libvirt's call runs, but the stream is dead: it is paused, and resumed. */
static void silence_is_paused_while_the_call_runs(void **state)
{
    (void)state;
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.silence_ms, 60000); /* from the first resume on, until the pause */
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.pauses), 1);
    assert_int_equal(atomic_load(&hosts.resumes), 2);
}

static void pause_holds_until_it_is_to_go_on(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_PAUSE), 0);
    WAIT_FOR(status_of(migration).recovery.state == PCMIG_RECOVERY_STATE_HELD);
    (void)usleep(2500000); /* an attempt would have come by now */
    assert_int_equal(atomic_load(&hosts.resumes), 0);
    assert_int_equal(status_of(migration).recovery.state, PCMIG_RECOVERY_STATE_HELD);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_RESUME), 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.resumes), 1);
}

/* What ended while the request was on its way is told as it ended. */
static void pause_that_comes_too_late(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    atomic_store(&hosts.pausable, false);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_PAUSE), 0);
    WAIT_FOR(atomic_load(&hosts.pauses) > 0);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Nothing is resumed, and nothing waited for, where the other half is gone. */
static void half_that_is_lost_while_held(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_PAUSE), 0);
    WAIT_FOR(status_of(migration).recovery.state == PCMIG_RECOVERY_STATE_HELD);
    atomic_store(&hosts.destination, ABSENT);
    WAIT_FOR(status_of(migration).recovery.state == PCMIG_RECOVERY_STATE_NONE);
    assert_int_equal(atomic_load(&hosts.resumes), 0);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_DETACH), 0);
    expect_end(migration, PCMIG_OUTCOME_DETACHED);
}

/* Nobody knew QEMU's connection when the pace was set: it is looked for until it is known. */
static void acknowledged_at_once_when_the_stream_is_known(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&quickened, 0);
    migration = adopt_postcopy();
    WAIT_FOR(status_of(migration).pace_mib >= 0);
    (void)usleep(500000);
    assert_int_equal(atomic_load(&quickened), 0);
    atomic_store(&hosts.stream_known, true);
    WAIT_FOR(status_of(migration).quickack == PCMIG_ROUTE_PRESENT);
    (void)usleep(500000);
    assert_int_equal(atomic_load(&quickened), 1);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

static void what_is_over_is_told_at_once(void **state)
{
    (void)state;
    all_has_arrived();
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_COMPLETED);
    atomic_store(&hosts.source, RUNNING);
    atomic_store(&hosts.destination, ABSENT);
    expect_end(adopt(PCMIG_POLICY_AUTO), PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.calls), 0);
}

/* The call returns an error because its daemon did not answer for too long, and the migration goes on without it. */
static void call_that_is_lost(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.begins, true);
    migration = begin(false, PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    (void)usleep(200000);
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_RUNNING);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_SWITCH), 0);
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.calls), 1);
}

static void call_that_fails(void **state)
{
    (void)state;
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.destination, ABSENT);
    expect_end(begin(false, PCMIG_POLICY_MANUAL), PCMIG_OUTCOME_FAILED);
    assert_int_equal(atomic_load(&hosts.calls), 1);
}

/* What is left of a guest that has moved could be booted again. */
static void rest_at_the_source(void **state)
{
    static const char look[] = "domstate --reason", undefine[] = "undefine --keep-nvram --keep-tpm";
    static const struct {
        bool source_defined, destination_defined, resumed;
        int libvirt;
        bool removed;
        const char *advice; /* NULL: none */
        bool ended_by_hand; /* the source's half, that is: nothing says that a migration left it */
    } rows[] = {
        {true, true, true, 12008000, true, NULL, false},
        {true, false, true, 12008000, false, look, false},     /* the only definition there is stays */
        {true, true, false, 12008000, false, undefine, false}, /* not ours to remove */
        {true, true, false, 12008000, false, undefine, true},
        {true, false, false, 12008000, false, NULL, true},
        {true, true, true, 8006000, false, undefine, false}, /* could take the TPM's state along */
        {false, false, true, 12008000, true, NULL, false},   /* a transient guest has none anywhere */
        {false, false, false, 12008000, true, NULL, false},
        {false, false, true, 8006000, false, look, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_migration *migration;
        struct pcmig_migration_status status;

        (void)reset(NULL);
        atomic_store(&hosts.known, !rows[i].ended_by_hand);
        atomic_store(&hosts.source_defined, rows[i].source_defined);
        atomic_store(&hosts.destination_defined, rows[i].destination_defined);
        atomic_store(&hosts.libvirt, rows[i].libvirt);
        if (rows[i].resumed) {
            atomic_store(&hosts.source, BROKEN);
            atomic_store(&hosts.destination, BROKEN);
            atomic_store(&hosts.job, false);
            migration = adopt(PCMIG_POLICY_AUTO);
        } else {
            migration = adopt_postcopy();
            all_has_arrived();
        }
        assert_true(pcmig_migration_join(migration, PATIENCE));
        status = status_of(migration);
        assert_string_equal(pcmig_outcome_name(status.outcome), "completed");
        assert_int_equal(atomic_load(&hosts.undefines), rows[i].removed);
        if (rows[i].advice == NULL)
            assert_string_equal(status.operator_command, "");
        else
            assert_non_null(strstr(status.operator_command, rows[i].advice));
        assert_int_equal(atomic_load(&hosts.source_defined), rows[i].source_defined || rows[i].removed);
        pcmig_migration_unref(migration);
    }
}

/* A destination whose daemon was restarted does not say at once that the guest runs. */
static void rest_while_the_destination_is_late(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();
    struct pcmig_migration_status status;

    (void)state;
    atomic_store(&hosts.known, true);
    atomic_store(&hosts.source_defined, false);
    atomic_store(&hosts.destination, SUSPENDED);
    atomic_store(&hosts.source, ABSENT);
    (void)usleep(1500000);
    atomic_store(&hosts.destination, RUNNING);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    status = status_of(migration);
    assert_string_equal(pcmig_outcome_name(status.outcome), "completed");
    assert_int_equal(atomic_load(&hosts.undefines), 1);
    assert_string_equal(status.operator_command, "");
    pcmig_migration_unref(migration);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(precopy_is_steered),
        TEST(precopy_is_switched_by_the_policy),
        TEST(precopy_is_cancelled),
        TEST(guest_leaves_with_the_switch),
        TEST(guest_that_stays_is_told_of_as_well),
        TEST(steering_does_not_wait_for_the_destination),
        TEST(precopy_gets_its_bandwidth_back),
        TEST(what_stands_still_after_the_switch_is_old),
        TEST(pause_at_the_destination_needs_proof),
        TEST(one_that_runs_is_asked_whether_it_turned_back),
        TEST(call_that_is_lost),
        TEST(call_that_fails),
        TEST(rest_at_the_source),
        TEST(rest_while_the_destination_is_late),
        TEST(postcopy_is_followed),
        TEST(interruption_is_healed),
        TEST(silence_is_paused_while_the_call_runs),
        TEST(pause_holds_until_it_is_to_go_on),
        TEST(pause_that_comes_too_late),
        TEST(half_that_is_lost_while_held),
        TEST(acknowledged_at_once_when_the_stream_is_known),
        TEST(what_is_over_is_told_at_once),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
