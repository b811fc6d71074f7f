/* SPDX-License-Identifier: Apache-2.0 */
/* What is done next with a migration whose end is being looked for: facts in, one step out. Pure, one table.
 *
 * The engine asks both hosts (engine/ending.c), has recovery take its own step where post-copy is interrupted, and
 * collects what is so as a set of facts. The step that follows from them is what it does before it looks again.
 */
#ifndef PCMIG_CORE_ENDING_H
#define PCMIG_CORE_ENDING_H

#include "core/outcome.h"

#include <stdbool.h>
#include <stdint.h>

enum pcmig_ending_step {
    PCMIG_ENDING_WAIT = 0,  /* nothing: look again later */
    PCMIG_ENDING_STEER,     /* post-copy flows and a call looks after it: no end is near */
    PCMIG_ENDING_RESTART,   /* let a guest run that a failed switch left stopped at the source, or try to */
    PCMIG_ENDING_END_HALF,  /* end the source's half of a guest that has arrived, or try to */
    PCMIG_ENDING_RESTORE,   /* give pre-copy its bandwidth back: libvirt keeps it for the guest's next migrations */
    PCMIG_ENDING_CLEAR,     /* remove what libvirt left of the guest at the source */
    PCMIG_ENDING_AUTOSTART, /* have it start with the host that it has moved to */
    PCMIG_ENDING_FINISH,    /* tell the verdict */
    PCMIG_ENDING_STEP_COUNT
};

/* One bit each. */
enum pcmig_ending_fact {
    PCMIG_FACT_FLOWS = 1 << 0,       /* see STEER */
    PCMIG_FACT_RECOVERING = 1 << 1,  /* recovery is at work, or waits for something */
    PCMIG_FACT_BEING_ASKED = 1 << 2, /* an end that has not answered yet was asked only a moment ago */
    PCMIG_FACT_JOB_UNTOLD = 1 << 3,  /* the source has not told yet whether it runs a job */
    PCMIG_FACT_STOPPED = 1 << 4,     /* the guest is stopped at the source, and may be the only copy there ever was */
    PCMIG_FACT_OPEN = 1 << 5,        /* no verdict holds yet */
    PCMIG_FACT_CALL_RUNS = 1 << 6,   /* libvirt is still at work, and its call will tell more than we see */
    PCMIG_FACT_NO_FIGURES = 1 << 7,  /* completed, and the final statistics may yet come */
    PCMIG_FACT_SLOWED = 1 << 8,      /* the source's half is there, and pre-copy has the bandwidth of a drain */
    PCMIG_FACT_LEFTOVER = 1 << 9,    /* completed, and nobody has looked yet what is left at the source */
    PCMIG_FACT_AUTOSTART = 1 << 10,  /* completed, and it is to start with its host */
    PCMIG_FACT_UNCOUNTED = 1 << 11,  /* completed, and what QEMU has counted of page requests may yet come */
    PCMIG_FACT_HALF_KEPT = 1 << 12,  /* the guest has arrived, and libvirt at the source has not ended its half */
    PCMIG_FACTS = (1 << 13) - 1,
};

enum pcmig_ending_step pcmig_ending_next(unsigned facts);

/* How long halves that settle nothing are looked at before the verdict is "needs operator"; INT64_MAX = for as long as
 * it takes. RECOVER: an interrupted post-copy is resumed by us, so a half that may yet move is waited for. */
int64_t pcmig_ending_patience_us(const struct pcmig_evidence *evidence, bool recover);

const char *pcmig_ending_step_name(enum pcmig_ending_step step); /* "restart"; never NULL */

#endif
