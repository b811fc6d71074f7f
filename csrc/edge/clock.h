/* SPDX-License-Identifier: Apache-2.0 */
/* The one clock of the engine, and waiting by it. */
#ifndef PCMIG_EDGE_CLOCK_H
#define PCMIG_EDGE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* CLOCK_MONOTONIC in microseconds. */
int64_t pcmig_clock_us(void);

/* CPU time this thread has used, microseconds. */
int64_t pcmig_clock_thread_cpu_us(void);

/* Waits with LOCK held for CONDITION (pcmig_condition_init()), which may be told for nothing. False when it is
 * UNTIL_US.
 */
bool pcmig_clock_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_us);

#endif
