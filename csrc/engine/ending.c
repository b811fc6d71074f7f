/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for the end of a migration: asks both hosts who has the guest, decides by tables (core/outcome.h,
 * core/ending.h), and does the one step that follows. Wanted as soon as no call of ours runs, or when a half is missed;
 * then at its own due time, and at once when an event says that something has changed. See control.h. */
#include "engine/control.h"

#include <stdio.h>

/* Both hosts are asked this often, and less often once nothing changes for long. */
#define LOOK_US       100000
#define LOOK_SLOW_US  1000000
#define LOOK_FAST_FOR 10000000
/* The final statistics may be a moment behind the states: they come with an event. */
#define FIGURES_US    2000000
/* A bandwidth that libvirt does not take back, because its own clearing up holds the guest, is not waited for longer.
 */
#define RESTORE_US    3000000
/* A libvirtd that is being restarted cannot tell of its job. */
#define JOB_US        15000000
/* A destination that is known to be dead before the guest ran there: nobody is waited for. */
#define UNRUN_US      1000000

bool pcmig_ending_wanted(const struct control *c)
{
    /* An event may say that post-copy flows again before recovery has seen it. */
    const bool recovering = c->m->status.recovery.state != PCMIG_RECOVERY_STATE_NONE;

    return c->state != PCMIG_ENGINE_PREPARING && c->state != PCMIG_ENGINE_OVER &&
           (c->call != CALL_RUNS || recovering || pcmig_engine_asks(c->state));
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* What both hosts say, and what is known besides. */
struct seen {
    struct pcmig_evidence evidence;
    struct pcmig_verdict verdict;
    int64_t waited_us; /* the halves have been as they are for so long */
    int job;           /* of the source, where it has the guest: 1, 0, or -1 when it cannot tell */
};

/* Whether the source still has the guest, running or stopped on its way. */
static bool at_source(enum pcmig_half source)
{
    return source == PCMIG_HALF_RUNNING || source == PCMIG_HALF_PAUSED || source == PCMIG_HALF_MIGRATING;
}

/* Of the source: 1, 0, or -1 when it could not tell. */
static int job_active(struct control *c)
{
    struct pcmig_ask ask = {0};

    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB, &ask) < 0)
        return -1;
    return ask.job.kind == PCMIG_VIRT_JOB_MIGRATION ? 1 : 0;
}

/* Whether the guest was shut down at this end: an event said so, or libvirt says it of a guest that it has off. That
 * counts only where the guest was: what is stopped at the other end is a half, and what libvirt says of a definition
 * there may be years old. */
static bool was_shut_down(const struct control *c, enum pcmig_side side)
{
    const enum pcmig_half source = c->end[PCMIG_SIDE_SOURCE].guest.half;
    const bool crossed = c->crossed || source == PCMIG_HALF_POSTCOPY || source == PCMIG_HALF_POSTCOPY_FAILED;
    const enum pcmig_side was_at = crossed ? PCMIG_SIDE_DESTINATION : PCMIG_SIDE_SOURCE;

    return c->end[side].guest.half == PCMIG_HALF_ABSENT && side == was_at &&
           (c->end[side].shut_down || c->end[side].guest.shut_down);
}

/* Whether the source says by itself that it handed the guest over: an event did, or the guest is shut off there for
 * having migrated. It was from there that this migration began, so that is no old story. */
static bool handed_over(const struct control *c)
{
    return c->handed_off || (c->end[PCMIG_SIDE_SOURCE].guest.left_over &&
                             c->end[PCMIG_SIDE_DESTINATION].guest.half == PCMIG_HALF_PAUSED);
}

/* Asks both, the source first (core/halves.h). What changes is still on its way: its time begins anew. Returns false
 * while an answer may yet come: then nothing is decided, and it is looked again when it does, or has not for long. */
static bool ask_both(struct control *c)
{
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        const enum pcmig_half *half = &c->end[side].guest.half, before = *half;
        const bool told = pcmig_end_ask(c, (enum pcmig_side)side);

        c->crossed = c->crossed || *half == PCMIG_HALF_POSTCOPY || *half == PCMIG_HALF_POSTCOPY_FAILED;
        if (*half != before) {
            c->changing = true;
            c->unchanged_us = pcmig_migration_now_us(c->m);
        }
        if (!told) {
            c->look_us = pcmig_end_patient_us(c, (enum pcmig_side)side);
            return false;
        }
    }
    c->changed = c->changing;
    c->changing = false;
    /* A migration without a call of ours is looked at in this way all along, and an event may have been missed. */
    for (int side = 0; side < PCMIG_SIDE_COUNT && c->changed; side++) {
        if (c->m->args.adopt || c->call == CALL_LOST)
            pcmig_end_catch_up(c, (enum pcmig_side)side);
    }
    return true;
}

