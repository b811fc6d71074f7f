/* SPDX-License-Identifier: Apache-2.0 */
/* See gate.h. */
#include "core/gate.h"

void pcmig_gate_init(struct pcmig_gate *gate, bool present)
{
    *gate = (struct pcmig_gate){.state = present ? PCMIG_GATE_CLOSED : PCMIG_GATE_NONE};
}

bool pcmig_gate_holds(const struct pcmig_gate *gate)
{
    return gate->state != PCMIG_GATE_NONE && gate->state != PCMIG_GATE_OPEN;
}

bool pcmig_gate_want(struct pcmig_gate *gate, int64_t now_us, bool by_operator)
{
    if (!pcmig_gate_holds(gate))
        return true;
    if (!by_operator && (gate->state == PCMIG_GATE_REFUSED || now_us < gate->again_us))
        return false;
    gate->state = PCMIG_GATE_WANTED;
    gate->wanted_us = now_us;
    return true;
}

void pcmig_gate_answer(struct pcmig_gate *gate, bool open)
{
    if (gate->state == PCMIG_GATE_NONE)
        return;
    gate->state = open ? PCMIG_GATE_OPEN : PCMIG_GATE_REFUSED;
}

bool pcmig_gate_timed_out(struct pcmig_gate *gate, int64_t now_us, int64_t wait_us)
{
    if (gate->state != PCMIG_GATE_WANTED || now_us - gate->wanted_us < wait_us)
        return false;
    gate->state = PCMIG_GATE_CLOSED;
    gate->again_us = now_us + wait_us;
    return true;
}

const char *pcmig_gate_state_name(enum pcmig_gate_state state)
{
    static const char *const names[] = {
        [PCMIG_GATE_NONE] = "none", [PCMIG_GATE_CLOSED] = "closed",   [PCMIG_GATE_WANTED] = "wanted",
        [PCMIG_GATE_OPEN] = "open", [PCMIG_GATE_REFUSED] = "refused",
    };
    _Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_GATE_STATE_COUNT, "every state has a name");

    return (unsigned)state < PCMIG_GATE_STATE_COUNT ? names[state] : "unknown";
}
