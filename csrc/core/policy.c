/* SPDX-License-Identifier: Apache-2.0 */
/* See policy.h. How auto judges convergence is told in doc/refer/switchover.rst. */
#include "core/policy_state.h"

#include <stdlib.h>

/* Immediate waits that long at the most, from the first memory sent on, for a measurement of the link. */
#define IMMEDIATE_WAIT_US       1000000
/* QEMU has seen after that, and so many times the downtime limit, whether what is left fits in it. */
#define FINISH_WAIT_MIN_US      300000
#define FINISH_WAIT_MAX_US      2000000
#define FINISH_WAIT_DIVISOR     20
#define FINISH_PASSES           3
/* What counts as not converging, rather than as too slow. */
#define NOT_CONVERGING_PERMILLE 667
/* What QEMU's sampling finds leaves no doubt: all that the link carries, less what the draw may add. */
#define SAMPLED_PERMILLE        900
/* For so long it has sampled. */
#define SAMPLED_MS              1000
/* QEMU 11 sends for so long between two synchronisations, */
#define TURN_US                 55000
/* and has had so many in its first pass, where older ones have one. */
#define ALWAYS_SYNCHRONISATIONS 4
/* Looks at the queue that tell how much of the time it is empty. */
#define LOOKS_MIN               32
/* Shorter passes say too little beside a sample of a second. */
#define EXPOSED_MIN_MS          2000
#define PASSES_FORESEEN         100
/* Pages that a small guest needs before it gives the first sign of life, its kernel's for the most part: what a first
 * pass has not brought it asks for one by one, and is silent meanwhile. */
#define FIRST_RUSH_PAGES        320
#define FIRST_RUSH_BYTES        (FIRST_RUSH_PAGES * 4096)
/* Of a fault at the destination, beside the round trip. */
#define FAULT_US                60
/* A guest that is silent for so much less may take so many times that longer. */
#define SILENCE_WORTH           200
/* So many times what a request may have to wait, the pages that it asks for first may take, before a first pass is
 * rather sent to its end. */
#define RUSH_WAITS              1
/* A rush of so long is worth twice the time: the pages that are counted for it are the most that was seen, of which
 * most guests need a sixth, and that takes as long then as a switch, 0.1 s. */
#define RUSH_WORTH_US           600000
/* From the guest's stop to its start, on the bed; QEMU 11 waits until the destination has loaded its devices. */
#define SWITCH_US               25000
#define SWITCH_LATE_US          125000
/* A guest is switched for what is foreseen only if that is longer than going on may cost by a half. */
#define FORESEEN_FACTOR         5
#define FORESEEN_DIVISOR        2
/* The limit of a QEMU that nobody has told another one. */
#define QEMU_DOWNTIME_MS        300
/* libvirt takes no more; a day. */
#define DOWNTIME_MAX_MS         86400000
/* The part of the downtime limit that QEMU keeps however long the queue is: pre-copy has to end for most guests. */
#define DOWNTIME_LEAST_DIVISOR  4
/* A change of QEMU's downtime limit by less than a fifth is not worth a call. */
#define DOWNTIME_STEP_DIVISOR   5
#define HOST_PAGE_MAX_BYTES     (INT64_C(1) << 30)
/* Longer ones come from damaged traces only. */
#define ROUND_TRIP_MAX_US       60000000
/* More do not fit on a host. */
#define BEHIND_MAX              1000
/* 285 years. Times beyond, which only a damaged trace has, count as this one, so that sums and products of times
 * fit. */
#define TIME_MAX_US             (INT64_C(1) << 53)

struct pcmig_policy *pcmig_policy_new(enum pcmig_policy_kind kind, const struct pcmig_params *params, bool gated)
{
    struct pcmig_policy *policy = calloc(1, sizeof(*policy));

    if (policy == NULL)
        return NULL;
    policy->kind = kind;
    policy->params = *params;
    policy->last_iteration_us = INT64_MIN / 2;
    pcmig_passes_init(&policy->passes, PCMIG_PASSES_TOLERANCE_PERMILLE);
    pcmig_convergence_init(&policy->convergence);
    pcmig_rate_init(&policy->rate);
    pcmig_gate_init(&policy->gate, gated);
    policy->downtime_ms = params->value[PCMIG_PARAM_DOWNTIME_LIMIT_MS];
    if (params->value[PCMIG_PARAM_DOWNTIME_CONTROL] == 0 && policy->downtime_ms > QEMU_DOWNTIME_MS)
        policy->downtime_ms = QEMU_DOWNTIME_MS; /* until somebody sets it, and tells */
    policy->fits_us = policy->memory_us = policy->dirty_bps = -1;
    return policy;
}

bool pcmig_policy_switches(enum pcmig_policy_kind kind)
{
    return kind != PCMIG_POLICY_MANUAL && kind != PCMIG_POLICY_NEVER;
}

void pcmig_policy_free(struct pcmig_policy *policy)
{
    free(policy);
}

/* --- pre-copy ----------------------------------------------------------------------------------------------------- */

/* Bytes that QEMU can send within the downtime limit: with no more than these left it finishes pre-copy by itself. */
static uint64_t final_bytes(const struct pcmig_policy *policy)
{
    return policy->rate.link_bps / 1000 * (uint64_t)policy->downtime_ms;
}

/* How long QEMU may take to see that it can finish: it looks when it has sent what is left, and reckons with its own
 * figures. */
