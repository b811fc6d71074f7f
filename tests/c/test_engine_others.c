/* SPDX-License-Identifier: Apache-2.0 */
/* A migration and another one of the same host, in another process: it waits, makes room, and goes on when the other is
 * killed. And what the migrate call itself does not wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "edge/clock.h"
#include "edge/turns_file.h"
#include "two_hosts.h"

static char folder[] = "/tmp/pcmig-others.XXXXXX";

static int make_all(void **state)
{
    char inner[64];

    if (mkdtemp(folder) == NULL || setenv("PCMIG_RUN_DIR", folder, 1) != 0)
        return -1;
    snprintf(inner, sizeof(inner), "%s/migrations", folder);
    (void)mkdir(inner, 0700);
    return make_host(state);
}

static int drop_all(void **state)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/migrations/turns-2", folder);
    (void)unlink(path);
    snprintf(path, sizeof(path), "%s/migrations", folder);
    (void)rmdir(path);
    (void)rmdir(folder);
    return drop_host(state);
}

/* Another process that moves guest g2 and is in this phase for as long as it lives. */
static pid_t neighbour(enum pcmig_turns_phase phase)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct pcmig_turns_seat *seat = pcmig_turns_join();
        struct pcmig_turns_row row = {.network = pcmig_turns_network(SOURCE),
                                      .phase = phase,
                                      .fill = PCMIG_TURNS_FILLS,
                                      .since_us = 1,
                                      .phase_us = pcmig_clock_us(),
                                      .turn_us = pcmig_clock_us() - 3000000,
                                      .total_bytes = 64 * MIB,
                                      .remaining_bytes = 64 * MIB,
                                      .queue_bytes = -1,
                                      .name = "g2"};

        if (seat == NULL)
            _exit(1);
        for (;;) {
            /* Never old while it lives, however late the machine lets it. */
            row.stamp_us = row.moved_us = pcmig_clock_us() + PATIENCE * INT64_C(1000);
            pcmig_turns_write(seat, &row);
            if (row.bound_mib == 0 && write(ready[1], "x", 1) != 1)
                _exit(1);
            row.bound_mib = 1; /* it makes room for anybody */
            (void)usleep(50000);
        }
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static struct pcmig_migration *start(enum pcmig_policy_kind policy)
{
    atomic_store(&hosts.destination, ABSENT);
    atomic_store(&hosts.job, false);
    atomic_store(&hosts.begins, true);
    return begin(false, policy);
}

static bool waits(struct pcmig_migration *migration, enum pcmig_turn turn, const char *for_whom)
{
    struct pcmig_migration_status status;

    for (int i = 0; i < PATIENCE; i++) {
        pcmig_migration_status(migration, &status);
        if (status.turn == turn && strcmp(status.waits_for, for_whom) == 0)
            return true;
        (void)usleep(1000);
    }
    print_message("turn %d, waits for \"%s\", phase %d, %s\n", status.turn, status.waits_for, status.phase,
                  status.text);
    return false;
}

static void call_waits_until_the_other_is_killed(void **state)
{
    pid_t other = neighbour(PCMIG_TURNS_PRECOPY);
    struct pcmig_migration *migration = start(PCMIG_POLICY_MANUAL);
    int64_t killed_us;

    (void)state;
    assert_true(waits(migration, PCMIG_TURN_WAITING, "g2 (in pre-copy)"));
    (void)usleep(300000);
    assert_int_equal(atomic_load(&hosts.calls), 0);
    end(other);
    killed_us = pcmig_clock_us();
    assert_true(waits(migration, PCMIG_TURN_FREE, ""));
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    assert_true(pcmig_clock_us() - killed_us < PATIENCE * INT64_C(500)); /* before its row would be old */
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

static void cancelled_while_it_waits(void **state)
{
    static const enum pcmig_request requests[] = {PCMIG_REQUEST_ABORT, PCMIG_REQUEST_DETACH};
    pid_t other = neighbour(PCMIG_TURNS_POSTCOPY);

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct pcmig_migration *migration = start(PCMIG_POLICY_AUTO);
        struct pcmig_migration_status status;

        assert_true(waits(migration, PCMIG_TURN_WAITING, "g2 (in post-copy)"));
        assert_int_equal(pcmig_migration_request(migration, requests[i]), 0);
        assert_true(pcmig_migration_join(migration, PATIENCE));
        pcmig_migration_status(migration, &status);
        assert_int_equal(status.outcome, PCMIG_OUTCOME_FAILED);
        assert_string_equal(status.text, "cancelled while it waited for another migration: the guest was not touched");
        assert_int_equal(atomic_load(&hosts.calls), 0);
        assert_int_equal(atomic_load(&hosts.aborts), 0);
        pcmig_migration_unref(migration);
    }
    end(other);
}

