/* SPDX-License-Identifier: Apache-2.0 */
/* What POSIX threads take several calls for, each of which may fail. */
#ifndef PCMIG_EDGE_THREADS_H
#define PCMIG_EDGE_THREADS_H

#include <pthread.h>
#include <stddef.h>

/* A thread that nobody joins, with a stack of its own size: the default of 8 MiB counts against the memory that a
 * process may have. Returns 0, or an error number: there is no thread then. */
int pcmig_thread_begin(size_t stack_bytes, void *(*run)(void *arg), void *arg);

/* A lock, and a condition whose timed waits end by pcmig_clock_us(), which no change of the wall clock moves. Returns
 * 0, or an error number: neither has to be destroyed then. */
int pcmig_waiting_init(pthread_mutex_t *lock, pthread_cond_t *condition);

/* The condition alone. */
int pcmig_condition_init(pthread_cond_t *condition);

#endif
