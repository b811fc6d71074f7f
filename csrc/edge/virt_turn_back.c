/* SPDX-License-Identifier: Apache-2.0 */
/* A guest goes on at the source after the switch. See virt_qemu.h.
 *
 * Why the gdb stub. QEMU keeps a source that has switched in the run state "finish-migrate", and its own `cont` refuses
 * there ("Migration is not finalized yet"), as migrate_cancel does in post-copy. Of what a monitor can ask for, only
 * the stub's "continue" and "detach" start processors without looking at that (gdb_continue(), vm_start()). Facts:
 * QEMU 7.2 to 11.1, monitor/qmp-cmds.c, migration/migration.c, gdbstub/system.c. The other ways, and what is wrong with
 * them: doc/refer/safety.rst. */
#include "core/gdb.h"
#include "core/qemu_migration.h"
#include "edge/clock.h"
#include "edge/gdb_stub.h"
#include "edge/virt_internal.h"
#include "edge/virt_qemu.h"

#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETS_ACTIVE     10000000UL /* blockdev-set-active */
#define PAUSE_MS        10000
#define STUB_MS         3000
#define RUNS_MS         3000
#define LOOK_AGAIN_MS   20
#define ANSWERS_LATE_MS 200
#define CLOSE_ATTEMPTS  2
#define STUB_ID         "pcmig-gdb"
#define SOCKET_NAME     "pcmig-gdb.sock"
#define FOLDER_BYTES    200
#define ANSWER_BYTES    512

/* --- the monitor -------------------------------------------------------------------------------------------------- */

/* COMMAND of QMP: QEMU's whole answer, to be free()d; NULL with ERROR. */
static char *ask(struct pcmig_virt_domain *domain, const char *command, struct pcmig_virt_error *error)
{
    char why[ANSWER_BYTES];
    char *answer = NULL;

    if (virDomainQemuMonitorCommand(domain->ptr, command, &answer, 0) < 0 || answer == NULL) {
        pcmig_virt_error_take(error);
        free(answer);
        return NULL;
    }
    if (pcmig_qemu_done(answer, strlen(answer)))
        return answer;
    if (pcmig_qemu_refused(answer, strlen(answer), why, sizeof(why)))
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "QEMU refuses %.120s: %.300s", command, why);
    else
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "QEMU's answer to %.120s cannot be read", command);
    free(answer);
    return NULL;
}

/* COMMAND of the human monitor: what it printed, to be free()d; NULL with ERROR. */
static char *type(struct pcmig_virt_domain *domain, const char *command, struct pcmig_virt_error *error)
{
    char *text = NULL;

    if (virDomainQemuMonitorCommand(domain->ptr, command, &text, VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) < 0 ||
        text == NULL) {
        pcmig_virt_error_take(error);
        free(text);
        return NULL;
    }
    return text;
}

static int unreadable(const char *command, struct pcmig_virt_error *error)
{
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "QEMU's answer to %s is not what QEMU 5.2 to 11 give",
                         command);
    return -1;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static int look_states(struct pcmig_virt_domain *domain, struct pcmig_virt_turn_back *out,
                       struct pcmig_virt_error *error)
{
    char *answer = ask(domain, "{\"execute\":\"query-status\"}", error);
    int result;

    if (answer == NULL)
        return -1;
    result = pcmig_qemu_run_state(answer, strlen(answer), out->run_state, sizeof(out->run_state));
    free(answer);
    if (result < 0)
        return unreadable("query-status", error);
    answer = ask(domain, "{\"execute\":\"query-migrate\"}", error);
    if (answer == NULL)
        return -1;
    result = pcmig_qemu_migration_status(answer, strlen(answer), out->migration, sizeof(out->migration));
    out->stream = (struct pcmig_turn_back_stream){
        .remaining_bytes = pcmig_qemu_migration_ram(answer, strlen(answer), "remaining"),
        .sent_bytes = pcmig_qemu_migration_ram(answer, strlen(answer), "transferred"),
        .requests = pcmig_qemu_migration_ram(answer, strlen(answer), "postcopy-requests"),
    };
    free(answer);
    return result < 0 ? unreadable("query-migrate", error) : 0;
}

