/* SPDX-License-Identifier: Apache-2.0 */
/* edge/virt_turn_back beside a QEMU that is played: what it is asked for, in which order, and what is done when a step
 * does not work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "edge/virt_qemu.h"
#include "fair_clock.h"

static struct {
    /* How it is played. */
    const char *run_state;
    const char *migration;
    int major;
    bool release_ram;
    bool no_descriptors; /* getfd is refused */
    bool no_chardev;     /* chardev-add is refused, a confined QEMU say */
    bool no_stub;
    const char *disks_refused;
    bool no_figures;       /* its migration comes in */
    bool stays_open;       /* the stub: a monitor that does not answer, say */
    bool sends;            /* bytes go out until it is paused, */
    bool asks_for;         /* and pages are asked for */
    const char *stub_says; /* NULL = as QEMU does */
    bool stub_obeys;       /* whatever it says */
    char folder[64];
    /* What became of it. */
    atomic_bool runs;
    bool paused; /* by us */
    bool flows;  /* memory goes out until then */
    bool stub_open;
    int fd; /* of the stub */
    pthread_t stub;
    char asked[4096];
} qemu;

static void begin(const char *run_state, const char *migration)
{
    memset(&qemu, 0, sizeof(qemu));
    qemu.run_state = run_state;
    qemu.migration = migration;
    qemu.major = 11;
    qemu.fd = -1;
    snprintf(qemu.folder, sizeof(qemu.folder), "/tmp/pcmig-test-XXXXXX");
    assert_non_null(mkdtemp(qemu.folder));
}

static void end(void)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/pcmig-gdb.sock", qemu.folder);
    (void)unlink(path);
    assert_int_equal(rmdir(qemu.folder), 0);
    assert_false(qemu.stub_open);
}

/* The stub: one client, which has the guest go on. */
static void *stub_main(void *arg)
{
    char bytes[64];
    const bool listens = arg != NULL;
    const int fd = listens ? accept(qemu.fd, NULL, NULL) : qemu.fd;
    const ssize_t count = fd >= 0 ? recv(fd, bytes, sizeof(bytes) - 1, 0) : 0;

    bytes[count > 0 ? count : 0] = '\0';
    if (strstr(bytes, "$D#44") != NULL && (qemu.stub_says == NULL || qemu.stub_obeys))
        atomic_store(&qemu.runs, true);
    if (count > 0) {
        const char *says = qemu.stub_says != NULL ? qemu.stub_says : "+$OK#9a";

        (void)send(fd, says, strlen(says), MSG_NOSIGNAL);
    }
    if (listens && fd >= 0)
        (void)close(fd);
    return NULL;
}

static void open_stub(bool listens)
{
    qemu.stub_open = true;
    assert_int_equal(pthread_create(&qemu.stub, NULL, stub_main, listens ? &qemu : NULL), 0);
}

static void listen_at(const char *command)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = strchr(command, '/');
    const char *comma = strchr(path, ',');

    memcpy(address.sun_path, path, (size_t)(comma - path));
    qemu.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(qemu.fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(qemu.fd, 1), 0);
    open_stub(true);
}

static void note(const char *word)
{
    const size_t used = strlen(qemu.asked);

    snprintf(qemu.asked + used, sizeof(qemu.asked) - used, "%s%s", used > 0 ? " " : "", word);
}

static char *hmp(const char *command)
{
    if (strcmp(command, "gdbserver none") == 0) {
        note("none");
        if (qemu.stub_open) {
            assert_int_equal(pthread_join(qemu.stub, NULL), 0);
            (void)close(qemu.fd);
            qemu.fd = -1;
        }
        qemu.stub_open = false;
        return strdup(qemu.no_stub      ? "gdbstub: current accelerator doesn't support guest debugging\r\n"
                      : qemu.stays_open ? "Could not open gdbserver on device 'none'\r\n"
                                        : "Disabled gdbserver\r\n");
    }
    note(strstr(command, "chardev:") != NULL ? "stub-fd" : "stub-path");
    if (qemu.no_stub)
        return strdup("gdbstub: current accelerator doesn't support guest debugging\r\n");
    if (strstr(command, "chardev:") != NULL)
        open_stub(false);
    else
        listen_at(command);
    return strdup("Waiting for gdb connection on device 'x'\r\n");
}

static char *say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *say(const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    assert_true(vasprintf(&text, format, args) >= 0);
    va_end(args);
    return text;
}

static bool asks(const char *command, const char *name)
{
    char whole[64];

    snprintf(whole, sizeof(whole), "\"execute\":\"%s\"", name);
    return strstr(command, whole) != NULL;
}

#define REFUSED "{\"error\":{\"class\":\"GenericError\",\"desc\":\"%s\"}}"

