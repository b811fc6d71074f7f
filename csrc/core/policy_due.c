/* SPDX-License-Identifier: Apache-2.0 */
/* A decision, and when the policy wants to hear next. See policy.h. */
#include "core/policy_state.h"

#include <string.h>

/* While draining, the queue is looked at this often; 5 ms of a link are what an empty queue may be missed by. */
#define DRAIN_LOOK_US  5000
/* Without a sign of the switch, look at the statistics after this long: requests mean that it has happened. */
#define SWITCH_LOOK_US 1000000
/* Between two looks in post-copy: not a multiple of QEMU's slices of 100 ms, so that ten looks see all parts of
 * them. */
#define PACE_LOOK_US   230000

int64_t pcmig_policy_param_us(const struct pcmig_policy *policy, enum pcmig_param param)
{
    return policy->params.value[param] * 1000;
}

/* A quarter of the time that the running pass still takes, so that its end is seen late by little, and often enough in
 * absolute terms that nothing is missed, rarely enough that nobody is disturbed. In the first seconds no longer than a
 * small part of the time since the first page: a guest that is moved in a second is judged within it. */
static int64_t next_sample_us(const struct pcmig_policy *policy)
{
    const struct pcmig_pass *pass = &policy->passes.running;
    int64_t sent_for_us = policy->memory_us >= 0 ? policy->now_us - policy->memory_us : pcmig_policy_running_us(policy);
    int64_t longest = sent_for_us / SAMPLE_DIVISOR;
    int64_t interval = SAMPLE_MAX_US;

    if (longest > SAMPLE_MAX_US)
        longest = SAMPLE_MAX_US;
    if (policy->passes.done > 0 && longest > pcmig_convergence_window_us(&policy->convergence, policy->now_us))
        longest = pcmig_convergence_window_us(&policy->convergence, policy->now_us);
    if (!policy->has_sample) {
        interval = SAMPLE_MIN_US;
    } else if (pass->number > 0 && pass->sent_pages > 0 && policy->now_us > pass->start_us) {
        uint64_t left =
            pass->start_remaining_pages > pass->sent_pages ? pass->start_remaining_pages - pass->sent_pages : 0;
        uint64_t elapsed_us = (uint64_t)(policy->now_us - pass->start_us);

        if (left <= UINT64_MAX / 4 / (elapsed_us + 1))
            interval = (int64_t)(left * elapsed_us / pass->sent_pages / 4);
    }
    if (interval > longest)
        interval = longest;
    if (interval < SAMPLE_MIN_US)
        interval = SAMPLE_MIN_US;
    return policy->sample_us + interval;
}

void pcmig_policy_keep(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason)
{
    int64_t abort_after = pcmig_policy_param_us(policy, PCMIG_PARAM_ABORT_AFTER_MS);
    int64_t deadline = pcmig_policy_param_us(policy, PCMIG_PARAM_DEADLINE_MS);
    int64_t gate_again = policy->gate.again_us;
    int64_t gate_until = policy->gate.wanted_us + pcmig_policy_param_us(policy, PCMIG_PARAM_GATE_WAIT_MS);
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
    case STAGE_ASK: /* the gate's answer comes as an input */
        out->next_us = next_sample_us(policy);
        if (out->next_us > gate_until)
            out->next_us = gate_until;
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_DRAIN:
        out->next_us = policy->now_us + DRAIN_LOOK_US;
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
        out->next_us = policy->sample_us + PACE_LOOK_US;
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

void pcmig_policy_first_pace(const struct pcmig_policy *policy, struct pcmig_decision *out)
{
    pcmig_policy_set_pace(policy, out,
                          policy->pacing.pace_mib == 0 ? PCMIG_REASON_FAST_LINK : PCMIG_REASON_REQUESTS_RISE, 0);
}

void pcmig_policy_set_pace(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                           int64_t a)
{
    pcmig_policy_decide(policy, out, PCMIG_ACTION_SET_PACE, reason, a, policy->pacing.pace_mib, 0);
    out->pace_mib = policy->pacing.pace_mib;
}
