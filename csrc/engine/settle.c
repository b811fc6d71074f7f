/* SPDX-License-Identifier: Apache-2.0 */
/* Who has the guest: asked of both hosts once the migrate call has returned or post-copy was interrupted. */
#include "core/shell.h"
#include "engine/control.h"
#include "engine/hints.h"

#include <stdio.h>
#include <string.h>

/* ... that long for an answer that settles it: libvirt's own clean-up takes seconds, a daemon that is restarted takes a few,
 * and keepalive needs up to 30 s to notice a dead connection. */
#define SETTLE_US          40000000
/* What both hosts say when they know nothing of the guest does not change by itself. */
#define SETTLE_GONE_US     5000000
/* Post-copy that the source takes for interrupted, or that seems to have lost a half: so long for a libvirtd that may be
 * restarting, and for its events. */
#define SETTLE_FAILED_US   15000000
/* The final statistics may be a moment behind the states: they come with an event. */
#define SETTLE_FINAL_US    2000000
/* An interrupted network may come back; QEMU notices by itself within TCP's retries. */
#define SETTLE_POSTCOPY_US 180000000
/* A bandwidth that libvirt does not take back, because its own clearing up holds the guest, is not waited for longer. */
#define SETTLE_SPEED_US    3000000
#define REOPEN_US          1000000
#define REOPEN_TIMEOUT_MS  3000
/* A connection that breaks while the migration goes on: events and requests wait that long at the most. */
#define REOPEN_RUN_MS      500

/* The words of a command, and a half of another: NULLs are left out. */
struct words {
    const char *word[32];
    size_t count;
};

static void add(struct words *words, const char *word)
{
    if (words->count < sizeof(words->word) / sizeof(words->word[0]))
        words->word[words->count++] = word;
}

/* An option with its value, where there is one. */
static void add_option(struct words *words, const char *option, const char *value)
{
    if (value == NULL)
        return;
    add(words, option);
    add(words, value);
}

/* Writes it behind what is in OUT; a command that does not fit leaves nothing of any. */
static void write_words(const struct words *words, const char *between, char *out, size_t size)
{
    size_t used = strlen(out), gap = used > 0 ? strlen(between) : 0;

    if (used + gap < size && pcmig_shell_command(words->word, words->count, out + used + gap, size - used - gap))
        memcpy(out + used, between, gap);
    else
        out[0] = '\0';
}

static void write_look(const char *uri, const char *guest, char *out, size_t size)
{
    const struct words words = {{"virsh", "-c", uri, "domstate", "--reason", guest}, 6};

    write_words(&words, "; ", out, size);
}

/* What libvirt compares with the migration's call, or needs again: it finds the guest at the destination by its name there. */
static void write_resume(const struct pcmig_migration *m, const char *guest, char *out, size_t size)
{
    const struct pcmig_migration_args *args = &m->args;
    struct words words = {
        {"virsh", "-c", args->source_uri, "migrate", "--live", "--p2p", "--postcopy", "--postcopy-resume"}, 8};
    const char *options[PCMIG_VIRT_RESUME_OPTIONS];
    size_t count = pcmig_virt_resume_options(args->flags, options);

    for (size_t i = 0; i < count; i++)
        add(&words, options[i]);
    add(&words, guest);
    add(&words, args->dest_uri);
    add_option(&words, "--migrateuri", args->migrate_uri);
    add_option(&words, "--dname", args->dest_name);
    add_option(&words, "--listen-address", args->listen_address);
    add_option(&words, "--disks-uri", args->disks_uri);
    add_option(&words, "--tls-destination", args->tls_destination);
    write_words(&words, "", out, size);
}