static int64_t finish_wait_us(const struct pcmig_policy *policy)
{
    int64_t us = pcmig_policy_running_us(policy) / FINISH_WAIT_DIVISOR;

    us = us < FINISH_WAIT_MIN_US ? FINISH_WAIT_MIN_US : us > FINISH_WAIT_MAX_US ? FINISH_WAIT_MAX_US : us;
    return us + FINISH_PASSES * policy->downtime_ms * 1000;
}

/* QEMU looks whether it can finish when it has synchronised. Where it does so all the time, what is left falls between
 * two of them, and what each of them finds is what counts. Whether that is more than fits, seen for long enough. */
static bool finds_too_much(const struct pcmig_policy *policy)
{
    const struct pcmig_convergence_window *window = &policy->convergence.lowest;

    return policy->convergence.known && window->synchronisations > 0 && policy->synchronises_always &&
           window->dirtied_pages / window->synchronisations > pcmig_passes_pages(&policy->sample, final_bytes(policy));
}

/* What is left fits in the downtime limit: QEMU is about to finish, whatever the ratio. When it has not after a
 * while, that was no reason to wait. */
static bool about_to_finish(struct pcmig_policy *policy)
{
    if (policy->sample.memory_remaining_bytes > final_bytes(policy) || finds_too_much(policy)) {
        policy->fits_us = -1;
        return false;
    }
    if (policy->fits_us < 0)
        policy->fits_us = policy->now_us;
    return policy->now_us - policy->fits_us < finish_wait_us(policy);
}

/* What a migration may take when it goes on in pre-copy, against one that switches now: the time that is left to
 * further passes. Those who wait for the link lose that time as well; half of it is the guest's own, however many wait.
 * With a deadline, all the time until then. */
static int64_t allowance_us(const struct pcmig_policy *policy, int64_t switched_us)
{
    int64_t waited_us = policy->now_us - pcmig_policy_running_us(policy);
    int64_t us = (switched_us - waited_us) / 1000 * (policy->params.value[PCMIG_PARAM_TIME_FACTOR_PERMILLE] - 1000) /
                 (policy->behind > 0 ? 2 : 1);
    int64_t until_us = pcmig_policy_param_us(policy, PCMIG_PARAM_DEADLINE_MS) + waited_us - switched_us;

    return policy->kind == PCMIG_POLICY_DEADLINE && until_us > us ? until_us : us;
}

/* What a synchronisation finds, in bytes: where there is one at the end of a pass, what the next pass begins with. */
static uint64_t found_bytes(const struct pcmig_policy *policy)
{
    const struct pcmig_convergence_window *window = &policy->convergence.lowest;
    uint64_t page = pcmig_passes_page_bytes(&policy->sample);

    if (!policy->convergence.known || window->synchronisations == 0 || window->dirtied_pages > UINT64_MAX / page)
        return 0;
    return window->dirtied_pages / window->synchronisations * page;
}

/* Time that the passes after the next one take until what is left fits in the downtime limit, when each pass leaves
 * PERMILLE of the one before; no more than LIMIT_US is reckoned. Within a pass less is left than it began with, which
 * says nothing about the next. */
static int64_t further_us(const struct pcmig_policy *policy, uint64_t permille, int64_t limit_us)
{
    uint64_t left = policy->sample.memory_remaining_bytes, final = final_bytes(policy);
    int64_t us = 0;

    if (permille >= 1000 || final == 0 || (left <= final && finds_too_much(policy)))
        return limit_us;
    if (found_bytes(policy) > 0 && left < found_bytes(policy) + final)
        left = found_bytes(policy) + final;
    for (left = left / 1000 * permille; left > final && us < limit_us; left = left / 1000 * permille)
        us += pcmig_rate_time_us(left, policy->rate.link_bps);
    return us < limit_us ? us : limit_us;
}

/* Zero pages are among those that no pass has come to yet, as they were among those that were sent. The part of what is
 * left that has to be sent, in permille. */
static unsigned wire_permille(const struct pcmig_policy *policy)
{
    const struct pcmig_sample *sample = &policy->sample;
    const struct pcmig_pass *pass = &policy->passes.running;
    uint64_t left = pcmig_passes_pages(sample, sample->memory_remaining_bytes), unsent, looked_at, zero;

    if (policy->passes.done > 0 || pass->start_remaining_pages <= pass->sent_pages || left == 0 ||
        sample->zero_pages > UINT32_MAX * UINT64_C(1000) || sample->normal_pages > UINT32_MAX * UINT64_C(1000))
        return 1000;
    unsent = pass->start_remaining_pages - pass->sent_pages;
    if (unsent > left)
        unsent = left;
    looked_at = sample->zero_pages + sample->normal_pages;
    zero = looked_at > 0 ? sample->zero_pages * 1000 / looked_at : 0;
    return (unsigned)(1000 - zero * (unsent * 1000 / left) / 1000);
}

/* QEMU 11 synchronises its bitmap each 55 ms while it sends, and sends nothing meanwhile; for a guest of a terabyte
 * that may be half of the time. Post-copy does not, so it is faster. By how much the number of synchronisations tells,
 * and how often nothing was found in the queue: what stands there goes on meanwhile. How long pre-copy takes for what
 * post-copy would have sent, in permille. */
static int64_t standstill_permille(const struct pcmig_policy *policy)
{
    int64_t turns = (int64_t)policy->sample.iteration, sent_us = policy->sample_us - policy->memory_us;
    int64_t permille, seen_permille;

    if (!policy->synchronises_always || turns <= 0 || policy->memory_us < 0 || sent_us <= 0 ||
        policy->queue_looks < LOOKS_MIN)
        return 1000;
    permille = sent_us / turns * 1000 / TURN_US;
    seen_permille = policy->queue_looks * 1000 / (policy->queue_looks - policy->empty_looks + 1);
    if (permille > seen_permille)
        permille = seen_permille;
    return permille > 1000 ? permille : 1000;
}

