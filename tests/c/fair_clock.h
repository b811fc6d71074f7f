/* SPDX-License-Identifier: Apache-2.0 */
/* A clock that stands still while the machine does not let this process run, in place of the engine's (edge/clock.c) in
 * the one program that includes this: no time-out passes between two looks, and what is said to take no time takes
 * none, on a machine that may leave this no processor for many seconds. */
#ifndef PCMIG_TESTS_FAIR_CLOCK_H
#define PCMIG_TESTS_FAIR_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "edge/clock.h"

#define FAIR_BEAT_US 1000
#define FAIR_STEP_US 5000 /* that passes at the most between two beats */

static struct {
    pthread_once_t once;
    atomic_llong now_us;
} fair = {.once = PTHREAD_ONCE_INIT};

static int64_t fair_read_us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void *fair_beat(void *arg)
{
    int64_t before_us = fair_read_us(CLOCK_MONOTONIC);

    for (;;) {
        int64_t now_us, passed_us;

        (void)usleep(FAIR_BEAT_US);
        now_us = fair_read_us(CLOCK_MONOTONIC);
        passed_us = now_us - before_us;
        before_us = now_us;
        /* Explicit, so that it beats with STARVE=1 as well. */
        atomic_fetch_add_explicit(&fair.now_us, passed_us < FAIR_STEP_US ? passed_us : FAIR_STEP_US,
                                  memory_order_seq_cst);
    }
    return arg;
}

static void fair_begin(void)
{
    pthread_t thread;

    atomic_store(&fair.now_us, fair_read_us(CLOCK_MONOTONIC));
    if (pthread_create(&thread, NULL, fair_beat, NULL) != 0 || pthread_detach(thread) != 0)
        abort();
}

int64_t pcmig_clock_us(void)
{
    (void)pthread_once(&fair.once, fair_begin);
    return atomic_load(&fair.now_us);
}

int64_t pcmig_clock_thread_cpu_us(void)
{
    return fair_read_us(CLOCK_THREAD_CPUTIME_ID);
}

bool pcmig_clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_us)
{
    for (;;) {
        const int64_t left_us = until_us - pcmig_clock_us();
        const int64_t end_us = fair_read_us(CLOCK_MONOTONIC) + left_us;
        const struct timespec end = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};

        if (left_us <= 0)
            return false;
        if (pthread_cond_timedwait(condition, lock, &end) == 0)
            return true;
    }
}

#endif