static void advise(struct pcmig_migration *m, enum pcmig_advice advice)
{
    char *out = m->status.operator_command;
    size_t size = sizeof(m->status.operator_command);
    const char *name = m->name != NULL ? m->name : m->args.domain;
    const char *guest = pcmig_shell_guest(name, m->uuid);
    const char *there = m->args.dest_name != NULL ? pcmig_shell_guest(m->args.dest_name, m->uuid) : guest;
    const struct words look_after = {{"pcmig", "resume", "-c", m->args.source_uri, guest, m->args.dest_uri}, 6};
    const struct words forget = {{"pcmig", "forget", "-c", m->args.source_uri, guest}, 5};
    const struct words end_source = {{"virsh", "-c", m->args.source_uri, "destroy", guest}, 5};
    const struct words end_destination = {{"virsh", "-c", m->args.dest_uri, "destroy", there}, 5};
    const struct words undefine = {{"virsh", "-c", m->args.source_uri, "undefine", "--keep-nvram", "--keep-tpm", guest},
                                   7};

    out[0] = '\0';
    switch (advice) {
    case PCMIG_ADVICE_RESUME:
        write_resume(m, guest, out, size);
        return;
    case PCMIG_ADVICE_LOOK_AFTER:
        write_words(&look_after, "", out, size);
        return;
    case PCMIG_ADVICE_FORGET:
        write_words(&forget, "", out, size);
        return;
    case PCMIG_ADVICE_END_SOURCE:
        write_words(&end_source, "", out, size);
        write_words(&look_after, " && ", out, size);
        return;
    case PCMIG_ADVICE_END_AND_FORGET:
        write_words(&end_source, "", out, size);
        write_words(&forget, " && ", out, size);
        return;
    case PCMIG_ADVICE_END_ONE: /* which one is not wanted, only people know */
        write_words(&end_source, "", out, size);
        write_words(&end_destination, ", or: ", out, size);
        return;
    case PCMIG_ADVICE_LOOK_BOTH:
        write_look(m->args.source_uri, guest, out, size);
        write_look(m->args.dest_uri, there, out, size);
        return;
    case PCMIG_ADVICE_UNDEFINE:
        write_words(&undefine, "", out, size);
        return;
    case PCMIG_ADVICE_NONE:
    case PCMIG_ADVICE_COUNT:
        return;
    }
}

void pcmig_settle_finish(struct control *c, enum pcmig_outcome outcome, enum pcmig_advice advice, const char *text,
                         const struct pcmig_virt_error *error)
{
    struct pcmig_migration *m = c->m;
    const char *hint;

    pcmig_control_publish(c);
    /* Before anybody hears of the outcome: whoever waits for it wants to read the trace. */
    if (m->trace != NULL && m->status.inputs_lost > 0)
        (void)fprintf(m->trace, "# %u inputs lost: short of memory\n", m->status.inputs_lost);
    if (m->trace != NULL)
        (void)fclose(m->trace);
    m->trace = NULL;
    /* Likewise: the process may end as soon as the outcome is known, and must not leave our change behind. */
    pcmig_route_restore(m->route);
    m->route = NULL;
    pthread_mutex_lock(&m->lock);
    m->status.outcome = outcome;
    if (outcome != PCMIG_OUTCOME_DETACHED)
        m->status.phase = outcome == PCMIG_OUTCOME_NEEDS_OPERATOR && advice == PCMIG_ADVICE_RESUME
                              ? PCMIG_PHASE_PAUSED
                              : PCMIG_PHASE_FINISHED;
    if (error != NULL && outcome != PCMIG_OUTCOME_COMPLETED)
        m->status.error = *error;
    hint = m->status.error.code != 0 ? pcmig_hint(m->status.error.message) : NULL;
    snprintf(m->status.text, sizeof(m->status.text), "%s%s%s%s%s", text,
             m->status.error.code != 0 && text[0] != '\0' ? ": " : "",
             m->status.error.code != 0 ? m->status.error.message : "", hint != NULL ? "; " : "",
             hint != NULL ? hint : "");
    advise(m, advice);
    m->over = true;
    pthread_cond_broadcast(&m->cond);
    pthread_mutex_unlock(&m->lock);
    pcmig_migration_notify(m);
}

