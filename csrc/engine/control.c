/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread of one migration: waits for events, requests and due times, takes samples, feeds the core, acts on
 * its decisions, and at the end asks both hosts who has the guest. */
#include "engine/control.h"

#include "core/trace.h"
#include "edge/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* After the migrate call has returned, both hosts are asked this often, and less often once nothing changes for long. */
#define SETTLE_LOOK_US     100000
#define SETTLE_SLOW_US     1000000
#define SETTLE_FAST_FOR_US 10000000
/* A cancel that libvirt refused, because the job has not begun yet, is tried again that often. */
#define ABORT_AGAIN_US     200000
/* Until it has moved something it is held, but not for ever: a setup that hangs is to be cancelled as well. */
#define ABORT_HOLD_US      2000000
#define ABORT_LOOK_US      20000

/* --- snapshot ------------------------------------------------------------------------------------------------------ */

void pcmig_control_publish(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_migration_status *status = &m->status;

    c->news = false;
    pthread_mutex_lock(&m->lock);
    status->phase = pcmig_ledger_phase_now(m->ledger);
    status->crossed = c->crossed || c->issued;
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

void pcmig_control_note(struct control *c, const char *text, const char *command)
{
    struct pcmig_migration_status *status = &c->m->status;

    pthread_mutex_lock(&c->m->lock);
    snprintf(status->note, sizeof(status->note), "%.500s%s%.500s", text, command[0] != '\0' ? ":\n  " : "", command);
    pthread_mutex_unlock(&c->m->lock);
    c->news = true;
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

/* Preflight may have changed the policy, and a line cannot be taken back. */
static void trace_params(struct pcmig_migration *m)
{
    char line[PCMIG_TRACE_LINE_MAX];

    trace_line(m, line, pcmig_trace_write_params(line, sizeof(line), m->args.policy, m->args.gated, &m->args.params));
}

/* --- acting on decisions ------------------------------------------------------------------------------------------- */

void pcmig_control_event(struct control *c, enum pcmig_event event)
{
    struct pcmig_input input = {.t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_EVENT, .code = event};

    pcmig_control_feed(c, &input);
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
    m->status.stream_peer = peer;
    pthread_mutex_unlock(&m->lock);
}

/* Leaves no bandwidth behind that needs somebody to steer it. */
void pcmig_control_let_go(struct control *c)
{
    c->draining = false;
    if (c->slowed) {
        pcmig_speed_set(c, c->precopy_mib, false);
        c->slowed = c->refused[0];
    }
    if (c->pace_mib > 0)
        pcmig_speed_open(c);
}

static void start_postcopy(struct control *c, const struct pcmig_decision *decision)
{
    struct pcmig_virt_error error = {0};
    int64_t late_us = pcmig_migration_now_us(c->m) - decision->t_us;

    if (c->m->domain == NULL || pcmig_virt_start_postcopy(c->m->domain, &error) < 0) {
        pcmig_control_event(c, PCMIG_EVENT_SWITCH_REFUSED);
        return;
    }
    pthread_mutex_lock(&c->m->lock);
    c->m->status.switch_late_us = late_us;
    pthread_mutex_unlock(&c->m->lock);
    pcmig_control_event(c, PCMIG_EVENT_SWITCH_ISSUED);
}

static void abort_job(struct control *c)
{
    struct pcmig_virt_error error = {0};
    int64_t now = pcmig_migration_now_us(c->m);
    bool long_since;

    if (c->abort_asked_us == 0)
        c->abort_asked_us = now;
    long_since = now - c->abort_asked_us >= ABORT_HOLD_US;
    /* Refused when the job has just ended or has not begun; the loop tries again while the call is running. */
    c->abort_us = now + (long_since ? ABORT_AGAIN_US : ABORT_LOOK_US);
    c->abort_wanted = c->m->domain == NULL || pcmig_virt_abort(c->m->domain, long_since, &error) < 0;
    if (!c->abort_wanted)
        c->abort_taken_us = now;
}

static void act(struct control *c, const struct pcmig_decision *decision)
{
    switch (decision->action) {
    case PCMIG_ACTION_DRAIN:
        c->draining = true;
        c->slowed = true;
        pcmig_speed_set(c, decision->pace_mib, false);
        return;
    case PCMIG_ACTION_UNDRAIN:
        c->draining = false;
        c->slowed = false;
        pcmig_speed_set(c, c->precopy_mib, false);
        return;
    case PCMIG_ACTION_SET_PACE:
        c->pace_mib = decision->pace_mib;
        quicken_acks(c);
        pcmig_speed_set(c, decision->pace_mib, true);
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
    case PCMIG_ACTION_ASK:
    case PCMIG_ACTION_COUNT:
        return;
    }
}

/* From here on the newer memory may be at the destination. */
static bool speaks_of_crossing(int event)
{
    return event == PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY || event == PCMIG_EVENT_SRC_POSTCOPY_FAILED ||
           event == PCMIG_EVENT_DST_RESUMED_POSTCOPY || event == PCMIG_EVENT_DST_RESUMED_MIGRATED ||
           event == PCMIG_EVENT_DST_POSTCOPY_FAILED;
}

void pcmig_control_feed(struct control *c, struct pcmig_input *input)
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
    if (input->kind == PCMIG_INPUT_EVENT && input->shut_down)
        c->shut_down[input->code == PCMIG_EVENT_SRC_STOPPED_OTHER] = true;
    if (input->kind == PCMIG_INPUT_EVENT && speaks_of_crossing(input->code))
        c->crossed = true;
    if (input->kind == PCMIG_INPUT_EVENT && input->code == PCMIG_EVENT_SWITCH_ISSUED)
        c->issued = true;
    /* libvirt had the guest run on at the source: the switch came to nothing. */
    if (input->kind == PCMIG_INPUT_EVENT && input->code == PCMIG_EVENT_SRC_RESUMED)
        c->issued = false;

    pcmig_policy_feed(m->policy, input, &decision);
    c->due_us = decision.next_us;
    if (decision.reason == PCMIG_REASON_TOO_LATE)
        pcmig_control_note(c, "too late to cancel: the switch has been asked for, and the guest may be moving already",
                           "");
    if (decision.action != PCMIG_ACTION_KEEP) {
        c->news = true;
        if (m->trace != NULL)
            trace_line(m, line, pcmig_trace_write_decision(line, sizeof(line), &decision));
        keep_decision(m, &decision);
        /* Before the call to libvirt: whoever is to open the gate does it while we drain. */
        if (pcmig_policy_gate(m->policy) != m->status.gate)
            pcmig_control_publish(c);
        act(c, &decision);
    }
}

/* From now on the halves tell what comes next. */
static void begin_settling(struct control *c)
{
    c->settling = true;
    c->settle_us = pcmig_migration_now_us(c->m);
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static int64_t queue_bytes(const struct control *c)
{
    if (c->m->tunnel != NULL)
        return pcmig_tunnel_queue_bytes(c->m->tunnel);
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
    } else if (c->m->domain != NULL && c->abort_taken_us == 0) {
        /* Nobody needs the figures of what is being cancelled, and a QEMU that stands still keeps libvirt waiting for 30 s. */
        active = pcmig_virt_job_stats(c->m->domain, &input.sample, &error);
        if (active > 0 && input.sample.memory_total_bytes > 0) {
            input.kind = PCMIG_INPUT_SAMPLE;
            input.sample.queue_bytes = queue_bytes(c);
            set_downtime_once(c);
            pcmig_sampling_look(c);
        } else if (active < 0) {
            pthread_mutex_lock(&c->m->lock);
            c->m->status.stats_failed++;
            pthread_mutex_unlock(&c->m->lock);
        }
    }
    input.t_us = pcmig_migration_now_us(c->m);
    pcmig_control_feed(c, &input);
    if (!c->settling && pcmig_ledger_phase_now(c->m->ledger) == PCMIG_PHASE_POSTCOPY && pcmig_heal_stalled(c))
        begin_settling(c);
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static void wait_until(struct pcmig_migration *m, int64_t due_us)
{
    int64_t at_us = due_us == PCMIG_NEVER_US ? 0 : due_us + m->start_us;
    struct timespec deadline = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};

    if (due_us == PCMIG_NEVER_US)
        pthread_cond_wait(&m->cond, &m->lock);
    else
        (void)pthread_cond_timedwait(&m->cond, &m->lock, &deadline);
}

static bool has_mail(const struct pcmig_migration *m)
{
    const struct pcmig_mailbox *box = &m->mailbox;

    return box->count > 0 || box->new_bound_mib >= 0 || box->source_closed || box->destination_closed ||
           box->call_returned;
}

static bool interrupted(const struct pcmig_input *input)
{
    return input->kind == PCMIG_INPUT_EVENT &&
           (input->code == PCMIG_EVENT_SRC_POSTCOPY_FAILED || input->code == PCMIG_EVENT_DST_POSTCOPY_FAILED);
}

/* A half of a post-copy ended, and not because it has served. Before the switch libvirt's call tells it. */
static bool lost_half(const struct control *c, const struct pcmig_input *input)
{
    enum pcmig_phase phase = pcmig_ledger_phase_now(c->m->ledger);

    return input->kind == PCMIG_INPUT_EVENT &&
           (input->code == PCMIG_EVENT_SRC_STOPPED_OTHER || input->code == PCMIG_EVENT_DST_STOPPED) &&
           phase >= PCMIG_PHASE_SWITCHOVER && phase < PCMIG_PHASE_FINISHED;
}

static void on_request(struct control *c, enum pcmig_request request)
{
    if (request == PCMIG_REQUEST_DETACH)
        c->detach = true;
    if (request == PCMIG_REQUEST_PAUSE) {
        c->held = c->m->args.recover;
        pcmig_heal_pause(c);
    }
    if (request == PCMIG_REQUEST_RESUME) {
        c->held = false;
        c->heal_us = 0;
        pcmig_recovery_hurry(&c->recovery);
    }
}

static void on_mail(struct control *c, struct pcmig_input *input)
{
    if (input->kind == PCMIG_INPUT_REQUEST)
        on_request(c, (enum pcmig_request)input->code);
    if ((interrupted(input) || lost_half(c, input)) && !c->settling)
        begin_settling(c);
    pcmig_control_feed(c, input);
    if (interrupted(input))
        pcmig_speed_open(c);
}

/* The mailbox's own part of the letters: what is no stream of inputs. Returns the new bound of the bandwidth, -1 = none. */
static int64_t take_notes(struct control *c, struct pcmig_mailbox *box, bool *returned)
{
    int64_t bound = box->new_bound_mib;

    box->new_bound_mib = -1;
    c->broken[1] = c->broken[1] || box->source_closed;
    c->broken[0] = c->broken[0] || box->destination_closed;
    box->source_closed = false;
    box->destination_closed = false;
    *returned = box->call_returned;
    if (box->call_returned) {
        c->call_succeeded = box->call_succeeded;
        c->call_error = box->call_error;
    }
    box->call_returned = false;
    return bound;
}

/* When there is something to do without any news. */
static int64_t next_due_us(const struct control *c)
{
    int64_t now = pcmig_migration_now_us(c->m), due = c->due_us;
    int64_t look = now + (now - c->settle_us < SETTLE_FAST_FOR_US ? SETTLE_LOOK_US : SETTLE_SLOW_US);

    if (c->settling)
        return due < look ? due : look;
    if (c->abort_wanted && due > c->abort_us)
        due = c->abort_us;
    if ((c->refused[0] || c->refused[1]) && due > c->speed_us)
        due = c->speed_us;
    if (due > pcmig_waits_due_us(c))
        due = pcmig_waits_due_us(c);
    for (int end = 0; end < 2; end++) {
        if (c->broken[end] && due > c->reopen_us[end])
            due = c->reopen_us[end];
    }
    return due;
}

/* What is due while the migration is being steered. */
static void do_due(struct control *c)
{
    for (int end = 0; end < 2 && !c->settling; end++) {
        if (c->broken[end] && pcmig_migration_now_us(c->m) >= c->reopen_us[end])
            pcmig_settle_reopen(c, end != 0);
    }
    /* A migration without a call is settled all along; after the switch there is nothing to steer while it is. */
    if (c->settling && pcmig_ledger_phase_now(c->m->ledger) >= PCMIG_PHASE_SWITCHOVER)
        return;
    if ((c->refused[0] || c->refused[1]) && pcmig_migration_now_us(c->m) >= c->speed_us)
        pcmig_speed_again(c);
    if (c->abort_wanted && pcmig_migration_now_us(c->m) >= c->abort_us)
        abort_job(c);
    pcmig_waits_look(c);
}

/* Whether the call may have failed alone: libvirt does not end a migration whose caller it lost. What libvirt refuses has not begun, and
 * a job that is seen then is somebody else's. */
static bool may_be_lost(const struct pcmig_virt_error *error)
{
    const enum pcmig_virt_failure failure = pcmig_virt_classify(error);

    return failure == PCMIG_VIRT_FAILURE_CONNECT || failure == PCMIG_VIRT_FAILURE_OTHER;
}

static void run(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_input *mail = NULL;
    size_t capacity = 0;

    for (;;) {
        int64_t bound, due = next_due_us(c);
        bool returned;
        size_t count;

        pthread_mutex_lock(&m->lock);
        while (!has_mail(m) && pcmig_migration_now_us(m) < due)
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
        bound = take_notes(c, &m->mailbox, &returned);
        pthread_mutex_unlock(&m->lock);

        for (size_t i = 0; i < count; i++)
            on_mail(c, &mail[i]);
        if (bound >= 0)
            pcmig_speed_bound(c, bound);
        if (returned && c->called) {
            c->called = false;
            begin_settling(c);
            c->call_lost = !c->call_succeeded && may_be_lost(&c->call_error);
            if (!c->call_lost)
                pcmig_control_event(c, c->call_succeeded ? PCMIG_EVENT_CALL_SUCCEEDED : PCMIG_EVENT_CALL_FAILED);
        }
        do_due(c);
        if (pcmig_migration_now_us(m) >= c->due_us)
            look(c);
        if (c->news)
            pcmig_control_publish(c);
        if (c->detach) {
            if (m->status.phase < PCMIG_PHASE_SWITCHOVER)
                pcmig_control_let_go(c);
            pcmig_settle_finish(c, PCMIG_OUTCOME_DETACHED, PCMIG_ADVICE_NONE, "", NULL);
            break;
        }
        if (c->settling && pcmig_settle(c))
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
    pcmig_virt_domain_free(m->domain_call);
    pcmig_virt_close(m->source_call);
    pcmig_link_close(m->link);
    pcmig_tunnel_queue_close(m->tunnel);
}

static unsigned networks(const struct pcmig_migration_args *args)
{
    unsigned n = 1; /* the migration's own */

    while (args->resume_uris != NULL && args->resume_uris[n - 1] != NULL)
        n++;
    return n;
}

/* A migration that somebody else started, or we in another life: what it is by now, the halves tell. */
static void adopt(struct control *c)
{
    c->issued = c->m->args.crossed;
    /* Who steered it may have been killed in a drain: pre-copy gets the bandwidth that it is to have. */
    c->wanted_mib[0] = c->precopy_mib;
    c->refused[0] = true;
    pcmig_settle_catch_up(c, true);
    pcmig_settle_catch_up(c, false);
    begin_settling(c);
    run(c);
}

void *pcmig_control_main(void *migration)
{
    struct control control = {.m = migration, .due_us = 0, .pace_mib = -1, .last = {.queue_bytes = -1}};
    struct pcmig_virt_error error = {0};
    struct pcmig_migration *m = migration;
    bool ready;

    control.bound_mib = m->args.postcopy_bandwidth_mib;
    control.precopy_mib = m->args.bandwidth_mib;
    pcmig_recovery_init(&control.recovery, m->args.params.value[PCMIG_PARAM_STALL_MS], networks(&m->args));
    ready = (m->args.adopt ? pcmig_preflight_adopt(m, &error) : pcmig_preflight(m, &error)) == 0;
    trace_params(m);
    if (ready && m->paused)
        pcmig_control_note(&control, "the guest is paused: it moves in pre-copy, and arrives paused", "");
    if (ready && m->args.adopt) {
        adopt(&control);
    } else if (!ready) {
        pcmig_settle_finish(&control, m->args.adopt ? PCMIG_OUTCOME_NEEDS_OPERATOR : PCMIG_OUTCOME_FAILED,
                            PCMIG_ADVICE_NONE, "", &error);
    } else if (pcmig_call_start(&control, NULL) < 0) {
        pcmig_virt_error_set(&error, PCMIG_VIRT_FAILURE_OTHER, "cannot start a thread for the migrate call");
        pcmig_settle_finish(&control, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest was not touched", &error);
    } else {
        run(&control);
    }
    clean_up(&control);
    pcmig_migration_unref(m);
    return NULL;
}