/* libvirt may tell nobody that a half has ended. Where the proof that the guest never ran there lacks only that, the
 * host's word has to do, once all events that it sent before were heard: those are in the mailbox by then, and this one
 * goes behind them. */
static void hear_the_end(struct control *c)
{
    const struct pcmig_input ended = {.kind = PCMIG_INPUT_EVENT, .code = PCMIG_EVENT_DST_STOPPED};
    struct pcmig_ask ask = {0};

    if (pcmig_unrun_untold(&c->unrun) && pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_GONE, &ask) > 0)
        pcmig_migration_post(c->m, &ended);
}

static void gather(struct control *c, struct seen *seen)
{
    const enum pcmig_half source = c->end[PCMIG_SIDE_SOURCE].guest.half;
    struct pcmig_evidence waiting;
    int64_t patience_us;

    seen->waited_us = pcmig_migration_now_us(c->m) - c->unchanged_us;
    seen->job = at_source(source) ? job_active(c) : 0;
    seen->evidence = (struct pcmig_evidence){
        .source = source,
        .destination = c->end[PCMIG_SIDE_DESTINATION].guest.half,
        .call_succeeded = c->call == CALL_SUCCEEDED,
        .source_handed_off = handed_over(c),
        .job_active = seen->job > 0 && source != PCMIG_HALF_MIGRATING,
        .job_absent = seen->job == 0,
        .in_flight = true,
        .crossed = c->crossed || c->issued,
        .source_shut_down = was_shut_down(c, PCMIG_SIDE_SOURCE),
        .destination_shut_down = was_shut_down(c, PCMIG_SIDE_DESTINATION),
        .turned_back = pcmig_end_turned_back(c) > 0,
    };
    waiting = seen->evidence;
    waiting.job_active = seen->job > 0; /* libvirt is at work, whatever the half */
    patience_us = pcmig_ending_patience_us(&waiting, c->m->args.recover);
    if (pcmig_unrun_certain(&c->unrun) && pcmig_outcome_half_lost(&seen->evidence))
        patience_us = UNRUN_US;
    seen->verdict = pcmig_outcome_judge(&seen->evidence, seen->waited_us > patience_us);
}

/* --- deciding ----------------------------------------------------------------------------------------------------- */

/* Both ends say that post-copy goes on, and libvirt looks after it. */
static bool flows(const struct control *c)
{
    return c->call == CALL_RUNS && c->end[PCMIG_SIDE_SOURCE].guest.half == PCMIG_HALF_POSTCOPY &&
           c->end[PCMIG_SIDE_DESTINATION].guest.half != PCMIG_HALF_POSTCOPY_FAILED;
}

/* While the call runs, libvirt is still at work: only an interrupted post-copy is settled before it returns, and one
 * that lost a half: the call may wait for a destination that has not noticed. */
static bool call_will_tell(const struct control *c, const struct seen *seen)
{
    return c->call == CALL_RUNS && seen->verdict.advice != PCMIG_ADVICE_RESUME &&
           !pcmig_outcome_half_lost(&seen->evidence);
}

static unsigned facts(struct control *c, const struct seen *seen)
{
    const struct pcmig_evidence *e = &seen->evidence;
    const bool completed = seen->verdict.outcome == PCMIG_OUTCOME_COMPLETED;
    const bool recovering = c->m->args.recover && c->m->status.recovery.state != PCMIG_RECOVERY_STATE_NONE;
    const struct {
        enum pcmig_ending_fact fact;
        bool holds;
    } rows[] = {
        {PCMIG_FACT_FLOWS, c->m->args.recover && !recovering && flows(c)},
        {PCMIG_FACT_RECOVERING, recovering},
        {PCMIG_FACT_BEING_ASKED,
         pcmig_end_being_asked(c, PCMIG_SIDE_SOURCE) || pcmig_end_being_asked(c, PCMIG_SIDE_DESTINATION)},
        {PCMIG_FACT_JOB_UNTOLD, seen->job < 0 && seen->waited_us < JOB_US},
        {PCMIG_FACT_STOPPED, pcmig_restart_possible(c, e, seen->waited_us)},
        {PCMIG_FACT_HALF_KEPT, pcmig_kept_half(c, e, seen->waited_us)},
        {PCMIG_FACT_OPEN, seen->verdict.outcome == PCMIG_OUTCOME_RUNNING},
        {PCMIG_FACT_CALL_RUNS, call_will_tell(c, seen)},
        {PCMIG_FACT_NO_FIGURES,
         completed && !c->final_seen && e->source == PCMIG_HALF_ABSENT && seen->waited_us < FIGURES_US},
        {PCMIG_FACT_SLOWED, !completed && e->source != PCMIG_HALF_ABSENT && !c->restored},
        {PCMIG_FACT_LEFTOVER, completed && c->leftover == LEFTOVER_LATER},
        {PCMIG_FACT_AUTOSTART, completed && c->m->args.autostart && !c->autostart_done},
        {PCMIG_FACT_UNCOUNTED, completed && pcmig_latency_pending(c, seen->waited_us)},
    };
    unsigned set = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        set |= rows[i].holds ? (unsigned)rows[i].fact : 0;
    return set;
}