/* Guest pages in a page of the host. */
static uint64_t pages_per_host_page(const struct pcmig_policy *policy)
{
    uint64_t pages = (uint64_t)policy->host_page_bytes / pcmig_passes_page_bytes(&policy->sample);

    return pages > 1 ? pages : 1;
}

/* Pages that the guest asks for first, one after the other, as far as a first pass has not come to them yet. */
static int64_t rush_pages(const struct pcmig_policy *policy)
{
    const struct pcmig_pass *pass = &policy->passes.running;
    uint64_t total = pass->start_remaining_pages, sent = pass->sent_pages < total ? pass->sent_pages : total;

    if (policy->passes.done > 0 || total == 0 || total > UINT32_MAX)
        return 0;
    return (int64_t)(FIRST_RUSH_PAGES / pages_per_host_page(policy) * (total - sent) / total);
}

void pcmig_policy_begin_pacing(struct pcmig_policy *policy)
{
    /* Zero pages count only where the first pass was cut short to save time: a switch that was asked for at once leaves
     * what they save to the guest. */
    pcmig_rate_faster(&policy->rate, (uint64_t)standstill_permille(policy));
    pcmig_pacing_rush(&policy->pacing, rush_pages(policy));
    pcmig_pacing_begin(&policy->pacing, &policy->params, &policy->rate, policy->baseline_us,
                       policy->now_us - pcmig_policy_running_us(policy),
                       policy->baseline_us != 0 ? wire_permille(policy) : 1000, policy->now_us,
                       policy->sample.memory_remaining_bytes);
}

/* Time that post-copy takes for BYTES. */
static int64_t postcopy_us(const struct pcmig_policy *policy, uint64_t bytes)
{
    int64_t us = pcmig_rate_time_us(bytes, policy->rate.link_bps);

    return us < TIME_MAX_US ? us / standstill_permille(policy) * 1000 : TIME_MAX_US;
}

/* When it would end, switched now. */
static int64_t switched_us(const struct pcmig_policy *policy)
{
    return policy->now_us + postcopy_us(policy, policy->sample.memory_remaining_bytes);
}

/* With a deadline, and a limit that somebody else raises step by step: whether what is left all the time fits in the
 * last step, which may come before the deadline does. */
static bool fits_in_the_last_step(const struct pcmig_policy *policy)
{
    uint64_t last = policy->rate.link_bps / 1000 * (uint64_t)policy->params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS];

    return policy->kind == PCMIG_POLICY_DEADLINE && policy->params.value[PCMIG_PARAM_DOWNTIME_CONTROL] == 0 &&
           policy->sample.memory_remaining_bytes <= last && found_bytes(policy) <= last;
}

/* Whether pre-copy is to end by itself: when it hardly takes longer than post-copy, from what can be foreseen and
 * from what it has taken. */
static bool ends_soon(struct pcmig_policy *policy, uint64_t permille)
{
    int64_t end_us = switched_us(policy), allowance = allowance_us(policy, end_us);

    if (policy->baseline_us == 0)
        policy->baseline_us = end_us;
    if (fits_in_the_last_step(policy))
        return true;
    if (end_us > policy->baseline_us)
        allowance = policy->baseline_us + allowance_us(policy, policy->baseline_us) - end_us;
    if (allowance < -FINISH_WAIT_MIN_US)
        return false;
    if (allowance < 0)
        allowance = 0;
    return further_us(policy, permille, allowance + 1) <= allowance;
}

/* QEMU sampled the guest before the migration: pages that it wrote to within a second, so no fewer than it dirties
 * in one. What the first pass has left tells whether it still writes. A sample is less than a pass that was seen: it
 * counts alone where it leaves no doubt. */
static bool writes_too_much(struct pcmig_policy *policy)
{
    uint64_t written = policy->dirty_bps > 0 ? (uint64_t)policy->dirty_bps : 0;
    uint64_t permille = written / (policy->rate.link_bps / 1000 + 1);

    return permille >= SAMPLED_PERMILLE && pcmig_rate_known(&policy->rate) &&
           policy->sample.memory_remaining_bytes >= written / 2 && !ends_soon(policy, permille);
}

/* Whether the passes that follow one that leaves LEFT bytes, each of them written to within EXPOSED_MS on average, take
 * longer than LIMIT_US until what is left fits in the downtime limit. Two points of how much the guest writes to in how
 * long are known: in a second, by the sample, and in EXPOSED_MS. Between and below them the curve is taken as
 * T / (A T + B), which is a straight line for a guest that writes everywhere and level for one that has written to all
 * of its hot pages. Each pass sends what was written to during the one before. The sample finds rather too little, so
 * this errs towards going on. */
