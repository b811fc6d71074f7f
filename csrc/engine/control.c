/* The control thread of one migration: waits for events, requests and due times, takes samples, feeds the core, acts on
 * its decisions, and at the end asks both hosts who has the guest. */
#include "core/trace.h"
#include "edge/clock.h"
#include "engine/hints.h"
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* After the migrate call has returned, both hosts are asked this often ... */
#define SETTLE_LOOK_US     100000
/* ... and that long for an answer that settles it: libvirt's own clean-up takes seconds, a daemon that is restarted
 * takes a few, and keepalive needs up to 30 s to notice a dead connection. */
#define SETTLE_US          40000000
/* What both hosts say when they know nothing of the guest does not change by itself. */
#define SETTLE_GONE_US     5000000
/* Post-copy that the source takes for interrupted: so long for a libvirtd at the destination that may be restarting. */
#define SETTLE_FAILED_US   15000000
/* The final statistics may be a moment behind the states: they come with an event. */
#define SETTLE_FINAL_US    2000000
/* An interrupted network may come back; QEMU notices by itself within TCP's retries. */
#define SETTLE_POSTCOPY_US 180000000
#define REOPEN_US          1000000
/* A cancel that libvirt refused, because the job has not begun yet, is tried again that often. */
#define ABORT_AGAIN_US     200000
#define REOPEN_TIMEOUT_MS  3000
/* A connection that breaks while the migration goes on: events and requests wait that long at the most. */
#define REOPEN_RUN_MS      500
/* A bandwidth that libvirt refused is set again that often. */
#define SPEED_AGAIN_US     200000
#define STACK_BYTES        (512 * 1024)
#define NEVER_US           INT64_MAX

/* What the control thread alone knows. */
struct control {
    struct pcmig_migration *m;
    int64_t due_us;            /* of the policy */
    bool slowed;               /* pre-copy is to have the bandwidth of the drain */
    bool draining;             /* only the queue is of interest, not the statistics */
    bool downtime_set;         /* QEMU has the downtime limit */
    bool called;               /* the migrate call was started */
    bool settling;             /* the call returned, or post-copy was interrupted */
    int64_t settle_us;         /* since when the halves are as they are */
    enum pcmig_half halves[2]; /* as last seen then; destination, source */
    int64_t reopen_us[2];      /* not before; destination, source */
    bool broken[2];            /* the connection is to be reopened; likewise */
    bool handed_off;
    bool news;       /* something that readers of the snapshot care about has come */
    bool final_seen; /* the statistics of JOB_COMPLETED have come */
    bool detach;
    bool abort_wanted; /* refused so far */
    int64_t abort_us;  /* when to try it again */
    bool job_seen;
    int64_t precopy_mib; /* bandwidth of pre-copy when it is not drained; 0 = unlimited */
    int64_t bound_mib;   /* the operator's bound of the pace; 0 = none */
    int64_t pace_mib;    /* what the policy wants in post-copy; -1 = nothing yet */
    bool refused[2];     /* the bandwidth of pre-copy, of post-copy is not what it should be */
    int64_t wanted_mib[2];
    int64_t speed_us; /* when to set it again */
    struct pcmig_sample last;
};

static void feed(struct control *c, struct pcmig_input *input);

/* --- snapshot ------------------------------------------------------------------------------------------------------ */

static void publish(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_migration_status *status = &m->status;

    c->news = false;
    pthread_mutex_lock(&m->lock);
    status->phase = pcmig_ledger_phase_now(m->ledger);
    pcmig_policy_progress(m->policy, &status->passes, &status->pass_permille);
    status->sample = c->last;
    status->link_bps = pcmig_policy_link_bps(m->policy);
    status->requests_ps = pcmig_policy_requests_ps(m->policy);
    status->gate = pcmig_policy_gate(m->policy);
    status->inputs_lost = m->mailbox.lost;
    status->elapsed_us = pcmig_migration_now_us(m);
    status->cpu_us = pcmig_clock_thread_cpu_us();
    pthread_mutex_unlock(&m->lock);
    pcmig_migration_notify(m);
}

