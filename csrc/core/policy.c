/* SPDX-License-Identifier: Apache-2.0 */
/* See policy.h. How auto judges convergence is told in doc/refer/switchover.rst. */
#include "core/policy_state.h"

#include <stdlib.h>

/* Immediate waits that long at the most for a first measurement of the link. */
#define IMMEDIATE_WAIT_US 1000000
/* 285 years. Times beyond, which only a damaged trace has, count as this one, so that sums and products of times fit. */
#define TIME_MAX_US       (INT64_C(1) << 53)

struct pcmig_policy *pcmig_policy_new(enum pcmig_policy_kind kind, const struct pcmig_params *params, bool gated)
{
    struct pcmig_policy *policy = calloc(1, sizeof(*policy));

    if (policy == NULL)
        return NULL;
    policy->kind = kind;
    policy->params = *params;
    policy->last_iteration_us = INT64_MIN / 2;
    pcmig_passes_init(&policy->passes, (unsigned)params->value[PCMIG_PARAM_PASS_TOLERANCE_PERMILLE]);
    pcmig_rate_init(&policy->rate);
    pcmig_gate_init(&policy->gate, gated);
    return policy;
}

void pcmig_policy_free(struct pcmig_policy *policy)
{
    free(policy);
}

/* --- pre-copy ------------------------------------------------------------------------------------------------------- */

/* Pages that QEMU can send within the downtime limit: with no more than these left it finishes pre-copy by itself. */
static uint64_t final_pages(const struct pcmig_policy *policy)
{
    uint64_t bytes = policy->rate.link_bps / 1000 * (uint64_t)policy->params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS];

    return pcmig_passes_pages(&policy->sample, bytes);
}

/* The evidence is pages found dirty per page sent, within one pass from the second on (in the first, pages that were not
 * sent yet cannot become dirty again). The ratio only grows within a pass, as more of what was sent can become dirty: so
 * a ratio that is too high in the middle of a pass cannot be better at its end. */
static void judge_convergence(struct pcmig_policy *policy, struct pcmig_decision *out, bool pass_ended)
{
    const struct pcmig_pass *pass = pass_ended ? &policy->passes.last : &policy->passes.running;
    uint64_t limit = (uint64_t)policy->params.value[PCMIG_PARAM_CONVERGE_RATIO_PERMILLE];
    uint64_t evidence = (uint64_t)policy->params.value[PCMIG_PARAM_CONVERGE_EVIDENCE_PERMILLE];
    uint64_t final = final_pages(policy);
    uint64_t permille;

    if (pass->number < 2 || pass->number <= policy->turn.bounded_pass) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    if (!pass_ended && (pass->sent_pages == 0 || pass->sent_pages * 1000 < pass->start_remaining_pages * evidence)) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    /* What is left fits in the downtime limit: QEMU is about to finish, whatever the ratio. */
    if (pass->remaining_pages <= final) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_CONVERGING);
        return;
    }
    permille = pass->sent_pages == 0 ? 1000 : pass->dirtied_pages * 1000 / pass->sent_pages;
    if (permille >= limit) {
        pcmig_policy_begin_drain(policy, out, PCMIG_REASON_NOT_CONVERGING, (int64_t)pass->dirtied_pages,
                                 (int64_t)pass->sent_pages, (int64_t)permille);
        return;
    }
    if (policy->passes.done >= (unsigned)policy->params.value[PCMIG_PARAM_CONVERGE_PASSES]) {
        pcmig_policy_begin_drain(policy, out, PCMIG_REASON_TOO_SLOW, policy->passes.done,
                                 policy->params.value[PCMIG_PARAM_CONVERGE_PASSES], 0);
        return;
    }
    if (pass_ended && !policy->finishing) {
        policy->finishing = true;
        policy->turn.held = false;
        pcmig_policy_decide(policy, out, PCMIG_ACTION_FINISH_PRECOPY, PCMIG_REASON_CONVERGING,
                            (int64_t)pass->remaining_pages, (int64_t) final, (int64_t)permille);
        return;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_CONVERGING);
}