/* State of one half; reopens a broken connection, now and then. */
static enum pcmig_half ask(struct control *c, bool source)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn **conn = source ? &m->source : &m->destination;
    enum pcmig_half half = PCMIG_HALF_UNKNOWN;
    int64_t now = pcmig_migration_now_us(m);

    /* A daemon that had just been started may not have known the guest when the connection was opened: no job, no events. */
    if (*conn != NULL && pcmig_virt_half(*conn, m->uuid, &half, &error) == 0 &&
        (!source || m->domain != NULL || half == PCMIG_HALF_ABSENT))
        return half;
    if (now < c->reopen_us[source])
        return PCMIG_HALF_UNKNOWN;
    /* On the source, "no such guest" makes the reopening fail but the connection stand. */
    c->versions[source] = 0;
    (void)pcmig_preflight_open(m, source, REOPEN_TIMEOUT_MS, &error);
    c->reopen_us[source] = pcmig_migration_now_us(m) + REOPEN_US;
    if (*conn != NULL && pcmig_virt_half(*conn, m->uuid, &half, &error) == 0)
        return half;
    return PCMIG_HALF_UNKNOWN;
}

/* Whether the guest was shut down at this end: an event said so, or libvirt says it of a guest that it has off. That counts only where the
 * guest was: what is stopped at the other end is a half, and what libvirt says of a definition there may be years old. */
static bool was_shut_down(const struct control *c, bool source, const struct pcmig_evidence *seen)
{
    struct pcmig_virt_conn *conn = source ? c->m->source : c->m->destination;
    bool crossed = c->crossed || seen->source == PCMIG_HALF_POSTCOPY || seen->source == PCMIG_HALF_POSTCOPY_FAILED;

    if ((source ? seen->source : seen->destination) != PCMIG_HALF_ABSENT || source == crossed)
        return false;
    return c->shut_down[source] || (conn != NULL && pcmig_virt_was_shut_down(conn, c->m->uuid));
}

/* Whether the source still has the guest, running or stopped on its way. */
static bool at_source(enum pcmig_half source)
{
    return source == PCMIG_HALF_RUNNING || source == PCMIG_HALF_PAUSED || source == PCMIG_HALF_MIGRATING;
}

/* How long two halves that settle nothing are looked at. */
static int64_t patience_us(enum pcmig_half source, enum pcmig_half destination)
{
    if (source == PCMIG_HALF_POSTCOPY || (source == PCMIG_HALF_POSTCOPY_FAILED && destination == PCMIG_HALF_POSTCOPY))
        return SETTLE_POSTCOPY_US;
    if (source == PCMIG_HALF_POSTCOPY_FAILED && destination == PCMIG_HALF_UNKNOWN)
        return SETTLE_FAILED_US;
    if (source == PCMIG_HALF_ABSENT && destination == PCMIG_HALF_PAUSED)
        return SETTLE_FAILED_US;
    if (source == PCMIG_HALF_ABSENT && destination == PCMIG_HALF_ABSENT)
        return SETTLE_GONE_US;
    return SETTLE_US;
}

/* Of the source: 1, 0, or -1 when it could not tell. */
static int job_active(const struct control *c)
{
    struct pcmig_virt_error error = {0};
    struct pcmig_sample sample;

    return c->m->domain != NULL ? pcmig_virt_job_stats(c->m->domain, &sample, &error) : -1;
}

/* With recovery, what is broken is healed however long it takes: a half that cannot be asked, or that may yet move, is
 * waited for. */
static bool patience_over(const struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    enum pcmig_half source = c->halves[1], destination = c->halves[0];

    const bool job_not_told = !evidence->job_active && !evidence->job_absent;

    if (pcmig_outcome_half_lost(evidence) || (job_not_told && at_source(source) && destination == PCMIG_HALF_ABSENT))
        return waited_us > SETTLE_FAILED_US;
    if (source == PCMIG_HALF_POSTCOPY && destination == PCMIG_HALF_POSTCOPY)
        return false;
    if (c->m->args.recover && (source == PCMIG_HALF_UNKNOWN || destination == PCMIG_HALF_UNKNOWN ||
                               source == PCMIG_HALF_POSTCOPY || job_active(c) > 0))
        return false;
    return waited_us > patience_us(source, destination);
}

