/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/clock.h"

#include <time.h>

static int64_t read_us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t pcmig_clock_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t pcmig_clock_thread_cpu_us(void)
{
    return read_us(CLOCK_THREAD_CPUTIME_ID);
}

bool pcmig_clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_us)
{
    const struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};

    return pthread_cond_timedwait(condition, lock, &until) == 0;
}
