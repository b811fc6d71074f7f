/* SPDX-License-Identifier: Apache-2.0 */
/* See outcome.h. */
#include "core/outcome.h"

#include <stddef.h>

/* Sets of halves, one bit each. */
#define A   (1u << PCMIG_HALF_ABSENT)
#define U   (1u << PCMIG_HALF_UNKNOWN)
#define C   (1u << PCMIG_HALF_POSTCOPY)
#define F   (1u << PCMIG_HALF_POSTCOPY_FAILED)
#define P   (1u << PCMIG_HALF_PAUSED)
#define D   (1u << PCMIG_HALF_DEAD)
#define ANY ((1u << PCMIG_HALF_COUNT) - 1)

/* What else has to be so. */
enum when {
    ALWAYS,
    NO_JOB_SEEN,   /* the source runs none as far as anybody knows */
    OFF_AT_SOURCE, /* the guest was shut down there, as that host says */
    OFF_AT_DESTINATION,
};

#define OPERATOR(advice, text) PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_##advice, text
#define COMPLETED(text)        PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE, text
#define FAILED(text)           PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, text

#define INTERRUPTED                                                                                                    \
    OPERATOR(RESUME, "post-copy was interrupted: the guest is paused, its memory is spread over both hosts; nothing "  \
                     "is lost, keep both halves")
#define STILL_IN_POSTCOPY                                                                                              \
    OPERATOR(LOOK_AFTER, "the guest is still in post-copy, but libvirt no longer reports on it; keep both halves")
#define DISAGREE OPERATOR(FORGET, "the two hosts do not agree on where the guest is; keep both halves")

/* When a verdict holds. */
enum { AT_ONCE = true, LATER = false }; /* LATER: once nothing has changed for as long as is worth waiting */

/* The first row that fits. The halves only choose between words, advice and waiting: a situation whose rows have
 * different outcomes is one in which the guest is off. */
