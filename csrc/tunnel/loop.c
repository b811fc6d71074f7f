/* SPDX-License-Identifier: Apache-2.0 */
/* See loop.h. */
#include "tunnel/loop.h"

#include "edge/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS_PER_ROUND = 64 };

/* Tasks in the order they were added. */
struct queue {
    struct pcmig_task *first;
    struct pcmig_task **end;
};

struct pcmig_loop {
    int epoll_fd;
    struct pcmig_source wake; /* an eventfd: tasks were posted, or it is time to stop */
    int64_t now_us;
    struct pcmig_timer *timers; /* in no order: there are few */
    int64_t earliest_us;        /* not later than the first timer; 0 = none */
    struct queue again, dead;

    pthread_mutex_t lock; /* of what follows */
    struct queue posted;
    bool stop;

    pthread_t thread;
    bool started;
    char name[16];
};

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->end = &q->first;
}

static bool queue_add(struct queue *q, struct pcmig_task *task)
{
    if (task->waits)
        return false;
    task->waits = true;
    task->next = NULL;
    *q->end = task;
    q->end = &task->next;
    return true;
}

/* Runs what is in Q now; what is added meanwhile waits for the next time. */
static void queue_run(struct queue *q)
{
    struct pcmig_task *task = q->first;

    queue_init(q);
    while (task != NULL) {
        struct pcmig_task *next = task->next;

        task->waits = false;
        task->run(task);
        task = next;
    }
}

static void on_wake(struct pcmig_source *source, uint32_t events)
{
    uint64_t count;

    (void)events;
    if (read(source->fd, &count, sizeof(count)) < 0)
        return; /* EAGAIN: somebody else's wake-up was read already */
}

struct pcmig_loop *pcmig_loop_new(const char *name)
{
    struct pcmig_loop *loop = calloc(1, sizeof(*loop));
    int error;

    if (loop == NULL)
        return NULL;
    queue_init(&loop->again);
    queue_init(&loop->dead);
    queue_init(&loop->posted);
    snprintf(loop->name, sizeof(loop->name), "%s", name);
    loop->now_us = pcmig_clock_us();
    loop->wake.ready = on_wake;
    error = pthread_mutex_init(&loop->lock, NULL);
    if (error != 0)
        goto err0;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake.fd < 0) {
        error = errno;
        goto err1;
    }
    error = pcmig_loop_watch(loop, &loop->wake, EPOLLIN);
    if (error != 0)
        goto err1;
    return loop;

err1:
    if (loop->wake.fd >= 0)
        close(loop->wake.fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
err0:
    free(loop);
    errno = error;
    return NULL;
}

void pcmig_loop_free(struct pcmig_loop *loop)
{
    if (loop == NULL)
        return;
    close(loop->wake.fd);
    close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

/* Runs what was posted; returns whether the loop is to stop. Flags of posted tasks are the lock's. */
static bool run_posted(struct pcmig_loop *loop)
{
    struct pcmig_task *task;
    bool stop;

    /* A task may be posted again as soon as it left the queue, which overwrites its `next`: so one at a time. */
    do {
        pthread_mutex_lock(&loop->lock);
        stop = loop->stop;
        task = loop->posted.first;
        if (task != NULL) {
            loop->posted.first = task->next;
            if (task->next == NULL)
                loop->posted.end = &loop->posted.first;
            task->waits = false;
        }
        pthread_mutex_unlock(&loop->lock);
        if (task != NULL)
            task->run(task);
    } while (task != NULL);
    return stop;
}

static void run_timers(struct pcmig_loop *loop)
{
    bool fired;

    if (loop->earliest_us == 0 || loop->now_us < loop->earliest_us)
        return;
    /* A timer's function may set and cancel any timer, so the list is looked at anew after each. */
    do {
        fired = false;
        loop->earliest_us = 0;
        for (struct pcmig_timer *t = loop->timers; t != NULL; t = t->next) {
            if (t->due_us <= loop->now_us) {
                pcmig_loop_cancel(loop, t);
                t->fire(t);
                fired = true;
                break;
            }
            if (loop->earliest_us == 0 || t->due_us < loop->earliest_us)
                loop->earliest_us = t->due_us;
        }
    } while (fired);
}

/* For epoll_wait: rounded up, so that what is due then is due. */
static int wait_ms(const struct pcmig_loop *loop)
{
    int64_t left_us;

    if (loop->again.first != NULL)
        return 0;
    if (loop->earliest_us == 0)
        return -1;
    left_us = loop->earliest_us - pcmig_clock_us();
    if (left_us <= 0)
        return 0;
    return left_us > 60000000 ? 60000 : (int)((left_us + 999) / 1000);
}

static void *loop_main(void *arg)
{
    struct pcmig_loop *loop = arg;
    struct epoll_event events[EVENTS_PER_ROUND];
    bool stop = false;

    pthread_setname_np(pthread_self(), loop->name);
    while (!stop) {
        const int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND, wait_ms(loop));
        bool woken = false;

        loop->now_us = pcmig_clock_us();
        for (int i = 0; i < n; i++) {
            struct pcmig_source *source = events[i].data.ptr;

            if (source->fd >= 0) /* else it was closed in this round */
                source->ready(source, events[i].events);
            woken = woken || source == &loop->wake;
        }
        /* Not before: a task may free what later events of the round point to. */
        if (woken)
            stop = run_posted(loop);
        run_timers(loop);
        queue_run(&loop->again);
        queue_run(&loop->dead);
    }
    return NULL;
}