/* Room for a guest that is switched, and all of the link again when its process is killed in the drain. */
static void makes_room_for_a_switch(void **state)
{
    struct pcmig_migration *migration = start(PCMIG_POLICY_MANUAL);
    pid_t other;

    (void)state;
    WAIT_FOR(status_of(migration).phase == PCMIG_PHASE_PRECOPY);
    other = neighbour(PCMIG_TURNS_DRAIN);
    assert_true(waits(migration, PCMIG_TURN_BOUNDED, "g2 (draining)"));
    assert_int_equal(atomic_load(&hosts.precopy_mib), 1);
    /* Asked to, it does not switch now. */
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_SWITCH), 0);
    (void)usleep(500000);
    assert_int_equal(atomic_load(&hosts.switches), 0);
    end(other);
    assert_true(waits(migration, PCMIG_TURN_FREE, ""));
    WAIT_FOR(atomic_load(&hosts.switches) == 1);
    all_has_arrived();
    expect_end(migration, PCMIG_OUTCOME_COMPLETED);
}

/* --- the destination's UUID --------------------------------------------------------------------------------------- */

static atomic_bool capabilities_let_go = true;
static atomic_int capabilities_asked;

/* libvirt takes a second for it, and here until it is let go. */
char *virConnectGetCapabilities(virConnectPtr conn)
{
    (void)conn;
    atomic_fetch_add(&capabilities_asked, 1);
    for (int waited_ms = 0; !atomic_load(&capabilities_let_go) && waited_ms < PATIENCE; waited_ms++)
        (void)usleep(1000);
    return strdup("<capabilities><host><uuid>" UUID "</uuid></host></capabilities>");
}

/* The migrate call does not wait for it. */
static void asked_while_the_migration_is_set_up(void **state)
{
    struct pcmig_migration *migration;

    (void)state;
    atomic_store(&capabilities_let_go, false);
    migration = start(PCMIG_POLICY_MANUAL);
    WAIT_FOR(atomic_load(&hosts.calls) == 1);
    assert_string_equal(status_of(migration).dest_host, "");
    atomic_store(&capabilities_let_go, true);
    WAIT_FOR(strcmp(status_of(migration).dest_host, UUID) == 0);
    assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
    expect_end(migration, PCMIG_OUTCOME_FAILED);
}

static struct {
    _Atomic(virConnectCloseFunc) tell; /* of the destination, the latest watch */
    void *_Atomic opaque;
} watch;

int virConnectRegisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb, void *opaque, virFreeCallback freecb)
{
    char *uri = virConnectGetURI(conn);

    (void)freecb; /* pcmig gives the reference back when it unregisters it */
    if (uri != NULL && strcmp(uri, dest_host.uri) == 0) {
        atomic_store(&watch.opaque, opaque);
        atomic_store(&watch.tell, cb);
    }
    free(uri);
    return 0;
}

int virConnectUnregisterCloseCallback(virConnectPtr conn, virConnectCloseFunc cb)
{
    (void)conn;
    (void)cb;
    return 0;
}

/* The connection breaks before the answer: it is asked once more over the next one, where the guest comes in there. */
static void asked_anew_where_the_guest_comes_in(void **state)
{
    static const struct {
        int destination; /* as who is connected to then has it */
        const char *host;
    } rows[] = {{ARRIVING, UUID}, {ABSENT, ""}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_migration *migration;
        virConnectCloseFunc tell;

        (void)reset(state);
        atomic_store(&hosts.destination, ABSENT);
        atomic_store(&hosts.job, false);
        atomic_store(&hosts.call_ms, PATIENCE);
        atomic_store(&capabilities_asked, 0);
        atomic_store(&capabilities_let_go, false);
        atomic_store(&attempts, 0);
        migration = begin(false, PCMIG_POLICY_MANUAL);
        WAIT_FOR(atomic_load(&hosts.calls) == 1 && atomic_load(&capabilities_asked) == 1);
        atomic_store(&hosts.destination, rows[i].destination);
        atomic_store(&hosts.job, true);
        atomic_store(&no_answer, true);
        tell = atomic_load(&watch.tell);
        assert_non_null(tell);
        tell(NULL, VIR_CONNECT_CLOSE_REASON_KEEPALIVE, atomic_load(&watch.opaque));
        WAIT_FOR(atomic_load(&attempts) > 0); /* nobody waits for the first answer any more */
        atomic_store(&capabilities_let_go, true);
        atomic_store(&no_answer, false);
        if (rows[i].host[0] == '\0')
            (void)usleep(1500000);
        WAIT_FOR(strcmp(status_of(migration).dest_host, rows[i].host) == 0);
        assert_int_equal(atomic_load(&capabilities_asked), rows[i].host[0] != '\0' ? 2 : 1);
        assert_int_equal(pcmig_migration_request(migration, PCMIG_REQUEST_ABORT), 0);
        WAIT_FOR(atomic_load(&hosts.aborts) == 1);
        atomic_store(&hosts.call_ms, 0);
        expect_end(migration, PCMIG_OUTCOME_FAILED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(call_waits_until_the_other_is_killed, reset),
        cmocka_unit_test_setup(cancelled_while_it_waits, reset),
        cmocka_unit_test_setup(makes_room_for_a_switch, reset),
        cmocka_unit_test_setup(asked_while_the_migration_is_set_up, reset),
        cmocka_unit_test_setup(asked_anew_where_the_guest_comes_in, reset),
    };

    return cmocka_run_group_tests_name("engine_others", tests, make_all, drop_all);
}
