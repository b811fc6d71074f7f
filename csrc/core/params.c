/* SPDX-License-Identifier: Apache-2.0 */
/* See params.h. The reasons behind the defaults are measurements; doc/refer/switchover.rst shows them. */
#include "core/params.h"

#include <string.h>

#define HOUR_MS 3600000
#define DAY_MS  (24 * HOUR_MS)

static const struct pcmig_param_row rows[] = {
    [PCMIG_PARAM_DOWNTIME_LIMIT_MS] =
        {"downtime_limit_ms", "ms", 300, 1, 60000,
         "Pause of the guest that pre-copy may end with; QEMU is given it less what the link's queue takes, at least a "
         "quarter (its own default is 300)."},
    [PCMIG_PARAM_DOWNTIME_CONTROL] =
        {"downtime_control", "0 or 1", 1, 0, 1,
         "Give downtime_limit_ms to QEMU; 0 leaves QEMU's limit to somebody else, who tells it."},
    [PCMIG_PARAM_PASSES] = {"passes", "passes", 1, 1, 1000000, "Policy passes: switch after that many passes."},
    [PCMIG_PARAM_DEADLINE_MS] = {"deadline_ms", "ms", 60000, 1, 30LL * DAY_MS,
                                 "Policy deadline: switch at the latest that long after the start."},
    [PCMIG_PARAM_ABORT_AFTER_MS] =
        {"abort_after_ms", "ms", 0, 0, 30LL * DAY_MS,
         "Cancel a migration that is still in pre-copy that long after the start; 0 = never."},
    [PCMIG_PARAM_GATE_WAIT_MS] = {"gate_wait_ms", "ms", 5000, 100, HOUR_MS,
                                  "Longest wait for a gate that was asked for; after that pre-copy goes on for as long "
                                  "before it is asked anew."},
    [PCMIG_PARAM_QUICKACK] = {"quickack", "0 or 1", 1, 0, 1,
                              "Have page requests acknowledged at once: route option quickack towards the destination, "
                              "until post-copy ends."},
    [PCMIG_PARAM_REQUEST_WAIT_MS] = {"request_wait_ms", "ms", 30, 1, 90,
                                     "Longest wait of a page request behind background pages while requests are "
                                     "frequent, as a burst in QEMU's slices of "
                                     "100 ms; a third of it is what may be left in the link's queue at the switch."},
    [PCMIG_PARAM_TIME_FACTOR_PERMILLE] =
        {"time_factor_permille", "permille", 1075, 1000, 100000,
         "Total time that gentleness may cost: pre-copy that ends by itself within it is not switched, and what "
         "pre-copy sends in vain and the pace of background pages stay within it. 1000 is a migration that switches as "
         "soon as it is known not to converge, and is not paced."},
    [PCMIG_PARAM_STALL_MS] =
        {"stall_ms", "ms", 10000, 0, DAY_MS,
         "Post-copy whose destination acknowledges nothing for so long is paused, to be resumed when it "
         "answers again, rather than left to TCP's retries, which take minutes; 0 = never."},
    [PCMIG_PARAM_STILL_MS] =
        {"still_ms", "ms", 60000, 0, DAY_MS,
         "Before the switch, nothing that is sent for so long is told to the user, once; 0 = never."},
};
_Static_assert(sizeof(rows) / sizeof(rows[0]) == PCMIG_PARAM_COUNT, "every parameter has a row");

const struct pcmig_param_row *pcmig_params_row(enum pcmig_param param)
{
    return (unsigned)param < PCMIG_PARAM_COUNT ? &rows[param] : NULL;
}

void pcmig_params_defaults(struct pcmig_params *params)
{
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++)
        params->value[i] = rows[i].def;
}

int pcmig_params_find(const char *name, size_t name_len)
{
    for (int i = 0; i < PCMIG_PARAM_COUNT; i++) {
        if (strlen(rows[i].name) == name_len && memcmp(rows[i].name, name, name_len) == 0)
            return i;
    }
    return -1;
}

/* Of older versions, in which each figure of drain and pace was a parameter. */
#define BY_WAIT   "it follows from request_wait_ms"
#define BY_LINK   "it follows from the link as it is measured"
#define NO_CHOICE "nobody had a reason to change it: leave it out"

static const struct {
    const char *name;
    const char *instead;
} gone[] = {
    {"pass_tolerance_permille", NO_CHOICE},
    {"converge_evidence_permille", "evidence is now a time of a second and a half: leave it out"},
    {"sample_min_ms", NO_CHOICE},
    {"sample_max_ms", NO_CHOICE},
    {"retry_ms", NO_CHOICE},
    {"drain_pace_mib", NO_CHOICE},
    {"drain_max_ms", BY_LINK},
    {"drain_blind_ms", BY_LINK},
    {"drain_queue_ms", BY_WAIT},
    {"pace_min_mib", "the lowest pace is libvirt's, 1 MiB/s: leave it out"},
    {"pace_first_permille", BY_WAIT},
    {"pace_fill_permille", BY_LINK},
    {"pace_busy_max_permille", BY_WAIT},
    {"pace_open_permille", BY_LINK},
    {"pace_busy_permille", "requests now count as frequent by their number: leave it out"},
    {"pace_period_ms", NO_CHOICE},
    {"pace_time_factor_permille", "its name is time_factor_permille now"},
    {"converge_ratio_permille", "it follows from time_factor_permille"},
    {"converge_passes", "it follows from time_factor_permille"},
};

const char *pcmig_params_gone(const char *name, size_t name_len)
{
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        if (strlen(gone[i].name) == name_len && memcmp(gone[i].name, name, name_len) == 0)
            return gone[i].instead;
    }
    return NULL;
}

int pcmig_params_set(struct pcmig_params *params, enum pcmig_param param, int64_t value)
{
    const struct pcmig_param_row *row = pcmig_params_row(param);

    if (row == NULL || value < row->min || value > row->max)
        return -1;
    params->value[param] = value;
    return 0;
}