enum pcmig_turn_back_half pcmig_virt_turn_back_half(const struct pcmig_virt_turn_back *seen)
{
    return pcmig_turn_back_half(seen->run_state, seen->migration, seen->stream.remaining_bytes >= 0);
}

int pcmig_virt_turn_back_look(struct pcmig_virt_domain *domain, struct pcmig_virt_turn_back *out,
                              struct pcmig_virt_error *error)
{
    char *answer;
    int on;

    *out = (struct pcmig_virt_turn_back){.stream = {-1, -1, -1}};
    if (look_states(domain, out, error) < 0)
        return -1;
    answer = ask(domain, "{\"execute\":\"query-version\"}", error);
    if (answer == NULL)
        return -1;
    out->qemu = pcmig_qemu_version(answer, strlen(answer));
    free(answer);
    if (out->qemu == 0)
        return unreadable("query-version", error);
    answer = ask(domain, "{\"execute\":\"query-migrate-capabilities\"}", error);
    if (answer == NULL)
        return -1;
    on = pcmig_qemu_capability(answer, strlen(answer), "release-ram");
    free(answer);
    if (on < 0)
        return unreadable("query-migrate-capabilities", error);
    out->discards_memory = on != 0;
    return 0;
}

/* Looks until the half is WANTED. Returns 0, or -1 with ERROR. */
static int wait_until(struct pcmig_virt_domain *domain, enum pcmig_turn_back_half wanted, int64_t timeout_ms,
                      struct pcmig_virt_error *error)
{
    const int64_t end_us = pcmig_clock_us() + timeout_ms * 1000;
    struct pcmig_virt_turn_back seen;

    for (;;) {
        if (look_states(domain, &seen, error) < 0)
            return -1;
        if (pcmig_virt_turn_back_half(&seen) == wanted)
            return 0;
        if (pcmig_clock_us() >= end_us)
            break;
        (void)poll(NULL, 0, LOOK_AGAIN_MS);
    }
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                         "QEMU at the source says of the guest %s, and of its migration %s", seen.run_state,
                         seen.migration);
    return -1;
}

/* --- acting ------------------------------------------------------------------------------------------------------- */

struct steps {
    char *text;
    size_t size;
    bool opened; /* QEMU had a stub to open */
};

static void __attribute__((format(printf, 2, 3))) tell(struct steps *steps, const char *format, ...)
{
    const size_t used = strlen(steps->text);
    va_list args;

    va_start(args, format);
    vsnprintf(steps->text + used, steps->size - used, format, args);
    va_end(args);
}

/* A stream that QEMU takes for whole would go on with pages of a guest that runs. BEFORE: what QEMU said before; memory
 * that has flowed since says that the other half lives. */
static int pause_stream(struct pcmig_virt_domain *domain, const struct pcmig_virt_turn_back *before,
                        struct steps *steps, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error unsaid = {0};
    struct pcmig_virt_turn_back after;

    /* Refused when it breaks in this very moment: what counts is what QEMU says afterwards. */
    const int paused = pcmig_virt_pause_postcopy(domain, &unsaid);

    if (wait_until(domain, PCMIG_TURN_BACK_WAITS, PAUSE_MS, error) < 0) {
        if (paused < 0)
            *error = unsaid;
        return -1;
    }
    tell(steps, "stream paused\n");
    if (look_states(domain, &after, error) < 0)
        return -1;
    if (!pcmig_turn_back_moved(&before->stream, &after.stream))
        return 0;
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                         "memory flowed to the destination until the stream was paused (%lld, then %lld bytes left; "
                         "%lld, then %lld sent; %lld, then %lld pages asked for), so its QEMU lives: resume the "
                         "migration",
                         (long long)before->stream.remaining_bytes, (long long)after.stream.remaining_bytes,
                         (long long)before->stream.sent_bytes, (long long)after.stream.sent_bytes,
                         (long long)before->stream.requests, (long long)after.stream.requests);
    return -1;
}