static const struct {
    enum pcmig_situation situation;
    unsigned source;
    unsigned destination;
    enum when when;
    bool at_once;
    enum pcmig_outcome outcome;
    enum pcmig_advice advice;
    const char *text;
} rows[] = {
    /* These need a migration that is not on record; here one always is. */
    {PCMIG_SITUATION_UNSEEN, ANY, ANY, ALWAYS, LATER, DISAGREE},
    {PCMIG_SITUATION_NOBODY, ANY, ANY, ALWAYS, LATER, DISAGREE},
    {PCMIG_SITUATION_HOME_SOURCE, ANY, ANY, ALWAYS, LATER, DISAGREE},
    {PCMIG_SITUATION_HOME_DESTINATION, ANY, ANY, ALWAYS, LATER, DISAGREE},

    /* Where the source cannot tell of its job: a migration that goes on has a half at the destination. */
    {PCMIG_SITUATION_PRECOPY, P, A, NO_JOB_SEEN, LATER, FAILED("the guest is at the source, paused")},
    {PCMIG_SITUATION_PRECOPY, ANY, A, NO_JOB_SEEN, LATER, FAILED("the guest runs on at the source")},
    /* libvirt does not end a peer-to-peer migration whose caller is gone: the guest may yet move. */
    {PCMIG_SITUATION_PRECOPY, ANY, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER, "the migration goes on in pre-copy, but the call that started it is lost; pcmig resume looks "
                          "after it")},
    {PCMIG_SITUATION_SWITCHING, ANY, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER, "the guest is between the two hosts, and libvirt does not get on with it; keep both halves")},
    {PCMIG_SITUATION_POSTCOPY, ANY, ANY, ALWAYS, LATER, STILL_IN_POSTCOPY},
    /* While only one end says so, it may be no more than the daemons' connection that broke: the two QEMUs then go on
     * and complete by themselves. */
    {PCMIG_SITUATION_INTERRUPTED, F, F, ALWAYS, AT_ONCE, INTERRUPTED},
    {PCMIG_SITUATION_INTERRUPTED, ANY, ANY, ALWAYS, LATER, INTERRUPTED},
    {PCMIG_SITUATION_CUT_OFF, F, ANY, ALWAYS, LATER, INTERRUPTED},
    {PCMIG_SITUATION_CUT_OFF, ANY, F, ALWAYS, LATER, INTERRUPTED},
    {PCMIG_SITUATION_CUT_OFF, ANY, ANY, ALWAYS, LATER, STILL_IN_POSTCOPY},

    {PCMIG_SITUATION_AT_SOURCE, P, A, ALWAYS, AT_ONCE, FAILED("the guest is at the source, paused")},
    {PCMIG_SITUATION_AT_SOURCE, ANY, A, ALWAYS, AT_ONCE, FAILED("the guest runs on at the source")},
    {PCMIG_SITUATION_AT_SOURCE, ANY, ANY, ALWAYS, LATER,
     FAILED("the guest runs on at the source; the destination has not removed its empty half yet")},
    {PCMIG_SITUATION_LEFTOVER, ANY, ANY, ALWAYS, LATER,
     FAILED("the guest runs on at the source; the destination has not removed its empty half yet")},
    {PCMIG_SITUATION_RUNS_AT_SOURCE, ANY, ANY, ALWAYS, AT_ONCE,
     FAILED("the guest runs on at the source; the destination could not be asked")},

    {PCMIG_SITUATION_ARRIVED, A, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER,
              "the source has given the guest up, and the destination has yet to say that it is whole there")},
    {PCMIG_SITUATION_ARRIVED, ANY, ANY, ALWAYS, LATER,
     OPERATOR(END_SOURCE,
              "the guest runs at the destination with all of its memory, but the source has not removed its half")},
    {PCMIG_SITUATION_AT_DESTINATION, ANY, P, ALWAYS, AT_ONCE,
     COMPLETED("the guest is at the destination, paused there")},
    {PCMIG_SITUATION_AT_DESTINATION, ANY, ANY, ALWAYS, AT_ONCE, COMPLETED("the guest runs at the destination")},
    /* A source that comes back soon may have kept it, shut off, and is cleared up then. */
    {PCMIG_SITUATION_RUNS_AT_DESTINATION, ANY, ANY, ALWAYS, LATER,
     COMPLETED("the guest runs at the destination with all of its memory; the source could not be asked")},
    /* The source's word that it handed the guest over is as good as the destination's that it has it: libvirt ends the
     * source's half only after the destination confirmed. */
    {PCMIG_SITUATION_HANDED_OVER, ANY, U, ALWAYS, AT_ONCE,
     COMPLETED("the source handed the guest over; the destination could not be asked")},
    {PCMIG_SITUATION_HANDED_OVER, ANY, ANY, OFF_AT_DESTINATION, LATER,
     COMPLETED("the guest has moved, and was shut down at the destination; it is off there, and nothing is lost")},
    /* Its own doing, and no fault of the move. */
    {PCMIG_SITUATION_HANDED_OVER, ANY, D, ALWAYS, LATER,
     COMPLETED("the guest has moved, and has crashed at the destination, or is shutting down there")},
    {PCMIG_SITUATION_HANDED_OVER, ANY, ANY, ALWAYS, LATER,
     OPERATOR(FORGET, "the guest is on neither host: it ended, or was ended, during the migration")},
    {PCMIG_SITUATION_UNCONFIRMED, ANY, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_BOTH, "the guest is at the destination alone, paused, and nobody can say that all of its memory has "
                         "come: see there why it is paused")},

    /* Nothing can be resumed, and nothing may be thrown away either. */
    {PCMIG_SITUATION_HALF_LOST, C | F | P | 1u << PCMIG_HALF_MIGRATING, A, ALWAYS, LATER,
     OPERATOR(
         TURN_BACK,
         "post-copy was interrupted and one half of the guest is gone, with what it did at the destination; the source "
         "still has the guest as it was at the switch")},
    {PCMIG_SITUATION_HALF_LOST, C, D, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER, "the guest has crashed at the destination, or is shutting down there, and not all of its "
                          "memory has come: what is left of it is kept")},
    {PCMIG_SITUATION_HALF_LOST, ANY, ANY, ALWAYS, LATER,
     OPERATOR(FORGET, "post-copy was interrupted and one half of the guest is gone: the pages that only it had are "
                      "lost")},
    /* Shut down by itself or its owner, which needs no memory any more. At the source: it never left. At the
     * destination: it had moved; a half that the source still has is nobody's, but a program does not end it. */
    {PCMIG_SITUATION_ENDED, ~A &ANY, ANY, ALWAYS, LATER,
     OPERATOR(END_AND_FORGET,
              "the guest was shut down at the destination, and nothing is lost; the source still has its "
              "half, which must go before the guest is started again")},
    {PCMIG_SITUATION_ENDED, ANY, ANY, OFF_AT_DESTINATION, LATER,
     COMPLETED("the guest has moved, and was shut down at the destination; it is off there, and nothing is lost")},
    {PCMIG_SITUATION_ENDED, ANY, ANY, OFF_AT_SOURCE, LATER,
     FAILED("the guest was shut down at the source before it could move; it is off there, and nothing is lost")},
    /* Its process is there yet, for a dump of it, say. */
    {PCMIG_SITUATION_GONE, ANY, D, ALWAYS, LATER,
     OPERATOR(FORGET,
              "the guest has crashed at the destination, or is shutting down there; what is left of it is kept")},
    {PCMIG_SITUATION_GONE, D, ANY, ALWAYS, LATER,
     OPERATOR(FORGET, "the guest has crashed at the source, or is shutting down there; what is left of it is kept")},
    {PCMIG_SITUATION_GONE, ANY, ANY, ALWAYS, LATER,
     OPERATOR(FORGET, "the guest is on neither host: it ended, or was ended, during the migration")},

    {PCMIG_SITUATION_TURNED_BACK, ANY, ANY, ALWAYS, AT_ONCE,
     FAILED("the guest turned back: it goes on at the source from the moment of the switch")},

    /* Must never be; certainly nothing to act on automatically. */
    {PCMIG_SITUATION_DOUBLE, 1u << PCMIG_HALF_RUNNING, 1u << PCMIG_HALF_RUNNING, ALWAYS, LATER,
     OPERATOR(END_ONE, "both hosts say that the guest runs there: stop the copy that is not wanted before it writes to "
                       "shared disks")},
    {PCMIG_SITUATION_DOUBLE, ANY, ANY, ALWAYS, LATER,
     OPERATOR(END_ONE, "both hosts have a copy of the guest that can run: end the one that is not wanted")},
    {PCMIG_SITUATION_SILENT, U, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER, "the source cannot be asked: the guest most likely runs there, or waits there")},
    {PCMIG_SITUATION_SILENT, ANY, ANY, ALWAYS, LATER,
     OPERATOR(LOOK_AFTER, "the destination cannot be asked, and the source does not run the guest; keep both halves")},
    {PCMIG_SITUATION_IN_DOUBT, ANY, ANY, ALWAYS, LATER, DISAGREE},
};

