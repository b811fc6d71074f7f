/* SPDX-License-Identifier: Apache-2.0 */
/* See situation.h. Facts behind the rows: libvirt 8.0 to 12.8 (src/qemu/qemu_migration.c, qemu_process.c). The
 * destination's half is "migrating" until its processors run, and "running" only once all of its memory is there; the
 * source ends its half (absent) after the destination confirmed that. A source that has handed over is never running or
 * paused, but a restart of its daemon can forget why a half is paused, so that a half of a post-copy shows up as plain
 * "paused". */
#include "core/situation.h"

#include <stddef.h>

/* Sets of halves, one bit each. */
#define U   (1u << PCMIG_HALF_UNKNOWN)
#define A   (1u << PCMIG_HALF_ABSENT)
#define R   (1u << PCMIG_HALF_RUNNING)
#define P   (1u << PCMIG_HALF_PAUSED)
#define M   (1u << PCMIG_HALF_MIGRATING)
#define C   (1u << PCMIG_HALF_POSTCOPY)
#define F   (1u << PCMIG_HALF_POSTCOPY_FAILED)
#define D   (1u << PCMIG_HALF_DEAD)
#define ANY (U | A | R | P | M | C | F | D)

/* What else has to be so. */
enum {
    ALWAYS = 0,
    RECORD = 1 << 0,    /* a migration is under way or on record */
    NO_RECORD = 1 << 1, /* none is */
    JOB = 1 << 2,       /* the source runs a migration job */
    NO_JOB = 1 << 3,    /* it does not, by its own word */
    MOVED = 1 << 4,     /* the source, or the migrate call, said that the guest was handed over */
    NOT_MOVED = 1 << 5,
    ENDED_HERE = 1 << 6,  /* the source says that the guest was shut down there */
    ENDED_THERE = 1 << 7, /* so does the destination */
    IDLE = 1 << 8,        /* no job is known to run */
    CROSSED = 1 << 9,     /* the switch was issued, or seen */
    NOT_CROSSED = 1 << 10,
    TURNED = 1 << 11, /* the guest was let go on at the source after the switch */
};

static const struct {
    unsigned source;
    unsigned destination;
    unsigned where;
    enum pcmig_situation situation;
} rows[] = {
    /* the first that fits */
    /* Before anything else: libvirt keeps the job of such a migration, and the half's state, for as long as that QEMU
     * runs. What the destination may still have is a half of the past; but not a guest that is whole. */
    {R | P | M | C | F, R | P, TURNED, PCMIG_SITUATION_DOUBLE},
    {R | P | M | C | F, ANY, TURNED, PCMIG_SITUATION_TURNED_BACK},
    /* The source was asked a moment earlier: with its job running, the guest moved in between. */
    {R | P, U | A | M | D, JOB, PCMIG_SITUATION_PRECOPY},
    {R, R | P | C | F, JOB, PCMIG_SITUATION_SWITCHING},
    {A | D, ANY, JOB, PCMIG_SITUATION_IN_DOUBT}, /* a job of no guest */
    {R, R | P | C | F, ALWAYS, PCMIG_SITUATION_DOUBLE},
    {P, P, NOT_CROSSED, PCMIG_SITUATION_DOUBLE},

    /* Whoever was handed a guest has it, until it is seen somewhere else. */
    {A, U | A | D, MOVED, PCMIG_SITUATION_HANDED_OVER},

    /* A source in post-copy means that the guest ran at the destination: what libvirt says of its end there is of this
     * run. What a shut-off definition says beside any other half may be years old. */
    {C | F, A, ENDED_THERE | IDLE, PCMIG_SITUATION_ENDED},
    {A, A, RECORD | ENDED_THERE, PCMIG_SITUATION_ENDED},
    {A, A, RECORD | ENDED_HERE | NOT_CROSSED, PCMIG_SITUATION_ENDED},

    /* Beyond the switch a source that is plainly paused, or paused to migrate, is the half of a post-copy: a daemon
     * that was restarted forgets which. Its memory is that of the switch, and what it has not sent is nowhere else. */
    {P | M, P, CROSSED, PCMIG_SITUATION_POSTCOPY},
    {P | M, A | D, CROSSED, PCMIG_SITUATION_HALF_LOST},
    {P | M, U, CROSSED, PCMIG_SITUATION_CUT_OFF},

    {R, U | A | D, NO_RECORD, PCMIG_SITUATION_HOME_SOURCE},
    {P, U | A | D, NO_RECORD | NOT_MOVED, PCMIG_SITUATION_HOME_SOURCE},
    {U | A | D, R | P, NO_RECORD, PCMIG_SITUATION_HOME_DESTINATION},
    {A | D, A | D, NO_RECORD | NOT_MOVED, PCMIG_SITUATION_NOBODY},
    {U | A | D, U | A | D, NO_RECORD | NOT_MOVED, PCMIG_SITUATION_UNSEEN},

    /* Dead where the source runs: the rest of a half that was never more than filled. */
    {R, A | D, RECORD | NO_JOB, PCMIG_SITUATION_AT_SOURCE},
    {P, A, RECORD | NO_JOB | NOT_MOVED, PCMIG_SITUATION_AT_SOURCE},
    {R, M, NO_JOB, PCMIG_SITUATION_LEFTOVER},
    {R, A | D | M, ALWAYS, PCMIG_SITUATION_PRECOPY},
    {P, A, NOT_MOVED, PCMIG_SITUATION_PRECOPY},
    {M | C, M, ALWAYS, PCMIG_SITUATION_SWITCHING},

    /* The destination's half says "paused" after an I/O error in post-copy; the source's after its daemon restarted. */
    {M | C | P, C, ALWAYS, PCMIG_SITUATION_POSTCOPY},
    {C, P, ALWAYS, PCMIG_SITUATION_POSTCOPY},
    {F, F | C | M | P, ALWAYS, PCMIG_SITUATION_INTERRUPTED},
    {M | C | P, F, ALWAYS, PCMIG_SITUATION_INTERRUPTED},
    {C | F, U, ALWAYS, PCMIG_SITUATION_CUT_OFF},
    {U, C | F, ALWAYS, PCMIG_SITUATION_CUT_OFF},
    {C | F, A | D, ALWAYS, PCMIG_SITUATION_HALF_LOST},
    {A, C, MOVED, PCMIG_SITUATION_ARRIVED},
    {A | D, C | F, ALWAYS, PCMIG_SITUATION_HALF_LOST},

    {P | M | C | F | D, R, ALWAYS, PCMIG_SITUATION_ARRIVED},
    {R, U, RECORD | NO_JOB | NOT_MOVED, PCMIG_SITUATION_RUNS_AT_SOURCE},
    {U, R, RECORD, PCMIG_SITUATION_RUNS_AT_DESTINATION},
    {A, R, RECORD, PCMIG_SITUATION_AT_DESTINATION},
    {A, P, RECORD | MOVED, PCMIG_SITUATION_AT_DESTINATION},
    {A, P, RECORD, PCMIG_SITUATION_UNCONFIRMED},
    /* A dead source half beside an absent one may also be the moment before the guest is seen at the destination, and a
     * dead destination half that of a guest that ran there. */
    {A | D, A | D, RECORD, PCMIG_SITUATION_GONE},

    {U, ANY, ALWAYS, PCMIG_SITUATION_SILENT},
    {ANY, U, ALWAYS, PCMIG_SITUATION_SILENT},
    {ANY, ANY, ALWAYS, PCMIG_SITUATION_IN_DOUBT},
};

