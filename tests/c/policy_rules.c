/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_rules.h. */
#include "policy_rules.h"

#include <stdio.h>
#include <string.h>

#define MIB           (1024 * 1024)
/* Where the link was never measured, the pace doubles up to about that. */
#define UNMEASURED    (2 * 65536)
#define TIME_LIMIT_US (INT64_C(1) << 53)

void policy_rules_init(struct policy_rules *rules, enum pcmig_policy_kind kind, const struct pcmig_params *params,
                       bool gated)
{
    memset(rules, 0, sizeof(*rules));
    rules->kind = kind;
    rules->params = *params;
    rules->gated = gated;
}

static bool is_end(const struct policy_rules *rules, const struct pcmig_input *input)
{
    if (input->kind == PCMIG_INPUT_REQUEST)
        return input->code == PCMIG_REQUEST_DETACH;
    if (input->kind != PCMIG_INPUT_EVENT)
        return false;
    switch (input->code) {
    case PCMIG_EVENT_SRC_RESUMED:
    case PCMIG_EVENT_SRC_STOPPED_MIGRATED:
    case PCMIG_EVENT_SRC_STOPPED_OTHER:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_DST_STOPPED:
    case PCMIG_EVENT_JOB_COMPLETED:
    case PCMIG_EVENT_CALL_SUCCEEDED:
        return true;
    case PCMIG_EVENT_CALL_FAILED:
        return !rules->switch_issued && !rules->paused;
    default:
        return false;
    }
}

/* What the input alone changes, before its decision is looked at. */
static void take_input(struct policy_rules *rules, const struct pcmig_input *input)
{
    if (input->t_us > rules->now_us)
        rules->now_us = input->t_us < TIME_LIMIT_US ? input->t_us : TIME_LIMIT_US;
    rules->sampled = rules->sampled || input->kind == PCMIG_INPUT_SAMPLE;
    if (input->kind == PCMIG_INPUT_TURN && input->code >= 0 && input->code < PCMIG_TURN_COUNT)
        rules->turn = (enum pcmig_turn)input->code;
    if (input->kind == PCMIG_INPUT_REQUEST && input->code == PCMIG_REQUEST_SWITCH)
        rules->asked = true;
    if (input->kind == PCMIG_INPUT_REQUEST && input->code == PCMIG_REQUEST_OPEN_GATE)
        rules->gate_open = true;
    if (input->kind == PCMIG_INPUT_REQUEST && input->code == PCMIG_REQUEST_REFUSE_GATE && !rules->switch_open &&
        !rules->switch_issued)
        rules->gate_open = false;
    if (input->kind != PCMIG_INPUT_EVENT)
        return;
    if (input->code == PCMIG_EVENT_SWITCH_REFUSED)
        rules->switch_open = false;
    if (input->code == PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY || input->code == PCMIG_EVENT_DST_RESUMED_POSTCOPY ||
        (input->code == PCMIG_EVENT_SWITCH_ISSUED && rules->switch_open)) {
        rules->switch_open = false;
        rules->switch_issued = true;
    }
    if (input->code == PCMIG_EVENT_SRC_POSTCOPY_FAILED || input->code == PCMIG_EVENT_DST_POSTCOPY_FAILED)
        rules->paused = true;
    if (input->code == PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY || input->code == PCMIG_EVENT_DST_RESUMED_POSTCOPY)
        rules->paused = false;
}

static const char *check_next(const struct policy_rules *rules, const struct pcmig_input *input,
                              const struct pcmig_decision *d)
{
    if (d->t_us != rules->now_us)
        return "a decision bears the time of its input, and time does not go back";
    if (d->next_us > d->t_us)
        return NULL;
    if (input->kind == PCMIG_INPUT_ITERATION && d->next_us == d->t_us)
        return NULL; /* the moment to look */
    return "next_us lies ahead";
}

static const char *check_pace(const struct policy_rules *rules, const struct pcmig_policy *policy,
                              const struct pcmig_decision *d)
{
    uint64_t link_bps = pcmig_policy_link_bps(policy);
    int64_t max = (int64_t)(link_bps / MIB);

    (void)rules;
    if (d->pace_mib == 0) /* unlimited */
        return d->reason == PCMIG_REASON_DETACHED || d->reason == PCMIG_REASON_FAST_LINK ? NULL
                                                                                         : "no pace for a reason";
    if (d->pace_mib < 1)
        return "the pace is not below the least";
    /* One that opens step by step, as the link was never measured, goes beyond what is known of it; so does one that
     * is overdue, by a factor (core/pacing.c, OVERDUE_FACTOR). */
    return d->pace_mib <= (max > 1 ? max : 1) || (d->pace_mib & (d->pace_mib - 1)) == 0 || d->pace_mib <= UNMEASURED ||
                   (d->reason == PCMIG_REASON_TIME_BOUND && d->pace_mib <= max * 2)
               ? NULL
               : "the pace is not above the link";
}

