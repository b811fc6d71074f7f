/* SPDX-License-Identifier: Apache-2.0 */
/* See pacing.h. */
#include "core/pacing.h"

#include <string.h>

#define MIB                (1024 * 1024)
#define DEFAULT_PAGE_BYTES 4096
/* More than any link of today carries. */
#define UNMEASURED_MAX_MIB 65536
/* Opening covers a third of the way per sample: about a second from frequent to faded at the default period. */
#define OPENING_DIVISOR    3
/* The fall of the remainder is measured over this long: requests come in bursts. */
#define WINDOW_US          1000000
/* A floor that is no longer needed goes down by a quarter per window. */
#define FLOOR_DIVISOR      4

static int64_t share_mib(const struct pcmig_pacing *pacing, uint64_t permille)
{
    int64_t mib = (int64_t)(pacing->link_bps / 1000 * permille / MIB);
    int64_t min = pacing->params.value[PCMIG_PARAM_PACE_MIN_MIB];

    return mib > min ? mib : min;
}

void pcmig_pacing_begin(struct pcmig_pacing *pacing, const struct pcmig_params *params, uint64_t link_bps)
{
    memset(pacing, 0, sizeof(*pacing));
    pacing->params = *params;
    pacing->link_bps = link_bps;
    pacing->busy_permille = 1000;
    pacing->pace_mib = share_mib(pacing, (uint64_t)params->value[PCMIG_PARAM_PACE_FIRST_PERMILLE]);
}

static void measure_requests(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample)
{
    uint64_t page_bytes = sample->page_size_bytes != 0 ? sample->page_size_bytes : DEFAULT_PAGE_BYTES;
    uint64_t full_bps = pacing->link_bps / 1000 * (uint64_t)pacing->params.value[PCMIG_PARAM_PACE_BUSY_PERMILLE];
    uint64_t requests =
        sample->postcopy_requests > pacing->last_requests ? sample->postcopy_requests - pacing->last_requests : 0;
    uint64_t elapsed_us = (uint64_t)(t_us - pacing->last_us);
    uint64_t busy, requests_bps;

    if (requests > UINT32_MAX)
        requests = UINT32_MAX;
    pacing->requests_ps = requests * 1000000 / elapsed_us;
    requests_bps = pacing->requests_ps * page_bytes;
    pacing->requests_bps = pacing->requests_bps == 0 ? requests_bps : (pacing->requests_bps + requests_bps) / 2;
    busy = full_bps == 0 ? 1000 : requests_bps * 1000 / full_bps;
    if (busy > 1000)
        busy = 1000;
    if (busy >= pacing->busy_permille)
        pacing->busy_permille = busy;
    else
        pacing->busy_permille -= (pacing->busy_permille - busy + OPENING_DIVISOR - 1) / OPENING_DIVISOR;
}

/* Keeps the floor of the pace at what the bound on total time asks for. */
static void keep_in_time(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample)
{
    uint64_t remaining = sample->memory_remaining_bytes;
    int64_t open_mib = share_mib(pacing, (uint64_t)pacing->params.value[PCMIG_PARAM_PACE_OPEN_PERMILLE]);
    int64_t left_us, missing_mib;
    uint64_t needed_bps, seen_bps;

    if (remaining == 0 || remaining > UINT64_MAX / 2000000)
        return;
    if (pacing->finish_by_us == 0) {
        uint64_t factor = (uint64_t)pacing->params.value[PCMIG_PARAM_PACE_TIME_FACTOR_PERMILLE];
        uint64_t unpaced_end_us = (uint64_t)t_us + remaining * 1000000 / pacing->link_bps;

        /* A link next to nothing needs next to for ever. */
        pacing->finish_by_us =
            unpaced_end_us / 1000 > INT64_MAX / factor ? INT64_MAX : (int64_t)(unpaced_end_us / 1000 * factor);
        pacing->window_us = t_us;
        pacing->window_remaining_bytes = remaining;
        return;
    }
    if (t_us - pacing->window_us < WINDOW_US)
        return;
    seen_bps = pacing->window_remaining_bytes > remaining
                   ? (pacing->window_remaining_bytes - remaining) * 1000 / ((uint64_t)(t_us - pacing->window_us) / 1000)
                   : 0;
    pacing->window_us = t_us;
    pacing->window_remaining_bytes = remaining;
    left_us = pacing->finish_by_us - t_us;
    if (left_us < WINDOW_US) {
        pacing->floor_mib = open_mib;
        return;
    }
    needed_bps = remaining * 1000 / ((uint64_t)left_us / 1000);
    missing_mib = needed_bps > seen_bps ? (int64_t)((needed_bps - seen_bps) / MIB) + 1 : 0;
    if (missing_mib > 0)
        pacing->floor_mib = pacing->pace_mib + missing_mib;
    else if (pacing->floor_mib > 0)
        pacing->floor_mib -= (pacing->floor_mib + FLOOR_DIVISOR - 1) / FLOOR_DIVISOR;
    if (pacing->floor_mib > open_mib)
        pacing->floor_mib = open_mib;
}