static void precopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out, bool pass_ended)
{
    switch (policy->kind) {
    case PCMIG_POLICY_AUTO:
    case PCMIG_POLICY_DEADLINE:
        judge_convergence(policy, out, pass_ended);
        return;
    case PCMIG_POLICY_FIRST_PASS:
    case PCMIG_POLICY_PASSES: {
        int64_t wanted = policy->kind == PCMIG_POLICY_FIRST_PASS ? 1 : policy->params.value[PCMIG_PARAM_PASSES];

        if (policy->passes.done >= wanted)
            pcmig_policy_begin_drain(policy, out, PCMIG_REASON_PASSES_DONE, policy->passes.done, 0, 0);
        else
            pcmig_policy_keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    case PCMIG_POLICY_IMMEDIATE:
        /* The pace after the switch is a share of the link, so the link is measured first: half a second. */
        if (policy->sample.memory_total_bytes > 0 &&
            (policy->rate.link_bps > 0 || policy->now_us - policy->passes.running.start_us > IMMEDIATE_WAIT_US))
            pcmig_policy_begin_drain(policy, out, PCMIG_REASON_IMMEDIATE, 0, 0, 0);
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

/* --- post-copy ------------------------------------------------------------------------------------------------------ */

static void postcopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    static const enum pcmig_reason reasons[] = {
        [PCMIG_PACING_UNCHANGED] = PCMIG_REASON_NONE,
        [PCMIG_PACING_REQUESTS_RISE] = PCMIG_REASON_REQUESTS_RISE,
        [PCMIG_PACING_REQUESTS_FADE] = PCMIG_REASON_REQUESTS_FADE,
        [PCMIG_PACING_TIME_BOUND] = PCMIG_REASON_TIME_BOUND,
    };
    enum pcmig_pacing_cause cause = pcmig_pacing_feed(&policy->pacing, policy->now_us, &policy->sample);

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
    if (paced) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    /* Switched by somebody else (virsh migrate-postcopy, for instance): no pace was set yet. */
    pcmig_pacing_begin(&policy->pacing, &policy->params, policy->rate.link_bps);
    pcmig_policy_set_pace(policy, out, PCMIG_REASON_REQUESTS_RISE, 0);
}

/* --- inputs --------------------------------------------------------------------------------------------------------- */

static bool before_switch(const struct pcmig_policy *policy)
{
    return policy->stage < STAGE_POSTCOPY;
}

static void on_event(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_event event)
{
    switch (event) {
    case PCMIG_EVENT_SWITCH_ISSUED:
        policy->issued = policy->issued || policy->stage == STAGE_SWITCH;
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
        if (policy->stage == STAGE_PRECOPY && policy->kind != PCMIG_POLICY_NEVER) {
            policy->requested = true;
            pcmig_policy_begin_drain(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0);
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
            policy->pacing.pace_mib = pcmig_pacing_unattended_mib(&policy->pacing);
            policy->stage = STAGE_DONE;
            pcmig_policy_set_pace(policy, out, PCMIG_REASON_DETACHED, policy->pacing.pace_mib);
            return;
        }
        if (policy->stage == STAGE_DRAIN || policy->stage == STAGE_RETRY) {
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

static void on_sample(struct pcmig_policy *policy, struct pcmig_decision *out, const struct pcmig_sample *sample)
{
    bool pass_ended = false;

    policy->sample = *sample;
    policy->sample_us = policy->now_us;
    policy->has_sample = true;
    if (policy->stage == STAGE_PRECOPY) {
        if (!pcmig_policy_turn_bounds(policy))
            pcmig_rate_feed(&policy->rate, policy->now_us, sample);
        pass_ended = pcmig_passes_feed(&policy->passes, policy->now_us, sample);
        if (pcmig_policy_turn_bounds(policy))
            policy->turn.bounded_pass = policy->passes.running.number;
        if (!pcmig_policy_precopy_due(policy, out))
            precopy_sample(policy, out, pass_ended);
    } else if (policy->stage == STAGE_DRAIN) {
        pcmig_policy_drain(policy, out);
    } else if (policy->stage == STAGE_POSTCOPY) {
        postcopy_sample(policy, out);
    } else if (policy->stage == STAGE_SWITCH && policy->issued && sample->postcopy_requests > 0) {
        enter_postcopy(policy, out);
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
    if (policy->stage == STAGE_DRAIN) {
        pcmig_policy_drain(policy, out);
        return;
    }
    pcmig_policy_retry(policy, out);
}

/* QEMU up to 10 has just synchronised its bitmap at the end of a pass: the moment to look. QEMU 11 says so every 55 ms,
 * which would be too often. */
static void on_iteration(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool rare = policy->now_us - policy->last_iteration_us >= pcmig_policy_param_us(policy, PCMIG_PARAM_SAMPLE_MAX_MS);

    policy->last_iteration_us = policy->now_us;
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    if (rare && policy->stage == STAGE_PRECOPY)
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
    case PCMIG_INPUT_FINAL:
    case PCMIG_INPUT_KIND_COUNT:
        break;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
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
    /* Whatever ended the drain, nobody needs to answer any more. */
    if (policy->gate.state == PCMIG_GATE_WANTED && policy->stage != STAGE_DRAIN)
        return PCMIG_GATE_CLOSED;
    return policy->gate.state;
}

uint64_t pcmig_policy_requests_ps(const struct pcmig_policy *policy)
{
    return policy->stage == STAGE_POSTCOPY ? policy->pacing.requests_ps : 0;
}