static const char *check_drain(struct policy_rules *rules, const struct pcmig_decision *d)
{
    if (rules->switch_issued || rules->switch_open)
        return "no drain once the switch is under way";
    if (rules->drain_said)
        return "one drain";
    if (rules->gated && !rules->gate_open)
        return "no drain before the gate is open";
    if (rules->turn == PCMIG_TURN_WAITING ||
        (rules->turn >= PCMIG_TURN_HELD && d->reason != PCMIG_REASON_REQUESTED && d->reason != PCMIG_REASON_DEADLINE &&
         d->reason != PCMIG_REASON_GATE_OPEN))
        return "no drain while another guest is switched, unless somebody asked for it";
    rules->drains++;
    rules->ask_said = false;
    if (rules->kind == PCMIG_POLICY_NEVER)
        return "never means never";
    if (rules->kind == PCMIG_POLICY_MANUAL && !rules->asked)
        return "manual switches on request only";
    if (!rules->sampled && !rules->asked)
        return "without one sample there is nothing to judge";
    rules->drain_said = true;
    return d->pace_mib == 1 ? NULL : "a drain goes at the least";
}

static const char *check_switch(struct policy_rules *rules, const struct pcmig_decision *d)
{
    if (rules->turn != PCMIG_TURN_FREE && d->reason != PCMIG_REASON_RETRY)
        return "no switch before the others have made room";
    if (!rules->drain_said)
        return "drain before the switch";
    if (rules->gated && !rules->gate_open)
        return "no switch before the gate is open";
    if (rules->switch_open)
        return "one switch at a time";
    if (rules->switch_issued)
        return "no second switch after one that was accepted";
    rules->switches++;
    rules->switch_open = true;
    return NULL;
}

static const char *check_ask(struct policy_rules *rules)
{
    if (!rules->gated || rules->gate_open)
        return "only a gate that is not open is asked";
    if (rules->switch_issued || rules->switch_open || rules->drain_said)
        return "the gate is asked before the drain";
    if (rules->kind == PCMIG_POLICY_NEVER)
        return "never means never";
    rules->ask_said = true;
    return NULL;
}

static const char *check_undrain(struct policy_rules *rules, const struct pcmig_decision *d)
{
    if (d->reason == PCMIG_REASON_SWITCH_LATE)
        return rules->switch_issued && rules->lates++ == 0 ? NULL : "late is a switch that was accepted, once";
    if ((!rules->drain_said && !rules->ask_said) || rules->switch_issued)
        return "undrain only what was drained or asked for, before the switch";
    if (d->reason == PCMIG_REASON_GATE_REFUSED || d->reason == PCMIG_REASON_GATE_TIMEOUT) {
        if (!rules->gated || (rules->gate_open && d->reason == PCMIG_REASON_GATE_TIMEOUT))
            return "only a gate that is not open ends the way to the switch";
        rules->drain_said = rules->ask_said = false; /* back in pre-copy: the next drain is the first again */
    }
    return NULL;
}

static const char *check_action(struct policy_rules *rules, const struct pcmig_policy *policy,
                                const struct pcmig_decision *d)
{
    switch (d->action) {
    case PCMIG_ACTION_KEEP:
        return NULL;
    case PCMIG_ACTION_DRAIN:
        return check_drain(rules, d);
    case PCMIG_ACTION_SWITCH:
        return check_switch(rules, d);
    case PCMIG_ACTION_SET_PACE:
        return rules->drain_said || rules->switch_issued ? check_pace(rules, policy, d)
                                                         : "a post-copy pace only when post-copy is near";
    case PCMIG_ACTION_ASK:
        return check_ask(rules);
    case PCMIG_ACTION_ABORT:
        rules->abort_said = true;
        if (rules->aborts++ > 0)
            return "one abort";
        return rules->switch_issued || rules->switch_open ? "no abort after the switch" : NULL;
    case PCMIG_ACTION_UNDRAIN:
        return check_undrain(rules, d);
    case PCMIG_ACTION_COUNT:
        break;
    }
    return "an action of the enum";
}

const char *policy_rules_check(struct policy_rules *rules, const struct pcmig_policy *policy,
                               const struct pcmig_input *input, const struct pcmig_decision *decision)
{
    bool was_over = rules->over;
    const char *broken;
    char text[256];
    unsigned passes, permille;

    take_input(rules, input);
    /* A gate that opens while another guest is switched is asked again later. */
    if (rules->turn >= PCMIG_TURN_HELD && pcmig_policy_gate(policy) == PCMIG_GATE_CLOSED)
        rules->gate_open = false;
    if (was_over && decision->action != PCMIG_ACTION_KEEP)
        return rules->abort_said ? "nothing after an abort" : "nothing after the end";
    if (rules->paused && decision->action != PCMIG_ACTION_KEEP)
        return "nothing while post-copy is interrupted";
    if ((unsigned)decision->reason >= PCMIG_REASON_COUNT)
        return "a reason of the enum";
    if (pcmig_decision_describe(decision, text, sizeof(text)) >= (int)sizeof(text))
        return "a sentence fits in 256 bytes";
    pcmig_policy_progress(policy, &passes, &permille);
    if (permille > 1000)
        return "a share is not more than all";
    if (pcmig_policy_gate(policy) == PCMIG_GATE_WANTED && !rules->ask_said && decision->action != PCMIG_ACTION_ASK)
        return "the gate is wanted when it was asked";
    broken = check_next(rules, input, decision);
    if (broken == NULL)
        broken = check_action(rules, policy, decision);
    if (is_end(rules, input) || decision->action == PCMIG_ACTION_ABORT)
        rules->over = true;
    return broken;
}