/* The stream flows and libvirt looks after it: back to steering. */
static bool goes_on(const struct control *c)
{
    return c->called && c->halves[1] == PCMIG_HALF_POSTCOPY && c->halves[0] != PCMIG_HALF_POSTCOPY_FAILED &&
           c->m->status.recovery.state == PCMIG_RECOVERY_STATE_NONE;
}

/* Returns whether it was worth a look at the verdict: nothing is being healed. */
static bool heal(struct control *c)
{
    if (!c->m->args.recover)
        return true;
    if (c->held || pcmig_migration_now_us(c->m) >= c->heal_us || c->heal_us == PCMIG_NEVER_US || c->changed)
        pcmig_heal(c);
    if (goes_on(c)) {
        c->settling = false;
        return false;
    }
    return c->m->status.recovery.state == PCMIG_RECOVERY_STATE_NONE;
}

/* The policy hears of a failed call only when no job goes on without it: until then it steers, as it does with a migration that was
 * adopted. */
static void tell_failure(struct control *c)
{
    if (!c->call_lost)
        return;
    c->call_lost = false;
    pcmig_control_event(c, PCMIG_EVENT_CALL_FAILED);
}

/* Whether the half at the source says by itself that it handed the guest over: it is shut off for having migrated, and it was
 * from there that this migration began. */
static bool handed_over(const struct control *c, const struct pcmig_evidence *seen)
{
    return c->handed_off || (seen->source == PCMIG_HALF_ABSENT && seen->destination == PCMIG_HALF_PAUSED &&
                             c->m->source != NULL && pcmig_virt_left_over(c->m->source, c->m->uuid));
}