static void keep_decision(struct pcmig_migration *m, const struct pcmig_decision *decision)
{
    pthread_mutex_lock(&m->lock);
    if (m->decision_count == m->decision_capacity) {
        size_t capacity = m->decision_capacity == 0 ? 32 : m->decision_capacity * 2;
        struct pcmig_decision *decisions = realloc(m->decisions, capacity * sizeof(*decisions));

        if (decisions != NULL) {
            m->decisions = decisions;
            m->decision_capacity = capacity;
        }
    }
    /* Short of memory, the list ends early; the trace and the ledger still have the decision. */
    if (m->decision_count < m->decision_capacity)
        m->decisions[m->decision_count++] = *decision;
    pcmig_ledger_note_action(m->ledger, decision);
    pthread_mutex_unlock(&m->lock);
}

/* A trace that cannot be written (disk full) ends there: it must not end the migration. */
static void trace_line(struct pcmig_migration *m, const char *line, int length)
{
    if (m->trace == NULL || length < 0)
        return;
    if (fputs(line, m->trace) == EOF) {
        (void)fclose(m->trace);
        m->trace = NULL;
    }
}

/* --- acting on decisions ------------------------------------------------------------------------------------------- */

static void post_event(struct control *c, enum pcmig_event event)
{
    struct pcmig_input input = {.t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_EVENT, .code = event};

    feed(c, &input);
}

static void set_speed(struct control *c, int64_t mib, bool postcopy)
{
    struct pcmig_virt_error error = {0};

    if (postcopy && c->bound_mib > 0 && (mib == 0 || mib > c->bound_mib))
        mib = c->bound_mib;
    c->wanted_mib[postcopy] = mib;
    if (c->m->domain == NULL || pcmig_virt_set_speed(c->m->domain, mib, postcopy, &error) < 0) {
        bool again = c->refused[postcopy];

        c->refused[postcopy] = true;
        c->speed_us = pcmig_migration_now_us(c->m) + SPEED_AGAIN_US;
        if (!again)
            post_event(c, PCMIG_EVENT_PACE_REFUSED);
        return;
    }
    c->refused[postcopy] = false;
    if (postcopy) {
        pthread_mutex_lock(&c->m->lock);
        c->m->status.pace_mib = mib;
        pthread_mutex_unlock(&c->m->lock);
    }
}

static bool before_switch(const struct control *c)
{
    return pcmig_ledger_phase_now(c->m->ledger) < PCMIG_PHASE_SWITCHOVER;
}

/* What libvirt refused (another job held the guest, the connection was broken) is still wanted. */
static void set_refused_speeds(struct control *c)
{
    c->refused[0] = c->refused[0] && before_switch(c);
    for (int postcopy = 0; postcopy < 2; postcopy++) {
        if (c->refused[postcopy])
            set_speed(c, c->wanted_mib[postcopy], postcopy != 0);
    }
}

/* Once the destination's address is known, and not before it is needed. */
static void quicken_acks(struct control *c)
{
    struct pcmig_migration *m = c->m;
    enum pcmig_route_result result;
    struct sockaddr_storage peer;

    if (m->status.quickack != PCMIG_ROUTE_OFF || m->args.params.value[PCMIG_PARAM_QUICKACK] == 0 || m->link == NULL ||
        !pcmig_link_peer(m->link, &peer))
        return;
    result = pcmig_route_quickack(&peer, &m->route);
    pthread_mutex_lock(&m->lock);
    m->status.quickack = result;
    pthread_mutex_unlock(&m->lock);
}

/* Nobody steers what follows an interruption: neither a migration that goes on without libvirt nor one that is resumed.
 * It would crawl at the pace of the moment, which QEMU keeps. Refused, it stays as it is. */
static void open_pace(struct control *c)
{
    struct pcmig_virt_error error = {0};

    if (c->m->domain == NULL || pcmig_virt_set_speed(c->m->domain, c->bound_mib, true, &error) < 0)
        return;
    c->pace_mib = 0;
    pthread_mutex_lock(&c->m->lock);
    c->m->status.pace_mib = c->bound_mib;
    pthread_mutex_unlock(&c->m->lock);
}

