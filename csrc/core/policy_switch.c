/* SPDX-License-Identifier: Apache-2.0 */
/* From the drain to the switch: queue, gate, and a libvirt that refuses. See policy.h and policy_state.h. */
#include "core/policy_state.h"

#define RETRY_MAX_US 1000000

void pcmig_policy_begin_drain(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                              int64_t a, int64_t b, int64_t c)
{
    if (pcmig_policy_turn_holds(policy, reason, a, b, c)) {
        pcmig_policy_keep(policy, out, reason);
        return;
    }
    if (!pcmig_gate_want(&policy->gate, policy->now_us, reason == PCMIG_REASON_REQUESTED)) {
        pcmig_policy_keep(policy, out, reason);
        return;
    }
    policy->stage = STAGE_DRAIN;
    policy->drain_start_us = policy->now_us;
    policy->drained_us = -1;
    policy->undrained = false;
    policy->attempts = 0;
    policy->drained_pace_set = false;
    policy->finishing = false;
    pcmig_pacing_begin(&policy->pacing, &policy->params, policy->rate.link_bps);
    pcmig_policy_decide(policy, out, PCMIG_ACTION_DRAIN, reason, a, b, c);
    out->pace_mib = policy->params.value[PCMIG_PARAM_DRAIN_PACE_MIB];
}

/* Returns whether it decided. */
static bool abort_due(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t abort_after = pcmig_policy_param_us(policy, PCMIG_PARAM_ABORT_AFTER_MS);

    if (abort_after <= 0 || pcmig_policy_running_us(policy) < abort_after)
        return false;
    policy->stage = STAGE_DONE; /* nothing may switch a guest whose migration is being cancelled */
    pcmig_policy_decide(policy, out, PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER,
                        pcmig_policy_running_us(policy) / 1000, 0, 0);
    return true;
}

bool pcmig_policy_precopy_due(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (abort_due(policy, out))
        return true;
    if (policy->kind == PCMIG_POLICY_DEADLINE &&
        pcmig_policy_running_us(policy) >= pcmig_policy_param_us(policy, PCMIG_PARAM_DEADLINE_MS) &&
        policy->has_sample) {
        pcmig_policy_begin_drain(policy, out, PCMIG_REASON_DEADLINE, pcmig_policy_running_us(policy) / 1000, 0, 0);
        return true;
    }
    if (policy->requested && policy->now_us >= policy->gate.again_us) {
        /* The gate was not answered the time before. */
        pcmig_policy_begin_drain(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0);
        return true;
    }
    return false;
}

/* --- the switch ----------------------------------------------------------------------------------------------------- */

static void do_switch(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                      int64_t b)
{
    policy->stage = STAGE_SWITCH;
    pcmig_policy_decide(policy, out, PCMIG_ACTION_SWITCH, reason, a, b, 0);
}

/* Back to pre-copy at full speed. */
static void give_up_drain(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a)
{
    policy->stage = STAGE_PRECOPY;
    policy->sample_us = policy->now_us;
    pcmig_rate_pause(&policy->rate);
    pcmig_policy_decide(policy, out, PCMIG_ACTION_UNDRAIN, reason, a, 0, 0);
}

/* The queue is as empty as it gets: switch, or wait for the gate. */
static void drained(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                    int64_t b)
{
    policy->drained_us = policy->now_us;
    if (pcmig_gate_holds(&policy->gate))
        pcmig_policy_keep(policy, out, reason);
    else
        do_switch(policy, out, reason, a, b);
}

