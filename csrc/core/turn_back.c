/* SPDX-License-Identifier: Apache-2.0 */
/* See turn_back.h. Facts on states: QEMU 7.2 to 11.1, qapi/run-state.json, qapi/migration.json, migration/migration.c.
 */
#include "core/turn_back.h"

#include "core/names.h"

#include <string.h>

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

/* The source's processors stand in "finish-migrate" from the switch on, and nothing but the end of the migration takes
 * them out of it; "running" beside a post-copy that has broken is a guest that was let go on. In "postcopy-device" the
 * destination has not answered for its devices yet: QEMU lets the guest go on by itself should that fail. */
static const struct {
    const char *run_state;
    const char *migration;
    enum pcmig_turn_back_half half;
} states[] = {
    {"finish-migrate", "postcopy-paused", PCMIG_TURN_BACK_WAITS},
    {"finish-migrate", "postcopy-active", PCMIG_TURN_BACK_SENDS},
    {"finish-migrate", "postcopy-recover", PCMIG_TURN_BACK_SENDS},
    {"finish-migrate", "postcopy-recover-setup", PCMIG_TURN_BACK_SENDS},
    {"running", "postcopy-paused", PCMIG_TURN_BACK_RUNS},
    /* From "finish-migrate" nothing leads here but running: whoever stops a half that waits does not change its state.
     */
    {"paused", "postcopy-paused", PCMIG_TURN_BACK_STOPPED},
};

enum pcmig_turn_back_half pcmig_turn_back_half(const char *run_state, const char *migration, bool goes_out)
{
    for (size_t i = 0; i < LENGTH(states) && goes_out; i++) {
        if (strcmp(states[i].run_state, run_state) == 0 && strcmp(states[i].migration, migration) == 0)
            return states[i].half;
    }
    return PCMIG_TURN_BACK_OTHER;
}

bool pcmig_turn_back_moved(const struct pcmig_turn_back_stream *before, const struct pcmig_turn_back_stream *after)
{
    return before->remaining_bytes < 0 || before->remaining_bytes != after->remaining_bytes || before->sent_bytes < 0 ||
           before->sent_bytes != after->sent_bytes || before->requests < 0 || before->requests != after->requests;
}

static bool no_half(const struct pcmig_turn_back_facts *f)
{
    return f->half != PCMIG_TURN_BACK_WAITS && f->half != PCMIG_TURN_BACK_SENDS;
}

static bool done(const struct pcmig_turn_back_facts *f)
{
    return f->half == PCMIG_TURN_BACK_RUNS;
}

/* All was decided when it was let go on the first time. What nobody of ours let go on is none of ours. */
static bool stopped(const struct pcmig_turn_back_facts *f)
{
    return f->half == PCMIG_TURN_BACK_STOPPED && f->begun;
}

static bool no_memory(const struct pcmig_turn_back_facts *f)
{
    return f->discards_memory;
}

/* A destination that had everything may have been whole, and have been moved on, or ended, as a whole guest. */
static bool maybe_whole(const struct pcmig_turn_back_facts *f)
{
    return f->everything_sent && !f->unrun && !f->nowhere_else;
}

static bool old_qemu(const struct pcmig_turn_back_facts *f)
{
    return f->disks != PCMIG_TURN_BACK_NO_DISKS && !f->sets_active;
}

static bool newer_disks(const struct pcmig_turn_back_facts *f)
{
    return f->disks != PCMIG_TURN_BACK_NO_DISKS && f->disks != PCMIG_TURN_BACK_OWN_DISKS && !f->unrun &&
           !f->accept_newer_disks;
}

/* The first that holds. */
static const struct {
    bool (*holds)(const struct pcmig_turn_back_facts *facts);
    enum pcmig_turn_back_answer answer;
    const char *text;
    const char *word;
} rows[] = {
    {done, PCMIG_TURN_BACK_DONE, "it has turned back, and runs at the source", NULL},
    {stopped, PCMIG_TURN_BACK_GO, "it had turned back, and something stopped it there: it goes on from where it stands",
     NULL},
    {no_half, PCMIG_TURN_BACK_NO_HALF, "QEMU at the source has no half of a post-copy that could go on", NULL},
    {no_memory, PCMIG_TURN_BACK_NO_MEMORY,
     "QEMU at the source gave the memory back that it had sent (capability release-ram)", NULL},
    {maybe_whole, PCMIG_TURN_BACK_MAYBE_WHOLE,
     "the source has sent everything, so the guest may have been whole at the destination, and have been moved on from "
     "there",
     "--guest-is-nowhere-else"},
    {old_qemu, PCMIG_TURN_BACK_OLD_QEMU,
     "QEMU at the source cannot take back the disks that it has handed over (that takes 10.0)", NULL},
    {newer_disks, PCMIG_TURN_BACK_NEWER_DISKS,
     "it ran at the destination, or nobody can say that it did not, and has a disk there that both hosts share: what "
     "it "
     "wrote since the switch stays on the disk, and is not in the memory that would go on, which breaks file systems",
     "--accept-newer-disks"},
};