static bool passes_take_longer(const struct pcmig_policy *policy, uint64_t left, int64_t exposed_ms, int64_t limit_us)
{
    uint64_t link_bps = policy->rate.link_bps;
    int64_t written = policy->dirty_bps, pass_ms = pcmig_rate_time_us(left, link_bps) / 1000, sum_us = 0;
    int64_t rising = 1000, rate, level; /* in permille, of what the sample found and of a second */

    if (written <= 0 || exposed_ms <= 0 || left < (uint64_t)written / 2 || left > INT64_MAX / 1000)
        return false;
    rate = written / (int64_t)(link_bps / 1000 + 1);
    if (exposed_ms < EXPOSED_MIN_MS) {
        /* No two points, or hardly: a line through the lower one. */
        int64_t seen = (int64_t)(left / (uint64_t)exposed_ms * 1000 / (link_bps / 1000 + 1));

        rate = seen < rate ? seen : rate;
    } else {
        int64_t growth = (int64_t)left * 1000 / written;

        rising = growth <= 1000 ? 0 : (1000 - 1000000 / growth) * 1000 / (1000 - 1000000 / exposed_ms);
        if (rising > 1000)
            rising = 1000;
    }
    level = 1000 - rising;
    if (rate > 1000000 || pass_ms > INT64_MAX / 1000000)
        return true;
    for (int i = 0; i < PASSES_FORESEEN && sum_us <= limit_us; i++) {
        int64_t before_ms = pass_ms;

        pass_ms = rate * pass_ms / (level * pass_ms / 1000 + rising + 1);
        if (pass_ms <= policy->downtime_ms)
            return false;
        if (pass_ms >= before_ms)
            return true;
        sum_us += pass_ms * 1000;
    }
    return sum_us > limit_us;
}

/* What a first pass has left takes longer to send once more than going on may cost: to learn from a second pass what
 * the guest is like would be too dear, so it is told from the first and the sample. */
static bool will_write_too_much(const struct pcmig_policy *policy)
{
    uint64_t left = policy->sample.memory_remaining_bytes;
    int64_t next_us = pcmig_rate_time_us(left, policy->rate.link_bps), allowance;

    if (policy->passes.done != 1 || !pcmig_rate_known(&policy->rate) || next_us >= TIME_MAX_US ||
        policy->kind != PCMIG_POLICY_AUTO)
        return false;
    allowance = allowance_us(policy, policy->now_us + next_us);
    return next_us > allowance &&
           passes_take_longer(policy, left, (policy->passes.last.end_us - policy->memory_us) / 2000,
                              allowance / FORESEEN_DIVISOR * FORESEEN_FACTOR);
}

/* Whether the guest would notice that a first pass did not come to its end: where the link takes longer for what it
 * asks for first than a request may have to wait. Migrations that wait lose a multiple of that each, the whole time in
 * which pages are sent in vain. So with them the guest may notice some: what the switch takes anyway, and what it asks
 * for first as far as that was not sent, take no longer than a request may have to wait, and as long again for each. */
static bool misses_the_first_pass(const struct pcmig_policy *policy)
{
    const struct pcmig_pass *pass = &policy->passes.running;
    uint64_t total = pass->start_remaining_pages, sent = pass->sent_pages < total ? pass->sent_pages : total;
    int64_t wait_us = pcmig_policy_param_us(policy, PCMIG_PARAM_REQUEST_WAIT_MS);
    int64_t switch_us = policy->synchronises_always ? SWITCH_LATE_US : SWITCH_US;
    uint64_t missing;

    if (pcmig_rate_time_us(FIRST_RUSH_BYTES, policy->rate.link_bps) <= wait_us)
        return false;
    if (policy->behind == 0 || total == 0 || total > UINT32_MAX)
        return true;
    missing = FIRST_RUSH_BYTES * (total - sent) / total;
    return switch_us + pcmig_rate_time_us(missing, policy->rate.link_bps) > wait_us * (1 + policy->behind);
}

/* Whether what it asks for first, page after page, takes so long for the round trips alone, as far as that was not sent
 * yet: a little later it is less. */
static bool rushes_for_long(const struct pcmig_policy *policy)
{
    int64_t wait_us = pcmig_policy_param_us(policy, PCMIG_PARAM_REQUEST_WAIT_MS);

    return policy->round_trip_us > 0 &&
           rush_pages(policy) * (policy->round_trip_us + FAULT_US) > wait_us * (RUSH_WAITS + policy->behind);
}

/* What a first pass has cost beside what it sent for good. */
struct in_vain {
    int64_t sent_us;   /* it lasts, */
    int64_t still_us;  /* of that QEMU stood still, */
    int64_t again_us;  /* and so long takes what was sent and has been written to since, */
    int64_t spread_us; /* and that with what lies in the same huge pages, which post-copy sends as a whole */
    int64_t end_us;    /* the migration would have ended then, had it been switched at once */
    int64_t allowance_us;
    uint64_t again_pages;
    uint64_t more_permille; /* the whole pass, of what was sent so far */
};

static bool reckon_in_vain(const struct pcmig_policy *policy, struct in_vain *out)
{
    const struct pcmig_pass *pass = &policy->passes.running;
    uint64_t total = pass->start_remaining_pages, sent = pass->sent_pages, again = pass->dirtied_pages;
    uint64_t page = pcmig_passes_page_bytes(&policy->sample), spread;
    uint64_t written = policy->dirty_bps > 0 ? pcmig_passes_pages(&policy->sample, (uint64_t)policy->dirty_bps) : 0;
    int64_t left_us = postcopy_us(policy, policy->sample.memory_remaining_bytes / 1000 * wire_permille(policy));

    if (policy->passes.done > 0 || sent == 0 || again > sent || sent > total || total / sent >= UINT32_MAX ||
        !pcmig_rate_known(&policy->rate) || left_us >= TIME_MAX_US)
        return false;
    if (!policy->synchronises_always) {
        /* What has become dirty is not known before the end of the pass. What the guest writes to within a second was
         * sampled: of that, as much as was sent. */
        if ((policy->behind == 0 && pages_per_host_page(policy) == 1) || written == 0 || written > total ||
            sent > UINT64_MAX / total)
            return false;
        again = sent * written / total;
    }
    out->again_pages = again;
    out->sent_us = policy->now_us - policy->memory_us;
    out->still_us = out->sent_us - out->sent_us / standstill_permille(policy) * 1000;
    out->again_us = postcopy_us(policy, again * page);
    spread = again < sent / pages_per_host_page(policy) ? again * pages_per_host_page(policy) : sent;
    out->spread_us = postcopy_us(policy, spread * page);
    out->end_us = policy->now_us + left_us - out->still_us - out->again_us;
    out->allowance_us = allowance_us(policy, out->end_us);
    out->more_permille = total * 1000 / sent;
    return true;
}