static int take_disks(struct pcmig_virt_domain *domain, struct steps *steps, struct pcmig_virt_error *error)
{
    char *answer = ask(domain, "{\"execute\":\"blockdev-set-active\",\"arguments\":{\"active\":true}}", error);

    if (answer == NULL)
        return -1;
    free(answer);
    tell(steps, "disks taken back\n");
    return 0;
}

/* A half that waits, and whose migration may yet be resumed: two QEMUs would write to the disks. Only of one that
 * certainly waits, and goes on by nobody's word any more: a guest that runs ends with its disks taken away. ERROR, why
 * it does not go on, says so too where they are not given back. */
static void give_disks_back(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error why = {0};
    struct pcmig_virt_turn_back seen;
    char reason[sizeof(error->message)];
    char *answer = NULL;

    if (look_states(domain, &seen, &why) == 0) {
        if (pcmig_virt_turn_back_half(&seen) != PCMIG_TURN_BACK_WAITS)
            return;
        answer = ask(domain, "{\"execute\":\"blockdev-set-active\",\"arguments\":{\"active\":false}}", &why);
    }
    if (answer == NULL) {
        snprintf(reason, sizeof(reason),
                 "%.220s; and its disks were not given back, so do not resume the migration: %.180s", error->message,
                 why.message);
        memcpy(error->message, reason, sizeof(reason));
    }
    free(answer);
}

/* Whoever connects to a stub stops the guest, so none stays open, be it of a process that was killed. Returns 0, or -1
 * with ERROR: it may be open. */
static int close_stub(struct pcmig_virt_domain *domain, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error unsaid = {0};
    bool closed = false;

    for (int attempt = 0; !closed && attempt < CLOSE_ATTEMPTS; attempt++) {
        char *text = type(domain, "gdbserver none", error);

        closed = text != NULL && pcmig_gdb_closed(text);
        if (text != NULL && !closed)
            pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "QEMU does not close its gdb stub: %.200s", text);
        free(text);
    }
    /* Gone with the stub, as a rule. */
    if (closed)
        free(ask(domain, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"" STUB_ID "\"}}", &unsaid));
    return closed ? 0 : -1;
}

static int find_folder(struct pcmig_virt_domain *domain, char *out, size_t size, struct pcmig_virt_error *error)
{
    char *answer = ask(domain, "{\"execute\":\"query-chardev\"}", error);
    int result;

    if (answer == NULL)
        return -1;
    result = pcmig_qemu_monitor_folder(answer, strlen(answer), out, size);
    free(answer);
    if (result < 0)
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED,
                             "QEMU does not say where the socket of its monitor is, in whose folder its gdb stub is to "
                             "listen");
    return result;
}

/* Opens the stub with COMMAND, has it let the guest go on over FD, or over what listens at PATH (NULL = FD), and closes
 * it whatever came of it; whether it is closed is looked at in the end. */
static int through_stub(struct pcmig_virt_domain *domain, const char *command, int fd, const char *path,
                        struct steps *steps, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error unsaid = {0};
    char *text = type(domain, command, error);
    int result = -1, dialled = -1;

    if (text == NULL)
        return -1;
    if (!pcmig_gdb_listens(text)) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED,
                             "QEMU has no gdb stub for this guest, and nothing else lets it go on: %.200s", text);
        free(text);
        return -1;
    }
    free(text);
    steps->opened = true;
    tell(steps, "gdb stub opened%s%s\n", path != NULL ? " at " : "", path != NULL ? path : "");
    if (path != NULL)
        fd = dialled = pcmig_gdb_stub_dial(path, STUB_MS, error);
    if (fd >= 0)
        result = pcmig_gdb_stub_go_on(fd, STUB_MS, error);
    if (result == 0)
        tell(steps, "processors let go on\n");
    if (dialled >= 0)
        (void)close(dialled);
    if (close_stub(domain, &unsaid) == 0)
        tell(steps, "gdb stub closed\n");
    return result;
}

