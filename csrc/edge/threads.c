/* SPDX-License-Identifier: Apache-2.0 */
/* See threads.h. */
#include "edge/threads.h"

#include <time.h>

int pcmig_thread_begin(size_t stack_bytes, void *(*run)(void *arg), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    int failure = pthread_attr_init(&attr);

    if (failure != 0)
        return failure;
    failure = pthread_attr_setstacksize(&attr, stack_bytes);
    if (failure == 0)
        failure = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (failure == 0)
        failure = pthread_create(&thread, &attr, run, arg);
    pthread_attr_destroy(&attr);
    return failure;
}

int pcmig_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attr;
    int failure = pthread_condattr_init(&attr);

    if (failure != 0)
        return failure;
    failure = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (failure == 0)
        failure = pthread_cond_init(condition, &attr);
    pthread_condattr_destroy(&attr);
    return failure;
}

int pcmig_waiting_init(pthread_mutex_t *lock, pthread_cond_t *condition)
{
    int failure = pthread_mutex_init(lock, NULL);

    if (failure != 0)
        return failure;
    failure = pcmig_condition_init(condition);
    if (failure != 0)
        pthread_mutex_destroy(lock);
    return failure;
}
