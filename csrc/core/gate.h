/* SPDX-License-Identifier: Apache-2.0 */
/* What holds the switch until somebody outside is ready for it: a record that must be saved first, say.
 *
 * The policy asks for the gate when it decides to drain, and drains meanwhile; it switches once both are done. Plain
 * values, no allocation.
 */
#ifndef PCMIG_CORE_GATE_H
#define PCMIG_CORE_GATE_H

#include <stdbool.h>
#include <stdint.h>

enum pcmig_gate_state {
    PCMIG_GATE_NONE = 0, /* there is no gate */
    PCMIG_GATE_CLOSED,   /* not needed yet, or not answered in time */
    PCMIG_GATE_WANTED,   /* asked for, the answer is awaited */
    PCMIG_GATE_OPEN,     /* the switch may come */
    PCMIG_GATE_REFUSED,  /* not asked for again until the operator asks for the switch */
    PCMIG_GATE_STATE_COUNT
};

struct pcmig_gate {
    enum pcmig_gate_state state;
    int64_t wanted_us; /* since when it is wanted */
    int64_t again_us;  /* not asked for again before */
};

/* PRESENT: a closed gate; otherwise none, which never holds anything. */
void pcmig_gate_init(struct pcmig_gate *gate, bool present);

/* Whether a switch has to wait. */
bool pcmig_gate_holds(const struct pcmig_gate *gate);

/* Asks for the gate, if there is one that is not open. A policy that asks by itself (not BY_OPERATOR) is told no while
 * the gate is refused, and for a while after it was not answered. Returns whether to go on towards the switch. */
bool pcmig_gate_want(struct pcmig_gate *gate, int64_t now_us, bool by_operator);

/* The answer, whenever it comes. */
void pcmig_gate_answer(struct pcmig_gate *gate, bool open);

/* Whether it is wanted for WAIT_US or longer without an answer. Then it is closed again, and for as long not wanted. */
bool pcmig_gate_timed_out(struct pcmig_gate *gate, int64_t now_us, int64_t wait_us);

const char *pcmig_gate_state_name(enum pcmig_gate_state state); /* "wanted"; never NULL */

#endif