/* Pre-copy takes longer than it may, however soon it converges then: for what QEMU stands still in the whole pass, and
 * what is to be sent once more already. */
static bool costs_too_much(const struct in_vain *vain)
{
    int64_t more = (int64_t)vain->more_permille;
    int64_t still_us = vain->still_us < TIME_MAX_US / more ? vain->still_us * more / 1000 : TIME_MAX_US;

    return still_us + vain->again_us > vain->allowance_us / FORESEEN_DIVISOR * FORESEEN_FACTOR;
}

/* As soon as it has cost half of what going on may cost - the other half is left to the pace - a guest that does not
 * converge is better switched than sent to the end. Sooner where others wait. */
static bool sends_in_vain(const struct pcmig_policy *policy, const struct in_vain *vain)
{
    uint64_t again = vain->again_pages, more = vain->more_permille;
    uint64_t page = pcmig_passes_page_bytes(&policy->sample);
    uint64_t written = policy->dirty_bps > 0 ? (uint64_t)policy->dirty_bps : 0;
    int64_t limit_us = vain->allowance_us / FORESEEN_DIVISOR * FORESEEN_FACTOR, next_us;

    if (written == 0 || vain->still_us + vain->spread_us <= vain->allowance_us / (2 + policy->behind))
        return false;
    /* As it will be at the end of the pass. */
    again = again < UINT64_MAX / more ? again * more / 1000 : again / 1000 * more;
    if (again < pcmig_passes_pages(&policy->sample, written) / 2)
        return false; /* it was sampled while it wrote more than it does */
    next_us = pcmig_rate_time_us(again * page, policy->rate.link_bps); /* the second pass */
    return written / (policy->rate.link_bps / 1000 + 1) >= SAMPLED_PERMILLE ||
           passes_take_longer(policy, again * page, policy->synchronises_always ? vain->sent_us / 2000 : SAMPLED_MS,
                              limit_us > next_us ? limit_us - next_us : 0);
}

/* A page that the guest asks for first, while nothing else is on its way. */
static int64_t rush_page_us(const struct pcmig_policy *policy)
{
    int64_t us = pcmig_rate_time_us(FIRST_RUSH_BYTES, policy->rate.link_bps) / FIRST_RUSH_PAGES;

    return policy->round_trip_us > 0 ? us + policy->round_trip_us + FAULT_US : us;
}

/* What the whole pass sends in vain, and stands still, is more than the guest's first silence is worth, which it
 * shortens: by all that the guest asks for first, page after page. */
static bool dearer_than_silence(const struct pcmig_policy *policy, const struct in_vain *vain)
{
    int64_t pages = FIRST_RUSH_PAGES / (int64_t)pages_per_host_page(policy);

    return vain->still_us + vain->again_us >
           SILENCE_WORTH * pages * rush_page_us(policy) * 1000 / (int64_t)vain->more_permille;
}

/* Where the first rush takes long for the round trips alone, the rest of the pass is sent as long as it costs no larger
 * a part of the time than the rush is of RUSH_WORTH_US. While others wait, as long as it keeps to what going on may
 * cost. */
static bool waits_for_the_rush(const struct pcmig_policy *policy, const struct in_vain *vain)
{
    int64_t cost_us = vain->still_us + vain->again_us, more = (int64_t)vain->more_permille;
    int64_t rest_us = cost_us < TIME_MAX_US / more ? cost_us * (more - 1000) / 1000 : TIME_MAX_US;
    int64_t took_us = vain->end_us - (policy->now_us - pcmig_policy_running_us(policy));

    if (!rushes_for_long(policy))
        return false;
    return cost_us <= vain->allowance_us ||
           (policy->behind == 0 &&
            rest_us / (rush_pages(policy) * rush_page_us(policy) / 1000 + 1) <= took_us / (RUSH_WORTH_US / 1000));
}

/* A first pass that is not worth its end. Returns whether it decided. */
static bool cut_the_first_pass(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    const struct pcmig_pass *pass = &policy->passes.running;
    struct in_vain vain;
    bool too_much, dear;

    if (policy->kind != PCMIG_POLICY_AUTO || pcmig_policy_turn_bounds(policy) || !reckon_in_vain(policy, &vain))
        return false;
    dear = dearer_than_silence(policy, &vain);
    if (!dear && misses_the_first_pass(policy))
        return false;
    too_much = dear && costs_too_much(&vain);
    if (!too_much && (waits_for_the_rush(policy, &vain) || !sends_in_vain(policy, &vain)))
        return false;
    policy->baseline_us = vain.end_us;
    if (too_much)
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_TOO_SLOW, (int64_t)pass->dirtied_pages,
                                  (int64_t)pass->sent_pages, (int64_t)(pass->dirtied_pages * 1000 / pass->sent_pages));
    else
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_DIRTY_RATE, policy->dirty_bps,
                                  (int64_t)policy->rate.link_bps, 0);
    return true;
}

