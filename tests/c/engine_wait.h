/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the engine: its status, and waiting for what its threads do. */
#ifndef ENGINE_WAIT_H
#define ENGINE_WAIT_H

#include "engine/migration.h"

#include <unistd.h>

/* ms, on a machine that may be very busy: what runs beside the tests of guests gets only the processor time that they
 * leave. */
#define PATIENCE 60000

#define WAIT_FOR(condition)                                                                                            \
    do {                                                                                                               \
        int waited_ms = 0;                                                                                             \
        for (; !(condition) && waited_ms < PATIENCE; waited_ms++)                                                      \
            (void)usleep(1000);                                                                                        \
        if (waited_ms == PATIENCE)                                                                                     \
            fail_msg("waited in vain for %s", #condition);                                                             \
    } while (0)

static inline struct pcmig_migration_status status_of(struct pcmig_migration *migration)
{
    struct pcmig_migration_status status;

    pcmig_migration_status(migration, &status);
    return status;
}

#endif
