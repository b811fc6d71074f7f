/* SPDX-License-Identifier: Apache-2.0 */
/* From the drain to the switch: queue, gate, and a libvirt that refuses. See policy.h and policy_state.h. */
#include "core/policy_state.h"

#define RETRY_MAX_US 1000000

/* While the queue runs empty, pre-copy goes at the least that libvirt can say. */
#define DRAIN_MIB        1
/* The longest drain: twice what the queue needs, and some for statistics that are half a second old. */
#define DRAIN_MORE_US    200000
#define DRAIN_LONGEST_US 5000000
/* Where the link or the queue is not known. */
#define DRAIN_UNKNOWN_US 1000000
#define BLIND_LEAST_US   20000
#define BLIND_UNKNOWN_US 400000
/* A switch that is accepted is seen within milliseconds, where all of the guest's state can move in post-copy. */
#define SWITCH_SEEN_US   1500000
/* A switch that is refused for so long will take longer. */
#define REFUSED_LONG_US  1000000
#define RETRY_US         50000

static void begin_drain(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                        int64_t b, int64_t c)
{
    int64_t queue_us = pcmig_rate_queue_us(&policy->rate);

    policy->stage = STAGE_DRAIN;
    policy->drain_start_us = policy->now_us;
    policy->drain_longest_us = DRAIN_UNKNOWN_US;
    if (pcmig_rate_known(&policy->rate))
        policy->drain_longest_us = queue_us < DRAIN_LONGEST_US / 2 ? 2 * queue_us + DRAIN_MORE_US : DRAIN_LONGEST_US;
    policy->undrained = false;
    policy->attempts = 0;
    policy->drained_pace_set = false;
    pcmig_policy_begin_pacing(policy);
    pcmig_policy_decide(policy, out, PCMIG_ACTION_DRAIN, reason, a, b, c);
    out->pace_mib = DRAIN_MIB;
}

void pcmig_policy_go_to_switch(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                               int64_t a, int64_t b, int64_t c)
{
    if (pcmig_policy_turn_holds(policy, reason, a, b, c) ||
        !pcmig_gate_want(&policy->gate, policy->now_us, reason == PCMIG_REASON_REQUESTED)) {
        pcmig_policy_keep(policy, out, reason);
        return;
    }
    if (!pcmig_gate_holds(&policy->gate)) {
        begin_drain(policy, out, reason, a, b, c);
        return;
    }
    policy->stage = STAGE_ASK;
    pcmig_policy_decide(policy, out, PCMIG_ACTION_ASK, reason, a, b, c);
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
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_DEADLINE, pcmig_policy_running_us(policy) / 1000, 0, 0);
        return true;
    }
    if (policy->requested && policy->now_us >= policy->gate.again_us) {
        /* The gate was not answered the time before. */
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0);
        return true;
    }
    return false;
}

/* --- the switch --------------------------------------------------------------------------------------------------- */

static void do_switch(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                      int64_t b)
{
    policy->stage = STAGE_SWITCH;
    pcmig_policy_decide(policy, out, PCMIG_ACTION_SWITCH, reason, a, b, 0);
}

/* Back to pre-copy at full speed. */
static void give_up(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a)
{
    if (policy->stage != STAGE_ASK) {
        /* It was held back meanwhile. */
        pcmig_rate_pause(&policy->rate);
        pcmig_convergence_pause(&policy->convergence);
    }
    policy->stage = STAGE_PRECOPY;
    policy->sample_us = policy->now_us;
    pcmig_policy_decide(policy, out, PCMIG_ACTION_UNDRAIN, reason, a, 0, 0);
}

bool pcmig_policy_gate_due(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t waited_us = policy->now_us - policy->gate.wanted_us;

    if (abort_due(policy, out))
        return true;
    if (!pcmig_gate_timed_out(&policy->gate, policy->now_us, pcmig_policy_param_us(policy, PCMIG_PARAM_GATE_WAIT_MS)))
        return false;
    give_up(policy, out, PCMIG_REASON_GATE_TIMEOUT, waited_us / 1000);
    return true;
}

