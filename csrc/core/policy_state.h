/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the policy share: policy.c (the inputs, in pre-copy and post-copy), policy_switch.c (from the drain
 * to the switch), policy_due.c (a decision, and when the next is due). Nobody else includes this. */
#ifndef PCMIG_CORE_POLICY_STATE_H
#define PCMIG_CORE_POLICY_STATE_H

#include "convergence.h"
#include "gate.h"
#include "pacing.h"
#include "passes.h"
#include "policy.h"
#include "rate.h"

enum stage {
    STAGE_PRECOPY,
    STAGE_ASK,    /* pre-copy at full speed, waiting for the gate */
    STAGE_DRAIN,  /* pre-copy slowed, waiting for an empty queue */
    STAGE_SWITCH, /* start-postcopy decided, the answer is awaited */
    STAGE_RETRY,  /* libvirt refused, waiting to try again */
    STAGE_POSTCOPY,
    STAGE_PAUSED, /* post-copy was interrupted, and may be resumed */
    STAGE_DONE,
};

/* What the other migrations of the host leave to this one. */
struct pcmig_policy_turn {
    enum pcmig_turn now;
    int64_t since_us;
    int64_t waited_us;     /* until the migrate call was made */
    unsigned bounded_pass; /* ran under a bound, at least in part: its ratio is no evidence */
    bool held;             /* a switch was decided, and waits: */
    enum pcmig_reason reason;
    int64_t a, b, c;
};

struct pcmig_policy {
    enum pcmig_policy_kind kind;
    struct pcmig_params params;
    enum stage stage;
    int64_t now_us;
    struct pcmig_sample sample;
    int64_t sample_us;
    bool has_sample;
    int64_t last_iteration_us;
    struct pcmig_passes passes;
    struct pcmig_convergence convergence;
    struct pcmig_rate rate;
    struct pcmig_pacing pacing;
    struct pcmig_gate gate;
    int64_t downtime_ms; /* the limit that QEMU has */
    int64_t fits_us;     /* since when what is left fits in that limit; -1 = it does not */
    int64_t baseline_us; /* when it would have ended, switched as early as it could be judged; 0 = it was not judged */
    int64_t behind;      /* migrations that wait for this one to leave them the link */
    int64_t dirty_bps;   /* memory that the guest writes, as QEMU sampled it; -1 = not known */
    int64_t host_page_bytes;          /* huge pages that the guest's memory lies in; 0 = none, or not known */
    int64_t round_trip_us;            /* to the destination; 0 = not known */
    bool synchronises_always;         /* not once per pass */
    int64_t queue_looks, empty_looks; /* in pre-copy, at full speed */
    int64_t memory_us;                /* of the first sample with figures of memory; -1 = none yet */
    int64_t drain_start_us;
    int64_t drain_longest_us;
    bool drained_pace_set; /* the post-copy pace was set ahead of the switch */
    bool requested;        /* the operator asked for the switch, and nothing has refused it */
    int64_t refused_since_us;
    int64_t retry_us;
    unsigned attempts;
    bool issued; /* libvirt accepted the switch, */
    int64_t issued_us;
    bool undrained;
    struct pcmig_policy_turn turn;
};

/* Between two statistics calls before the switch, at the least and at the most. */
#define SAMPLE_MIN_US  50000
#define SAMPLE_MAX_US  500000
/* ... and of the time so far. */
#define SAMPLE_DIVISOR 20

/* policy.c: begins to pace, at the switch. */
void pcmig_policy_begin_pacing(struct pcmig_policy *policy);

/* policy_due.c: a parameter in ms, in us. */
int64_t pcmig_policy_param_us(const struct pcmig_policy *policy, enum pcmig_param param);
/* The decision to go on as it is, with the time at which the stage wants to hear next. */
void pcmig_policy_keep(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason);
void pcmig_policy_decide(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_action action,
                         enum pcmig_reason reason, int64_t a, int64_t b, int64_t c);
/* Puts the pacing's pace in force. */
void pcmig_policy_set_pace(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                           int64_t a);

/* The one that the pacing began with. */
void pcmig_policy_first_pace(const struct pcmig_policy *policy, struct pcmig_decision *out);

/* policy_turn.c: the others leave more or less to this migration. */
void pcmig_policy_turn(struct pcmig_policy *policy, struct pcmig_decision *out, int64_t turn);
/* No switch while another guest is switched or fills the link with its post-copy: remembers one for later. Returns
 * whether it did. What the operator asked for waits for a guest that is being switched only, and that in the drain. */
bool pcmig_policy_turn_holds(struct pcmig_policy *policy, enum pcmig_reason reason, int64_t a, int64_t b, int64_t c);
/* What is measured says nothing about link and guest. */
bool pcmig_policy_turn_bounds(const struct pcmig_policy *policy);
/* Time since the start, without what was waited before the migrate call. */
int64_t pcmig_policy_running_us(const struct pcmig_policy *policy);

/* policy_switch.c: towards the switch: to the drain, or to the gate if there is one that is not open. */
void pcmig_policy_go_to_switch(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason,
                               int64_t a, int64_t b, int64_t c);
/* What comes due in pre-copy by time alone. Returns whether it decided. */
bool pcmig_policy_precopy_due(struct pcmig_policy *policy, struct pcmig_decision *out);
/* The next step of a drain: wait for the queue, or switch. */
void pcmig_policy_drain(struct pcmig_policy *policy, struct pcmig_decision *out);
/* What a wait for the gate comes to by time alone. Returns whether it decided. */
bool pcmig_policy_gate_due(struct pcmig_policy *policy, struct pcmig_decision *out);
/* A switch that was accepted, and is not seen. */
void pcmig_policy_switch_awaited(struct pcmig_policy *policy, struct pcmig_decision *out);
/* libvirt refused the switch. */
void pcmig_policy_refused(struct pcmig_policy *policy, struct pcmig_decision *out);
/* Tries a refused switch again when its time has come. */
void pcmig_policy_retry(struct pcmig_policy *policy, struct pcmig_decision *out);
/* The answer to the gate. */
void pcmig_policy_gate_opened(struct pcmig_policy *policy, struct pcmig_decision *out);
void pcmig_policy_gate_refused(struct pcmig_policy *policy, struct pcmig_decision *out);

#endif
