/* SPDX-License-Identifier: Apache-2.0 */
/* An end whose connection stands and which does not answer: nobody waits for it, and what it says at last counts only
 * as what it was when it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "edge/clock.h"
#include "two_hosts.h"

/* What is steered, is steered within this time; a host that does not answer is silent for longer. */
#define SOON_US (PATIENCE * INT64_C(1000) / 4)

static int64_t began_us;

static void clock_starts(void)
{
    began_us = pcmig_clock_us();
}

static void took_no_time(void)
{
    assert_in_range(pcmig_clock_us() - began_us, 0, SOON_US);
}

/* --- connections that break --------------------------------------------------------------------------------------- */

static struct {
    _Atomic(virConnectCloseFunc) tell; /* the latest watch */
    void *_Atomic opaque;
} watch, source_watch;

int virConnectRegisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb, void *opaque, virFreeCallback freecb)
{
    char *uri = virConnectGetURI(conn);

    if (uri != NULL && strcmp(uri, dest_host.uri) == 0) {
        atomic_store(&watch.opaque, opaque);
        atomic_store(&watch.tell, cb);
    } else {
        atomic_store(&source_watch.opaque, opaque);
        atomic_store(&source_watch.tell, cb);
    }
    free(uri);
    (void)freecb; /* pcmig gives the reference back when it unregisters it */
    return 0;
}

int virConnectUnregisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb)
{
    (void)conn;
    (void)cb;
    return 0;
}

static void destination_breaks(void)
{
    virConnectCloseFunc tell = atomic_load(&watch.tell);

    assert_non_null(tell);
    tell(NULL, VIR_CONNECT_CLOSE_REASON_KEEPALIVE, atomic_load(&watch.opaque));
}

static void source_breaks(void)
{
    virConnectCloseFunc tell = atomic_load(&source_watch.tell);

    assert_non_null(tell);
    tell(NULL, VIR_CONNECT_CLOSE_REASON_KEEPALIVE, atomic_load(&source_watch.opaque));
}

/* --- a silent destination ----------------------------------------------------------------------------------------- */

static void steered_and_switched(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_destination);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&held_destination.waiting) > 0);
    clock_starts();
    assert_int_equal(pcmig_migration_set_bandwidth(migration, 7), 0);
    WAIT_FOR(atomic_load(&hosts.precopy_mib) == 7);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_SWITCH), 0);
    WAIT_FOR(status_of(migration).state == PCMIG_ENGINE_DRAINING);
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    took_no_time();
    /* It has been asked once, and not again and again. */
    assert_int_equal(atomic_load(&held_destination.waiting), 1);
    all_has_arrived();
    let_go(&held_destination);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* A drain that comes to nothing gives the source its bandwidth back. */
static void given_back(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_destination);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&held_destination.waiting) > 0);
    WAIT_FOR(status_of(migration).sample.memory_total_bytes > 0);
    clock_starts();
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_SWITCH), 0);
    WAIT_FOR(atomic_load(&hosts.precopy_mib) == 1);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    WAIT_FOR(atomic_load(&hosts.aborts) == 1);
    WAIT_FOR(atomic_load(&hosts.precopy_mib) > 1);
    took_no_time();
    let_go(&held_destination);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

/* Recovery says what it waits for, hears what it is told, and goes on as soon as the destination answers. */
static void recovered(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    hold(&held_destination);
    WAIT_FOR(atomic_load(&held_destination.waiting) > 0);
    clock_starts();
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    WAIT_FOR(strstr(status_of(migration).recovery.text, "until the destination answers") != NULL);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_PAUSE), 0);
    WAIT_FOR(status_of(migration).recovery.state == PCMIG_RECOVERY_STATE_HELD);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_RESUME), 0);
    WAIT_FOR(status_of(migration).recovery.state == PCMIG_RECOVERY_STATE_WAITING);
    assert_in_range(pcmig_clock_us() - began_us, 0, 2 * SOON_US);
    assert_int_equal(atomic_load(&hosts.resumes), 0);
    let_go(&held_destination);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.resumes), 1);
}

/* It had no half when it was asked, and has the running guest when it says so. The source, stopped for the switch
 * meanwhile, must not be let run: that would be the second copy. */
static void said_too_late(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.destination, ABSENT);
    hold(&held_destination);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&held_destination.waiting) > 0);
    atomic_store(&hosts.source, STOPPED);
    atomic_store(&hosts.destination, RUNNING);
    atomic_store(&hosts.job, false); /* the last: a source that runs and has no job has kept the guest */
    (void)usleep(500000);
    let_go(&held_destination);
    (void)usleep(3000000);
    assert_int_equal(atomic_load(&hosts.runs), 0);
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_RUNNING);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.runs), 0);
}

