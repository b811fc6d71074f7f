/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a guest can be let go on at the source after the switch, and what that undoes. Pure.
 *
 * The source's QEMU keeps all memory and devices as they were at the switch. That it may be used at all, because the
 * other half can run no more, is the guard's to say (guard.h, PCMIG_ACT_TURN_BACK); here is what else has to be so:
 * that the half is one that can go on, and that its disks go with its memory. */
#ifndef PCMIG_CORE_TURN_BACK_H
#define PCMIG_CORE_TURN_BACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the source's QEMU says of the guest and of its migration, in one. */
enum pcmig_turn_back_half {
    PCMIG_TURN_BACK_OTHER = 0, /* nothing that could turn back */
    PCMIG_TURN_BACK_WAITS,     /* post-copy, and the stream has broken */
    PCMIG_TURN_BACK_SENDS,     /* post-copy, and it does not know of a break: it is paused first */
    PCMIG_TURN_BACK_RUNS,      /* it turned back already */
    PCMIG_TURN_BACK_STOPPED,   /* it had turned back, and something stopped its processors since */
    PCMIG_TURN_BACK_HALF_COUNT
};

/* Of a guest with this run state (query-status) and this status of its migration (query-migrate). GOES_OUT: QEMU has
 * figures of a migration that goes out. Without them it is a destination, which looks just like it when its post-copy
 * is interrupted, and has nothing to turn back to. */
enum pcmig_turn_back_half pcmig_turn_back_half(const char *run_state, const char *migration, bool goes_out);

/* How far a stream has come; -1 = QEMU does not say. */
struct pcmig_turn_back_stream {
    int64_t remaining_bytes; /* memory still to be sent */
    int64_t sent_bytes;
    int64_t requests; /* pages that the destination has asked for */
};

/* Whether something moved between two looks, so that the destination's QEMU lives. What QEMU did not say at either of
 * them counts as moved: nothing shows that it stood still. */
bool pcmig_turn_back_moved(const struct pcmig_turn_back_stream *before, const struct pcmig_turn_back_stream *after);

enum pcmig_turn_back_disks {
    PCMIG_TURN_BACK_NO_DISKS = 0, /* none that the guest may write to */
    PCMIG_TURN_BACK_OWN_DISKS,    /* the migration copied all of them: those here are as they were at the switch */
    PCMIG_TURN_BACK_SHARED_DISKS, /* at least one that the destination could write to */
    PCMIG_TURN_BACK_DISKS_COUNT
};

struct pcmig_turn_back_facts {
    enum pcmig_turn_back_half half;
    enum pcmig_turn_back_disks disks;
    bool begun;              /* the journal has it that this very QEMU was let go on, or was about to be */
    bool unrun;              /* it is certain that no instruction ran at the destination (unrun.h) */
    bool everything_sent;    /* the source has nothing left to send: the guest may have been whole there */
    bool sets_active;        /* QEMU can take its disks back (blockdev-set-active, QEMU >= 10.0) */
    bool discards_memory;    /* QEMU gave back what it sent (capability release-ram) */
    bool nowhere_else;       /* on somebody's word: it was not whole at the destination, and moved on from there */
    bool accept_newer_disks; /* likewise: disks may have been written to after the switch */
};

enum pcmig_turn_back_answer {
    PCMIG_TURN_BACK_GO = 0,
    PCMIG_TURN_BACK_DONE, /* it runs at the source already */
    PCMIG_TURN_BACK_NO_HALF,
    PCMIG_TURN_BACK_NO_MEMORY,
    PCMIG_TURN_BACK_MAYBE_WHOLE,
    PCMIG_TURN_BACK_OLD_QEMU,
    PCMIG_TURN_BACK_NEWER_DISKS,
    PCMIG_TURN_BACK_ANSWER_COUNT
};

struct pcmig_turn_back_verdict {
    enum pcmig_turn_back_answer answer;
    bool nothing_lost; /* of GO: the guest did nothing since the switch */
    const char *text;  /* most of a sentence, static */
    const char *word;  /* of a refusal: the option with which somebody can take the risk; NULL = none */
};

struct pcmig_turn_back_verdict pcmig_turn_back_judge(const struct pcmig_turn_back_facts *facts);

/* When a guest turns back without anybody's asking. */
enum pcmig_turn_back_mode {
    PCMIG_TURN_BACK_NEVER = 0, /* at no time, and nobody is told to */
    PCMIG_TURN_BACK_UNRUN,     /* where nothing is lost */
    PCMIG_TURN_BACK_ASK,       /* at no time; who looks is told that it can */
    PCMIG_TURN_BACK_MODE_COUNT
};

/* Whether it turns back by itself: nobody gave a word. */
bool pcmig_turn_back_by_itself(enum pcmig_turn_back_mode mode, const struct pcmig_turn_back_facts *facts);

const char *pcmig_turn_back_answer_name(enum pcmig_turn_back_answer answer); /* "newer-disks"; never NULL */
const char *pcmig_turn_back_half_name(enum pcmig_turn_back_half half);       /* "waits"; never NULL */
const char *pcmig_turn_back_disks_name(enum pcmig_turn_back_disks disks);    /* "shared"; never NULL */
const char *pcmig_turn_back_mode_name(enum pcmig_turn_back_mode mode);       /* "unrun"; never NULL */

/* The value behind a NAME of LEN characters, or -1. */
int pcmig_turn_back_half_find(const char *name, size_t len);
int pcmig_turn_back_disks_find(const char *name, size_t len);
int pcmig_turn_back_mode_find(const char *name, size_t len);

#endif
