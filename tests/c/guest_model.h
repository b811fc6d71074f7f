/* SPDX-License-Identifier: Apache-2.0 */
/* A guest, its link and its QEMU, as far as a policy can see them: feeds one policy as the engine would, and checks the
 * rules of policy_rules.h at every step. Time goes in steps of 5 ms. */
#ifndef TESTS_GUEST_MODEL_H
#define TESTS_GUEST_MODEL_H

#include "policy_rules.h"

#define MODEL_DECISIONS 4096

struct guest_model {
    /* What it is; set by guest_model_init, change before the run. */
    bool continuous;      /* QEMU 11: the bitmap is synchronised every 55 ms; otherwise once per pass */
    bool stats_fail;      /* no sample ever, only ticks */
    bool queue_seen;      /* queue_bytes is reported */
    bool queue_stuck;     /* the queue never runs empty */
    bool ignores_abort;   /* nothing ends by an abort (it is refused) */
    double guest_pages;   /* 4 KiB each */
    double working_pages; /* written to at random */
    double writes_ps;     /* pages written per second */
    double link_pages_ps; /* pages per second */
    double downtime_s;    /* QEMU finishes with what fits in that */
    unsigned refusals;    /* of start-postcopy, before it is accepted */

    /* What it does. */
    struct pcmig_policy *policy;
    struct policy_rules rules;
    const char *broken; /* the first rule that was broken */
    int64_t now_us, due_us, sync_us, answer_us;
    double left, dirty, sent, queue;
    double bandwidth; /* pages per second, 0 = unlimited */
    uint64_t iteration, requests;
    bool draining, postcopy, finished, aborted;

    /* What the policy said, other than keep. */
    struct pcmig_decision said[MODEL_DECISIONS];
    unsigned said_count;
    unsigned samples; /* statistics calls */
    unsigned looks;   /* those and looks at the queue */
};

/* 256 MiB of guest, half of it written to, on 100 Mb/s; PARAMS as given, NULL = defaults. */
void guest_model_init(struct guest_model *model, enum pcmig_policy_kind kind, const struct pcmig_params *params,
                      bool gated);
void guest_model_free(struct guest_model *model);

/* Until the migration is over or FOR_US have passed. */
void guest_model_run(struct guest_model *model, int64_t for_us);

void guest_model_request(struct guest_model *model, enum pcmig_request request);
void guest_model_turn(struct guest_model *model, enum pcmig_turn turn);
void guest_model_event(struct guest_model *model, enum pcmig_event event);

/* The first decision with this ACTION (and REASON, unless it is PCMIG_REASON_COUNT), or NULL. */
const struct pcmig_decision *guest_model_said(const struct guest_model *model, enum pcmig_action action,
                                              enum pcmig_reason reason);
unsigned guest_model_count(const struct guest_model *model, enum pcmig_action action);

#endif
