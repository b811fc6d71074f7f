/* SPDX-License-Identifier: Apache-2.0 */
/* What can be set of the policy and the pacing: one row each, with unit, default and bounds.
 *
 * Parameters are integers, so that a decision replays bit for bit on any machine. The rows are in params.c.
 */
#ifndef PCMIG_CORE_PARAMS_H
#define PCMIG_CORE_PARAMS_H

#include <stddef.h>
#include <stdint.h>

enum pcmig_param {
    PCMIG_PARAM_DOWNTIME_LIMIT_MS = 0,
    PCMIG_PARAM_DOWNTIME_CONTROL,
    PCMIG_PARAM_PASSES,
    PCMIG_PARAM_DEADLINE_MS,
    PCMIG_PARAM_ABORT_AFTER_MS,
    PCMIG_PARAM_GATE_WAIT_MS,
    PCMIG_PARAM_QUICKACK,
    PCMIG_PARAM_REQUEST_WAIT_MS,
    PCMIG_PARAM_TIME_FACTOR_PERMILLE,
    PCMIG_PARAM_STALL_MS,
    PCMIG_PARAM_STILL_MS,
    PCMIG_PARAM_COUNT
};

struct pcmig_param_row {
    const char *name; /* lower case, with the unit as suffix, e.g. "downtime_limit_ms" */
    const char *unit; /* "ms", "permille", "MiB/s", "passes" */
    int64_t def;
    int64_t min;
    int64_t max;
    const char *doc; /* one sentence */
};

struct pcmig_params {
    int64_t value[PCMIG_PARAM_COUNT];
};

/* The row of PARAM; never NULL for a value below PCMIG_PARAM_COUNT, NULL otherwise. */
const struct pcmig_param_row *pcmig_params_row(enum pcmig_param param);

void pcmig_params_defaults(struct pcmig_params *params);

/* Index of the parameter with this NAME, or -1. */
int pcmig_params_find(const char *name, size_t name_len);

/* A parameter of an older pcmig, which is there no more: what takes its place, as a sentence; otherwise NULL. */
const char *pcmig_params_gone(const char *name, size_t name_len);

/* Sets one value. Returns 0, or -1 when VALUE is outside the row's bounds (PARAMS is unchanged then). */
int pcmig_params_set(struct pcmig_params *params, enum pcmig_param param, int64_t value);

#endif