struct pcmig_turn_back_verdict pcmig_turn_back_judge(const struct pcmig_turn_back_facts *facts)
{
    struct pcmig_turn_back_verdict verdict = {PCMIG_TURN_BACK_GO, facts->unrun,
                                              facts->unrun
                                                  ? "nothing is lost: no instruction of it ran at the destination"
                                                  : "what it did since the switch is undone, and what it told others "
                                                    "meanwhile stays told",
                                              NULL};

    for (size_t i = 0; i < LENGTH(rows); i++) {
        if (rows[i].holds(facts))
            return (struct pcmig_turn_back_verdict){
                rows[i].answer, rows[i].answer == PCMIG_TURN_BACK_GO && facts->unrun, rows[i].text, rows[i].word};
    }
    return verdict;
}

bool pcmig_turn_back_by_itself(enum pcmig_turn_back_mode mode, const struct pcmig_turn_back_facts *facts)
{
    struct pcmig_turn_back_facts f = *facts;
    struct pcmig_turn_back_verdict verdict;

    f.nowhere_else = false;
    f.accept_newer_disks = false;
    verdict = pcmig_turn_back_judge(&f);
    return mode == PCMIG_TURN_BACK_UNRUN && verdict.answer == PCMIG_TURN_BACK_GO && verdict.nothing_lost;
}

static const char *const answers[] = {
    [PCMIG_TURN_BACK_GO] = "go",
    [PCMIG_TURN_BACK_DONE] = "done",
    [PCMIG_TURN_BACK_NO_HALF] = "no-half",
    [PCMIG_TURN_BACK_NO_MEMORY] = "no-memory",
    [PCMIG_TURN_BACK_MAYBE_WHOLE] = "maybe-whole",
    [PCMIG_TURN_BACK_OLD_QEMU] = "old-qemu",
    [PCMIG_TURN_BACK_NEWER_DISKS] = "newer-disks",
};
_Static_assert(LENGTH(answers) == PCMIG_TURN_BACK_ANSWER_COUNT, "every answer has a name");

static const char *const halves[] = {
    [PCMIG_TURN_BACK_OTHER] = "other", [PCMIG_TURN_BACK_WAITS] = "waits",     [PCMIG_TURN_BACK_SENDS] = "sends",
    [PCMIG_TURN_BACK_RUNS] = "runs",   [PCMIG_TURN_BACK_STOPPED] = "stopped",
};
_Static_assert(LENGTH(halves) == PCMIG_TURN_BACK_HALF_COUNT, "every half has a name");

static const char *const disks[] = {
    [PCMIG_TURN_BACK_NO_DISKS] = "none",
    [PCMIG_TURN_BACK_OWN_DISKS] = "own",
    [PCMIG_TURN_BACK_SHARED_DISKS] = "shared",
};
_Static_assert(LENGTH(disks) == PCMIG_TURN_BACK_DISKS_COUNT, "every kind of disks has a name");

static const char *const modes[] = {
    [PCMIG_TURN_BACK_NEVER] = "never",
    [PCMIG_TURN_BACK_UNRUN] = "unrun",
    [PCMIG_TURN_BACK_ASK] = "ask",
};
_Static_assert(LENGTH(modes) == PCMIG_TURN_BACK_MODE_COUNT, "every mode has a name");

const char *pcmig_turn_back_answer_name(enum pcmig_turn_back_answer answer)
{
    return (unsigned)answer < LENGTH(answers) ? answers[answer] : "unknown";
}

const char *pcmig_turn_back_half_name(enum pcmig_turn_back_half half)
{
    return (unsigned)half < LENGTH(halves) ? halves[half] : "unknown";
}

const char *pcmig_turn_back_disks_name(enum pcmig_turn_back_disks kind)
{
    return (unsigned)kind < LENGTH(disks) ? disks[kind] : "unknown";
}

const char *pcmig_turn_back_mode_name(enum pcmig_turn_back_mode mode)
{
    return (unsigned)mode < LENGTH(modes) ? modes[mode] : "unknown";
}

int pcmig_turn_back_half_find(const char *name, size_t len)
{
    return pcmig_names_find(halves, LENGTH(halves), name, len);
}

int pcmig_turn_back_disks_find(const char *name, size_t len)
{
    return pcmig_names_find(disks, LENGTH(disks), name, len);
}

int pcmig_turn_back_mode_find(const char *name, size_t len)
{
    return pcmig_names_find(modes, LENGTH(modes), name, len);
}