bool pcmig_settle(struct control *c)
{
    struct pcmig_evidence evidence = {
        .source = ask(c, true),
        .destination = ask(c, false),
        .call_succeeded = c->call_succeeded,
        .crossed = c->crossed || c->issued,
        .in_flight = true,
    };
    struct pcmig_verdict verdict;
    char text[256];
    int64_t waited_us;
    int job;

    evidence.source_handed_off = handed_over(c, &evidence);
    evidence.source_shut_down = was_shut_down(c, true, &evidence);
    evidence.destination_shut_down = was_shut_down(c, false, &evidence);
    /* Whatever changes is still on its way. */
    c->changed = evidence.source != c->halves[1] || evidence.destination != c->halves[0];
    if (c->changed)
        c->settle_us = pcmig_migration_now_us(c->m);
    c->halves[1] = evidence.source;
    c->halves[0] = evidence.destination;
    /* A migration without a call is looked at in this way all along, and an event may have been missed. */
    if (c->changed && (c->m->args.adopt || c->call_lost)) {
        pcmig_settle_catch_up(c, true);
        pcmig_settle_catch_up(c, false);
    }
    if (!heal(c))
        return false;
    waited_us = pcmig_migration_now_us(c->m) - c->settle_us;
    job = at_source(evidence.source) ? job_active(c) : 0;
    if (job < 0 && waited_us < SETTLE_FAILED_US)
        return false;
    evidence.job_active = job > 0 && evidence.source != PCMIG_HALF_MIGRATING;
    evidence.job_absent = job == 0;
    if (job <= 0 && evidence.source != PCMIG_HALF_UNKNOWN)
        tell_failure(c);
    if (!evidence.job_active && pcmig_restart(c, &evidence, waited_us))
        return false;
    verdict = pcmig_outcome_judge(&evidence, patience_over(c, &evidence, waited_us));
    if (verdict.outcome == PCMIG_OUTCOME_FAILED && c->restarted && evidence.source == PCMIG_HALF_RUNNING)
        verdict.text = "the guest runs on at the source, where the failed switch had left it stopped";

    if (c->unclear[0] != '\0' && !c->restarted && at_source(evidence.source) &&
        verdict.outcome != PCMIG_OUTCOME_RUNNING) {
        snprintf(text, sizeof(text), "%s; it is not let run there: %s", verdict.text, c->unclear);
        verdict.text = text;
    }

    if (verdict.outcome == PCMIG_OUTCOME_RUNNING)
        return false;
    if (verdict.outcome == PCMIG_OUTCOME_COMPLETED && !c->final_seen && evidence.source == PCMIG_HALF_ABSENT &&
        waited_us < SETTLE_FINAL_US)
        return false;
    /* While the call runs, libvirt is still at work: only an interrupted post-copy is settled before it returns, and one
     * that lost a half: the call may wait for a destination that has not noticed. */
    if (c->called && verdict.advice != PCMIG_ADVICE_RESUME && !pcmig_outcome_half_lost(&evidence))
        return false;
    if (verdict.outcome == PCMIG_OUTCOME_COMPLETED) {
        const enum tidy tidy = pcmig_tidy(c, &evidence, waited_us);

        if (tidy == TIDY_LATER || !pcmig_tidy_autostart(c, waited_us))
            return false;
        if (tidy != TIDY_CLEAN)
            verdict.advice = tidy == TIDY_LEFT ? PCMIG_ADVICE_UNDEFINE : PCMIG_ADVICE_LOOK_BOTH;
    }
    tell_failure(c);
    /* libvirt keeps the bandwidth of pre-copy for the guest's next migrations as well. */
    if (verdict.outcome != PCMIG_OUTCOME_COMPLETED && evidence.source != PCMIG_HALF_ABSENT)
        pcmig_control_let_go(c);
    if (c->slowed && c->refused[0] && waited_us < SETTLE_SPEED_US)
        return false;
    pcmig_settle_finish(c, verdict.outcome, verdict.advice, verdict.text,
                        !c->called && !c->call_succeeded && c->call_error.code != 0 ? &c->call_error : NULL);
    return true;
}

/* What happened while nobody listened, as far as the guest's state tells. It goes through the mailbox like an event. */
void pcmig_settle_catch_up(struct control *c, bool source)
{
    static const struct {
        bool source;
        enum pcmig_half half;
        enum pcmig_phase before; /* news in phases before this one */
        enum pcmig_event event;
    } rows[] = {
        {true, PCMIG_HALF_POSTCOPY, PCMIG_PHASE_SWITCHOVER, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY},
        {true, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_PHASE_PAUSED, PCMIG_EVENT_SRC_POSTCOPY_FAILED},
        {false, PCMIG_HALF_POSTCOPY, PCMIG_PHASE_POSTCOPY, PCMIG_EVENT_DST_RESUMED_POSTCOPY},
        {false, PCMIG_HALF_POSTCOPY_FAILED, PCMIG_PHASE_PAUSED, PCMIG_EVENT_DST_POSTCOPY_FAILED},
    };
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_conn *conn = source ? m->source : m->destination;
    enum pcmig_half half;

    if (conn == NULL || pcmig_virt_half(conn, m->uuid, &half, &error) < 0)
        return;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = rows[i].event};

        if (rows[i].source == source && rows[i].half == half && pcmig_ledger_phase_now(m->ledger) < rows[i].before)
            pcmig_migration_post(m, &input);
    }
}

/* The migrate call has a connection of its own and may go on when this one has broken. */
void pcmig_settle_reopen(struct control *c, bool source)
{
    struct pcmig_virt_error error = {0};

    c->versions[source] = 0;
    c->broken[source] = pcmig_preflight_open(c->m, source, REOPEN_RUN_MS, &error) < 0;
    c->reopen_us[source] = pcmig_migration_now_us(c->m) + REOPEN_US;
    if (!c->broken[source])
        pcmig_settle_catch_up(c, source);
}