/* The share of the link for background pages, in permille. */
static uint64_t background_permille(const struct pcmig_pacing *pacing)
{
    const int64_t *value = pacing->params.value;
    uint64_t first = (uint64_t)value[PCMIG_PARAM_PACE_FIRST_PERMILLE];
    uint64_t fill = (uint64_t)value[PCMIG_PARAM_PACE_FILL_PERMILLE];
    uint64_t busy_max = (uint64_t)value[PCMIG_PARAM_PACE_BUSY_MAX_PERMILLE];
    uint64_t open = (uint64_t)value[PCMIG_PARAM_PACE_OPEN_PERMILLE];
    uint64_t asked = pacing->requests_bps / (pacing->link_bps / 1000 + 1);
    uint64_t left = fill > asked ? fill - asked : 0;
    uint64_t ceiling;

    if (open < busy_max)
        open = busy_max;
    ceiling = open - (open - busy_max) * pacing->busy_permille / 1000;
    if (left < first)
        left = first;
    return left < ceiling ? left : ceiling;
}

enum pcmig_pacing_cause pcmig_pacing_feed(struct pcmig_pacing *pacing, int64_t t_us, const struct pcmig_sample *sample)
{
    int64_t pace, before = pacing->pace_mib;
    bool bound = false;

    if (pacing->link_bps == 0) {
        /* Nothing to take a share of (a switch before the link was measured): open up step by step instead. */
        pacing->pace_mib = before < UNMEASURED_MAX_MIB ? before * 2 : before;
        return pacing->pace_mib == before ? PCMIG_PACING_UNCHANGED : PCMIG_PACING_REQUESTS_FADE;
    }
    if (pacing->has_last && t_us <= pacing->last_us)
        return PCMIG_PACING_UNCHANGED;
    if (pacing->has_last)
        measure_requests(pacing, t_us, sample);
    pace = pacing->has_last ? share_mib(pacing, background_permille(pacing)) : before;
    pacing->last_us = t_us;
    pacing->last_requests = sample->postcopy_requests;
    pacing->has_last = true;
    keep_in_time(pacing, t_us, sample);
    if (pacing->floor_mib > pace) {
        pace = pacing->floor_mib;
        bound = true;
    }
    pacing->pace_mib = pace;
    if (pace == before)
        return PCMIG_PACING_UNCHANGED;
    if (bound)
        return PCMIG_PACING_TIME_BOUND;
    return pace < before ? PCMIG_PACING_REQUESTS_RISE : PCMIG_PACING_REQUESTS_FADE;
}

int64_t pcmig_pacing_unattended_mib(const struct pcmig_pacing *pacing)
{
    return pacing->link_bps == 0 ? 0
                                 : share_mib(pacing, (uint64_t)pacing->params.value[PCMIG_PARAM_PACE_OPEN_PERMILLE]);
}
