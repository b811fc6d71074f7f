/* SPDX-License-Identifier: Apache-2.0 */
/* core/gdb: what a stub may say, how it is asked; and edge/gdb_stub against a stub that is played. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/gdb.h"
#include "edge/gdb_stub.h"

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

/* What the last byte of TEXT says. */
static enum pcmig_gdb_said read_all(const char *text, size_t len)
{
    struct pcmig_gdb_reader reader = {0};
    enum pcmig_gdb_said said = PCMIG_GDB_NOTHING;

    for (size_t i = 0; i < len; i++)
        said = pcmig_gdb_read(&reader, text[i]);
    return said;
}

static void packets(void **state)
{
    static const struct {
        const char *text;
        enum pcmig_gdb_said said;
    } rows[] = {
        {"", PCMIG_GDB_NOTHING},
        {"+", PCMIG_GDB_NOTHING},
        {"+$OK#9a", PCMIG_GDB_OK},
        {"$OK#9a", PCMIG_GDB_OK},
        {"+$T05thread:01;#07$OK#9a", PCMIG_GDB_OK},
        {"$T05thread:01;#07", PCMIG_GDB_OTHER},
        {"$E22#a9", PCMIG_GDB_ERROR},
        {"$#00", PCMIG_GDB_ERROR},
        {"$OK#9", PCMIG_GDB_NOTHING},
        {"$OK", PCMIG_GDB_NOTHING},
        {"$OK#9b", PCMIG_GDB_NO_STUB},
        {"$OK#9A", PCMIG_GDB_NO_STUB},
        {"$OK#x", PCMIG_GDB_NO_STUB},
        {"$O$K", PCMIG_GDB_NO_STUB},
        {"-", PCMIG_GDB_NO_STUB},
        {"OK", PCMIG_GDB_NO_STUB},
        {"HTTP/1.1 200 OK", PCMIG_GDB_NO_STUB},
        {"-$OK#9a", PCMIG_GDB_NO_STUB}, /* nothing is believed after a mistake */
    };
    char big[PCMIG_GDB_MAX + 2];

    (void)state;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        if (read_all(rows[i].text, strlen(rows[i].text)) != rows[i].said)
            fail_msg("%s", rows[i].text);
    }
    memset(big, 'a', sizeof(big));
    big[0] = '$';
    assert_int_equal(read_all(big, sizeof(big) - 1), PCMIG_GDB_NOTHING);
    assert_int_equal(read_all(big, sizeof(big)), PCMIG_GDB_NO_STUB);
}

static void commands(void **state)
{
    char out[512], path[200];

    (void)state;
    assert_true(pcmig_gdb_listen_command("/var/lib/libvirt/qemu/domain-1-g1/s", out, sizeof(out)));
    assert_string_equal(out, "gdbserver \"unix:path=/var/lib/libvirt/qemu/domain-1-g1/s,server=on,wait=off\"");
    /* Names of guests may have everything in them. */
    assert_true(pcmig_gdb_listen_command("/a b,c\"d\\e/s", out, sizeof(out)));
    assert_string_equal(out, "gdbserver \"unix:path=/a b,,c\\\"d\\\\e/s,server=on,wait=off\"");
    assert_false(pcmig_gdb_listen_command("a/s", out, sizeof(out)));
    assert_false(pcmig_gdb_listen_command("/a\n/s", out, sizeof(out)));
    assert_false(pcmig_gdb_listen_command("/a", out, 30));
    memset(path, 'a', sizeof(path));
    path[0] = '/';
    path[108] = '\0';
    assert_false(pcmig_gdb_listen_command(path, out, sizeof(out)));
    path[107] = '\0';
    assert_true(pcmig_gdb_listen_command(path, out, sizeof(out)));
    assert_false(pcmig_gdb_listen_command(path, out, 120));
    assert_true(pcmig_gdb_listens("Waiting for gdb connection on device 'unix:path=/x'\r\n"));
    assert_false(pcmig_gdb_listens("gdbstub: current accelerator doesn't support guest debugging\r\n"));
    assert_false(pcmig_gdb_listens("Could not open gdbserver on device 'x'\r\n"));
    assert_false(pcmig_gdb_listens(""));
    assert_true(pcmig_gdb_closed("Disabled gdbserver\r\n"));
    assert_false(pcmig_gdb_closed("Could not open gdbserver on device 'none'\r\n"));
    assert_false(pcmig_gdb_closed(""));
}

#define PATIENCE_MS 600000 /* on a machine that may be very busy */

struct stub {
    int fd;
    const char *answers; /* written after the first bytes came; NULL = it closes */
    char heard[64];
};

static void *play(void *arg)
{
    struct stub *stub = arg;
    const ssize_t count = recv(stub->fd, stub->heard, sizeof(stub->heard) - 1, 0);

    stub->heard[count > 0 ? count : 0] = '\0';
    if (stub->answers != NULL)
        (void)send(stub->fd, stub->answers, strlen(stub->answers), MSG_NOSIGNAL);
    else
        (void)close(stub->fd);
    return NULL;
}

/* What becomes of "go on" beside a stub that ANSWERS. */
static int go_on(const char *answers, int64_t timeout_ms, struct pcmig_virt_error *error)
{
    struct stub stub = {.answers = answers};
    pthread_t thread;
    int pair[2], result;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    stub.fd = pair[1];
    assert_int_equal(fcntl(pair[1], F_SETFL, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, play, &stub), 0);
    result = pcmig_gdb_stub_go_on(pair[0], timeout_ms, error);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(stub.heard, "+$D#44");
    (void)close(pair[0]);
    if (answers != NULL)
        (void)close(pair[1]);
    return result;
}

static void a_stub_that_is_played(void **state)
{
    struct pcmig_virt_error error = {0};

    (void)state;
    assert_int_equal(go_on("+$OK#9a", PATIENCE_MS, &error), 0);
    assert_int_equal(go_on("$T05thread:01;#07+$OK#9a", PATIENCE_MS, &error), 0);
    assert_int_equal(go_on("+$E22#a9", PATIENCE_MS, &error), -1);
    assert_non_null(strstr(error.message, "it refuses: \"E22\""));
    assert_int_equal(go_on("nonsense", PATIENCE_MS, &error), -1);
    assert_non_null(strstr(error.message, "not gdb's protocol"));
    assert_int_equal(go_on("+", 50, &error), -1);
    assert_non_null(strstr(error.message, "timed out"));
    assert_int_equal(go_on(NULL, PATIENCE_MS, &error), -1);
    assert_non_null(strstr(error.message, "closed the connection"));
}

static void nobody_listens(void **state)
{
    struct pcmig_virt_error error = {0};
    char path[200];

    (void)state;
    assert_int_equal(pcmig_gdb_stub_dial("/nonexistent/stub", 1000, &error), -1);
    assert_non_null(strstr(error.message, "/nonexistent/stub: No such file"));
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(pcmig_gdb_stub_dial(path, 1000, &error), -1);
    assert_non_null(strstr(error.message, "too long"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets),
        cmocka_unit_test(commands),
        cmocka_unit_test(a_stub_that_is_played),
        cmocka_unit_test(nobody_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
