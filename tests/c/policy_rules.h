/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold for every policy and every stream of inputs: checked decision by decision, by tests and by the fuzzer.
 */
#ifndef TESTS_POLICY_RULES_H
#define TESTS_POLICY_RULES_H

#include "core/policy.h"

struct policy_rules {
    enum pcmig_policy_kind kind;
    struct pcmig_params params;
    int64_t now_us;
    bool over; /* an end was seen, an abort was said, or we detached */
    bool ask_said, drain_said, abort_said;
    bool switch_open;   /* SWITCH said, no answer yet */
    bool switch_issued; /* or post-copy seen */
    bool paused;        /* post-copy was interrupted, and not resumed */
    bool asked;         /* REQUEST_SWITCH */
    bool sampled;
    bool gated, gate_open;
    enum pcmig_turn turn;
    unsigned drains, switches, aborts, lates;
};

void policy_rules_init(struct policy_rules *rules, enum pcmig_policy_kind kind, const struct pcmig_params *params,
                       bool gated);

/* To be called after each pcmig_policy_feed. Returns NULL, or the rule that DECISION breaks. */
const char *policy_rules_check(struct policy_rules *rules, const struct pcmig_policy *policy,
                               const struct pcmig_input *input, const struct pcmig_decision *decision);

#endif