/* But a host that takes its time is heard, as long as nothing has changed meanwhile. */
static void slow(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_destination);
    migration = adopt(PCMIG_POLICY_MANUAL);
    for (int i = 0; i < 4; i++) {
        WAIT_FOR(atomic_load(&held_destination.waiting) == 1);
        (void)usleep(600000);
        if (i == 2)
            all_has_arrived();
        atomic_store(&held_destination.let_go, true);
        WAIT_FOR(atomic_load(&held_destination.waiting) == 0 || i == 3);
        atomic_store(&held_destination.let_go, false);
    }
    let_go(&held_destination);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Nor does anything count that was asked over a connection that broke. */
static void asked_over_a_connection_that_broke(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_destination);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&held_destination.waiting) == 1);
    atomic_store(&held_destination.holds, false); /* what is asked from now on is answered */
    destination_breaks();
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&held_destination.waiting), 1);
    let_go(&held_destination);
}

/* A host that does not take connections for long gets another attempt beside the first, and the one that succeeds is
 * taken. */
static void slow_to_connect(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&watch.tell, NULL);
    migration = adopt_postcopy();
    WAIT_FOR(atomic_load(&watch.tell) != NULL);
    atomic_store(&attempts, 0);
    atomic_store(&no_answer, true);
    destination_breaks();
    WAIT_FOR(atomic_load(&attempts) >= 1);
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.destination, BROKEN);
    WAIT_FOR(atomic_load(&attempts) >= 2);
    atomic_store(&no_answer, false);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.resumes), 1);
}

/* Its QEMU dies before it let the guest run, and libvirt tells nobody: it says so when it is asked. */
static void end_that_nobody_told(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.call_ms, PATIENCE);
    atomic_store(&hosts.switch_hangs, true);
    migration = begin(false, PCMIG_POLICY_IMMEDIATE);
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    atomic_store(&hosts.destination, ARRIVING);
    atomic_store(&hosts.job, true);
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    atomic_store(&hosts.source, BROKEN);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.call_ms, 0);
    (void)usleep(2000000); /* the call has failed, and both hosts were asked */
    assert_false(status_of(migration).unrun);
    atomic_store(&hosts.destination, ABSENT);
    WAIT_FOR(status_of(migration).unrun);
    assert_true(pcmig_migration_join(migration, PATIENCE));
    assert_non_null(strstr(status_of(migration).operator_command, "pcmig turn-back -c"));
    expect_end(migration, PCMIG_OUTCOME_NEEDS_OPERATOR);
}

/* Its libvirt answers, and its QEMU, which waits for a page with its lock held, never says that the stream is gone, or
 * takes no resume: people hear what helps, and nothing is done. Should it get on after all, it is resumed. */
static void hangs(int destination, int refuses_ms, const char *guest)
{
    struct pcmig_migration *migration;
    char look[128];

    stall_ms = 100;
    migration = adopt_postcopy();
    stall_ms = 0;
    atomic_store(&hosts.refuses_ms, refuses_ms);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.destination, destination);
    atomic_store(&hosts.source, BROKEN);
    WAIT_FOR(strstr(status_of(migration).recovery.text, "only its end helps") != NULL);
    assert_int_equal(status_of(migration).recovery.state, PCMIG_RECOVERY_STATE_HELD);
    WAIT_FOR(strstr(status_of(migration).note, "it hangs") != NULL); /* which is told after that */
    assert_non_null(strstr(status_of(migration).note, guest));
    (void)snprintf(look, sizeof(look), "look first (virsh -c %s domstate --reason ", dest_host.uri);
    assert_true((strstr(status_of(migration).note, look) != NULL) == (destination == FETCHING));
    assert_non_null(strstr(status_of(migration).note, "what it did since is undone:\n  virsh -c "));
    assert_non_null(strstr(status_of(migration).note, " destroy "));
    assert_int_equal(status_of(migration).outcome, PCMIG_OUTCOME_RUNNING);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

static void does_not_notice(void **state)
{
    (void)state;
    hangs(FETCHING, 1, "the guest may still run there on the pages that it has");
}

static void takes_no_resume(void **state)
{
    (void)state;
    hangs(BROKEN, 60000, "the guest stands still");
}

/* libvirt refuses each resume, as one of the two QEMUs does not wait for it. */
static char still_running[] = "Requested operation is not valid: QEMU reports migration is still running";
static char not_in_postcopy[] =
    "Requested operation is not valid: current job is not outgoing migration in post-copy mode";

static struct pcmig_migration *refused(const char *qemu)
{
    struct pcmig_migration *migration;

