/* SPDX-License-Identifier: Apache-2.0 */
/* How a guest stands between two hosts, and which of them holds the newer memory. Pure, one table.
 *
 * "Source" and "destination" are the ends of the migration that is on record; without one, just two hosts. */
#ifndef PCMIG_CORE_SITUATION_H
#define PCMIG_CORE_SITUATION_H

#include "core/halves.h"

enum pcmig_situation {
    /* No migration is on record, and no half speaks of one. */
    PCMIG_SITUATION_UNSEEN = 0,       /* no host that answered has the guest, and one did not answer */
    PCMIG_SITUATION_NOBODY,           /* neither host runs it */
    PCMIG_SITUATION_HOME_SOURCE,      /* it is at the source */
    PCMIG_SITUATION_HOME_DESTINATION, /* it is at the destination */
    /* On the way. */
    PCMIG_SITUATION_PRECOPY,   /* at the source; a job fills the destination's half, or nobody can say that none does */
    PCMIG_SITUATION_SWITCHING, /* between the two; a moment */
    PCMIG_SITUATION_POSTCOPY,  /* runs at the destination, fetches what is missing from the source */
    PCMIG_SITUATION_INTERRUPTED, /* the same, and the stream has broken */
    PCMIG_SITUATION_CUT_OFF,     /* one half is in post-copy, interrupted or not, the other's host does not answer */
    /* Over, as far as the halves tell; the record still says "under way". */
    PCMIG_SITUATION_AT_SOURCE,      /* at the source alone, whole */
    PCMIG_SITUATION_LEFTOVER,       /* runs at the source; the destination has an empty half, and no job fills it */
    PCMIG_SITUATION_ARRIVED,        /* runs at the destination, whole; the source has not given up its half */
    PCMIG_SITUATION_AT_DESTINATION, /* at the destination alone, whole */
    PCMIG_SITUATION_UNCONFIRMED,    /* at the destination alone, paused, without the source's word that it is whole */
    PCMIG_SITUATION_HANDED_OVER,    /* the source gave it up to the destination, which does not run it or is silent */
    /* Nothing here may be touched by a program, but for what is left of a guest that was shut down. */
    PCMIG_SITUATION_HALF_LOST,      /* one half of a post-copy is gone, and with it memory that only it had */
    PCMIG_SITUATION_ENDED,          /* it was shut down meanwhile; at most the source's half of its post-copy is left */
    PCMIG_SITUATION_GONE,           /* on neither host */
    PCMIG_SITUATION_TURNED_BACK,    /* it goes on at the source from the moment of the switch */
    PCMIG_SITUATION_DOUBLE,         /* both hosts have a copy that can run */
    PCMIG_SITUATION_RUNS_AT_SOURCE, /* it runs there, and no job sends it; the destination does not answer */
    PCMIG_SITUATION_RUNS_AT_DESTINATION, /* it runs there with all of its memory; the source does not answer */
    PCMIG_SITUATION_SILENT,              /* a host does not answer, and the other's half does not settle it */
    PCMIG_SITUATION_IN_DOUBT,            /* the halves contradict each other */
    PCMIG_SITUATION_COUNT
};

/* Who holds the newer memory of the guest. */
enum pcmig_memory {
    PCMIG_MEMORY_UNKNOWN = 0,
    PCMIG_MEMORY_SOURCE,
    PCMIG_MEMORY_DESTINATION,
    PCMIG_MEMORY_BOTH,    /* spread: each half has pages that the other lacks */
    PCMIG_MEMORY_NOWHERE, /* no longer whole anywhere */
    PCMIG_MEMORY_COUNT
};

/* Every evidence has a situation; IN_DOUBT when nothing better is certain. */
enum pcmig_situation pcmig_situation_of(const struct pcmig_evidence *evidence);

enum pcmig_memory pcmig_situation_memory(enum pcmig_situation situation);
const char *pcmig_situation_name(enum pcmig_situation situation); /* "cut-off"; never NULL */
const char *pcmig_situation_text(enum pcmig_situation situation); /* most of a sentence; never NULL */

/* The same as pcmig_situation_memory(pcmig_situation_of(EVIDENCE)). */
enum pcmig_memory pcmig_memory_where(const struct pcmig_evidence *evidence);
const char *pcmig_memory_name(enum pcmig_memory memory); /* "destination"; never NULL */

#endif
