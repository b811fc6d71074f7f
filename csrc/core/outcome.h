/* SPDX-License-Identifier: Apache-2.0 */
/* How a migration ended: from the situation of the guest (situation.h) to the outcome that its caller is told. Pure.
 *
 * The situation says who holds the guest's newer memory; the outcome follows from it and cannot say anything else:
 * "completed" only where the destination holds it, "failed" only where the source does, or where the guest was shut
 * down on that side. Anything else is waited for, then left to an operator. Neither a failing statistics call nor the
 * return code of the migrate call decides (a resumed migration was seen to be reported as failed although it had
 * completed). Nothing here destroys, resets or resumes a guest.
 */
#ifndef PCMIG_CORE_OUTCOME_H
#define PCMIG_CORE_OUTCOME_H

#include "core/situation.h"

#include <stdbool.h>

enum pcmig_outcome {
    PCMIG_OUTCOME_RUNNING = 0,    /* not over */
    PCMIG_OUTCOME_COMPLETED,      /* the guest is at the destination, whole */
    PCMIG_OUTCOME_FAILED,         /* the guest is at the source, whole */
    PCMIG_OUTCOME_NEEDS_OPERATOR, /* anything else */
    PCMIG_OUTCOME_DETACHED,       /* we stopped looking; libvirt goes on */
    PCMIG_OUTCOME_COUNT
};

enum pcmig_advice {
    PCMIG_ADVICE_NONE = 0,
    PCMIG_ADVICE_RESUME,         /* post-copy was interrupted: virsh migrate --postcopy-resume */
    PCMIG_ADVICE_LOOK_AFTER,     /* pcmig resume: waits, and says how it stands */
    PCMIG_ADVICE_LOOK_BOTH,      /* ask both for the guest's state */
    PCMIG_ADVICE_UNDEFINE,       /* remove the definition that is left at the source */
    PCMIG_ADVICE_END_SOURCE,     /* end the half that is left at the source; pcmig resume closes the books then */
    PCMIG_ADVICE_END_AND_FORGET, /* the same, of a guest that is off: there is nothing to look after */
    PCMIG_ADVICE_END_ONE,        /* end the copy that is not wanted */
    PCMIG_ADVICE_FORGET,         /* pcmig forget: says what is left, and what would be lost */
    PCMIG_ADVICE_TURN_BACK,      /* pcmig turn-back: the guest goes on at the source from the moment of the switch */
    PCMIG_ADVICE_COUNT
};

struct pcmig_verdict {
    enum pcmig_situation situation; /* that it follows from */
    enum pcmig_outcome outcome;
    enum pcmig_advice advice;
    const char *text; /* a sentence, static */
};

/* Whether post-copy lost one of its halves, the guest shut down or not: nothing brings that back, and libvirt's migrate
 * call may wait for it for ever. */
bool pcmig_outcome_half_lost(const struct pcmig_evidence *evidence);

/* The verdict on a migration (EVIDENCE's in_flight is taken as set), PCMIG_OUTCOME_RUNNING while the two halves may
 * still change by themselves. With PATIENCE_OVER there is no more waiting: the outcome is never PCMIG_OUTCOME_RUNNING
 * then. */
struct pcmig_verdict pcmig_outcome_judge(const struct pcmig_evidence *evidence, bool patience_over);

const char *pcmig_outcome_name(enum pcmig_outcome outcome); /* "needs-operator"; never NULL */

#endif
