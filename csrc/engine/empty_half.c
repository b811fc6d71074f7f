/* SPDX-License-Identifier: Apache-2.0 */
/* See empty_half.h. */
#include "engine/empty_half.h"

#include "core/guard.h"

bool pcmig_empty_half_remove(struct pcmig_virt_conn *source, struct pcmig_virt_conn *destination, const char *uuid,
                             struct pcmig_virt_error *error)
{
    /* A job that was cancelled moves nobody any more. */
    struct pcmig_evidence evidence = {.job_absent = true, .in_flight = true};
    struct pcmig_permission permission;

    if (pcmig_virt_half(source, uuid, &evidence.source, error) < 0 ||
        pcmig_virt_half(destination, uuid, &evidence.destination, error) < 0)
        return false;
    permission = pcmig_guard_may(&evidence, PCMIG_SIDE_DESTINATION, PCMIG_ACT_DESTROY, false);
    if (evidence.source != PCMIG_HALF_RUNNING || evidence.destination != PCMIG_HALF_MIGRATING || !permission.allowed) {
        pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "%s", permission.reason);
        return false;
    }
    return pcmig_virt_destroy(destination, uuid, error) == 0;
}