void pcmig_policy_drain(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t waited_us = policy->now_us - policy->drain_start_us;
    int64_t gate_us = policy->now_us - policy->gate.wanted_us;
    int64_t queue = policy->sample.queue_bytes;
    int64_t empty =
        (int64_t)(policy->rate.link_bps / 1000 * (uint64_t)policy->params.value[PCMIG_PARAM_DRAIN_QUEUE_MS]);

    if (abort_due(policy, out))
        return;
    if (pcmig_gate_timed_out(&policy->gate, policy->now_us, pcmig_policy_param_us(policy, PCMIG_PARAM_GATE_WAIT_MS))) {
        give_up_drain(policy, out, PCMIG_REASON_GATE_TIMEOUT, gate_us / 1000);
        return;
    }
    if (policy->drained_us >= 0) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE); /* the gate is all that is missing */
        return;
    }
    if (!policy->drained_pace_set) {
        /* Ahead of the switch, so that not one background page goes out faster. */
        policy->drained_pace_set = true;
        pcmig_policy_set_pace(policy, out, PCMIG_REASON_REQUESTS_RISE, 0);
        return;
    }
    if (policy->turn.now != PCMIG_TURN_FREE) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE); /* the link is not ours yet */
        return;
    }
    if (queue < 0) {
        if (waited_us >= pcmig_policy_param_us(policy, PCMIG_PARAM_DRAIN_BLIND_MS))
            drained(policy, out, PCMIG_REASON_DRAIN_BLIND, waited_us / 1000, 0);
        else
            pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    if (queue <= empty) {
        drained(policy, out, PCMIG_REASON_DRAINED, queue, waited_us / 1000);
        return;
    }
    if (waited_us >= pcmig_policy_param_us(policy, PCMIG_PARAM_DRAIN_MAX_MS)) {
        drained(policy, out, PCMIG_REASON_DRAIN_TIMEOUT, queue, waited_us / 1000);
        return;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

void pcmig_policy_refused(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t pause_us = pcmig_policy_param_us(policy, PCMIG_PARAM_RETRY_MS);

    if (policy->attempts == 0)
        policy->refused_since_us = policy->now_us;
    for (unsigned i = 0; i < policy->attempts && pause_us < RETRY_MAX_US; i++)
        pause_us *= 2;
    if (pause_us > RETRY_MAX_US)
        pause_us = RETRY_MAX_US;
    policy->attempts++;
    policy->stage = STAGE_RETRY;
    policy->retry_us = policy->now_us + pause_us;
    if (!policy->undrained &&
        policy->now_us - policy->refused_since_us >= pcmig_policy_param_us(policy, PCMIG_PARAM_DRAIN_MAX_MS)) {
        /* It will take longer: do not hold pre-copy back meanwhile. */
        policy->undrained = true;
        pcmig_policy_decide(policy, out, PCMIG_ACTION_UNDRAIN, PCMIG_REASON_RETRY, policy->attempts, 0, 0);
        return;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_RETRY);
}

void pcmig_policy_retry(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->stage == STAGE_RETRY && abort_due(policy, out))
        return;
    if (policy->stage == STAGE_RETRY && policy->now_us >= policy->retry_us)
        do_switch(policy, out, PCMIG_REASON_RETRY, policy->attempts + 1, 0);
    else
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

/* --- the gate ------------------------------------------------------------------------------------------------------- */

void pcmig_policy_gate_opened(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool wanted = policy->gate.state == PCMIG_GATE_WANTED;

    pcmig_gate_answer(&policy->gate, true);
    if (policy->turn.now != PCMIG_TURN_FREE)
        policy->drained_us =
            -1; /* another guest's switch came in between: the queue is looked at again when that is over */
    if (policy->stage == STAGE_DRAIN && policy->drained_us >= 0 && wanted) {
        do_switch(policy, out, PCMIG_REASON_GATE_OPEN, (policy->now_us - policy->gate.wanted_us) / 1000,
                  (policy->now_us - policy->drained_us) / 1000);
        return;
    }
    /* It counts for the next time, which may have come already. */
    policy->gate.again_us = 0;
    if (policy->stage != STAGE_PRECOPY || !pcmig_policy_precopy_due(policy, out))
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

void pcmig_policy_gate_refused(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->gate.state == PCMIG_GATE_NONE) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    if (policy->stage >= STAGE_SWITCH && policy->stage != STAGE_RETRY) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_TOO_LATE);
        return;
    }
    pcmig_gate_answer(&policy->gate, false);
    policy->requested = false;
    policy->turn.held = false;
    if (policy->stage == STAGE_PRECOPY)
        pcmig_policy_keep(policy, out, PCMIG_REASON_GATE_REFUSED);
    else
        give_up_drain(policy, out, PCMIG_REASON_GATE_REFUSED, 0);
}