enum pcmig_situation pcmig_situation_of(const struct pcmig_evidence *evidence)
{
    bool moved = evidence->call_succeeded || evidence->source_handed_off;
    bool record = evidence->in_flight || evidence->job_active || evidence->crossed;
    unsigned is = (unsigned)(record ? RECORD : NO_RECORD) | (unsigned)(moved ? MOVED : NOT_MOVED) |
                  (evidence->job_active   ? (unsigned)JOB
                   : evidence->job_absent ? (unsigned)NO_JOB
                                          : 0) |
                  (evidence->source_shut_down ? (unsigned)ENDED_HERE : 0) |
                  (evidence->destination_shut_down ? (unsigned)ENDED_THERE : 0) |
                  (evidence->job_active ? 0 : (unsigned)IDLE) | (unsigned)(evidence->crossed ? CROSSED : NOT_CROSSED) |
                  (evidence->turned_back ? (unsigned)TURNED : 0);

    if ((unsigned)evidence->source >= PCMIG_HALF_COUNT || (unsigned)evidence->destination >= PCMIG_HALF_COUNT)
        return PCMIG_SITUATION_IN_DOUBT;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((rows[i].source & 1u << evidence->source) != 0 &&
            (rows[i].destination & 1u << evidence->destination) != 0 && (rows[i].where & ~is) == 0)
            return rows[i].situation;
    }
    return PCMIG_SITUATION_IN_DOUBT; /* not reached: the last row fits everything */
}