static void converging(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    policy->turn.held = false; /* a switch that another guest's has put off is not needed any more */
    pcmig_policy_keep(policy, out, PCMIG_REASON_CONVERGING);
}

/* What was gathered so far has used up what going on may cost, and what is left does not fit. */
static bool too_late(const struct pcmig_policy *policy)
{
    return policy->baseline_us > 0 &&
           switched_us(policy) - allowance_us(policy, policy->baseline_us) - FINISH_WAIT_MIN_US > policy->baseline_us;
}

static void judge_convergence(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    const struct pcmig_convergence *seen = &policy->convergence;
    uint64_t permille = pcmig_convergence_permille(&seen->lowest);

    if (policy->passes.done > 0 && policy->baseline_us == 0 && pcmig_rate_known(&policy->rate) &&
        !pcmig_policy_turn_bounds(policy))
        policy->baseline_us = switched_us(policy);
    if (cut_the_first_pass(policy, out))
        return;
    if (policy->passes.done < 1)
        pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
    else if (about_to_finish(policy))
        converging(policy, out);
    else if (writes_too_much(policy) || will_write_too_much(policy))
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_DIRTY_RATE, policy->dirty_bps,
                                  (int64_t)policy->rate.link_bps, 0);
    else if (!pcmig_rate_known(&policy->rate) || (!seen->known && !too_late(policy)))
        pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
    else if (ends_soon(policy, permille))
        converging(policy, out);
    else
        pcmig_policy_go_to_switch(
            policy, out, permille >= NOT_CONVERGING_PERMILLE ? PCMIG_REASON_NOT_CONVERGING : PCMIG_REASON_TOO_SLOW,
            (int64_t)seen->lowest.dirtied_pages, (int64_t)seen->lowest.sent_pages, (int64_t)permille);
}

static void precopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    switch (policy->kind) {
    case PCMIG_POLICY_AUTO:
    case PCMIG_POLICY_DEADLINE:
        judge_convergence(policy, out);
        return;
    case PCMIG_POLICY_FIRST_PASS:
    case PCMIG_POLICY_PASSES: {
        int64_t wanted = policy->kind == PCMIG_POLICY_FIRST_PASS ? 1 : policy->params.value[PCMIG_PARAM_PASSES];

        if (policy->passes.done >= wanted)
            pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_PASSES_DONE, policy->passes.done, 0, 0);
        else
            pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    case PCMIG_POLICY_IMMEDIATE:
        /* The pace after the switch is a share of the link, so the link is measured first: half a second. */
        if (policy->memory_us >= 0 &&
            (pcmig_rate_known(&policy->rate) || policy->now_us - policy->memory_us > IMMEDIATE_WAIT_US))
            pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_IMMEDIATE, 0, 0, 0);
        else
            pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    case PCMIG_POLICY_MANUAL:
    case PCMIG_POLICY_NEVER:
    case PCMIG_POLICY_KIND_COUNT:
        break;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

/* --- post-copy ---------------------------------------------------------------------------------------------------- */

static void postcopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    static const enum pcmig_reason reasons[] = {
        [PCMIG_PACING_UNCHANGED] = PCMIG_REASON_NONE,
        [PCMIG_PACING_REQUESTS_RISE] = PCMIG_REASON_REQUESTS_RISE,
        [PCMIG_PACING_REQUESTS_FADE] = PCMIG_REASON_REQUESTS_FADE,
        [PCMIG_PACING_TIME_BOUND] = PCMIG_REASON_TIME_BOUND,
        [PCMIG_PACING_FAST_LINK] = PCMIG_REASON_FAST_LINK,
    };
    enum pcmig_pacing_cause cause = pcmig_pacing_feed(&policy->pacing, policy->now_us, &policy->sample, &policy->rate);

    if (cause == PCMIG_PACING_UNCHANGED)
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    else
        pcmig_policy_set_pace(policy, out, reasons[cause], (int64_t)policy->pacing.requests_ps);
}

static void enter_postcopy(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool paced = (policy->stage == STAGE_SWITCH || policy->stage == STAGE_RETRY) && policy->drained_pace_set;

    policy->stage = STAGE_POSTCOPY;
    policy->sample_us = policy->now_us;
    pcmig_rate_pause(&policy->rate); /* what comes now is measured by other rules */
    if (paced) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    /* Switched by somebody else (virsh migrate-postcopy, for instance): no pace was set yet. */
    pcmig_policy_begin_pacing(policy);
    pcmig_policy_first_pace(policy, out);
}

/* --- inputs ------------------------------------------------------------------------------------------------------- */

static bool before_switch(const struct pcmig_policy *policy)
{
    return policy->stage < STAGE_POSTCOPY;
}

