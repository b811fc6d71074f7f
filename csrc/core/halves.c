/* SPDX-License-Identifier: Apache-2.0 */
/* See halves.h. */
#include "core/halves.h"

#include "core/names.h"

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
    return pcmig_names_find(names, PCMIG_HALF_COUNT, name, len);
}
