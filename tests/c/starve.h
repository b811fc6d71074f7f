/* SPDX-License-Identifier: Apache-2.0 */
/* Included before everything else with STARVE=1 (Makefile): a thread that has changed what others see is often left
 * without a processor right then, as on a machine that has too much to do. A test that depends on which of two threads
 * comes first fails so, in minutes and not once in a hundred runs. */
#ifndef PCMIG_TESTS_STARVE_H
#define PCMIG_TESTS_STARVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define STARVE_ONE_IN  3
#define STARVE_MOST_MS 60

static inline void pcmig_starve(unsigned one_in)
{
    static _Thread_local unsigned seed;
    struct timespec now, rest;

    if (seed == 0) {
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        seed = (unsigned)now.tv_nsec | 1;
    }
    if ((unsigned)rand_r(&seed) % one_in != 0)
        return;
    rest = (struct timespec){.tv_nsec = (long)(1 + (unsigned)rand_r(&seed) % STARVE_MOST_MS) * 1000000};
    (void)nanosleep(&rest, NULL);
}

#undef atomic_store
#define atomic_store(object, value)                                                                                    \
    do {                                                                                                               \
        atomic_store_explicit((object), (value), memory_order_seq_cst);                                                \
        pcmig_starve(STARVE_ONE_IN);                                                                                   \
    } while (0)

#define PCMIG_STARVED(change)                                                                                          \
    __extension__({                                                                                                    \
        __typeof__(change) before = (change);                                                                          \
        pcmig_starve(STARVE_ONE_IN);                                                                                   \
        before;                                                                                                        \
    })

#undef atomic_fetch_add
#define atomic_fetch_add(object, value)                                                                                \
    PCMIG_STARVED(atomic_fetch_add_explicit((object), (value), memory_order_seq_cst))
#undef atomic_fetch_sub
#define atomic_fetch_sub(object, value)                                                                                \
    PCMIG_STARVED(atomic_fetch_sub_explicit((object), (value), memory_order_seq_cst))

#endif
