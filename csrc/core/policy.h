/* SPDX-License-Identifier: Apache-2.0 */
/* When to switch to post-copy, and how fast to send: inputs in, a decision with its reason out.
 *
 * Pure: no libvirt, no sockets, no clock, no allocation. All arithmetic is on integers, so the same inputs give the
 * same decisions on every machine (`pcmig replay` relies on it).
 */
#ifndef PCMIG_CORE_POLICY_H
#define PCMIG_CORE_POLICY_H

#include "gate.h"
#include "input.h"
#include "pacing.h"
#include "params.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pcmig_policy_kind {
    PCMIG_POLICY_AUTO = 0,   /* pre-copy while it converges, post-copy otherwise */
    PCMIG_POLICY_FIRST_PASS, /* switch after one pass over the guest's memory (POSTCOPY_AFTER_PRECOPY of old) */
    PCMIG_POLICY_PASSES,     /* switch after param `passes` passes */
    PCMIG_POLICY_DEADLINE,   /* like auto, but at the latest param `deadline_ms` after the start */
    PCMIG_POLICY_IMMEDIATE,  /* switch as soon as libvirt accepts it */
    PCMIG_POLICY_MANUAL,     /* switch only on request */
    PCMIG_POLICY_NEVER,      /* pure pre-copy */
    PCMIG_POLICY_KIND_COUNT
};

enum pcmig_action {
    PCMIG_ACTION_KEEP = 0, /* keep going */
    PCMIG_ACTION_DRAIN,    /* slow pre-copy to `pace_mib`, so that the link's queue runs empty before the switch */
    PCMIG_ACTION_SWITCH,   /* start post-copy now */
    PCMIG_ACTION_SET_PACE, /* set the post-copy bandwidth to `pace_mib` (0 = unlimited) */
    PCMIG_ACTION_ASK,      /* the switch is wanted, and a gate is asked first; pre-copy goes on at full speed */
    PCMIG_ACTION_ABORT,    /* cancel: the guest stays at the source */
    PCMIG_ACTION_UNDRAIN,  /* no switch now, or none that is seen: pre-copy gets its bandwidth back */
    PCMIG_ACTION_COUNT
};

enum pcmig_reason {
    PCMIG_REASON_NONE = 0,
    PCMIG_REASON_GATHERING, /* too little seen to judge */
    PCMIG_REASON_CONVERGING,
    PCMIG_REASON_NOT_CONVERGING, /* a = pages found dirty again, b = pages sent meanwhile, c = permille */
    PCMIG_REASON_DIRTY_RATE,     /* a = bytes that the guest wrote in a second, b = bytes per second of the link */
    PCMIG_REASON_TOO_SLOW,       /* likewise, but it would take too long */
    PCMIG_REASON_PASSES_DONE,    /* a = passes done */
    PCMIG_REASON_DEADLINE,       /* a = ms since the start */
    PCMIG_REASON_IMMEDIATE,
    PCMIG_REASON_REQUESTED,     /* the operator asked */
    PCMIG_REASON_DRAINED,       /* a = bytes still queued, b = ms the drain took */
    PCMIG_REASON_DRAIN_TIMEOUT, /* a = bytes still queued, b = ms waited */
    PCMIG_REASON_DRAIN_BLIND,   /* the queue cannot be seen: a = ms waited */
    PCMIG_REASON_RETRY,         /* libvirt refused: a = attempt */
    PCMIG_REASON_ABORT_AFTER,   /* a = ms since the start */
    PCMIG_REASON_REQUESTS_RISE, /* a = requests per second, b = MiB/s */
    PCMIG_REASON_REQUESTS_FADE, /* a = requests per second, b = MiB/s */
    PCMIG_REASON_TIME_BOUND,    /* a = requests per second, b = MiB/s */
    PCMIG_REASON_FAST_LINK,     /* a = requests per second: nothing is gained by a pace */
    PCMIG_REASON_DETACHED,      /* a = MiB/s left behind; 0 = unlimited */
    PCMIG_REASON_TOO_LATE,      /* the switch was asked for, so the guest may have moved: an abort could lose it */
    PCMIG_REASON_SWITCH_LATE,   /* libvirt accepted the switch, and it is not seen: a = ms since */
    PCMIG_REASON_GATE_OPEN,     /* a = ms since it was asked for */
    PCMIG_REASON_GATE_REFUSED,
    PCMIG_REASON_GATE_TIMEOUT, /* the gate was not answered: a = ms waited */
    PCMIG_REASON_COUNT
};