/* A stub that listens in the guest's own folder, which libvirt lets its QEMU write to, whatever confines it. */
static int by_path(struct pcmig_virt_domain *domain, struct steps *steps, struct pcmig_virt_error *error)
{
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + sizeof(SOCKET_NAME) + 1], command[3 * sizeof(path)];

    if (find_folder(domain, folder, sizeof(folder), error) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/%s", folder, SOCKET_NAME);
    if (!pcmig_gdb_listen_command(path, command, sizeof(command))) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED,
                             "%.200s is too long for the socket of QEMU's gdb stub, or has a control character", path);
        return -1;
    }
    return through_stub(domain, command, -1, path, steps, error);
}

/* A stub on one end of a pair of sockets, of which nobody else ever has the other: it needs no right to anybody's
 * folder. libvirt takes the descriptor over a local connection (>= 8.2); what confines QEMU may not let it use it. */
static int by_descriptor(struct pcmig_virt_domain *domain, struct steps *steps, struct pcmig_virt_error *error)
{
#if LIBVIR_VERSION_NUMBER >= 8002000
    struct pcmig_virt_error unsaid = {0};
    char *answer = NULL;
    int pair[2], result = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_OTHER, "no pair of sockets: %s", strerror(errno));
        return -1;
    }
    if (virDomainQemuMonitorCommandWithFiles(domain->ptr,
                                             "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"" STUB_ID "\"}}", 1,
                                             &pair[1], NULL, NULL, &answer, 0) < 0)
        pcmig_virt_error_take(error);
    else if (answer != NULL && pcmig_qemu_done(answer, strlen(answer)))
        result = 0;
    else
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "QEMU takes no descriptor: %.200s",
                             answer != NULL ? answer : "");
    free(answer);
    (void)close(pair[1]);
    if (result == 0) {
        answer = ask(domain,
                     "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"" STUB_ID
                     "\",\"backend\":{\"type\":\"socket\",\"data\":{\"addr\":{\"type\":\"fd\",\"data\":{\"str\":"
                     "\"" STUB_ID "\"}},\"server\":false}}}}",
                     error);
        if (answer == NULL)
            free(ask(domain, "{\"execute\":\"closefd\",\"arguments\":{\"fdname\":\"" STUB_ID "\"}}", &unsaid));
        result = answer != NULL ? 0 : -1;
        free(answer);
    }
    if (result == 0) {
        result = through_stub(domain, "gdbserver chardev:" STUB_ID, pair[0], NULL, steps, error);
    }
    (void)close(pair[0]);
    return result;
#else
    (void)domain;
    (void)steps;
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_UNSUPPORTED, "pcmig was built with libvirt before 8.2");
    return -1;
#endif
}

/* What one way does not do, the other may. A stub that is not to be had at all says so both times. */
static int go_on(struct pcmig_virt_domain *domain, struct steps *steps, struct pcmig_virt_error *error)
{
    struct pcmig_virt_error first = {0};
    struct pcmig_virt_turn_back seen;

    if (by_descriptor(domain, steps, &first) == 0)
        return 0;
    tell(steps, "not by a descriptor (%.100s)\n", first.message);
    /* What was asked may have taken effect, and only its answer be late: whoever connects to the stub stops the guest.
     */
    (void)poll(NULL, 0, ANSWERS_LATE_MS);
    if (look_states(domain, &seen, error) < 0)
        return -1;
    if (pcmig_virt_turn_back_half(&seen) == PCMIG_TURN_BACK_RUNS)
        return 0;
    return by_path(domain, steps, error);
}

/* Bridges and switches learnt at the switch that the guest's addresses are at the destination. A courtesy: the guest's
 * own next packet tells them too. */