int pcmig_loop_start(struct pcmig_loop *loop)
{
    sigset_t all, before;
    int error;

    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&loop->thread, NULL, loop_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    loop->started = error == 0;
    return error;
}

static void poke(struct pcmig_loop *loop)
{
    const uint64_t one = 1;

    if (write(loop->wake.fd, &one, sizeof(one)) < 0)
        return; /* EAGAIN: 2^64 - 2 wake-ups wait already */
}

void pcmig_loop_stop(struct pcmig_loop *loop)
{
    if (!loop->started)
        return;
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    poke(loop);
    pthread_join(loop->thread, NULL);
    loop->started = false;
}

void pcmig_loop_drain(struct pcmig_loop *loop)
{
    while (loop->posted.first != NULL || loop->again.first != NULL || loop->dead.first != NULL) {
        run_posted(loop);
        queue_run(&loop->again);
        queue_run(&loop->dead);
    }
}

int pcmig_loop_watch(struct pcmig_loop *loop, struct pcmig_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLET, .data = {.ptr = source}};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? errno : 0;
}

void pcmig_loop_close(struct pcmig_loop *loop, struct pcmig_source *source)
{
    if (source->fd < 0)
        return;
    /* Explicitly: the description may live on in a duplicate, and epoll would go on telling. */
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    close(source->fd);
    source->fd = -1;
}

void pcmig_loop_cancel(struct pcmig_loop *loop, struct pcmig_timer *timer)
{
    if (timer->due_us == 0)
        return;
    if (timer->prev != NULL)
        timer->prev->next = timer->next;
    else
        loop->timers = timer->next;
    if (timer->next != NULL)
        timer->next->prev = timer->prev;
    timer->due_us = 0;
}

void pcmig_loop_set(struct pcmig_loop *loop, struct pcmig_timer *timer, int64_t due_us)
{
    pcmig_loop_cancel(loop, timer);
    timer->due_us = due_us > 0 ? due_us : 1;
    timer->prev = NULL;
    timer->next = loop->timers;
    if (timer->next != NULL)
        timer->next->prev = timer;
    loop->timers = timer;
    if (loop->earliest_us == 0 || timer->due_us < loop->earliest_us)
        loop->earliest_us = timer->due_us;
}

void pcmig_loop_again(struct pcmig_loop *loop, struct pcmig_task *task)
{
    queue_add(&loop->again, task);
}

void pcmig_loop_bury(struct pcmig_loop *loop, struct pcmig_task *task)
{
    queue_add(&loop->dead, task);
}

bool pcmig_loop_post(struct pcmig_loop *loop, struct pcmig_task *task)
{
    bool first, added;

    pthread_mutex_lock(&loop->lock);
    first = loop->posted.first == NULL;
    added = queue_add(&loop->posted, task);
    pthread_mutex_unlock(&loop->lock);
    if (first)
        poke(loop);
    return added;
}

int64_t pcmig_loop_now_us(const struct pcmig_loop *loop)
{
    return loop->now_us;
}
