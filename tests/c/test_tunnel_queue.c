/* SPDX-License-Identifier: Apache-2.0 */
/* edge/tunnel_queue against a control socket that answers as it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "edge/clock.h"
#include "edge/tunnel_queue.h"

#define NAME "0123456789abcdef0123456789abcdef"
#define URI  "unix:///run/pcmig/tunnel/" NAME

/* In place of edge/clock's. While it stands, an answer is waited for however busy the machine is, and a second try
 * would only come with a clock that goes on. */
static bool clock_stands;

int64_t pcmig_clock_us(void)
{
    static int64_t last_us;
    struct timespec t;

    if (!clock_stands) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        last_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
    }
    return last_us;
}

int64_t pcmig_clock_thread_cpu_us(void)
{
    return 0;
}

static int let_the_clock_stand(void **state)
{
    (void)state;
    clock_stands = true;
    return 0;
}

static int let_the_clock_go(void **state)
{
    (void)state;
    clock_stands = false;
    return 0;
}

/* One answer for each request; NULL ends the connection, "" lets the asker wait. */
struct host {
    char path[64];
    int listener;
    pthread_t thread;
    const char *const *answers;
    size_t count;
    char asked[128]; /* the last request; to be read when the thread has ended */
};

static void *answer(void *opaque)
{
    struct host *host = opaque;
    int fd = accept(host->listener, NULL, NULL);

    for (size_t i = 0; i < host->count && fd >= 0; i++) {
        ssize_t n = recv(fd, host->asked, sizeof(host->asked) - 1, 0);

        if (n <= 0)
            break;
        host->asked[n] = '\0';
        if (host->answers[i] == NULL)
            break;
        /* In two pieces, as a stream may come. */
        (void)!send(fd, host->answers[i], strlen(host->answers[i]) / 2, MSG_NOSIGNAL);
        usleep(1000);
        (void)!send(fd, host->answers[i] + strlen(host->answers[i]) / 2, (strlen(host->answers[i]) + 1) / 2,
                    MSG_NOSIGNAL);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

static void start(struct host *host, const char *const *answers, size_t count)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    host->answers = answers;
    host->count = count;
    snprintf(host->path, sizeof(host->path), "/tmp/pcmig-queue-%d", (int)getpid());
    unlink(host->path);
    memcpy(address.sun_path, host->path, sizeof(host->path));
    host->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(host->listener >= 0);
    assert_int_equal(bind(host->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(host->listener, 4), 0);
    assert_int_equal(pthread_create(&host->thread, NULL, answer, host), 0);
}

static void end(struct host *host)
{
    shutdown(host->listener, SHUT_RDWR);
    pthread_join(host->thread, NULL);
    close(host->listener);
    unlink(host->path);
}

static void figures_are_read(void **state)
{
    static const char *const answers[] = {
        "ok peer=b port=16516 bytes_out=1 queue_bytes=65536 queue_max_bytes=70000 error=none\n",
        "ok queue_bytes=0\n",
        "ok bytes_out=1 queue_max_bytes=5\n", /* another key */
        "ok queue_bytes=99999999999999999999\n",
        "ok queue_bytes=\n",
        "ok queue_bytes=-5\n",
        "ok queue_bytes=5x\n",
        ("error there is no name " NAME "\n"),
        "ok queue_bytes=7\n",
    };
    static const int64_t wanted[] = {65536, 0, -1, -1, -1, -1, -1, -1, 7};
    struct pcmig_tunnel_queue *queue;
    struct host host;

    (void)state;
    start(&host, answers, sizeof(answers) / sizeof(answers[0]));
    queue = pcmig_tunnel_queue_open(host.path, URI);
    assert_non_null(queue);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        assert_int_equal(pcmig_tunnel_queue_bytes(queue), wanted[i]);
    pcmig_tunnel_queue_close(queue);
    end(&host);
    assert_string_equal(host.asked, "show " NAME "\n");
}

static void a_daemon_that_does_not_tell_holds_nobody_up(void **state)
{
    static const char *const silent[] = {""}, *const gone[] = {NULL};
    const char *const *const cases[] = {silent, gone};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct pcmig_tunnel_queue *queue;
        struct host host;

        start(&host, cases[i], 1);
        queue = pcmig_tunnel_queue_open(host.path, URI);
        assert_non_null(queue);
        assert_int_equal(pcmig_tunnel_queue_bytes(queue), -1);
        /* And is left alone for a while: no attempt, no wait, which would never end now. */
        clock_stands = true;
        for (int look = 0; look < 100; look++)
            assert_int_equal(pcmig_tunnel_queue_bytes(queue), -1);
        clock_stands = false;
        pcmig_tunnel_queue_close(queue);
        end(&host);
    }
}

static void a_daemon_that_was_restarted_is_asked_at_once(void **state)
{
    static const char *const before[] = {"ok queue_bytes=1\n"}, *const after[] = {"ok queue_bytes=2\n"};
    struct pcmig_tunnel_queue *queue;
    struct host host;

    (void)state;
    start(&host, before, 1);
    queue = pcmig_tunnel_queue_open(host.path, URI);
    assert_non_null(queue);
    assert_int_equal(pcmig_tunnel_queue_bytes(queue), 1);
    end(&host);
    start(&host, after, 1);
    assert_int_equal(pcmig_tunnel_queue_bytes(queue), 2);
    pcmig_tunnel_queue_close(queue);
    end(&host);
}

static void nobody_there(void **state)
{
    struct pcmig_tunnel_queue *queue = pcmig_tunnel_queue_open("/nonexistent/control", URI);

    (void)state;
    assert_non_null(queue);
    assert_int_equal(pcmig_tunnel_queue_bytes(queue), -1);
    pcmig_tunnel_queue_close(queue);
    pcmig_tunnel_queue_close(NULL);
}

static void what_is_no_name_is_not_asked_for(void **state)
{
    static const char *const uris[] = {
        "tcp://b",
        "unix:///run/x",
        "unix://",
        "",
        ("unix:///run/" NAME "0"),
        "unix:///run/0123456789ABCDEF0123456789abcdef",
        ("tcp://b/" NAME),
    };
    char path[200];

    (void)state;
    for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++)
        assert_null(pcmig_tunnel_queue_open("/run/x", uris[i]));
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    assert_null(pcmig_tunnel_queue_open(path, URI));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures_are_read, let_the_clock_stand, let_the_clock_go),
        cmocka_unit_test(a_daemon_that_does_not_tell_holds_nobody_up),
        cmocka_unit_test_setup_teardown(a_daemon_that_was_restarted_is_asked_at_once, let_the_clock_stand,
                                        let_the_clock_go),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(what_is_no_name_is_not_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