static void announce(struct pcmig_virt_domain *domain, struct steps *steps)
{
    struct pcmig_virt_error unsaid = {0};
    char *answer = ask(domain,
                       "{\"execute\":\"announce-self\",\"arguments\":{\"initial\":50,\"max\":550,\"rounds\":5,"
                       "\"step\":100}}",
                       &unsaid);

    if (answer != NULL)
        tell(steps, "network told where it is\n");
    free(answer);
}

/* It had gone on, and stands since: a stub that somebody was killed over, or a "stop" of somebody. Here QEMU's own
 * `cont` does. */
static int go_on_again(struct pcmig_virt_domain *domain, struct steps *steps, struct pcmig_virt_error *error)
{
    char *answer;

    if (close_stub(domain, error) < 0)
        return -1;
    tell(steps, "no gdb stub is open\n");
    answer = ask(domain, "{\"execute\":\"cont\"}", error);
    if (answer == NULL)
        return -1;
    free(answer);
    tell(steps, "processors let go on\n");
    return 0;
}

/* The half of SEEN, which waits, goes on for the first time. */
static int turn(struct pcmig_virt_domain *domain, const struct pcmig_virt_turn_back *seen, struct steps *steps,
                struct pcmig_virt_error *error)
{
    const bool sets_active = seen->qemu >= SETS_ACTIVE;
    struct pcmig_virt_error stub = {0}, unsaid = {0};
    int went;

    if (sets_active && take_disks(domain, steps, error) < 0) {
        give_disks_back(domain, error); /* of several, some may have been taken */
        return -1;
    }
    went = go_on(domain, steps, &stub);
    /* Whatever the stub said: what counts is what the guest does. */
    if (wait_until(domain, PCMIG_TURN_BACK_RUNS, went == 0 ? RUNS_MS : 0, error) == 0)
        return 0;
    if (went < 0)
        *error = stub;
    /* With a stub that is open it may yet go on, or be let go on by somebody. */
    if ((!steps->opened || close_stub(domain, &unsaid) == 0) && sets_active)
        give_disks_back(domain, error);
    return -1;
}

int pcmig_virt_turn_back(struct pcmig_virt_domain *domain, char *out, size_t size, struct pcmig_virt_error *error)
{
    struct steps steps = {.text = out, .size = size};
    struct pcmig_virt_turn_back seen;
    struct pcmig_virt_error stub = {0};
    enum pcmig_turn_back_half half;

    out[0] = '\0';
    if (pcmig_virt_turn_back_look(domain, &seen, error) < 0)
        return -1;
    half = pcmig_virt_turn_back_half(&seen);
    switch (half) {
    case PCMIG_TURN_BACK_RUNS:
        tell(&steps, "it runs already\n");
        break;
    case PCMIG_TURN_BACK_STOPPED:
        if (go_on_again(domain, &steps, error) < 0 || wait_until(domain, PCMIG_TURN_BACK_RUNS, RUNS_MS, error) < 0)
            return -1;
        break;
    case PCMIG_TURN_BACK_SENDS:
    case PCMIG_TURN_BACK_WAITS:
        if (half == PCMIG_TURN_BACK_SENDS && pause_stream(domain, &seen, &steps, error) < 0)
            return -1;
        if (turn(domain, &seen, &steps, error) < 0)
            return -1;
        break;
    case PCMIG_TURN_BACK_OTHER:
    case PCMIG_TURN_BACK_HALF_COUNT:
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID,
                             "QEMU at the source says of the guest %s, and of its migration %s: no half that could go "
                             "on",
                             seen.run_state, seen.migration);
        return -1;
    }
    if (close_stub(domain, &stub) < 0) {
        pcmig_virt_error_set(
            error, PCMIG_VIRT_FAILURE_OTHER,
            "it runs, but its gdb stub may be open, and stops it when somebody connects to it: %.200s; "
            "type the same again",
            stub.message);
        return -1;
    }
    if (half != PCMIG_TURN_BACK_RUNS) {
        tell(&steps, "it runs\n");
        announce(domain, &steps);
    }
    return 0;
}