    stall_ms = 100;
    migration = adopt_postcopy();
    stall_ms = 0;
    atomic_store(&hosts.qemu, qemu);
    atomic_store(&hosts.pausable, false); /* libvirt calls it paused already */
    atomic_store(&hosts.unpausable, not_in_postcopy);
    atomic_store(&hosts.refusal, still_running);
    atomic_store(&hosts.refuses_ms, 1);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.destination, BROKEN);
    atomic_store(&hosts.source, BROKEN);
    return migration;
}

/* The source's: it is in the handshake of an earlier resume, and waits for a word that was lost. */
static void source_does_not_wait(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = refused("postcopy-recover");
    WAIT_FOR(atomic_load(&hosts.qemu_pauses) == 1);
    assert_true(atomic_load(&hosts.resumes) > 1); /* not after the first, which may be the moment of its noticing */
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 1);
}

/* The same, and its stream flows: it is let alone, neither paused nor resumed, until it does not any more. */
static void source_flows(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.sent, -1);
    migration = refused("postcopy-active");
    WAIT_FOR(strstr(status_of(migration).recovery.text, "QEMU's stream flows on") != NULL);
    assert_int_equal(atomic_load(&hosts.pauses), 0);
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 0);
    atomic_store(&hosts.refuses_ms, 0);
    atomic_store(&hosts.qemu, "postcopy-paused");
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Nor is it where QEMU there answers later than anybody waits for. */
static void slow_source_flows(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.sent, -1);
    atomic_store(&hosts.monitor_ms, 400);
    migration = refused("postcopy-active");
    WAIT_FOR(strstr(status_of(migration).recovery.text, "QEMU's stream flows on") != NULL);
    assert_int_equal(atomic_load(&hosts.resumes), 0);
    atomic_store(&hosts.monitor_ms, 0);
    atomic_store(&hosts.refuses_ms, 0);
    atomic_store(&hosts.qemu, "postcopy-paused");
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* QEMU is told without libvirt only where libvirt calls it paused; otherwise people hear why not, and it is tried
 * again. */
static void source_cannot_be_paused(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = refused("postcopy-recover");
    atomic_store(&hosts.unpausable, NULL);
    WAIT_FOR(strstr(status_of(migration).recovery.text, "QEMU at the source was not to be paused: ") != NULL);
    WAIT_FOR(atomic_load(&hosts.pauses) > 1);
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 0);
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* Nor where it has come to wait meanwhile. */
static void source_waits_by_then(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&hosts.then, "postcopy-paused");
    migration = refused("postcopy-recover");
    WAIT_FOR(atomic_load(&hosts.pauses) == 1);
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 0);
}

/* As long as nobody knows whether the order was heard there is no next stream, which it would end. */
static void order_to_pause_that_is_out(void **state)
{
    struct pcmig_migration *migration;
    int resumes;

    (void)state;
    hold(&held_pause);
    migration = refused("postcopy-recover");
    WAIT_FOR(strstr(status_of(migration).recovery.text, "waiting for QEMU at the source to pause") != NULL);
    WAIT_FOR(atomic_load(&held_pause.waiting) == 1);
    resumes = atomic_load(&hosts.resumes);
    (void)usleep(4000000);
    assert_int_equal(atomic_load(&hosts.resumes), resumes);
    atomic_store(&hosts.refuses_ms, 0);
    let_go(&held_pause);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    assert_int_equal(atomic_load(&hosts.resumes), resumes + 1);
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 1);
}

/* Nothing could have woken the destination's: it is tried on, and people hear what wakes it before they hear of its
 * end.
 */
