/* SPDX-License-Identifier: Apache-2.0 */
/* What may be done to which half of a guest. Pure; whoever destroys, starts or deletes asks here first.
 *
 * The rule: nothing is started where another copy may run, and nothing is thrown away that may be the only one of its
 * kind. What is allowed stands in a table, one row per justification; whatever has no row is refused. An answer holds
 * for the moment in which the two hosts were asked. The tables as pages: doc/refer/safety.rst.
 */
#ifndef PCMIG_CORE_GUARD_H
#define PCMIG_CORE_GUARD_H

#include "core/halves.h"
#include "core/situation.h"

#include <stdbool.h>
#include <stddef.h>

enum pcmig_act {
    PCMIG_ACT_START = 0,    /* boot it on this side */
    PCMIG_ACT_RESUME,       /* let a paused half run (virDomainResume) */
    PCMIG_ACT_REBOOT,       /* end the half and boot it again on the same side */
    PCMIG_ACT_SHUTDOWN,     /* power it off for its owner */
    PCMIG_ACT_DESTROY,      /* end the half (virDomainDestroy) */
    PCMIG_ACT_UNDEFINE,     /* remove its definition */
    PCMIG_ACT_DELETE_FILES, /* remove its disks and folder on this side */
    PCMIG_ACT_ROLLBACK,     /* give the migration up: the guest is the source's, the destination's half is destroyed */
    PCMIG_ACT_POST_MIGRATION, /* what follows a success: the guest is the destination's, the source's rest is removed */
    PCMIG_ACT_MIGRATE_RESUME, /* go on with an interrupted post-copy (VIR_MIGRATE_POSTCOPY_RESUME) */
    PCMIG_ACT_FORGET,         /* throw the record away that SIDE's host keeps; no half, definition or file is touched */
    PCMIG_ACT_TURN_BACK,      /* let the guest go on at the source from the moment of the switch (turn_back.h) */
    PCMIG_ACT_COUNT
};

struct pcmig_permission {
    bool allowed;
    enum pcmig_situation situation;
    char reason[384];   /* a sentence without its capital and full stop */
    const char *advice; /* commands that help, with %g, %s, %d for pcmig_guard_advice(); NULL = none is needed */
};

/* Whether ACT may be done on SIDE. For ROLLBACK, POST_MIGRATION and MIGRATE_RESUME SIDE makes no difference.
 *
 * INSIST: the owner wants the guest itself to be gone. Then it may be destroyed, undefined and its files deleted in
 * every situation, and the reason says what is lost by it. With FORGET: an operator takes the loss, and the record may
 * go unless the migration still moves. With TURN_BACK: somebody gives his word that a destination which does not answer
 * is dead, and stays so until it is started anew; where it answers, its own word counts. No other act is changed, so no
 * machinery can run a guest twice. */
struct pcmig_permission pcmig_guard_may(const struct pcmig_evidence *evidence, enum pcmig_side side, enum pcmig_act act,
                                        bool insist);

/* Commands for what is left of the guest and of no use to anybody once its migration is forgotten, as in `advice`; NULL
 * where there is no such half, or nobody can tell which it is. For people: no program may type them. */
const char *pcmig_guard_rest(const struct pcmig_evidence *evidence);

/* Names to put into an advice; NULL = GUEST, SOURCEURI, DESTURI. */
struct pcmig_guard_names {
    const char *guest;
    const char *source_uri;
    const char *dest_uri;
};

/* Writes ADVICE to OUT, always terminated, cut to SIZE. Returns whether it fitted. What a name holds that ends a quoted
 * word is written so that a shell takes it for a part of the word. */
bool pcmig_guard_advice(const char *advice, const struct pcmig_guard_names *names, char *out, size_t size);

/* Whether a situation permits ACT on SIDE, whatever else there is: the table itself, for documentation. */
bool pcmig_guard_permits(enum pcmig_situation situation, enum pcmig_side side, enum pcmig_act act);
const char *pcmig_guard_situation_advice(enum pcmig_situation situation); /* a template as in struct pcmig_permission */
/* The same for the two halves as they are: where only one of them is left, it says more. */
const char *pcmig_guard_what_helps(const struct pcmig_evidence *evidence);

const char *pcmig_side_name(enum pcmig_side side); /* "source"; never NULL */
const char *pcmig_act_name(enum pcmig_act act);    /* "post-migration"; never NULL */

/* The value behind a NAME of LEN characters, or -1. */
int pcmig_side_find(const char *name, size_t len);
int pcmig_act_find(const char *name, size_t len);

#endif
