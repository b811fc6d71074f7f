/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the gate before the switch (gate.h) may open as far as the guest's ports at the destination go.
 *
 * Readiness is a level that rises and falls, the gate a question: this says what to answer, and when to take an answer
 * back. Who asks the destination feeds it whenever something has changed, or once a second. Plain values, no
 * allocation, no clock.
 */
#ifndef PCMIG_CORE_PORTS_GATE_H
#define PCMIG_CORE_PORTS_GATE_H

#include "gate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the destination says of all of the guest's ports together. */
enum pcmig_ports {
    PCMIG_PORTS_UNTOLD = 0, /* asked, and not answered yet: as if one did not forward */
    PCMIG_PORTS_UNKNOWN,    /* nobody can be asked: holds nothing */
    PCMIG_PORTS_BLOCKED,    /* one does not forward */
    PCMIG_PORTS_READY,
    PCMIG_PORTS_COUNT
};

/* When they were waited for long enough. */
enum pcmig_ports_then {
    PCMIG_PORTS_THEN_STAY = 0, /* the guest stays in pre-copy until they forward, or somebody asks for the switch */
    PCMIG_PORTS_THEN_SWITCH,
    PCMIG_PORTS_THEN_ABORT,
    PCMIG_PORTS_THEN_COUNT
};

enum pcmig_ports_answer {
    PCMIG_PORTS_ANSWER_NONE = 0, /* nothing to say now */
    PCMIG_PORTS_ANSWER_OPEN,     /* PCMIG_REQUEST_OPEN_GATE */
    PCMIG_PORTS_ANSWER_CLOSE,    /* PCMIG_REQUEST_REFUSE_GATE: a port stopped forwarding after the gate was open */
    PCMIG_PORTS_ANSWER_AGAIN,    /* PCMIG_REQUEST_SWITCH: it was closed like that, and may open now */
    PCMIG_PORTS_ANSWER_ABORT,    /* PCMIG_REQUEST_ABORT */
    PCMIG_PORTS_ANSWER_COUNT
};

struct pcmig_ports_gate {
    int64_t wait_ms; /* so long the switch waits, from when it was first wanted */
    enum pcmig_ports_then then;
    bool forced;       /* the operator asked for the switch: it waits for no port */
    int64_t wanted_ms; /* since when; -1 = the switch was not wanted yet */
    bool overdue;      /* it was opened though a port does not forward, and is not closed for that */
    bool closed;       /* by PCMIG_PORTS_ANSWER_CLOSE */
    bool aborted;
};

void pcmig_ports_gate_init(struct pcmig_ports_gate *gate, int64_t wait_ms, enum pcmig_ports_then then);

/* NOW_MS: of a clock that only rises. STATE: of the gate. BEFORE_SWITCH: the guest is still in pre-copy, and no switch
 * was decided. */
enum pcmig_ports_answer pcmig_ports_gate_feed(struct pcmig_ports_gate *gate, int64_t now_ms, enum pcmig_ports ports,
                                              enum pcmig_gate_state state, bool before_switch);

/* How long the switch has waited by now, in ms; 0 while it was not wanted. */
int64_t pcmig_ports_gate_waited_ms(const struct pcmig_ports_gate *gate, int64_t now_ms);

const char *pcmig_ports_name(enum pcmig_ports ports);                /* "blocked"; never NULL */
const char *pcmig_ports_then_name(enum pcmig_ports_then then);       /* "stay"; never NULL */
const char *pcmig_ports_answer_name(enum pcmig_ports_answer answer); /* "open"; never NULL */
int pcmig_ports_find(const char *name, size_t name_len);             /* enum pcmig_ports, or -1 */
int pcmig_ports_then_find(const char *name, size_t name_len);        /* enum pcmig_ports_then, or -1 */

#endif