static char *qmp(const char *command)
{
    if (asks(command, "query-status"))
        return say("{\"return\":{\"status\":\"%s\"}}", atomic_load(&qemu.runs) ? "running" : qemu.run_state);
    if (asks(command, "query-migrate"))
        return qemu.no_figures
                   ? say("{\"return\":{\"status\":\"%s\"}}", qemu.migration)
                   : say("{\"return\":{\"status\":\"%s\",\"ram\":{\"remaining\":%d,\"transferred\":%d,"
                         "\"postcopy-requests\":%d}}}",
                         qemu.paused ? "postcopy-paused" : qemu.migration, qemu.paused && qemu.flows ? 0 : 4096,
                         qemu.paused && qemu.sends ? 9 : 8, qemu.paused && qemu.asks_for ? 3 : 2);
    if (asks(command, "query-version"))
        return say("{\"return\":{\"qemu\":{\"major\":%d,\"minor\":0,\"micro\":2}}}", qemu.major);
    if (asks(command, "query-migrate-capabilities"))
        return say("{\"return\":[{\"capability\":\"release-ram\",\"state\":%s}]}", qemu.release_ram ? "true" : "false");
    if (asks(command, "query-chardev"))
        return say("{\"return\":[{\"label\":\"charmonitor\",\"filename\":\"unix:%s/monitor.sock,server=on\"}]}",
                   qemu.folder);
    if (asks(command, "blockdev-set-active")) {
        note(strstr(command, "\"active\":false") != NULL ? "disks-back" : "disks");
        return qemu.disks_refused != NULL ? say(REFUSED, qemu.disks_refused) : say("{\"return\":{}}");
    }
    if (asks(command, "chardev-add")) {
        note("chardev-add");
        return qemu.no_chardev ? say(REFUSED, "denied") : say("{\"return\":{}}");
    }
    if (asks(command, "closefd")) {
        note("closefd");
        (void)close(qemu.fd);
        qemu.fd = -1;
        return say("{\"return\":{}}");
    }
    if (asks(command, "chardev-remove"))
        return say(REFUSED, "Chardev 'pcmig-gdb' not found");
    if (asks(command, "cont")) {
        note("cont");
        atomic_store(&qemu.runs, true);
        return say("{\"return\":{}}");
    }
    if (asks(command, "announce-self")) {
        note("announce");
        return say("{\"return\":{}}");
    }
    fail_msg("nobody is to ask for %s", command);
    return NULL;
}

/* In place of libvirt's. */
int virDomainQemuMonitorCommand(virDomainPtr domain, const char *command, char **result, unsigned int flags)
{
    assert_non_null(domain);
    *result = (flags & VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) != 0 ? hmp(command) : qmp(command);
    return 0;
}

#if LIBVIR_VERSION_NUMBER >= 8002000
int virDomainQemuMonitorCommandWithFiles(virDomainPtr domain, const char *command, unsigned int count, int *files,
                                         unsigned int *out_count, int **out_files, char **result, unsigned int flags)
{
    assert_non_null(domain);
    assert_true(asks(command, "getfd") && count == 1 && out_count == NULL && out_files == NULL && flags == 0);
    note("getfd");
    if (qemu.no_descriptors) {
        *result = say(REFUSED, "no");
        return 0;
    }
    qemu.fd = fcntl(files[0], F_DUPFD_CLOEXEC, 3);
    assert_int_equal(fcntl(qemu.fd, F_SETFL, 0), 0);
    *result = say("{\"return\":{}}");
    return 0;
}
#endif

int virDomainAbortJobFlags(virDomainPtr domain, unsigned int flags)
{
    assert_non_null(domain);
    assert_int_equal(flags, VIR_DOMAIN_ABORT_JOB_POSTCOPY);
    note("pause");
    qemu.paused = true;
    return 0;
}

static int turn_back(char *steps, size_t size, struct pcmig_virt_error *error)
{
    struct pcmig_virt_conn *conn = pcmig_virt_open("test:///default", 10000, error);
    struct pcmig_virt_domain *domain = pcmig_virt_lookup(conn, "test", error);
    int result;

    assert_non_null(domain);
    result = pcmig_virt_turn_back(domain, steps, size, error);
    pcmig_virt_domain_free(domain);
    pcmig_virt_close(conn);
    return result;
}

#define WAY_FD   "getfd chardev-add stub-fd none"
#define WAY_PATH "stub-path none"

static void it_goes_on(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "disks " WAY_FD " none announce");
    assert_true(atomic_load(&qemu.runs));
    assert_non_null(
        strstr(steps, "disks taken back\ngdb stub opened\nprocessors let go on\ngdb stub closed\nit runs\n"));
    /* Once more: nothing is done that was done, but what may have been left open is closed. */
    qemu.asked[0] = '\0';
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "none");
    assert_string_equal(steps, "it runs already\n");
    end();
}

