/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine is doing with one migration, and what takes it from one state to the next. Pure, one table; the
 * picture of doc/develop/engine.rst is made from it. */
#ifndef PCMIG_CORE_ENGINE_STATE_H
#define PCMIG_CORE_ENGINE_STATE_H

#include <stdbool.h>
#include <stddef.h>

/* In the order in which a migration goes through them when all is well. */
enum pcmig_engine_state {
    PCMIG_ENGINE_PREPARING = 0, /* connects, and checks what can be checked */
    PCMIG_ENGINE_PRECOPY,       /* the guest runs at the source; the policy decides when to switch */
    PCMIG_ENGINE_DRAINING,      /* the same, with pre-copy slowed down until the link's queue is empty */
    PCMIG_ENGINE_ISSUING,       /* libvirt is asked for the switch, and asked again when it refuses */
    PCMIG_ENGINE_SWITCHING,     /* the switch was issued, or the source's processors have stopped */
    PCMIG_ENGINE_POSTCOPY,      /* the guest runs at the destination, pages are missing; they are paced */
    PCMIG_ENGINE_INTERRUPTED,   /* post-copy broke: recovery decides (recovery.h) */
    PCMIG_ENGINE_RESUMING,      /* a call of libvirt's resumes it */
    PCMIG_ENGINE_CONFIRMING,    /* the call has returned, or a half is missed: both hosts are asked who has the guest */
    PCMIG_ENGINE_OVER,          /* the outcome is told */
    PCMIG_ENGINE_STATE_COUNT
};

/* What happens. */
enum pcmig_engine_trigger {
    PCMIG_TRIGGER_CALLED = 0,     /* the migrate call is made */
    PCMIG_TRIGGER_ADOPTED,        /* a migration is looked after that somebody else began */
    PCMIG_TRIGGER_DRAIN,          /* the policy begins a drain, */
    PCMIG_TRIGGER_UNDRAIN,        /* and gives it up, or cancels the migration */
    PCMIG_TRIGGER_SWITCH,         /* the policy wants the switch now */
    PCMIG_TRIGGER_ISSUED,         /* libvirt took the switch to post-copy */
    PCMIG_TRIGGER_SOURCE_STOPPED, /* the source's processors stop, for the last of pre-copy or for the switch */
    PCMIG_TRIGGER_SOURCE_RESUMED, /* libvirt lets the guest run on at the source */
    PCMIG_TRIGGER_SOURCE_SERVES,  /* the source is in post-copy, and sends what is missing */
    PCMIG_TRIGGER_RUNS_THERE,     /* the guest runs at the destination, pages are missing */
    PCMIG_TRIGGER_BROKE,          /* either end says that post-copy was interrupted */
    PCMIG_TRIGGER_HALF_ENDED,     /* the half of an end is gone, and not because it has served */
    PCMIG_TRIGGER_STALLED,        /* the destination's kernel has acknowledged nothing for too long */
    PCMIG_TRIGGER_RESUME,         /* a call is made that resumes post-copy */
    PCMIG_TRIGGER_CALL_SUCCEEDED, /* the call returned; one that was merely lost while the migration goes on is none of
                                     these */
    PCMIG_TRIGGER_CALL_FAILED,
    PCMIG_TRIGGER_FLOWS,    /* both ends say that post-copy goes on, and a call of libvirt's looks after it */
    PCMIG_TRIGGER_FINISHED, /* the verdict, or a caller who lets the migration go */
    PCMIG_TRIGGER_COUNT
};

/* The state after TRIGGER in STATE: STATE itself where that changes nothing. */
enum pcmig_engine_state pcmig_engine_next(enum pcmig_engine_state state, enum pcmig_engine_trigger trigger);

/* Whether the guest is still whole at the source, as far as the engine was told: pre-copy's bandwidth counts. */
bool pcmig_engine_before_switch(enum pcmig_engine_state state);

/* Whether both hosts are asked for their halves, be there a call of ours or not. */
bool pcmig_engine_asks(enum pcmig_engine_state state);

const char *pcmig_engine_state_name(enum pcmig_engine_state state); /* "confirming"; never NULL */
const char *pcmig_engine_state_text(enum pcmig_engine_state state); /* most of a sentence; never NULL */
const char *pcmig_engine_trigger_text(enum pcmig_engine_trigger trigger);

#endif