static enum pcmig_situation situation_of(const struct pcmig_evidence *evidence)
{
    struct pcmig_evidence e = *evidence;

    e.in_flight = true;
    return pcmig_situation_of(&e);
}

static bool holds(enum when when, const struct pcmig_evidence *evidence)
{
    switch (when) {
    case NO_JOB_SEEN:
        return !evidence->job_active;
    case OFF_AT_SOURCE:
        return evidence->source_shut_down;
    case OFF_AT_DESTINATION:
        return evidence->destination_shut_down;
    case ALWAYS:
        break;
    }
    return true;
}

bool pcmig_outcome_half_lost(const struct pcmig_evidence *evidence)
{
    enum pcmig_situation situation = situation_of(evidence);

    /* A guest that crashed at the destination has its process there yet, and the rest of its memory arrives. */
    if (evidence->source == PCMIG_HALF_POSTCOPY && evidence->destination == PCMIG_HALF_DEAD)
        return false;
    return situation == PCMIG_SITUATION_HALF_LOST ||
           (situation == PCMIG_SITUATION_ENDED && evidence->source != PCMIG_HALF_ABSENT);
}

struct pcmig_verdict pcmig_outcome_judge(const struct pcmig_evidence *evidence, bool patience_over)
{
    struct pcmig_verdict verdict = {situation_of(evidence), PCMIG_OUTCOME_RUNNING, PCMIG_ADVICE_NONE,
                                    "not settled yet"};
    /* A half that nobody knows is told by the situation; here it only has to be in a set. */
    unsigned source = (unsigned)evidence->source < PCMIG_HALF_COUNT ? 1u << evidence->source : U;
    unsigned destination = (unsigned)evidence->destination < PCMIG_HALF_COUNT ? 1u << evidence->destination : U;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].situation != verdict.situation || (rows[i].source & source) == 0 ||
            (rows[i].destination & destination) == 0 || !holds(rows[i].when, evidence))
            continue;
        if (rows[i].at_once || patience_over) {
            verdict.outcome = rows[i].outcome;
            verdict.advice = rows[i].advice;
            verdict.text = rows[i].text;
        }
        return verdict;
    }
    return verdict; /* not reached: every situation has a row for all halves */
}

static const char *const names[] = {
    [PCMIG_OUTCOME_RUNNING] = "running",   [PCMIG_OUTCOME_COMPLETED] = "completed",
    [PCMIG_OUTCOME_FAILED] = "failed",     [PCMIG_OUTCOME_NEEDS_OPERATOR] = "needs-operator",
    [PCMIG_OUTCOME_DETACHED] = "detached",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == PCMIG_OUTCOME_COUNT, "every outcome has a name");

const char *pcmig_outcome_name(enum pcmig_outcome outcome)
{
    return (unsigned)outcome < PCMIG_OUTCOME_COUNT ? names[outcome] : "unknown";
}
