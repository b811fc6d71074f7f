/* SPDX-License-Identifier: Apache-2.0 */
/* What the other migrations of the host leave to this one (turns.h), as the policy sees it. See policy_state.h. */
#include "core/policy_state.h"

static bool holds(const struct pcmig_policy *policy)
{
    return policy->turn.now >= PCMIG_TURN_HELD;
}

/* An operator's word or deadline does not wait for the whole of another guest's post-copy: it drains, and a drain waits
 * only for a guest that is being switched. Not so before the migrate call: there is nothing to switch. */
static bool asked_for(const struct pcmig_policy *policy)
{
    return policy->requested ||
           (policy->kind == PCMIG_POLICY_DEADLINE &&
            pcmig_policy_running_us(policy) >= pcmig_policy_param_us(policy, PCMIG_PARAM_DEADLINE_MS));
}

bool pcmig_policy_turn_holds(struct pcmig_policy *policy, enum pcmig_reason reason, int64_t a, int64_t b, int64_t c)
{
    if (!holds(policy) || (policy->turn.now != PCMIG_TURN_WAITING && asked_for(policy))) {
        policy->turn.held = false;
        return false;
    }
    policy->turn.held = true;
    policy->turn.reason = reason;
    policy->turn.a = a;
    policy->turn.b = b;
    policy->turn.c = c;
    return true;
}

bool pcmig_policy_turn_bounds(const struct pcmig_policy *policy)
{
    return policy->turn.now >= PCMIG_TURN_BOUNDED;
}

int64_t pcmig_policy_running_us(const struct pcmig_policy *policy)
{
    int64_t waited_us = policy->turn.waited_us;

    if (policy->turn.now == PCMIG_TURN_WAITING)
        waited_us += policy->now_us - policy->turn.since_us;
    return policy->now_us - waited_us;
}

void pcmig_policy_turn(struct pcmig_policy *policy, struct pcmig_decision *out, int64_t turn)
{
    struct pcmig_policy_turn *mine = &policy->turn;

    if (turn >= 0 && turn < PCMIG_TURN_COUNT && turn != (int64_t)mine->now) {
        mine->waited_us = policy->now_us - pcmig_policy_running_us(policy);
        mine->now = (enum pcmig_turn)turn;
        mine->since_us = policy->now_us;
        pcmig_rate_pause(&policy->rate);
        pcmig_convergence_pause(&policy->convergence);
        if (policy->stage == STAGE_PRECOPY)
            policy->baseline_us = 0; /* what the others have cost is not what pre-copy may cost */
        if (pcmig_policy_turn_bounds(policy))
            mine->bounded_pass = policy->passes.running.number;
    }
    if (policy->stage == STAGE_DRAIN) {
        pcmig_policy_drain(policy, out);
    } else if (policy->stage == STAGE_PRECOPY && mine->held && !holds(policy)) {
        mine->held = false;
        pcmig_policy_go_to_switch(policy, out, mine->reason, mine->a, mine->b, mine->c);
    } else {
        pcmig_policy_keep(policy, out, PCMIG_REASON_NONE);
    }
}
