/* SPDX-License-Identifier: Apache-2.0 */
/* A decision, and when the policy wants to hear next. See policy.h. */
#include "core/policy_state.h"

#include <string.h>

/* While draining, the queue is looked at this often; 5 ms of a link are what an empty queue may be missed by. */
#define DRAIN_LOOK_US  5000
/* Without a sign of the switch, look at the statistics after this long: requests mean that it has happened. */
#define SWITCH_LOOK_US 1000000

int64_t pcmig_policy_param_us(const struct pcmig_policy *policy, enum pcmig_param param)
{
    return policy->params.value[param] * 1000;
}

/* A quarter of the time that the running pass still takes, so that its end is seen late by little, and often enough in
 * absolute terms that nothing is missed, rarely enough that nobody is disturbed. */
static int64_t next_sample_us(const struct pcmig_policy *policy)
{
    int64_t min = pcmig_policy_param_us(policy, PCMIG_PARAM_SAMPLE_MIN_MS);
    int64_t max = pcmig_policy_param_us(policy, PCMIG_PARAM_SAMPLE_MAX_MS);
    const struct pcmig_pass *pass = &policy->passes.running;
    int64_t interval = max;

    if (!policy->has_sample) {
        interval = min;
    } else if (pass->number > 0 && pass->sent_pages > 0 && policy->now_us > pass->start_us) {
        uint64_t left =
            pass->start_remaining_pages > pass->sent_pages ? pass->start_remaining_pages - pass->sent_pages : 0;
        uint64_t elapsed_us = (uint64_t)(policy->now_us - pass->start_us);

        if (left <= UINT64_MAX / 4 / (elapsed_us + 1))
            interval = (int64_t)(left * elapsed_us / pass->sent_pages / 4);
    }
    if (interval > max)
        interval = max;
    if (interval < min)
        interval = min;
    return policy->sample_us + interval;
}

/* In a drain: the queue is looked at often, the gate's answer comes as an input. */
static int64_t next_of_drain_us(const struct pcmig_policy *policy)
{
    int64_t next = policy->now_us + DRAIN_LOOK_US, gate;

    if (!pcmig_gate_holds(&policy->gate))
        return next;
    gate = policy->gate.wanted_us + pcmig_policy_param_us(policy, PCMIG_PARAM_GATE_WAIT_MS);
    return policy->drained_us >= 0 || gate < next ? gate : next;
}

void pcmig_policy_keep(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason)
{
    int64_t abort_after = pcmig_policy_param_us(policy, PCMIG_PARAM_ABORT_AFTER_MS);
    int64_t deadline = pcmig_policy_param_us(policy, PCMIG_PARAM_DEADLINE_MS);
    int64_t gate_again = policy->gate.again_us;
    int64_t waited_us = policy->now_us - pcmig_policy_running_us(policy);

    deadline += waited_us;
    abort_after += abort_after > 0 ? waited_us : 0;
    memset(out, 0, sizeof(*out));
    out->t_us = policy->now_us;
    out->action = PCMIG_ACTION_KEEP;
    out->reason = reason;
    out->next_us = INT64_MAX;
    switch (policy->stage) {
    case STAGE_PRECOPY:
        out->next_us = next_sample_us(policy);
        /* A deadline that is over waits for the first statistics, which come no sooner for asking often. */
        if (policy->kind == PCMIG_POLICY_DEADLINE && deadline > policy->now_us && out->next_us > deadline)
            out->next_us = deadline;
        if (gate_again > policy->now_us && out->next_us > gate_again)
            out->next_us = gate_again;
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_DRAIN:
        out->next_us = next_of_drain_us(policy);
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_SWITCH:
        /* The answer comes as an event; should events get lost, the statistics tell. */
        out->next_us = policy->now_us + SWITCH_LOOK_US;
        break;
    case STAGE_RETRY:
        out->next_us = policy->retry_us;
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_POSTCOPY:
        out->next_us = policy->sample_us + pcmig_policy_param_us(policy, PCMIG_PARAM_PACE_PERIOD_MS);
        break;
    case STAGE_PAUSED:
    case STAGE_DONE:
        break;
    }
    if (out->next_us <= policy->now_us)
        out->next_us = policy->now_us + 1000;
}

void pcmig_policy_decide(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_action action,
                         enum pcmig_reason reason, int64_t a, int64_t b, int64_t c)
{
    pcmig_policy_keep(policy, out, reason);
    out->action = action;
    out->a = a;
    out->b = b;
    out->c = c;
}

void pcmig_policy_set_pace(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                           int64_t a)
{
    pcmig_policy_decide(policy, out, PCMIG_ACTION_SET_PACE, reason, a, policy->pacing.pace_mib, 0);
    out->pace_mib = policy->pacing.pace_mib;
}
