/* SPDX-License-Identifier: Apache-2.0 */
/* The one clock of the engine. */
#ifndef PCMIG_EDGE_CLOCK_H
#define PCMIG_EDGE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in microseconds. */
int64_t pcmig_clock_us(void);

/* CPU time this thread has used, microseconds. */
int64_t pcmig_clock_thread_cpu_us(void);

#endif