static void nobody_wakes_it(const char *status, const char *note)
{
    struct pcmig_migration *migration;

    migration = refused("postcopy-paused");
    WAIT_FOR(strstr(status_of(migration).recovery.text, status) != NULL);
    assert_int_equal(status_of(migration).recovery.state, PCMIG_RECOVERY_STATE_HELD);
    WAIT_FOR(strstr(status_of(migration).note, note) != NULL); /* which is told after that */
    assert_non_null(strstr(status_of(migration).note, "undone:\n  pcmig wake "));
    assert_null(strstr(status_of(migration).note, "undone:\n  virsh "));
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* The connections were gone before anybody saw which they are. */
static void destination_that_nobody_wakes(void **state)
{
    (void)state;
    atomic_store(&hosts.wakes, false);
    nobody_wakes_it("has not noticed, as it seems: pcmig wake there", "it has not noticed that its stream is gone");
}

/* Their ports cannot be had, which says nothing of the network. */
static void destination_that_cannot_be_knocked_at(void **state)
{
    (void)state;
    atomic_store(&hosts.knockable, false);
    atomic_store(&hosts.hears, false);
    nobody_wakes_it("has not noticed, as it seems: pcmig wake there", "it has not noticed that its stream is gone");
    assert_true(atomic_load(&hosts.knocks) > 0);
}

/* Nobody answers where they led to: the network is broken. */
static void destination_that_hears_nothing(void **state)
{
    (void)state;
    atomic_store(&hosts.hears, false);
    nobody_wakes_it("does not answer over the network of the migration: mend that network; or pcmig wake there",
                    "Mend that network");
    assert_true(atomic_load(&hosts.knocks) > 0);
}

/* It was reached, and is not any more: a resume brought another stream, or the network is cut again. What was heard
 * then is no reason to have people end its half. */
static void destination_that_hears_no_more(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = refused("postcopy-paused");
    WAIT_FOR(strstr(status_of(migration).note, "either it hangs") != NULL);
    atomic_store(&hosts.hears, false);
    WAIT_FOR(strstr(status_of(migration).recovery.text, "does not answer over the network of the migration") != NULL);
    WAIT_FOR(strstr(status_of(migration).note, "Mend that network") != NULL); /* which is told after that */
    assert_null(strstr(status_of(migration).note, "undone:\n  virsh "));
    atomic_store(&hosts.refuses_ms, 0);
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* The destination's: its monitor is out of reach until the migration is over. */
static void destination_does_not_wait(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    migration = refused("postcopy-paused");
    WAIT_FOR(strstr(status_of(migration).recovery.text, "takes no resume; if the network between the hosts is there") !=
             NULL);
    WAIT_FOR(strstr(status_of(migration).note, "If the network between the hosts is there, either it hangs") != NULL);
    assert_non_null(strstr(status_of(migration).note, "what it did since is undone:\n  virsh "));
    assert_non_null(strstr(status_of(migration).note, " destroy "));
    assert_int_equal(atomic_load(&hosts.qemu_pauses), 0);
    atomic_store(&hosts.refuses_ms, 0); /* should it get on after all */
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* --- a silent source ---------------------------------------------------------------------------------------------- */

/* Its QEMU does not tell how it gets on: nothing else waits for that. */
static void without_figures(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_job);
    migration = adopt(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&held_job.waiting) > 0);
    clock_starts();
    assert_int_equal(pcmig_migration_set_bandwidth(migration, 7), 0);
    WAIT_FOR(atomic_load(&hosts.precopy_mib) == 7);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_DETACH), 0);
    expect_end(migration, PCMIG_OUTCOME_DETACHED);
    took_no_time();
    let_go(&held_job);
}

/* It is gone before it could say that it has let the guest go. It may have kept it, shut off. */
static void moved_from_a_source_that_is_gone(void **state)
{
    struct pcmig_migration *migration = adopt_postcopy();

    (void)state;
    WAIT_FOR(atomic_load(&source_watch.tell) != NULL);
    atomic_store(&source_gone, true);
    source_breaks();
    all_has_arrived();
    assert_true(pcmig_migration_join(migration, 2 * PATIENCE));
    assert_non_null(strstr(status_of(migration).operator_command, "pcmig resume -c"));
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
    atomic_store(&source_gone, false);
}

/* An order to switch that is out: from then on the guest may be on its way, which is on record at once. */
static void switch_without_an_answer(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    hold(&held_switch);
    migration = adopt(PCMIG_POLICY_IMMEDIATE);
    WAIT_FOR(atomic_load(&held_switch.waiting) == 1);
    clock_starts();
    WAIT_FOR(status_of(migration).crossed);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    WAIT_FOR(strstr(status_of(migration).note, "too late to cancel") != NULL);
    took_no_time();
    assert_int_equal(atomic_load(&hosts.aborts), 0);
    let_go(&held_switch);
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_POSTCOPY);
    assert_int_equal(atomic_load(&hosts.switches), 1);
    assert_true(status_of(migration).switch_late_us >= 0);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(steered_and_switched),
        TEST(given_back),
        TEST(recovered),
        TEST(said_too_late),
        TEST(slow),
        TEST(asked_over_a_connection_that_broke),
        TEST(slow_to_connect),
        TEST(end_that_nobody_told),
        TEST(does_not_notice),
        TEST(takes_no_resume),
        TEST(source_does_not_wait),
        TEST(source_flows),
        TEST(slow_source_flows),
        TEST(source_cannot_be_paused),
        TEST(source_waits_by_then),
        TEST(order_to_pause_that_is_out),
        TEST(destination_that_nobody_wakes),
        TEST(destination_that_cannot_be_knocked_at),
        TEST(destination_that_hears_nothing),
        TEST(destination_that_hears_no_more),
        TEST(destination_does_not_wait),
        TEST(without_figures),
        TEST(moved_from_a_source_that_is_gone),
        TEST(switch_without_an_answer),
    };

    return cmocka_run_group_tests(tests, make_host, drop_host);
}