struct pcmig_decision {
    int64_t t_us; /* of the input that it answers */
    enum pcmig_action action;
    enum pcmig_reason reason;
    int64_t a, b, c;  /* figures of the reason, see enum pcmig_reason */
    int64_t pace_mib; /* DRAIN, SET_PACE: MiB/s */
    int64_t next_us;  /* when the policy wants to hear next at the latest; INT64_MAX = only events */
};

struct pcmig_policy; /* opaque; pcmig_policy_new allocates the one block it lives in */

/* A new policy, or NULL when memory is short. PARAMS is copied. GATED: there is no switch until
 * PCMIG_REQUEST_OPEN_GATE. */
struct pcmig_policy *pcmig_policy_new(enum pcmig_policy_kind kind, const struct pcmig_params *params, bool gated);
void pcmig_policy_free(struct pcmig_policy *policy);

/* Whether it switches by itself, should pre-copy not end. */
bool pcmig_policy_switches(enum pcmig_policy_kind kind);

/* Takes one input, writes the decision. Inputs older than the last one are taken as of the last one's time. */
void pcmig_policy_feed(struct pcmig_policy *policy, const struct pcmig_input *input, struct pcmig_decision *out);

/* Passes over the guest's memory completed so far, measured in pages, and the share of the running one. */
void pcmig_policy_progress(const struct pcmig_policy *policy, unsigned *passes, unsigned *permille);

/* The link's rate as measured so far, bytes per second; 0 = not known yet. */
uint64_t pcmig_policy_link_bps(const struct pcmig_policy *policy);

/* The downtime limit to give to QEMU, in ms. QEMU reckons with what it has still to send; the guest waits as well for
 * what stands in the link's queue by then. So what that takes is left off param downtime_limit_ms, but for a quarter of
 * it: a guest that may stop for 300 ms shall not stop for 500. HAD_MS: the limit that QEMU has from us, 0 = none;
 * returned as long as another is not worth a call. */
int64_t pcmig_policy_qemu_downtime_ms(const struct pcmig_policy *policy, int64_t had_ms);

/* The gate before the switch. */
enum pcmig_gate_state pcmig_policy_gate(const struct pcmig_policy *policy);

/* Page requests per second as last seen in post-copy. */
uint64_t pcmig_policy_requests_ps(const struct pcmig_policy *policy);

/* "auto", "first-pass", "passes=3", "deadline=20" (seconds, fractions allowed), "immediate", "manual", "never". Sets
 * KIND and the parameter that goes with it. Returns 0, or -1 with a message in ERR that names what would be right. */
int pcmig_policy_parse(const char *text, size_t len, enum pcmig_policy_kind *kind, struct pcmig_params *params,
                       char *err, size_t err_size);

const char *pcmig_policy_kind_name(enum pcmig_policy_kind kind); /* "first-pass"; never NULL */
const char *pcmig_action_name(enum pcmig_action action);         /* "set-pace" */
const char *pcmig_reason_name(enum pcmig_reason reason);         /* "not-converging" */

/* A sentence for people: "pass 2 dirtied 31804 of 32768 pages (97 %): pre-copy does not converge". Returns its length
 * as snprintf does. */
int pcmig_decision_describe(const struct pcmig_decision *decision, char *buf, size_t size);

#endif