static const struct {
    const char *name;
    enum pcmig_memory memory;
    const char *text;
} situations[] = {
    [PCMIG_SITUATION_UNSEEN] = {"unseen", PCMIG_MEMORY_UNKNOWN,
                                "no migration of the guest is known, and no host that answered has it"},
    [PCMIG_SITUATION_NOBODY] = {"nobody", PCMIG_MEMORY_NOWHERE,
                                "no migration of the guest is known, and neither host runs it"},
    [PCMIG_SITUATION_HOME_SOURCE] = {"home-source", PCMIG_MEMORY_SOURCE,
                                     "no migration of the guest is under way, and the source has it"},
    [PCMIG_SITUATION_HOME_DESTINATION] = {"home-destination", PCMIG_MEMORY_DESTINATION,
                                          "no migration of the guest is under way, and the destination has it"},
    [PCMIG_SITUATION_PRECOPY] = {"precopy", PCMIG_MEMORY_SOURCE,
                                 "a migration of the guest may be running and move it at any moment"},
    [PCMIG_SITUATION_SWITCHING] = {"switching", PCMIG_MEMORY_UNKNOWN, "the guest is just changing hosts"},
    [PCMIG_SITUATION_POSTCOPY] = {"postcopy", PCMIG_MEMORY_BOTH,
                                  "the guest is in post-copy: each host has memory that the other lacks"},
    [PCMIG_SITUATION_INTERRUPTED] = {"interrupted", PCMIG_MEMORY_BOTH,
                                     "post-copy was interrupted: the guest waits, and each host has memory that the "
                                     "other lacks"},
    [PCMIG_SITUATION_CUT_OFF] =
        {"cut-off", PCMIG_MEMORY_BOTH,
         "the guest is in post-copy, each host has memory that the other lacks, and one of them "
         "does not answer"},
    [PCMIG_SITUATION_AT_SOURCE] = {"at-source", PCMIG_MEMORY_SOURCE,
                                   "the guest is at the source alone, whole; its migration is not settled yet"},
    [PCMIG_SITUATION_LEFTOVER] = {"leftover", PCMIG_MEMORY_SOURCE,
                                  "the guest runs at the source, and the destination still has its empty half"},
    [PCMIG_SITUATION_ARRIVED] = {"arrived", PCMIG_MEMORY_DESTINATION,
                                 "the guest runs at the destination, and the source has not given up its half"},
    [PCMIG_SITUATION_AT_DESTINATION] =
        {"at-destination", PCMIG_MEMORY_DESTINATION,
         "the guest is at the destination alone, whole; its migration is not settled yet"},
    [PCMIG_SITUATION_UNCONFIRMED] = {"unconfirmed", PCMIG_MEMORY_UNKNOWN,
                                     "the guest is at the destination alone, paused, and the source never said that it "
                                     "handed it over"},
    [PCMIG_SITUATION_HANDED_OVER] = {"handed-over", PCMIG_MEMORY_DESTINATION,
                                     "the source has handed the guest over to the destination"},
    [PCMIG_SITUATION_HALF_LOST] = {"half-lost", PCMIG_MEMORY_NOWHERE,
                                   "the guest was in post-copy and one half of it is gone, with memory that only that "
                                   "half had"},
    [PCMIG_SITUATION_ENDED] = {"ended", PCMIG_MEMORY_NOWHERE,
                               "the guest was shut down during its migration, and is off"},
    [PCMIG_SITUATION_GONE] = {"gone", PCMIG_MEMORY_NOWHERE,
                              "the guest ended on both hosts while its migration was not settled"},
    [PCMIG_SITUATION_TURNED_BACK] = {"turned-back", PCMIG_MEMORY_SOURCE,
                                     "the guest turned back: it goes on at the source from the moment of the switch"},
    [PCMIG_SITUATION_DOUBLE] = {"double", PCMIG_MEMORY_UNKNOWN,
                                "both hosts have a copy of the guest, and which of them is wanted is not known"},
    [PCMIG_SITUATION_RUNS_AT_SOURCE] = {"runs-at-source", PCMIG_MEMORY_SOURCE,
                                        "the guest runs at the source, which sends nothing, and the destination does "
                                        "not answer"},
    [PCMIG_SITUATION_RUNS_AT_DESTINATION] = {"runs-at-destination", PCMIG_MEMORY_DESTINATION,
                                             "the guest runs at the destination with all of its memory, and the "
                                             "source does not answer"},
    [PCMIG_SITUATION_SILENT] = {"silent", PCMIG_MEMORY_UNKNOWN,
                                "a migration of the guest is not settled, and a host does not answer"},
    [PCMIG_SITUATION_IN_DOUBT] = {"in-doubt", PCMIG_MEMORY_UNKNOWN, "the two hosts do not agree on where the guest is"},
};
_Static_assert(sizeof(situations) / sizeof(situations[0]) == PCMIG_SITUATION_COUNT, "every situation has a row");

static const char *const memories[] = {
    [PCMIG_MEMORY_UNKNOWN] = "unknown", [PCMIG_MEMORY_SOURCE] = "source",   [PCMIG_MEMORY_DESTINATION] = "destination",
    [PCMIG_MEMORY_BOTH] = "both",       [PCMIG_MEMORY_NOWHERE] = "nowhere",
};
_Static_assert(sizeof(memories) / sizeof(memories[0]) == PCMIG_MEMORY_COUNT, "every place has a name");

static bool known(enum pcmig_situation situation)
{
    return (unsigned)situation < PCMIG_SITUATION_COUNT;
}

enum pcmig_memory pcmig_situation_memory(enum pcmig_situation situation)
{
    return known(situation) ? situations[situation].memory : PCMIG_MEMORY_UNKNOWN;
}

const char *pcmig_situation_name(enum pcmig_situation situation)
{
    return known(situation) ? situations[situation].name : "unknown";
}

const char *pcmig_situation_text(enum pcmig_situation situation)
{
    return known(situation) ? situations[situation].text : "unknown";
}

enum pcmig_memory pcmig_memory_where(const struct pcmig_evidence *evidence)
{
    return pcmig_situation_memory(pcmig_situation_of(evidence));
}

const char *pcmig_memory_name(enum pcmig_memory memory)
{
    return (unsigned)memory < PCMIG_MEMORY_COUNT ? memories[memory] : "unknown";
}