/* Leaves no bandwidth behind that needs somebody to steer it. */
static void let_go(struct control *c)
{
    c->draining = false;
    if (c->slowed)
        set_speed(c, c->precopy_mib, false);
    if (c->pace_mib > 0)
        open_pace(c);
}

static void start_postcopy(struct control *c, const struct pcmig_decision *decision)
{
    struct pcmig_virt_error error = {0};
    int64_t late_us = pcmig_migration_now_us(c->m) - decision->t_us;

    if (c->m->domain == NULL || pcmig_virt_start_postcopy(c->m->domain, &error) < 0) {
        post_event(c, PCMIG_EVENT_SWITCH_REFUSED);
        return;
    }
    pthread_mutex_lock(&c->m->lock);
    c->m->status.switch_late_us = late_us;
    pthread_mutex_unlock(&c->m->lock);
    post_event(c, PCMIG_EVENT_SWITCH_ISSUED);
}

static void abort_job(struct control *c)
{
    struct pcmig_virt_error error = {0};

    /* Refused when the job has just ended or has not begun; the loop tries again while the call is running. */
    c->abort_us = pcmig_migration_now_us(c->m) + ABORT_AGAIN_US;
    c->abort_wanted = c->m->domain == NULL || pcmig_virt_abort(c->m->domain, &error) < 0;
}

static void act(struct control *c, const struct pcmig_decision *decision)
{
    switch (decision->action) {
    case PCMIG_ACTION_DRAIN:
        c->draining = true;
        c->slowed = true;
        set_speed(c, decision->pace_mib, false);
        return;
    case PCMIG_ACTION_UNDRAIN:
        c->draining = false;
        c->slowed = false;
        set_speed(c, c->precopy_mib, false);
        return;
    case PCMIG_ACTION_SET_PACE:
        c->pace_mib = decision->pace_mib;
        quicken_acks(c);
        set_speed(c, decision->pace_mib, true);
        return;
    case PCMIG_ACTION_SWITCH:
        c->draining = false;
        start_postcopy(c, decision);
        return;
    case PCMIG_ACTION_ABORT:
        c->draining = false;
        abort_job(c);
        return;
    case PCMIG_ACTION_KEEP:
    case PCMIG_ACTION_FINISH_PRECOPY:
    case PCMIG_ACTION_COUNT:
        return;
    }
}

static void feed(struct control *c, struct pcmig_input *input)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_decision decision;
    char line[PCMIG_TRACE_LINE_MAX];

    if (input->t_us < 0)
        input->t_us = 0;
    if (m->trace != NULL)
        trace_line(m, line, pcmig_trace_write_input(line, sizeof(line), input));
    pthread_mutex_lock(&m->lock);
    pcmig_ledger_feed(m->ledger, input);
    pthread_mutex_unlock(&m->lock);
    if (input->kind == PCMIG_INPUT_FINAL)
        c->final_seen = true;
    /* Not every look at the queue (200 a second in a drain) nor every iteration of QEMU 11 (18 a second). */
    if (input->kind != PCMIG_INPUT_QUEUE && input->kind != PCMIG_INPUT_ITERATION)
        c->news = true;
    if (input->kind == PCMIG_INPUT_SAMPLE || input->kind == PCMIG_INPUT_FINAL)
        c->last = input->sample;
    else if (input->kind == PCMIG_INPUT_QUEUE)
        c->last.queue_bytes = input->sample.queue_bytes;
    if (input->kind == PCMIG_INPUT_EVENT && input->code == PCMIG_EVENT_SRC_STOPPED_MIGRATED)
        c->handed_off = true;

    pcmig_policy_feed(m->policy, input, &decision);
    c->due_us = decision.next_us;
    if (decision.action != PCMIG_ACTION_KEEP) {
        c->news = true;
        if (m->trace != NULL)
            trace_line(m, line, pcmig_trace_write_decision(line, sizeof(line), &decision));
        keep_decision(m, &decision);
        /* Before the call to libvirt: whoever is to open the gate does it while we drain. */
        if (pcmig_policy_gate(m->policy) != m->status.gate)
            publish(c);
        act(c, &decision);
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static int64_t queue_bytes(const struct control *c)
{
    return c->m->link != NULL ? pcmig_link_queue_bytes(c->m->link) : -1;
}

static void set_downtime_once(struct control *c)
{
    struct pcmig_virt_error error = {0};

    /* Tried again with the next sample if QEMU is not ready for it. */
    if (!c->downtime_set && c->m->args.params.value[PCMIG_PARAM_DOWNTIME_CONTROL] != 0)
        c->downtime_set = pcmig_virt_set_max_downtime(
                              c->m->domain, c->m->args.params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS], &error) == 0;
}