static void on_event(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_event event)
{
    switch (event) {
    case PCMIG_EVENT_SWITCH_ISSUED:
        if (policy->stage == STAGE_SWITCH && !policy->issued) {
            policy->issued = true;
            policy->issued_us = policy->now_us;
        }
        break;
    case PCMIG_EVENT_SWITCH_REFUSED:
        if (policy->stage == STAGE_SWITCH && !policy->issued) {
            pcmig_policy_refused(policy, out);
            return;
        }
        break;
    case PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY:
    case PCMIG_EVENT_DST_RESUMED_POSTCOPY:
        if (before_switch(policy) || policy->stage == STAGE_PAUSED) {
            enter_postcopy(policy, out);
            return;
        }
        break;
    case PCMIG_EVENT_SRC_POSTCOPY_FAILED:
    case PCMIG_EVENT_DST_POSTCOPY_FAILED:
        if (policy->stage != STAGE_DONE)
            policy->stage = STAGE_PAUSED;
        break;
    case PCMIG_EVENT_SRC_RESUMED:
    case PCMIG_EVENT_SRC_STOPPED_MIGRATED:
    case PCMIG_EVENT_SRC_STOPPED_OTHER:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_DST_STOPPED:
    case PCMIG_EVENT_JOB_COMPLETED:
    case PCMIG_EVENT_CALL_SUCCEEDED:
        policy->stage = STAGE_DONE;
        break;
    case PCMIG_EVENT_CALL_FAILED:
        /* In post-copy the guest may well complete after its caller was told of an error. */
        if (before_switch(policy))
            policy->stage = STAGE_DONE;
        break;
    default:
        break;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

static void on_request(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_request request)
{
    switch (request) {
    case PCMIG_REQUEST_SWITCH:
        /* Under never, libvirt was not told of post-copy and would refuse for ever. */
        if ((policy->stage == STAGE_PRECOPY || policy->stage == STAGE_ASK) && policy->kind != PCMIG_POLICY_NEVER) {
            policy->requested = true;
            pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0);
            return;
        }
        break;
    case PCMIG_REQUEST_ABORT:
        if (policy->stage < STAGE_SWITCH || policy->stage == STAGE_RETRY) {
            policy->stage = STAGE_DONE; /* nothing may switch a guest whose migration is being cancelled */
            pcmig_policy_decide(policy, out, PCMIG_ACTION_ABORT, PCMIG_REASON_REQUESTED, 0, 0, 0);
            return;
        }
        pcmig_policy_keep(policy, out, PCMIG_REASON_TOO_LATE);
        return;
    case PCMIG_REQUEST_DETACH:
        if (policy->stage == STAGE_POSTCOPY || policy->stage == STAGE_SWITCH) {
            policy->pacing.pace_mib = pcmig_pacing_unattended_mib(&policy->pacing, &policy->rate);
            policy->stage = STAGE_DONE;
            pcmig_policy_set_pace(policy, out, PCMIG_REASON_DETACHED, policy->pacing.pace_mib);
            return;
        }
        if (policy->stage == STAGE_DRAIN || policy->stage == STAGE_RETRY || policy->stage == STAGE_ASK) {
            policy->stage = STAGE_DONE;
            pcmig_policy_decide(policy, out, PCMIG_ACTION_UNDRAIN, PCMIG_REASON_DETACHED, 0, 0, 0);
            return;
        }
        policy->stage = STAGE_DONE;
        break;
    case PCMIG_REQUEST_OPEN_GATE:
        pcmig_policy_gate_opened(policy, out);
        return;
    case PCMIG_REQUEST_REFUSE_GATE:
        pcmig_policy_gate_refused(policy, out);
        return;
    case PCMIG_REQUEST_PAUSE: /* the stream's business, and not that of switch and pace (recovery.h) */
    case PCMIG_REQUEST_RESUME:
    case PCMIG_REQUEST_COUNT:
        break;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

static void learn_of_precopy(struct pcmig_policy *policy, const struct pcmig_sample *sample)
{
    (void)pcmig_passes_feed(&policy->passes, policy->now_us, sample);
    if (policy->passes.done == 0 && sample->iteration > ALWAYS_SYNCHRONISATIONS)
        policy->synchronises_always = true;
    if (sample->queue_bytes >= 0 && !pcmig_policy_turn_bounds(policy)) {
        policy->queue_looks++;
        policy->empty_looks += sample->queue_bytes == 0;
    }
    if (pcmig_policy_turn_bounds(policy)) {
        policy->turn.bounded_pass = policy->passes.running.number;
        return;
    }
    pcmig_rate_feed(&policy->rate, policy->now_us, sample);
    if (policy->passes.running.number > policy->turn.bounded_pass)
        pcmig_convergence_feed(&policy->convergence, policy->now_us, sample, &policy->passes);
}

static void on_sample(struct pcmig_policy *policy, struct pcmig_decision *out, const struct pcmig_sample *sample)
{
    policy->sample = *sample;
    policy->sample_us = policy->now_us;
    policy->has_sample = true;
    if (policy->memory_us < 0 && sample->memory_total_bytes > 0 && sample->memory_processed_bytes > 0)
        policy->memory_us = policy->now_us;
    if (policy->stage == STAGE_PRECOPY || policy->stage == STAGE_ASK) {
        learn_of_precopy(policy, sample);
    }
    if (policy->stage == STAGE_PRECOPY) {
        if (!pcmig_policy_precopy_due(policy, out))
            precopy_sample(policy, out);
    } else if (policy->stage == STAGE_ASK) {
        if (!pcmig_policy_gate_due(policy, out))
            pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    } else if (policy->stage == STAGE_DRAIN) {
        pcmig_policy_drain(policy, out);
    } else if (policy->stage == STAGE_POSTCOPY) {
        postcopy_sample(policy, out);
    } else if (policy->stage == STAGE_SWITCH && policy->issued && sample->postcopy_requests > 0) {
        enter_postcopy(policy, out);
    } else if (policy->stage == STAGE_SWITCH) {
        pcmig_policy_switch_awaited(policy, out);
    } else {
        pcmig_policy_retry(policy, out);
    }
}

static void on_tick(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->stage == STAGE_PRECOPY) {
        policy->sample_us = policy->now_us; /* the statistics were asked for and did not come */
        if (pcmig_policy_precopy_due(policy, out))
            return;
    }
    if (policy->stage == STAGE_POSTCOPY)
        policy->sample_us = policy->now_us;
    if (policy->stage == STAGE_ASK) {
        policy->sample_us = policy->now_us;
        if (pcmig_policy_gate_due(policy, out))
            return;
    }
    if (policy->stage == STAGE_DRAIN)
        pcmig_policy_drain(policy, out);
    else if (policy->stage == STAGE_SWITCH)
        pcmig_policy_switch_awaited(policy, out);
    else
        pcmig_policy_retry(policy, out);
}

/* QEMU up to 10 has just synchronised its bitmap at the end of a pass: the moment to look. QEMU 11 says so every 55 ms,
 * which would be too often. */
static void on_iteration(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool rare = policy->now_us - policy->last_iteration_us >= SAMPLE_MAX_US;

    policy->last_iteration_us = policy->now_us;
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    if (rare && (policy->stage == STAGE_PRECOPY || policy->stage == STAGE_ASK))
        out->next_us = policy->now_us;
}

void pcmig_policy_feed(struct pcmig_policy *policy, const struct pcmig_input *input, struct pcmig_decision *out)
{
    if (input->t_us > policy->now_us)
        policy->now_us = input->t_us < TIME_MAX_US ? input->t_us : TIME_MAX_US;
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
        on_sample(policy, out, &input->sample);
        return;
    case PCMIG_INPUT_QUEUE:
        policy->sample.queue_bytes = input->sample.queue_bytes;
        if (policy->stage == STAGE_DRAIN)
            pcmig_policy_drain(policy, out);
        else
            pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
        return;
    case PCMIG_INPUT_EVENT:
        on_event(policy, out, (enum pcmig_event)input->code);
        return;
    case PCMIG_INPUT_ITERATION:
        on_iteration(policy, out);
        return;
    case PCMIG_INPUT_TICK:
        on_tick(policy, out);
        return;
    case PCMIG_INPUT_REQUEST:
        on_request(policy, out, (enum pcmig_request)input->code);
        return;
    case PCMIG_INPUT_TURN:
        pcmig_policy_turn(policy, out, input->code);
        return;
    case PCMIG_INPUT_DIRTY_RATE:
        policy->dirty_bps = input->code;
        break;
    case PCMIG_INPUT_DOWNTIME_LIMIT:
        if (input->code > 0)
            policy->downtime_ms = input->code < DOWNTIME_MAX_MS ? input->code : DOWNTIME_MAX_MS;
        break;
    case PCMIG_INPUT_BEHIND:
        policy->behind = input->code < 0 ? 0 : input->code < BEHIND_MAX ? input->code : BEHIND_MAX;
        pcmig_pacing_share(&policy->pacing, policy->behind);
        break;
    case PCMIG_INPUT_LINK_RATE:
        pcmig_rate_told(&policy->rate, policy->now_us, input->code);
        break;
    case PCMIG_INPUT_HOST_PAGE:
        policy->host_page_bytes = input->code <= 0                    ? 0
                                  : input->code < HOST_PAGE_MAX_BYTES ? input->code
                                                                      : HOST_PAGE_MAX_BYTES;
        break;
    case PCMIG_INPUT_ROUND_TRIP:
        policy->round_trip_us = input->code < 0 ? 0 : input->code < ROUND_TRIP_MAX_US ? input->code : ROUND_TRIP_MAX_US;
        break;
    case PCMIG_INPUT_FINAL:
    case PCMIG_INPUT_LATENCY:
    case PCMIG_INPUT_VCPUS:
    case PCMIG_INPUT_KIND_COUNT:
        break;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

int64_t pcmig_policy_qemu_downtime_ms(const struct pcmig_policy *policy, int64_t had_ms)
{
    int64_t limit_ms = policy->params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS];
    int64_t least_ms = limit_ms / DOWNTIME_LEAST_DIVISOR, ms = limit_ms, change_ms;

    if (pcmig_rate_known(&policy->rate) && policy->rate.queue_bytes >= 0)
        ms -= pcmig_rate_queue_us(&policy->rate) / 1000;
    if (ms < least_ms)
        ms = least_ms;
    if (ms < 1)
        ms = 1;
    change_ms = ms > had_ms ? ms - had_ms : had_ms - ms;
    return had_ms > 0 && change_ms * DOWNTIME_STEP_DIVISOR < had_ms ? had_ms : ms;
}

void pcmig_policy_progress(const struct pcmig_policy *policy, unsigned *passes, unsigned *permille)
{
    *passes = policy->passes.done;
    *permille = pcmig_passes_permille(&policy->passes);
}

uint64_t pcmig_policy_link_bps(const struct pcmig_policy *policy)
{
    return policy->rate.link_bps;
}

enum pcmig_gate_state pcmig_policy_gate(const struct pcmig_policy *policy)
{
    /* Whatever ended the wait for it, nobody needs to answer any more. */
    if (policy->gate.state == PCMIG_GATE_WANTED && policy->stage != STAGE_ASK)
        return PCMIG_GATE_CLOSED;
    return policy->gate.state;
}

uint64_t pcmig_policy_requests_ps(const struct pcmig_policy *policy)
{
    return policy->stage == STAGE_POSTCOPY ? policy->pacing.requests_ps : 0;
}
