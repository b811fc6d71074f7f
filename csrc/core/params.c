/* SPDX-License-Identifier: Apache-2.0 */
/* See params.h. The reasons behind the defaults are measurements; doc/refer/switchover.rst shows them. */
#include "core/params.h"

#include <string.h>

#define HOUR_MS 3600000
#define DAY_MS  (24 * HOUR_MS)

static const struct pcmig_param_row rows[] = {
    [PCMIG_PARAM_DOWNTIME_LIMIT_MS] =
        {"downtime_limit_ms", "ms", 300, 1, 60000,
         "Pause of the guest that pre-copy may end with; also given to QEMU (its own default is 300)."},
    [PCMIG_PARAM_DOWNTIME_CONTROL] = {"downtime_control", "0 or 1", 1, 0, 1,
                                      "Give downtime_limit_ms to QEMU; 0 leaves QEMU's limit to somebody else, and the "
                                      "policy only reckons with it."},
    [PCMIG_PARAM_PASS_TOLERANCE_PERMILLE] =
        {"pass_tolerance_permille", "permille", 10, 0, 500,
         "A pass counts as done when this share of its pages is still missing at a synchronisation."},
    [PCMIG_PARAM_CONVERGE_RATIO_PERMILLE] =
        {"converge_ratio_permille", "permille", 667, 1, 10000,
         "Pages found dirty again per page sent, from which on pre-copy counts as not converging."},
    [PCMIG_PARAM_CONVERGE_EVIDENCE_PERMILLE] =
        {"converge_evidence_permille", "permille", 50, 1, 1000,
         "Share of a pass that must have been sent before that ratio is believed."},
    [PCMIG_PARAM_CONVERGE_PASSES] =
        {"converge_passes", "passes", 8, 2, 1000000,
         "Passes after which auto stops waiting for a pre-copy that converges, but slowly."},
    [PCMIG_PARAM_PASSES] = {"passes", "passes", 1, 1, 1000000, "Policy passes: switch after that many passes."},
    [PCMIG_PARAM_DEADLINE_MS] = {"deadline_ms", "ms", 60000, 1, 30LL * DAY_MS,
                                 "Policy deadline: switch at the latest that long after the start."},
    [PCMIG_PARAM_ABORT_AFTER_MS] =
        {"abort_after_ms", "ms", 0, 0, 30LL * DAY_MS,
         "Cancel a migration that is still in pre-copy that long after the start; 0 = never."},
    [PCMIG_PARAM_SAMPLE_MIN_MS] = {"sample_min_ms", "ms", 50, 5, 10000,
                                   "Shortest time between two statistics calls before the switch."},
    [PCMIG_PARAM_SAMPLE_MAX_MS] = {"sample_max_ms", "ms", 500, 5, 60000,
                                   "Longest time between two statistics calls before the switch."},
    [PCMIG_PARAM_RETRY_MS] = {"retry_ms", "ms", 50, 1, 1000,
                              "Pause before a refused switch is tried again; doubles up to one second."},
    [PCMIG_PARAM_DRAIN_PACE_MIB] = {"drain_pace_mib", "MiB/s", 1, 1, 1000000,
                                    "Pre-copy bandwidth while the link's queue runs empty before the switch."},
    [PCMIG_PARAM_DRAIN_MAX_MS] = {"drain_max_ms", "ms", 1000, 0, HOUR_MS, "Longest wait for the queue to run empty."},
    [PCMIG_PARAM_DRAIN_BLIND_MS] = {"drain_blind_ms", "ms", 400, 0, HOUR_MS,
                                    "Wait instead where the queue cannot be seen (source on another host)."},
    [PCMIG_PARAM_DRAIN_QUEUE_MS] = {"drain_queue_ms", "ms", 10, 0, HOUR_MS,
                                    "The queue counts as empty when the link needs no longer for it."},
    [PCMIG_PARAM_GATE_WAIT_MS] = {"gate_wait_ms", "ms", 5000, 100, HOUR_MS,
                                  "Longest wait for a gate that was asked for; after that pre-copy goes on for as long "
                                  "before it is asked anew."},
    [PCMIG_PARAM_QUICKACK] = {"quickack", "0 or 1", 1, 0, 1,
                              "Have page requests acknowledged at once: route option quickack towards the destination, "
                              "until post-copy ends."},
    [PCMIG_PARAM_PACE_MIN_MIB] = {"pace_min_mib", "MiB/s", 1, 1, 1000000,
                                  "Lowest post-copy bandwidth; also in force until the link was measured."},
    [PCMIG_PARAM_PACE_FIRST_PERMILLE] = {"pace_first_permille", "permille", 200, 1, 1000,
                                         "Share of the link for background pages at the switch."},
    [PCMIG_PARAM_PACE_FILL_PERMILLE] = {"pace_fill_permille", "permille", 920, 1, 1000,
                                        "Share of the link that page requests and background pages may fill together."},
    [PCMIG_PARAM_PACE_BUSY_MAX_PERMILLE] =
        {"pace_busy_max_permille", "permille", 300, 1, 1000,
         "Highest share of the link for background pages while page requests are frequent."},
    [PCMIG_PARAM_PACE_OPEN_PERMILLE] = {"pace_open_permille", "permille", 900, 1, 1000,
                                        "Share of the link for background pages once requests have faded."},
    [PCMIG_PARAM_PACE_BUSY_PERMILLE] =
        {"pace_busy_permille", "permille", 30, 1, 1000,
         "Requests count as frequent when the pages they ask for take this share of the link."},
    [PCMIG_PARAM_PACE_PERIOD_MS] = {"pace_period_ms", "ms", 200, 20, 60000,
                                    "Time between two looks at the page requests in post-copy."},
    [PCMIG_PARAM_PACE_TIME_FACTOR_PERMILLE] = {"pace_time_factor_permille", "permille", 1100, 1000, 100000,
                                               "Bound of the total time against a migration that is not paced."},
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

int pcmig_params_set(struct pcmig_params *params, enum pcmig_param param, int64_t value)
{
    const struct pcmig_param_row *row = pcmig_params_row(param);

    if (row == NULL || value < row->min || value > row->max)
        return -1;
    params->value[param] = value;
    return 0;
}