/* Where the queue cannot be seen: as long as it would take if it were as full as can be. */
static int64_t blind_us(const struct pcmig_policy *policy)
{
    int64_t queue_us = pcmig_rate_queue_us(&policy->rate);

    if (queue_us == INT64_MAX)
        return BLIND_UNKNOWN_US;
    if (queue_us < BLIND_LEAST_US)
        return BLIND_LEAST_US;
    return queue_us < DRAIN_UNKNOWN_US ? queue_us : DRAIN_UNKNOWN_US;
}

void pcmig_policy_drain(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t waited_us = policy->now_us - policy->drain_start_us;
    int64_t queue = policy->sample.queue_bytes;
    /* A third of what a request may have to wait is left: the first request then waits less than later ones. */
    int64_t empty = (int64_t)(policy->rate.link_bps / 1000) * policy->params.value[PCMIG_PARAM_REQUEST_WAIT_MS] / 3;

    if (abort_due(policy, out))
        return;
    if (!policy->drained_pace_set) {
        /* Ahead of the switch, so that not one background page goes out faster. */
        policy->drained_pace_set = true;
        pcmig_policy_first_pace(policy, out);
    } else if (policy->turn.now != PCMIG_TURN_FREE) {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE); /* the link is not ours yet */
    } else if (queue < 0 && waited_us >= blind_us(policy)) {
        do_switch(policy, out, PCMIG_REASON_DRAIN_BLIND, waited_us / 1000, 0);
    } else if (queue >= 0 && queue <= empty) {
        do_switch(policy, out, PCMIG_REASON_DRAINED, queue, waited_us / 1000);
    } else if (queue >= 0 && waited_us >= policy->drain_longest_us) {
        do_switch(policy, out, PCMIG_REASON_DRAIN_TIMEOUT, queue, waited_us / 1000);
    } else {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    }
}

/* QEMU ends pre-copy only when what cannot be moved in post-copy (state of some devices, on some architectures) fits
 * in the downtime limit at the rate of the moment, which the drain has made next to nothing. */
void pcmig_policy_switch_awaited(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t since_us = policy->now_us - policy->issued_us;

    if (policy->issued && !policy->undrained && since_us >= SWITCH_SEEN_US) {
        policy->undrained = true;
        pcmig_policy_decide(policy, out, PCMIG_ACTION_UNDRAIN, PCMIG_REASON_SWITCH_LATE, since_us / 1000, 0, 0);
        return;
    }
    pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
}

void pcmig_policy_refused(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t pause_us = RETRY_US;

    if (policy->attempts == 0)
        policy->refused_since_us = policy->now_us;
    for (unsigned i = 0; i < policy->attempts && pause_us < RETRY_MAX_US; i++)
        pause_us *= 2;
    if (pause_us > RETRY_MAX_US)
        pause_us = RETRY_MAX_US;
    policy->attempts++;
    policy->stage = STAGE_RETRY;
    policy->retry_us = policy->now_us + pause_us;
    if (!policy->undrained && policy->now_us - policy->refused_since_us >= REFUSED_LONG_US) {
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

/* --- the gate ----------------------------------------------------------------------------------------------------- */

void pcmig_policy_gate_opened(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t asked_us = policy->gate.wanted_us;

    pcmig_gate_answer(&policy->gate, true);
    if (policy->stage == STAGE_ASK) {
        policy->stage = STAGE_PRECOPY; /* should another guest be switched just now */
        pcmig_policy_go_to_switch(policy, out, PCMIG_REASON_GATE_OPEN, (policy->now_us - asked_us) / 1000, 0, 0);
        if (policy->turn.held) {
            /* Nobody is to believe meanwhile that it is being switched: it is asked again when the turn comes. */
            policy->gate.state = PCMIG_GATE_CLOSED;
            policy->gate.again_us = 0;
        }
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
        give_up(policy, out, PCMIG_REASON_GATE_REFUSED, 0);
}