/* --- acting ------------------------------------------------------------------------------------------------------- */

/* The policy hears of a failed call only when no job goes on without it. */
static void tell_failure(struct control *c)
{
    if (c->call != CALL_LOST)
        return;
    c->call = CALL_FAILED;
    pcmig_control_event(c, PCMIG_EVENT_CALL_FAILED);
}

static void finish(struct control *c, const struct seen *seen)
{
    const enum pcmig_half source = seen->evidence.source;
    struct pcmig_verdict verdict = seen->verdict;
    char text[512];

    tell_failure(c);
    if (verdict.outcome == PCMIG_OUTCOME_COMPLETED && c->leftover == LEFTOVER_UNDEFINE)
        verdict.advice = PCMIG_ADVICE_UNDEFINE;
    if (verdict.outcome == PCMIG_OUTCOME_COMPLETED && c->leftover == LEFTOVER_LOOK)
        verdict.advice = PCMIG_ADVICE_LOOK_BOTH;
    /* It may have kept the guest, shut off, where somebody could start it a second time. */
    if (verdict.situation == PCMIG_SITUATION_RUNS_AT_DESTINATION && verdict.outcome == PCMIG_OUTCOME_COMPLETED)
        verdict.advice = PCMIG_ADVICE_LOOK_AFTER;
    if (verdict.outcome == PCMIG_OUTCOME_FAILED && c->restart.done && source == PCMIG_HALF_RUNNING)
        verdict.text = "the guest runs on at the source, where the failed switch had left it stopped";
    if (c->restart.why_not[0] != '\0' && !c->restart.done && at_source(source)) {
        snprintf(text, sizeof(text), "%s; it is not let run there: %s", verdict.text, c->restart.why_not);
        verdict.text = text;
    }
    pcmig_finish(c, verdict.outcome, verdict.advice, verdict.text,
                 (c->call == CALL_FAILED || c->call == CALL_NONE) && c->call_error.code != 0 ? &c->call_error : NULL);
}

bool pcmig_ending_look(struct control *c)
{
    struct seen seen;

    c->look_us = PCMIG_NEVER_US; /* unless something of what follows changes that */
    if (!ask_both(c))
        return false;
    hear_the_end(c);
    if (c->m->args.recover && (c->recovery.held || c->changed || c->recovery.look_us == PCMIG_NEVER_US ||
                               pcmig_migration_now_us(c->m) >= c->recovery.look_us))
        pcmig_recover(c);
    gather(c, &seen);
    /* What was missed is in the mailbox, and comes first. */
    if (!c->changed && seen.job <= 0 && seen.evidence.source != PCMIG_HALF_UNKNOWN &&
        !(seen.job < 0 && seen.waited_us < JOB_US) && c->m->status.recovery.state == PCMIG_RECOVERY_STATE_NONE)
        tell_failure(c);
    for (;;) {
        switch (pcmig_ending_next(facts(c, &seen))) {
        case PCMIG_ENDING_STEER:
            pcmig_control_trigger(c, PCMIG_TRIGGER_FLOWS);
            return false;
        case PCMIG_ENDING_RESTART:
            pcmig_restart(c, &seen.evidence, seen.waited_us);
            break;
        case PCMIG_ENDING_END_HALF:
            pcmig_kept_half_end(c, &seen.evidence, seen.waited_us);
            break;
        case PCMIG_ENDING_RESTORE:
            /* libvirt keeps the bandwidth of pre-copy for the guest's next migrations as well. */
            c->restored = pcmig_bandwidth_restore(c) || seen.waited_us >= RESTORE_US;
            if (c->restored)
                continue;
            break;
        case PCMIG_ENDING_CLEAR:
            c->leftover = pcmig_leftover_remove(c, &seen.evidence, seen.waited_us);
            if (c->leftover != LEFTOVER_LATER)
                continue;
            break;
        case PCMIG_ENDING_AUTOSTART:
            pcmig_leftover_autostart(c, seen.waited_us);
            if (c->autostart_done)
                continue;
            break;
        case PCMIG_ENDING_FINISH:
            finish(c, &seen);
            return true;
        case PCMIG_ENDING_WAIT:
        case PCMIG_ENDING_STEP_COUNT:
            break;
        }
        break;
    }
    if (c->look_us == PCMIG_NEVER_US)
        c->look_us = pcmig_migration_now_us(c->m) + (seen.waited_us < LOOK_FAST_FOR ? LOOK_US : LOOK_SLOW_US);
    return false;
}