static void look(struct control *c)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_TICK};
    struct pcmig_virt_error error = {0};
    int active = 0;

    if (c->draining) {
        input.kind = PCMIG_INPUT_QUEUE;
        input.sample.queue_bytes = queue_bytes(c);
    } else if (c->m->domain != NULL) {
        active = pcmig_virt_job_stats(c->m->domain, &input.sample, &error);
        if (active > 0 && input.sample.memory_total_bytes > 0) {
            input.kind = PCMIG_INPUT_SAMPLE;
            input.sample.queue_bytes = queue_bytes(c);
            set_downtime_once(c);
            c->job_seen = true;
        } else if (active < 0) {
            pthread_mutex_lock(&c->m->lock);
            c->m->status.stats_failed++;
            pthread_mutex_unlock(&c->m->lock);
        }
    }
    input.t_us = pcmig_migration_now_us(c->m);
    feed(c, &input);
}

/* --- the migrate call ---------------------------------------------------------------------------------------------- */

static void *call_main(void *arg)
{
    struct pcmig_migration *m = arg;
    const struct pcmig_migration_args *args = &m->args;
    struct pcmig_virt_error error = {0};
    struct pcmig_virt_migrate_args call = {
        .dest_uri = args->dest_uri,
        .flags = args->flags | pcmig_virt_flag_live() | pcmig_virt_flag_peer2peer(),
        .migrate_uri = args->migrate_uri,
        .dest_name = args->dest_name,
        .listen_address = args->listen_address,
        .disks_uri = args->disks_uri,
        .disks = args->disks,
        .dest_xml = args->dest_xml,
        .persist_xml = args->persist_xml,
        .tls_destination = args->tls_destination,
        .parallel_connections = args->parallel_connections,
        .bandwidth_mib = args->bandwidth_mib,
        .postcopy_bandwidth_mib = args->postcopy_bandwidth_mib,
    };
    bool succeeded;

    if (args->policy != PCMIG_POLICY_NEVER)
        call.flags |= pcmig_virt_flag_postcopy();
    succeeded = pcmig_virt_migrate(m->domain_call, &call, &error) == 0;

    pthread_mutex_lock(&m->lock);
    m->mailbox.call_returned = true;
    m->mailbox.call_succeeded = succeeded;
    m->mailbox.call_error = error;
    pthread_cond_broadcast(&m->cond);
    pthread_mutex_unlock(&m->lock);
    pcmig_virt_domain_free(m->domain_call);
    pcmig_virt_close(m->source_call);
    pcmig_migration_unref(m);
    return NULL;
}

