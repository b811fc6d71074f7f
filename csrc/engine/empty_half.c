/* SPDX-License-Identifier: Apache-2.0 */
/* See empty_half.h. */
#include "engine/empty_half.h"

#include "core/guard.h"

bool pcmig_empty_half_may(enum pcmig_half source, enum pcmig_half destination, struct pcmig_virt_error *error)
{
    /* A job that was cancelled moves nobody any more. */
    const struct pcmig_evidence evidence = {
        .source = source, .destination = destination, .job_absent = true, .in_flight = true};
    struct pcmig_permission permission = pcmig_guard_may(&evidence, PCMIG_SIDE_DESTINATION, PCMIG_ACT_DESTROY, false);

    if (source == PCMIG_HALF_RUNNING && destination == PCMIG_HALF_MIGRATING && permission.allowed)
        return true;
    pcmig_virt_error_set(error, PCMIG_VIRT_FAILURE_INVALID, "%s", permission.reason);
    return false;
}

bool pcmig_empty_half_remove(struct pcmig_virt_conn *source, struct pcmig_virt_conn *destination, const char *uuid,
                             struct pcmig_virt_error *error)
{
    enum pcmig_half half[PCMIG_SIDE_COUNT];

    return pcmig_virt_half(source, uuid, &half[PCMIG_SIDE_SOURCE], error) == 0 &&
           pcmig_virt_half(destination, uuid, &half[PCMIG_SIDE_DESTINATION], error) == 0 &&
           pcmig_empty_half_may(half[PCMIG_SIDE_SOURCE], half[PCMIG_SIDE_DESTINATION], error) &&
           pcmig_virt_destroy(destination, uuid, error) == 0;
}
