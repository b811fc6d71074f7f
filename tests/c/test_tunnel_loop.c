/* SPDX-License-Identifier: Apache-2.0 */
/* The order of things within one round of an event loop, and a daemon that ends while a worker is late. For the
 * sanitizers, above all ASan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tunnel/loop.h"
#include "tunnel_pair.h"

enum { LATE_US = 150000, HANG_US = 2300000, STRANGERS = 20 };

static atomic_int late_us;

/* In the place of the C library's: a worker that is not scheduled for a while finds many events at once. */
int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    char name[16] = "";

    pthread_getname_np(pthread_self(), name, sizeof(name));
    if (atomic_load(&late_us) > 0 && strcmp(name, "pcmig-tunnel-0") == 0)
        usleep((useconds_t)atomic_load(&late_us));
    return epoll_pwait(fd, events, max, timeout_ms, NULL);
}

struct watched {
    struct pcmig_source source;
    bool told;
};

static struct pcmig_loop *loop;
static struct watched *watched;
static bool told_before_it_went;

static void on_ready(struct pcmig_source *source, uint32_t events)
{
    (void)events;
    ((struct watched *)(void *)source)->told = true;
}

static void on_posted(struct pcmig_task *task)
{
    (void)task;
    told_before_it_went = watched->told;
    pcmig_loop_close(loop, &watched->source);
    free(watched);
}

/* A task of another thread frees a source whose event is of the same round, and comes after the task's in it. */
static void a_task_runs_after_the_events_of_its_round(void **state)
{
    struct pcmig_task task = {.run = on_posted};

    (void)state;
    loop = pcmig_loop_new("loop");
    assert_non_null(loop);
    watched = calloc(1, sizeof(*watched));
    assert_non_null(watched);
    watched->source = (struct pcmig_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = on_ready};
    assert_int_equal(pcmig_loop_watch(loop, &watched->source, EPOLLIN), 0);
    assert_true(pcmig_loop_post(loop, &task));
    assert_int_equal(eventfd_write(watched->source.fd, 1), 0);
    assert_int_equal(pcmig_loop_start(loop), 0);
    pcmig_loop_stop(loop);
    pcmig_loop_free(loop);
    assert_true(told_before_it_went);
}

static void *speak(void *arg)
{
    const int *strangers = arg;

    usleep(LATE_US / 2);
    for (int i = 1; i < STRANGERS; i++)
        (void)send(strangers[i], "P", 1, MSG_NOSIGNAL);
    return NULL;
}

/* Connections that speak while the daemon ends: what ends them is told to a late worker together with what they said.
 */
static void a_daemon_that_ends_while_a_worker_is_late(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct tunnel_pair pair;
    int strangers[STRANGERS];
    pthread_t thread;

    (void)state;
    tunnel_pair_prepare(&pair, true);
    pair.b.config.workers = 1;
    tunnel_side_start(&pair.b);
    address.sin_port = htons((uint16_t)pair.b.port);
    for (int i = 0; i < STRANGERS; i++) {
        strangers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(strangers[i], (struct sockaddr *)&address, sizeof(address)), 0);
    }
    usleep(LATE_US);
    atomic_store(&late_us, LATE_US);
    assert_int_equal(send(strangers[0], "P", 1, MSG_NOSIGNAL), 1); /* the worker comes out of its wait, and is late */
    assert_int_equal(pthread_create(&thread, NULL, speak, strangers), 0);
    pcmig_tunnel_stop(pair.b.tunnel, 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    atomic_store(&late_us, 0);
    tunnel_pair_end(&pair);
    for (int i = 0; i < STRANGERS; i++)
        close(strangers[i]);
}

/* A thread that hangs is told by its silence. */
static void a_worker_that_hangs(void **state)
{
    struct tunnel_pair pair;
    unsigned silent_ms = 0;

    (void)state;
    tunnel_pair_prepare(&pair, true);
    pair.b.config.workers = 1;
    tunnel_side_start(&pair.b);
    atomic_store(&late_us, HANG_US);
    for (int i = 0; i < 6000 && silent_ms < HANG_US / 1000 - 500; i++) {
        usleep(50000);
        silent_ms = pcmig_tunnel_silent_ms(pair.b.tunnel);
    }
    atomic_store(&late_us, 0);
    assert_true(silent_ms >= HANG_US / 1000 - 500);
    for (int i = 0; i < 6000 && silent_ms > 1200; i++) {
        usleep(50000);
        silent_ms = pcmig_tunnel_silent_ms(pair.b.tunnel);
    }
    assert_in_range(silent_ms, 0, 1200);
    tunnel_pair_end(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_runs_after_the_events_of_its_round),
        cmocka_unit_test(a_daemon_that_ends_while_a_worker_is_late),
        cmocka_unit_test(a_worker_that_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