static int start_call(struct control *c)
{
    pthread_attr_t attr;
    pthread_t thread;
    int failure;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pcmig_migration_ref(c->m);
    post_event(c, PCMIG_EVENT_MIGRATE_CALLED);
    failure = pthread_create(&thread, &attr, call_main, c->m);
    pthread_attr_destroy(&attr);
    if (failure != 0) {
        pcmig_migration_unref(c->m);
        return -1;
    }
    c->called = true;
    return 0;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void advise(struct pcmig_migration *m, enum pcmig_advice advice)
{
    char *out = m->status.operator_command;
    size_t size = sizeof(m->status.operator_command);
    const char *uri = m->args.source_uri;
    char options[256];

    switch (advice) {
    case PCMIG_ADVICE_RESUME:
        pcmig_virt_resume_options(m->args.flags, options, sizeof(options));
        snprintf(out, size, "virsh -c '%s' migrate --live --p2p --postcopy --postcopy-resume%s '%s' '%s'%s%s%s", uri,
                 options, m->name, m->args.dest_uri, m->args.migrate_uri != NULL ? " --migrateuri '" : "",
                 m->args.migrate_uri != NULL ? m->args.migrate_uri : "", m->args.migrate_uri != NULL ? "'" : "");
        return;
    case PCMIG_ADVICE_LOOK_SOURCE:
        snprintf(out, size, "virsh -c '%s' domstate --reason '%s'", uri, m->name);
        return;
    case PCMIG_ADVICE_LOOK_BOTH:
        snprintf(out, size, "virsh -c '%s' domstate --reason '%s'; virsh -c '%s' domstate --reason '%s'", uri, m->name,
                 m->args.dest_uri, m->args.dest_name != NULL ? m->args.dest_name : m->name);
        return;
    case PCMIG_ADVICE_NONE:
    case PCMIG_ADVICE_COUNT:
        out[0] = '\0';
        return;
    }
}

static void finish(struct control *c, enum pcmig_outcome outcome, enum pcmig_advice advice, const char *text,
                   const struct pcmig_virt_error *error)
{
    struct pcmig_migration *m = c->m;
    const char *hint;

    publish(c);
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

    if (*conn != NULL && pcmig_virt_half(*conn, m->uuid, &half, &error) == 0)
        return half;
    if (now < c->reopen_us[source])
        return PCMIG_HALF_UNKNOWN;
    /* On the source, "no such guest" makes the reopening fail but the connection stand. */
    (void)pcmig_preflight_open(m, source, REOPEN_TIMEOUT_MS, &error);
    c->reopen_us[source] = pcmig_migration_now_us(m) + REOPEN_US;
    if (*conn != NULL && pcmig_virt_half(*conn, m->uuid, &half, &error) == 0)
        return half;
    return PCMIG_HALF_UNKNOWN;
}

/* How long two halves that settle nothing are looked at. */
static int64_t patience_us(enum pcmig_half source, enum pcmig_half destination)
{
    if (source == PCMIG_HALF_POSTCOPY || (source == PCMIG_HALF_POSTCOPY_FAILED && destination == PCMIG_HALF_POSTCOPY))
        return SETTLE_POSTCOPY_US;
    if (source == PCMIG_HALF_POSTCOPY_FAILED && destination == PCMIG_HALF_UNKNOWN)
        return SETTLE_FAILED_US;
    if (source == PCMIG_HALF_ABSENT && destination == PCMIG_HALF_ABSENT)
        return SETTLE_GONE_US;
    return SETTLE_US;
}

static bool job_active(const struct control *c)
{
    struct pcmig_virt_error error = {0};
    struct pcmig_sample sample;

    return c->m->domain != NULL && pcmig_virt_job_stats(c->m->domain, &sample, &error) > 0;
}

/* Returns whether the migration is over. */
static bool settle(struct control *c, bool call_returned, bool call_succeeded,
                   const struct pcmig_virt_error *call_error)
{
    struct pcmig_evidence evidence = {
        .source = ask(c, true),
        .destination = ask(c, false),
        .call_succeeded = call_succeeded,
        .source_handed_off = c->handed_off,
    };
    int64_t waited_us;
    bool moving = evidence.source == PCMIG_HALF_POSTCOPY && evidence.destination == PCMIG_HALF_POSTCOPY;
    struct pcmig_verdict verdict;

    /* Whatever changes is still on its way. */
    if (evidence.source != c->halves[1] || evidence.destination != c->halves[0])
        c->settle_us = pcmig_migration_now_us(c->m);
    c->halves[1] = evidence.source;
    c->halves[0] = evidence.destination;
    waited_us = pcmig_migration_now_us(c->m) - c->settle_us;
    if (evidence.source == PCMIG_HALF_RUNNING || evidence.source == PCMIG_HALF_PAUSED)
        evidence.job_active = job_active(c);
    verdict = pcmig_outcome_judge(&evidence, !moving && waited_us > patience_us(evidence.source, evidence.destination));

    if (verdict.outcome == PCMIG_OUTCOME_RUNNING)
        return false;
    if (verdict.outcome == PCMIG_OUTCOME_COMPLETED && !c->final_seen && evidence.source == PCMIG_HALF_ABSENT &&
        waited_us < SETTLE_FINAL_US)
        return false;
    /* While the call runs, libvirt is still at work: only an interrupted post-copy is settled before it returns. */
    if (!call_returned && verdict.advice != PCMIG_ADVICE_RESUME)
        return false;
    if (verdict.outcome == PCMIG_OUTCOME_NEEDS_OPERATOR)
        let_go(c);
    finish(c, verdict.outcome, verdict.advice, verdict.text, call_returned && !call_succeeded ? call_error : NULL);
    return true;
}

/* What happened while nobody listened, as far as the guest's state tells. It goes through the mailbox like an event. */
static void catch_up(struct control *c, bool source)
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
    enum pcmig_half half;

    if (pcmig_virt_half(source ? m->source : m->destination, m->uuid, &half, &error) < 0)
        return;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = rows[i].event};

        if (rows[i].source == source && rows[i].half == half && pcmig_ledger_phase_now(m->ledger) < rows[i].before)
            pcmig_migration_post(m, &input);
    }
}