/* A stub that stays open stops the guest when somebody connects to it. */
static void a_stub_that_stays_open_is_told(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    qemu.stays_open = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_non_null(strstr(error.message, "it runs, but its gdb stub may be open"));
    assert_non_null(strstr(error.message, "Could not open gdbserver"));
    assert_true(atomic_load(&qemu.runs));
    assert_null(strstr(qemu.asked, "disks-back")); /* it needs them */
    qemu.stays_open = false;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    end();

    /* It does not run, and may yet: then its disks stay. */
    begin("finish-migrate", "postcopy-paused");
    qemu.stays_open = true;
    qemu.stub_says = "+$E01#a6";
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_null(strstr(qemu.asked, "disks-back"));
    end();
}

/* Whoever was killed over an open stub may have stopped the guest that he had let go on. */
static void one_that_was_stopped_goes_on(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("paused", "postcopy-paused");
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "none cont none announce");
    assert_true(atomic_load(&qemu.runs));
    end();
}

static void a_stream_that_is_not_known_to_be_broken_is_paused_first(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-active");
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "pause disks " WAY_FD " none announce");
    end();
}

/* The word that the destination is dead was wrong: its QEMU fetched memory until a moment ago. */
static void memory_that_flows_outweighs_a_word(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    for (int i = 0; i < 3; i++) {
        static const char *const says[] = {"4096, then 0 bytes left", "8, then 9 sent", "2, then 3 pages asked for"};

        begin("finish-migrate", "postcopy-active");
        qemu.flows = i == 0;
        qemu.sends = i == 1;
        qemu.asks_for = i == 2;
        assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
        assert_non_null(strstr(error.message, says[i]));
        assert_string_equal(qemu.asked, "pause");
        assert_false(atomic_load(&qemu.runs));
        end();
    }
}

static void an_old_qemu_has_no_disks_to_take_back(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    qemu.major = 9;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, WAY_FD " none announce");
    end();
}

static void the_other_way(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    qemu.no_descriptors = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "disks getfd " WAY_PATH " none announce");
    assert_non_null(strstr(steps, "/pcmig-gdb.sock"));
    end();
    begin("finish-migrate", "postcopy-paused");
    qemu.no_chardev = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "disks getfd chardev-add closefd " WAY_PATH " none announce");
    end();
}

static void what_does_not_work_is_said(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    qemu.no_stub = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_non_null(strstr(error.message, "current accelerator doesn't support guest debugging"));
    assert_non_null(strstr(qemu.asked, " disks-back"));
    (void)close(qemu.fd);
    end();

    /* A disk that somebody else holds: its other half lives after all. */
    begin("finish-migrate", "postcopy-paused");
    qemu.disks_refused = "Failed to get \\\"write\\\" lock";
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_non_null(strstr(error.message, "Failed to get \"write\" lock"));
    assert_non_null(strstr(error.message, "its disks were not given back, so do not resume"));
    assert_string_equal(qemu.asked, "disks disks-back"); /* of several some may have been taken */
    end();

    begin("finish-migrate", "postcopy-paused");
    qemu.stub_says = "+$E01#a6";
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_non_null(strstr(error.message, "it refuses: \"E01\""));
    assert_string_equal(qemu.asked, "disks " WAY_FD " " WAY_PATH " none disks-back");
    assert_false(atomic_load(&qemu.runs));
    end();
}

/* Another connection to the stub would stop the guest that goes on. */
static void what_took_effect_unsaid_is_not_tried_again(void **state)
{
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    begin("finish-migrate", "postcopy-paused");
    qemu.stub_says = "+$E01#a6";
    qemu.stub_obeys = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), 0);
    assert_string_equal(qemu.asked, "disks " WAY_FD " none announce");
    end();
}

static void no_half_no_act(void **state)
{
    static const char *const states[][2] = {
        {"running", "active"}, {"paused", "none"}, {"postmigrate", "completed"}, {"finish-migrate", "postcopy-device"}};
    struct pcmig_virt_error error = {0};
    char steps[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        begin(states[i][0], states[i][1]);
        assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
        assert_non_null(strstr(error.message, states[i][0]));
        assert_string_equal(qemu.asked, "");
        end();
    }
    /* A destination whose post-copy was interrupted. */
    begin("running", "postcopy-paused");
    qemu.no_figures = true;
    assert_int_equal(turn_back(steps, sizeof(steps), &error), -1);
    assert_string_equal(qemu.asked, "");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_on),
        cmocka_unit_test(a_stub_that_stays_open_is_told),
        cmocka_unit_test(one_that_was_stopped_goes_on),
        cmocka_unit_test(a_stream_that_is_not_known_to_be_broken_is_paused_first),
        cmocka_unit_test(memory_that_flows_outweighs_a_word),
        cmocka_unit_test(an_old_qemu_has_no_disks_to_take_back),
        cmocka_unit_test(the_other_way),
        cmocka_unit_test(what_does_not_work_is_said),
        cmocka_unit_test(what_took_effect_unsaid_is_not_tried_again),
        cmocka_unit_test(no_half_no_act),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
