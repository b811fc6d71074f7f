/* SPDX-License-Identifier: Apache-2.0 */
/* See ports_gate.h. */
#include "core/ports_gate.h"

#include "core/names.h"

void pcmig_ports_gate_init(struct pcmig_ports_gate *gate, int64_t wait_ms, enum pcmig_ports_then then)
{
    *gate = (struct pcmig_ports_gate){.wait_ms = wait_ms, .then = then, .wanted_ms = -1};
}

int64_t pcmig_ports_gate_waited_ms(const struct pcmig_ports_gate *gate, int64_t now_ms)
{
    return gate->wanted_ms < 0 ? 0 : now_ms - gate->wanted_ms;
}

/* What a wait that took too long comes to. */
static enum pcmig_ports_answer overdue(struct pcmig_ports_gate *gate, enum pcmig_ports_answer open)
{
    switch (gate->then) {
    case PCMIG_PORTS_THEN_SWITCH:
        gate->overdue = true;
        gate->closed = false;
        return open;
    case PCMIG_PORTS_THEN_ABORT:
        gate->aborted = true;
        return PCMIG_PORTS_ANSWER_ABORT;
    case PCMIG_PORTS_THEN_STAY:
    case PCMIG_PORTS_THEN_COUNT:
        break;
    }
    return PCMIG_PORTS_ANSWER_NONE;
}

enum pcmig_ports_answer pcmig_ports_gate_feed(struct pcmig_ports_gate *gate, int64_t now_ms, enum pcmig_ports ports,
                                              enum pcmig_gate_state state, bool before_switch)
{
    bool free = gate->forced || ports == PCMIG_PORTS_READY || ports == PCMIG_PORTS_UNKNOWN;

    if (!before_switch || gate->aborted)
        return PCMIG_PORTS_ANSWER_NONE;
    if (state == PCMIG_GATE_WANTED && gate->wanted_ms < 0)
        gate->wanted_ms = now_ms;
    switch (state) {
    case PCMIG_GATE_OPEN:
        if (free || gate->overdue)
            return PCMIG_PORTS_ANSWER_NONE;
        gate->closed = true;
        return PCMIG_PORTS_ANSWER_CLOSE;
    case PCMIG_GATE_REFUSED:
        if (!gate->closed)
            return PCMIG_PORTS_ANSWER_NONE; /* somebody else's word */
        if (free) {
            gate->closed = false;
            return PCMIG_PORTS_ANSWER_AGAIN;
        }
        return pcmig_ports_gate_waited_ms(gate, now_ms) >= gate->wait_ms ? overdue(gate, PCMIG_PORTS_ANSWER_AGAIN)
                                                                         : PCMIG_PORTS_ANSWER_NONE;
    case PCMIG_GATE_WANTED:
    case PCMIG_GATE_CLOSED:
        /* Closed after it was wanted: the policy has stopped asking for a while, and an early answer counts. */
        if (gate->wanted_ms < 0)
            return PCMIG_PORTS_ANSWER_NONE;
        if (free || gate->overdue)
            return PCMIG_PORTS_ANSWER_OPEN;
        return pcmig_ports_gate_waited_ms(gate, now_ms) >= gate->wait_ms ? overdue(gate, PCMIG_PORTS_ANSWER_OPEN)
                                                                         : PCMIG_PORTS_ANSWER_NONE;
    case PCMIG_GATE_NONE:
    case PCMIG_GATE_STATE_COUNT:
        break;
    }
    return PCMIG_PORTS_ANSWER_NONE;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static const char *const ports_names[] = {
    [PCMIG_PORTS_UNTOLD] = "untold",
    [PCMIG_PORTS_UNKNOWN] = "unknown",
    [PCMIG_PORTS_BLOCKED] = "blocked",
    [PCMIG_PORTS_READY] = "ready",
};
_Static_assert(sizeof(ports_names) / sizeof(ports_names[0]) == PCMIG_PORTS_COUNT, "every one has a name");

static const char *const then_names[] = {
    [PCMIG_PORTS_THEN_STAY] = "stay",
    [PCMIG_PORTS_THEN_SWITCH] = "switch",
    [PCMIG_PORTS_THEN_ABORT] = "abort",
};
_Static_assert(sizeof(then_names) / sizeof(then_names[0]) == PCMIG_PORTS_THEN_COUNT, "every one has a name");

static const char *const answer_names[] = {
    [PCMIG_PORTS_ANSWER_NONE] = "none",   [PCMIG_PORTS_ANSWER_OPEN] = "open",   [PCMIG_PORTS_ANSWER_CLOSE] = "close",
    [PCMIG_PORTS_ANSWER_AGAIN] = "again", [PCMIG_PORTS_ANSWER_ABORT] = "abort",
};
_Static_assert(sizeof(answer_names) / sizeof(answer_names[0]) == PCMIG_PORTS_ANSWER_COUNT, "every one has a name");

const char *pcmig_ports_name(enum pcmig_ports ports)
{
    return (unsigned)ports < PCMIG_PORTS_COUNT ? ports_names[ports] : "unknown";
}

const char *pcmig_ports_then_name(enum pcmig_ports_then then)
{
    return (unsigned)then < PCMIG_PORTS_THEN_COUNT ? then_names[then] : "stay";
}

const char *pcmig_ports_answer_name(enum pcmig_ports_answer answer)
{
    return (unsigned)answer < PCMIG_PORTS_ANSWER_COUNT ? answer_names[answer] : "none";
}

int pcmig_ports_find(const char *name, size_t name_len)
{
    return pcmig_names_find(ports_names, PCMIG_PORTS_COUNT, name, name_len);
}

int pcmig_ports_then_find(const char *name, size_t name_len)
{
    return pcmig_names_find(then_names, PCMIG_PORTS_THEN_COUNT, name, name_len);
}