/* The migrate call has a connection of its own and may go on when this one has broken. */
static void reopen(struct control *c, bool source)
{
    struct pcmig_virt_error error = {0};

    c->broken[source] = pcmig_preflight_open(c->m, source, REOPEN_RUN_MS, &error) < 0;
    c->reopen_us[source] = pcmig_migration_now_us(c->m) + REOPEN_US;
    if (!c->broken[source])
        catch_up(c, source);
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static void wait_until(struct pcmig_migration *m, int64_t due_us)
{
    int64_t at_us = due_us == NEVER_US ? 0 : due_us + m->start_us;
    struct timespec deadline = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};

    if (due_us == NEVER_US)
        pthread_cond_wait(&m->cond, &m->lock);
    else
        (void)pthread_cond_timedwait(&m->cond, &m->lock, &deadline);
}

static bool has_mail(const struct pcmig_migration *m, bool settling)
{
    const struct pcmig_mailbox *box = &m->mailbox;

    return box->count > 0 || box->new_bound_mib >= 0 || box->source_closed || box->destination_closed ||
           (box->call_returned && !settling);
}

static void new_bound(struct control *c, int64_t mib)
{
    c->bound_mib = mib;
    if (c->pace_mib >= 0)
        set_speed(c, c->pace_mib, true);
    if (!before_switch(c))
        return;
    c->precopy_mib = mib;
    if (!c->slowed) /* otherwise when the drain ends */
        set_speed(c, mib, false);
}

static bool interrupted(const struct pcmig_input *input)
{
    return input->kind == PCMIG_INPUT_EVENT &&
           (input->code == PCMIG_EVENT_SRC_POSTCOPY_FAILED || input->code == PCMIG_EVENT_DST_POSTCOPY_FAILED);
}

