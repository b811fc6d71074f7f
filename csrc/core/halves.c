/* SPDX-License-Identifier: Apache-2.0 */
/* See halves.h. */
#include "core/halves.h"

#include <string.h>

static const char *const names[] = {
    [PCMIG_HALF_UNKNOWN] = "unknown",
    [PCMIG_HALF_ABSENT] = "absent",
    [PCMIG_HALF_RUNNING] = "running",
    [PCMIG_HALF_PAUSED] = "paused",
    [PCMIG_HALF_MIGRATING] = "migrating",
    [PCMIG_HALF_POSTCOPY] = "postcopy",
    [PCMIG_HALF_POSTCOPY_FAILED] = "postcopy-failed",
    [PCMIG_HALF_DEAD] = "dead",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_HALF_COUNT, "every half has a name");

const char *pcmig_half_name(enum pcmig_half half)
{
    return (unsigned)half < PCMIG_HALF_COUNT ? names[half] : "unknown";
}

int pcmig_half_find(const char *name, size_t len)
{
    for (int half = 0; half < PCMIG_HALF_COUNT; half++) {
        if (strlen(names[half]) == len && memcmp(names[half], name, len) == 0)
            return half;
    }
    return -1;
}
