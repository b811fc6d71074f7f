/* SPDX-License-Identifier: Apache-2.0 */
/* See outcome.h. */
#include "core/outcome.h"

#include "core/situation.h"

#include <stddef.h>

#define ANY PCMIG_HALF_COUNT

struct row {
    enum pcmig_half source;
    enum pcmig_half destination;
    bool settled; /* holds at once; otherwise only when patience is over */
    struct pcmig_verdict verdict;
};

/* The first row that fits. */
static const struct row rows[] = {
    /* Both whole: must never be; certainly nothing to act on automatically. */
    {PCMIG_HALF_RUNNING,
     PCMIG_HALF_RUNNING,
     true,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_END_ONE,
      "both hosts say that the guest runs there: stop the copy that is not wanted before it writes to shared disks"}},
    /* Interrupted post-copy: each half has pages that the other lacks. While only the source says so, it may be no more
     * than the daemons' connection that broke: the two QEMUs then go on and complete by themselves. */
    {PCMIG_HALF_POSTCOPY_FAILED,
     PCMIG_HALF_POSTCOPY_FAILED,
     true,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_RESUME,
      "post-copy was interrupted: the guest is paused, its memory is spread over both hosts; nothing is lost, keep "
      "both halves"}},
    {PCMIG_HALF_POSTCOPY_FAILED,
     PCMIG_HALF_RUNNING,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_END_SOURCE,
      "the guest runs at the destination with all of its memory, but the source has not removed its half"}},
    {PCMIG_HALF_POSTCOPY_FAILED,
     ANY,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_RESUME,
      "post-copy was interrupted: the guest is paused, its memory is spread over both hosts; nothing is lost, keep "
      "both halves"}},
    {ANY,
     PCMIG_HALF_POSTCOPY_FAILED,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_RESUME,
      "post-copy was interrupted: the guest is paused, its memory is spread over both hosts; nothing is lost, keep "
      "both halves"}},
    /* The guest is at the source alone. */
    {PCMIG_HALF_RUNNING,
     PCMIG_HALF_ABSENT,
     true,
     {PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest runs on at the source"}},
    {PCMIG_HALF_RUNNING,
     PCMIG_HALF_UNKNOWN,
     true,
     {PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest runs on at the source; the destination could not be asked"}},
    {PCMIG_HALF_RUNNING,
     ANY,
     false,
     {PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE,
      "the guest runs on at the source; the destination has not removed its empty half yet"}},
    {PCMIG_HALF_PAUSED,
     PCMIG_HALF_ABSENT,
     true,
     {PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest is at the source, paused"}},
    /* The guest is at the destination alone. */
    {PCMIG_HALF_ABSENT,
     PCMIG_HALF_RUNNING,
     true,
     {PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE, "the guest runs at the destination"}},
    {PCMIG_HALF_ABSENT,
     PCMIG_HALF_PAUSED,
     true,
     {PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE, "the guest is at the destination, paused there"}},
    {PCMIG_HALF_UNKNOWN,
     PCMIG_HALF_RUNNING,
     true,
     {PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE,
      "the guest runs at the destination with all of its memory; the source could not be asked"}},
    {PCMIG_HALF_MIGRATING,
     PCMIG_HALF_RUNNING,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_END_SOURCE,
      "the guest runs at the destination, but the source has not removed its half"}},
    /* Gone from both. */
    {PCMIG_HALF_ABSENT,
     PCMIG_HALF_ABSENT,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_FORGET,
      "the guest is on neither host: it ended, or was ended, during the migration"}},
    /* Still in post-copy and nobody knows how it goes on. */
    {PCMIG_HALF_POSTCOPY,
     ANY,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_LOOK_AFTER,
      "the guest is still in post-copy, but libvirt no longer reports on it; keep both halves"}},
    {PCMIG_HALF_UNKNOWN,
     ANY,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_LOOK_AFTER,
      "the source cannot be asked: the guest most likely runs there, or waits there"}},
    {ANY,
     ANY,
     false,
     {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_FORGET,
      "the two hosts do not agree on where the guest is; keep both halves"}},
};

static bool fits(enum pcmig_half wanted, enum pcmig_half seen)
{
    return wanted == ANY || wanted == seen;
}

/* Whether the guest is off for good reasons; one that had been handed over may be too. */
static bool was_shut_down(const struct pcmig_evidence *evidence)
{
    struct pcmig_evidence e = *evidence;

    if (evidence->call_succeeded || evidence->source_handed_off)
        e.source_shut_down = false;
    e.in_flight = true;
    e.call_succeeded = e.source_handed_off = false;
    return pcmig_situation_of(&e) == PCMIG_SITUATION_ENDED;
}

bool pcmig_outcome_half_lost(const struct pcmig_evidence *evidence)
{
    return pcmig_situation_of(evidence) == PCMIG_SITUATION_HALF_LOST ||
           (evidence->source != PCMIG_HALF_ABSENT && was_shut_down(evidence));
}

struct pcmig_verdict pcmig_outcome_judge(const struct pcmig_evidence *evidence, bool patience_over)
{
    static const struct pcmig_verdict waiting = {PCMIG_OUTCOME_RUNNING, PCMIG_ADVICE_NONE, "not settled yet"};
    static const struct pcmig_verdict handed_off = {
        PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE,
        "the source handed the guest over; the destination could not be asked"};

    static const struct pcmig_verdict half_lost = {
        PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_FORGET,
        "post-copy was interrupted and one half of the guest is gone: the pages that only it had are lost"};
    static const struct pcmig_verdict call_lost = {
        PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_LOOK_AFTER,
        "the migration goes on in pre-copy, but the call that started it is lost; pcmig resume looks after it"};
    /* Shut down by itself or its owner, which needs no memory any more. At the source: it never left. At the destination: it had
     * moved; a half that the source still has is nobody's, but a program does not end it. */
    static const struct pcmig_verdict ended_here = {
        PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE,
        "the guest was shut down at the source before it could move; it is off there, and nothing is lost"};
    static const struct pcmig_verdict ended_there = {
        PCMIG_OUTCOME_COMPLETED, PCMIG_ADVICE_NONE,
        "the guest has moved, and was shut down at the destination; it is off there, and nothing is lost"};
    static const struct pcmig_verdict ended_left = {PCMIG_OUTCOME_NEEDS_OPERATOR, PCMIG_ADVICE_END_AND_FORGET,
                                                    "the guest was shut down at the destination, and nothing is lost; "
                                                    "the source still has its half, which must go before the "
                                                    "guest is started again"};

    if (was_shut_down(evidence))
        return !patience_over                          ? waiting
               : evidence->source != PCMIG_HALF_ABSENT ? ended_left
               : evidence->destination_shut_down       ? ended_there
                                                       : ended_here;
    /* Nothing can be resumed, and nothing may be thrown away either. */
    if (pcmig_outcome_half_lost(evidence))
        return patience_over ? half_lost : waiting;
    /* libvirt does not end a peer-to-peer migration whose caller is gone: the guest may yet move. */
    if (evidence->job_active && evidence->destination != PCMIG_HALF_RUNNING &&
        (evidence->source == PCMIG_HALF_RUNNING || evidence->source == PCMIG_HALF_PAUSED))
        return patience_over ? call_lost : waiting;
    /* The source's word that it handed the guest over is as good as the destination's that it has it: libvirt ends the
     * source half only after the destination confirmed. */
    if (evidence->source == PCMIG_HALF_ABSENT && evidence->destination == PCMIG_HALF_UNKNOWN &&
        (evidence->call_succeeded || evidence->source_handed_off))
        return handed_off;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (fits(rows[i].source, evidence->source) && fits(rows[i].destination, evidence->destination))
            return rows[i].settled || patience_over ? rows[i].verdict : waiting;
    }
    return waiting; /* not reached: the last row fits everything */
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