static void run(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_input *mail = NULL;
    size_t capacity = 0;

    for (;;) {
        struct pcmig_virt_error call_error = {0};
        bool call_returned, call_succeeded;
        int64_t bound, due;
        size_t count;

        due = c->due_us;
        if (c->settling && (due == NEVER_US || due > pcmig_migration_now_us(m) + SETTLE_LOOK_US))
            due = pcmig_migration_now_us(m) + SETTLE_LOOK_US;
        if (c->abort_wanted && !c->settling && due > c->abort_us)
            due = c->abort_us;
        if ((c->refused[0] || c->refused[1]) && !c->settling && due > c->speed_us)
            due = c->speed_us;
        for (int end = 0; end < 2; end++) {
            if (c->broken[end] && !c->settling && due > c->reopen_us[end])
                due = c->reopen_us[end];
        }

        pthread_mutex_lock(&m->lock);
        while (!has_mail(m, c->settling) && pcmig_migration_now_us(m) < due)
            wait_until(m, due);
        /* Take the letters and leave our empty buffer: nothing is copied, the event thread never waits. */
        {
            struct pcmig_input *full = m->mailbox.inputs;
            size_t full_capacity = m->mailbox.capacity;

            count = m->mailbox.count;
            m->mailbox.inputs = mail;
            m->mailbox.capacity = capacity;
            m->mailbox.count = 0;
            mail = full;
            capacity = full_capacity;
        }
        bound = m->mailbox.new_bound_mib;
        m->mailbox.new_bound_mib = -1;
        c->broken[1] = c->broken[1] || m->mailbox.source_closed;
        c->broken[0] = c->broken[0] || m->mailbox.destination_closed;
        m->mailbox.source_closed = false;
        m->mailbox.destination_closed = false;
        call_returned = m->mailbox.call_returned;
        call_succeeded = m->mailbox.call_succeeded;
        call_error = m->mailbox.call_error;
        pthread_mutex_unlock(&m->lock);

        for (size_t i = 0; i < count; i++) {
            if (mail[i].kind == PCMIG_INPUT_REQUEST && mail[i].code == PCMIG_REQUEST_DETACH)
                c->detach = true;
            if (interrupted(&mail[i]) && !c->settling) {
                c->settling = true;
                c->settle_us = pcmig_migration_now_us(m);
            }
            feed(c, &mail[i]);
            if (interrupted(&mail[i]))
                open_pace(c);
        }
        if (bound >= 0)
            new_bound(c, bound);
        if (call_returned && c->called) {
            c->called = false;
            c->settling = true;
            c->settle_us = pcmig_migration_now_us(m);
            post_event(c, call_succeeded ? PCMIG_EVENT_CALL_SUCCEEDED : PCMIG_EVENT_CALL_FAILED);
        }
        for (int end = 0; end < 2; end++) {
            if (c->broken[end] && !c->settling && pcmig_migration_now_us(m) >= c->reopen_us[end])
                reopen(c, end != 0);
        }
        if ((c->refused[0] || c->refused[1]) && !c->settling && pcmig_migration_now_us(m) >= c->speed_us)
            set_refused_speeds(c);
        if (pcmig_migration_now_us(m) >= c->due_us)
            look(c);
        if (c->abort_wanted && !c->settling && pcmig_migration_now_us(m) >= c->abort_us)
            abort_job(c);
        if (c->news)
            publish(c);
        if (c->detach) {
            if (m->status.phase < PCMIG_PHASE_SWITCHOVER)
                let_go(c);
            finish(c, PCMIG_OUTCOME_DETACHED, PCMIG_ADVICE_NONE, "", NULL);
            break;
        }
        if (c->settling && settle(c, call_returned, call_succeeded, &call_error))
            break;
    }
    free(mail);
}

static void clean_up(struct control *c)
{
    struct pcmig_migration *m = c->m;

    pcmig_virt_unwatch(m->source_watch);
    pcmig_virt_unwatch(m->destination_watch);
    pcmig_virt_domain_free(m->domain);
    pcmig_virt_close(m->source);
    pcmig_virt_close(m->destination);
    pcmig_link_close(m->link);
}

void *pcmig_control_main(void *migration)
{
    struct control control = {.m = migration, .due_us = 0, .pace_mib = -1, .last = {.queue_bytes = -1}};
    struct pcmig_virt_error error = {0};
    struct pcmig_migration *m = migration;

    control.bound_mib = m->args.postcopy_bandwidth_mib;
    control.precopy_mib = m->args.bandwidth_mib;
    if (pcmig_preflight(m, &error) < 0) {
        pcmig_virt_domain_free(m->domain_call);
        pcmig_virt_close(m->source_call);
        finish(&control, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "", &error);
    } else if (start_call(&control) < 0) {
        pcmig_virt_error_set(&error, PCMIG_VIRT_FAILURE_OTHER, "cannot start a thread for the migrate call");
        pcmig_virt_domain_free(m->domain_call);
        pcmig_virt_close(m->source_call);
        finish(&control, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest was not touched", &error);
    } else {
        run(&control);
    }
    clean_up(&control);
    pcmig_migration_unref(m);
    return NULL;
}
