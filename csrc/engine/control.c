/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread of one migration: waits for events, requests and due times, takes samples, feeds the core, acts on
 * its decisions. What it does when is a state (core/engine_state.h). */
#include "engine/control.h"

#include "core/trace.h"
#include "edge/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A cancel that libvirt refused, because the job has not begun yet, is tried again that often. */
#define ABORT_AGAIN_US 200000
/* Until it has moved something it is held, but not for ever: a setup that hangs is to be cancelled as well. */
#define ABORT_HOLD_US  2000000
#define ABORT_LOOK_US  20000

/* --- snapshot ----------------------------------------------------------------------------------------------------- */

/* Whether the guest runs at the source no more. Processors that stop with no switch out may be those of a migration
 * that fails, of which libvirt tells in the same words. */
static bool has_left(const struct control *c)
{
    return c->crossed || (c->source_stopped && c->issued);
}

void pcmig_control_publish(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct pcmig_migration_status *status = &m->status;
    bool left_now;

    c->publish = false;
    pthread_mutex_lock(&m->lock);
    left_now = !status->left && has_left(c);
    status->left = has_left(c);
    status->phase = pcmig_ledger_phase_now(m->ledger);
    status->state = c->state;
    status->crossed = c->crossed || c->issued;
    status->unrun = pcmig_unrun_certain(&c->unrun) && m->mailbox.lost == 0;
    status->dest_ended = status->crossed && pcmig_unrun_seen_end(&c->unrun) && m->mailbox.lost == 0;
    pcmig_policy_progress(m->policy, &status->passes, &status->pass_permille);
    status->sample = c->sample;
    status->sample.memory_bps = pcmig_ledger_send_bps(m->ledger, &c->sample);
    status->forecast = m->forecast;
    if (status->phase <= PCMIG_PHASE_PRECOPY &&
        (status->turn == PCMIG_TURN_BOUNDED || status->turn == PCMIG_TURN_WAITING))
        pcmig_forecast_wait(&status->forecast);
    pcmig_ledger_downtimes(m->ledger, &status->downtime_events_us, &status->downtime_reported_ms);
    status->latency = pcmig_latency_now(pcmig_ledger_latency(m->ledger));
    status->link_bps = pcmig_policy_link_bps(m->policy);
    status->requests_ps = pcmig_policy_requests_ps(m->policy);
    status->gate = pcmig_policy_gate(m->policy);
    status->inputs_lost = m->mailbox.lost;
    status->elapsed_us = pcmig_migration_now_us(m);
    status->cpu_us = pcmig_clock_thread_cpu_us();
    pthread_mutex_unlock(&m->lock);
    if (left_now)
        pcmig_migration_tell_left(m);
    pcmig_migration_notify(m);
}

void pcmig_control_note(struct control *c, const char *text, const char *command)
{
    struct pcmig_migration_status *status = &c->m->status;

    pthread_mutex_lock(&c->m->lock);
    snprintf(status->note, sizeof(status->note), "%.800s%s%.600s", text, command[0] != '\0' ? ":\n  " : "", command);
    pthread_mutex_unlock(&c->m->lock);
    c->publish = true;
}

void pcmig_control_trigger(struct control *c, enum pcmig_engine_trigger trigger)
{
    enum pcmig_engine_state next = pcmig_engine_next(c->state, trigger);

    if (next == c->state)
        return;
    c->state = next;
    if (next < PCMIG_ENGINE_CONFIRMING)
        c->reached = next;
    c->publish = true;
    c->others.look_us = 0; /* they are to know at once */
    if (pcmig_engine_asks(next)) {
        c->unchanged_us = pcmig_migration_now_us(c->m);
        c->look_us = 0;
    }
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

/* --- acting on decisions ------------------------------------------------------------------------------------------ */

void pcmig_control_event(struct control *c, enum pcmig_event event)
{
    struct pcmig_input input = {.t_us = pcmig_migration_now_us(c->m), .kind = PCMIG_INPUT_EVENT, .code = event};

    pcmig_control_feed(c, &input);
}

/* Once the destination's address is known, and not before it is needed: a stream that nobody knew when the pace was set
 * first is known with one of the next samples. */
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

/* What became of the order to switch. */
static void on_switch(struct control *c, int result, const struct pcmig_virt_error *error)
{
    if (result < 0) {
        /* Over a connection that broke it may have come all the same. */
        if (pcmig_virt_classify(error) != PCMIG_VIRT_FAILURE_CONNECT)
            c->issued = c->switching.issued_before;
        pcmig_control_event(c, PCMIG_EVENT_SWITCH_REFUSED);
        return;
    }
    pthread_mutex_lock(&c->m->lock);
    c->m->status.switch_late_us = c->switching.late_us;
    pthread_mutex_unlock(&c->m->lock);
    pcmig_control_event(c, PCMIG_EVENT_SWITCH_ISSUED);
}

static void start_postcopy(struct control *c, const struct pcmig_decision *decision)
{
    struct pcmig_ask ask = {0};
    int result;

    c->switching.late_us = pcmig_migration_now_us(c->m) - decision->t_us;
    /* From here on the guest may be on its way, whenever the answer comes. */
    c->switching.issued_before = c->issued;
    c->issued = c->issued || c->end[PCMIG_SIDE_SOURCE].known;
    result = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_SWITCH, &ask);
    if (result < 0 && pcmig_ask_out(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_SWITCH))
        c->publish = true;
    else
        on_switch(c, result, &ask.error);
}

static void on_abort(struct control *c)
{
    c->abort.state = ABORT_TAKEN;
    c->abort.taken_us = pcmig_migration_now_us(c->m);
}

static void abort_job(struct control *c)
{
    struct pcmig_ask ask = {0};
    int64_t now = pcmig_migration_now_us(c->m);
    bool long_since;

    if (c->abort.asked_us == 0)
        c->abort.asked_us = now;
    long_since = now - c->abort.asked_us >= ABORT_HOLD_US;
    /* Refused when the job has just ended or has not begun; the loop tries again while the call is running. */
    c->abort.try_us = now + (long_since ? ABORT_AGAIN_US : ABORT_LOOK_US);
    c->abort.state = ABORT_WANTED;
    ask.number = long_since ? 1 : 0;
    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_ABORT, &ask) == 0)
        on_abort(c);
}

static void act(struct control *c, const struct pcmig_decision *decision)
{
    switch (decision->action) {
    case PCMIG_ACTION_DRAIN:
        pcmig_control_trigger(c, PCMIG_TRIGGER_DRAIN);
        c->bandwidth.slowed = true;
        pcmig_bandwidth_set(c, OF_PRECOPY, decision->pace_mib);
        return;
    case PCMIG_ACTION_UNDRAIN:
        pcmig_control_trigger(c, PCMIG_TRIGGER_UNDRAIN);
        c->bandwidth.slowed = false;
        pcmig_bandwidth_set(c, OF_PRECOPY, c->bandwidth.precopy_mib);
        return;
    case PCMIG_ACTION_SET_PACE:
        c->bandwidth.pace_mib = decision->pace_mib;
        quicken_acks(c);
        pcmig_bandwidth_set(c, OF_POSTCOPY, decision->pace_mib);
        return;
    case PCMIG_ACTION_SWITCH:
        pcmig_control_trigger(c, PCMIG_TRIGGER_SWITCH);
        start_postcopy(c, decision);
        return;
    case PCMIG_ACTION_ABORT:
        /* The bandwidth stays as it is until the migration has ended: what is sent meanwhile is thrown away. */
        pcmig_control_trigger(c, PCMIG_TRIGGER_UNDRAIN);
        c->others.given_up = c->others.waiting;
        if (!c->others.waiting)
            abort_job(c);
        return;
    case PCMIG_ACTION_KEEP:
    case PCMIG_ACTION_ASK:
    case PCMIG_ACTION_COUNT:
        return;
    }
}

/* --- feeding the core --------------------------------------------------------------------------------------------- */

/* What an event means: for the states of the engine, and whether the newer memory may be at the destination from here
 * on. */
static const struct {
    enum pcmig_event event;
    enum pcmig_engine_trigger trigger;
    bool crossed;
} meanings[] = {
    {PCMIG_EVENT_MIGRATE_CALLED, PCMIG_TRIGGER_CALLED, false},
    {PCMIG_EVENT_SRC_SUSPENDED_MIGRATED, PCMIG_TRIGGER_SOURCE_STOPPED, false},
    {PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY, PCMIG_TRIGGER_SOURCE_SERVES, true},
    {PCMIG_EVENT_SRC_POSTCOPY_FAILED, PCMIG_TRIGGER_BROKE, true},
    {PCMIG_EVENT_SRC_RESUMED, PCMIG_TRIGGER_SOURCE_RESUMED, false},
    {PCMIG_EVENT_SRC_STOPPED_OTHER, PCMIG_TRIGGER_HALF_ENDED, false},
    {PCMIG_EVENT_DST_RESUMED_POSTCOPY, PCMIG_TRIGGER_RUNS_THERE, true},
    {PCMIG_EVENT_DST_RESUMED_MIGRATED, PCMIG_TRIGGER_COUNT, true}, /* pre-copy's end: no state of ours */
    {PCMIG_EVENT_DST_POSTCOPY_FAILED, PCMIG_TRIGGER_BROKE, true},
    {PCMIG_EVENT_DST_STOPPED, PCMIG_TRIGGER_HALF_ENDED, false},
    {PCMIG_EVENT_SWITCH_ISSUED, PCMIG_TRIGGER_ISSUED, false},
    {PCMIG_EVENT_CALL_SUCCEEDED, PCMIG_TRIGGER_CALL_SUCCEEDED, false},
    {PCMIG_EVENT_CALL_FAILED, PCMIG_TRIGGER_CALL_FAILED, false},
};

static void note_event(struct control *c, const struct pcmig_input *input)
{
    enum pcmig_side side = input->code == PCMIG_EVENT_SRC_STOPPED_OTHER ? PCMIG_SIDE_SOURCE : PCMIG_SIDE_DESTINATION;

    if (input->shut_down)
        c->end[side].shut_down = true;
    pcmig_unrun_event(&c->unrun, input);
    pcmig_ask_outdate(c);
    if (input->code == PCMIG_EVENT_SRC_STOPPED_MIGRATED)
        c->handed_off = true;
    if (input->code == PCMIG_EVENT_SRC_SUSPENDED_MIGRATED || input->code == PCMIG_EVENT_SRC_RESUMED)
        c->source_stopped = input->code == PCMIG_EVENT_SRC_SUSPENDED_MIGRATED;
    if (input->code == PCMIG_EVENT_SWITCH_ISSUED)
        c->issued = true;
    if (input->code == PCMIG_EVENT_SRC_RESUMED)
        c->issued = pcmig_ask_out(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_SWITCH); /* otherwise it came to nothing */
    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (meanings[i].event != input->code)
            continue;
        c->crossed = c->crossed || meanings[i].crossed;
        pcmig_control_trigger(c, meanings[i].trigger);
    }
    /* Whatever it was, the halves may be others by now. */
    c->look_us = 0;
}

static void note_figures(struct control *c, const struct pcmig_input *input)
{
    if (input->kind == PCMIG_INPUT_FINAL)
        c->final_seen = true;
    if (input->kind == PCMIG_INPUT_SAMPLE || input->kind == PCMIG_INPUT_FINAL)
        c->sample = input->sample;
    else if (input->kind == PCMIG_INPUT_QUEUE)
        c->sample.queue_bytes = input->sample.queue_bytes;
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
    m->forecast.bounded = pcmig_policy_switches(m->args.policy); /* preflight may have changed it */
    pcmig_forecast_feed(&m->forecast, input, pcmig_ledger_phase_now(m->ledger));
    pthread_mutex_unlock(&m->lock);
    /* Not every look at the queue (200 a second in a drain) nor every iteration of QEMU 11 (18 a second). */
    if (input->kind != PCMIG_INPUT_QUEUE && input->kind != PCMIG_INPUT_ITERATION)
        c->publish = true;
    note_figures(c, input);
    if (input->kind == PCMIG_INPUT_EVENT)
        note_event(c, input);
    /* Before anything is asked of libvirt: somebody waits for this moment. */
    if (has_left(c) != m->status.left)
        pcmig_control_publish(c);

    pcmig_policy_feed(m->policy, input, &decision);
    c->due_us = decision.next_us;
    if (decision.reason == PCMIG_REASON_TOO_LATE)
        pcmig_control_note(c, "too late to cancel: the switch has been asked for, and the guest may be moving already",
                           "");
    if (decision.action != PCMIG_ACTION_KEEP) {
        c->publish = true;
        if (m->trace != NULL)
            trace_line(m, line, pcmig_trace_write_decision(line, sizeof(line), &decision));
        keep_decision(m, &decision);
        /* Before the call to libvirt: whoever is to open the gate does it while we drain. */
        if (pcmig_policy_gate(m->policy) != m->status.gate)
            pcmig_control_publish(c);
        act(c, &decision);
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static int64_t queue_bytes(const struct control *c)
{
    if (c->m->tunnel != NULL)
        return pcmig_tunnel_queue_bytes(c->m->tunnel);
    return c->m->link != NULL ? pcmig_link_queue_bytes(c->m->link) : -1;
}

/* QEMU's downtime limit follows what the link's queue takes of the pause. */
static void set_downtime(struct control *c)
{
    const int64_t *params = c->m->args.params.value;
    int64_t had_ms = c->downtime_ms, ms = pcmig_policy_qemu_downtime_ms(c->m->policy, had_ms);
    struct pcmig_ask ask = {.number = ms};

    /* Tried again with the next sample if QEMU is not ready for it. */
    if (params[PCMIG_PARAM_DOWNTIME_CONTROL] == 0 || ms == had_ms || c->crossed ||
        pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_DOWNTIME, &ask) < 0)
        return;
    c->downtime_ms = ms;
    if (had_ms != 0 || ms != params[PCMIG_PARAM_DOWNTIME_LIMIT_MS])
        (void)pcmig_migration_downtime_limit(c->m, ms);
}

/* As soon as the migration's connections are known, once. Through a tunnel it is not known. */
static void tell_round_trip(struct control *c)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_ROUND_TRIP};

    if (c->round_trip_told || c->m->link == NULL || (input.code = pcmig_link_round_trip_us(c->m->link)) < 0)
        return;
    c->round_trip_told = true;
    input.t_us = pcmig_migration_now_us(c->m);
    pcmig_control_feed(c, &input);
}

/* libvirt puts the bandwidth of the call in force when it begins to send, whatever was set meanwhile. */
static void set_bandwidth_once(struct control *c, const struct pcmig_sample *sample)
{
    if (!c->others.set_again || sample->memory_processed_bytes == 0)
        return;
    c->others.set_again = false;
    pcmig_bandwidth_heed(c);
}

/* The figures of the migration: 1, 0 when there is none at work, or -1. */
static int look_at_job(struct control *c, struct pcmig_sample *sample)
{
    struct pcmig_ask ask = {0};

    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB, &ask) == 0) {
        *sample = ask.job.sample;
        return ask.job.kind == PCMIG_VIRT_JOB_MIGRATION ? 1 : 0;
    }
    if (!pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB)) {
        pthread_mutex_lock(&c->m->lock);
        c->m->status.stats_failed++;
        pthread_mutex_unlock(&c->m->lock);
    }
    return -1;
}

static void take_sample(struct control *c)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_TICK};
    int active = 0;

    if (c->state == PCMIG_ENGINE_DRAINING) {
        input.kind = PCMIG_INPUT_QUEUE; /* the statistics are of no interest */
        input.sample.queue_bytes = queue_bytes(c);
    } else if (c->end[PCMIG_SIDE_SOURCE].known && c->abort.taken_us == 0) {
        /* Nobody needs the figures of what is being cancelled, and a QEMU that stands still keeps libvirt waiting for
         * 30 s. */
        active = look_at_job(c, &input.sample);
        if (active > 0 && input.sample.memory_total_bytes > 0) {
            input.kind = PCMIG_INPUT_SAMPLE;
            input.sample.queue_bytes = queue_bytes(c);
            set_downtime(c);
            pcmig_sampling_look(c);
            if (input.sample.queue_bytes >= 0)
                tell_round_trip(c);
            set_bandwidth_once(c, &input.sample);
        } else if (active > 0) {
            input.sample.queue_bytes = -1;
        }
    }
    /* While disks are copied, nothing is said of memory yet; bytes move all the same. */
    if (active > 0)
        pcmig_others_sample(c, &input.sample);
    else if (input.kind == PCMIG_INPUT_QUEUE)
        pcmig_others_queue(c, input.sample.queue_bytes);
    input.t_us = pcmig_migration_now_us(c->m);
    pcmig_control_feed(c, &input);
    if (input.kind == PCMIG_INPUT_SAMPLE && c->crossed)
        pcmig_recover_sample(c);
    if (input.kind == PCMIG_INPUT_SAMPLE && c->bandwidth.pace_mib >= 0)
        quicken_acks(c);
    /* Where the destination is not heard, nothing says that the guest runs there: the source's word has to do. */
    if ((c->state == PCMIG_ENGINE_POSTCOPY || (c->state == PCMIG_ENGINE_SWITCHING && c->crossed)) &&
        pcmig_recover_stalled(c))
        pcmig_control_trigger(c, PCMIG_TRIGGER_STALLED);
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

static void wait_until(struct pcmig_migration *m, int64_t due_us)
{
    if (due_us == PCMIG_NEVER_US)
        pthread_cond_wait(&m->cond, &m->lock);
    else
        (void)pcmig_clock_wait(&m->cond, &m->lock, due_us + m->start_us);
}

static bool has_mail(const struct pcmig_migration *m)
{
    const struct pcmig_mailbox *box = &m->mailbox;

    return box->count > 0 || box->new_bound_mib >= 0 || box->closed[PCMIG_SIDE_SOURCE] ||
           box->closed[PCMIG_SIDE_DESTINATION] || box->answered || box->call_returned;
}

static void on_request(struct control *c, enum pcmig_request request)
{
    c->look_us = 0;
    if (request == PCMIG_REQUEST_DETACH)
        c->detach = true;
    if (request == PCMIG_REQUEST_PAUSE) {
        c->recovery.held = c->m->args.recover;
        pcmig_recover_pause(c);
    }
    if (request == PCMIG_REQUEST_RESUME) {
        c->recovery.held = false;
        c->recovery.look_us = 0;
        pcmig_recovery_hurry(&c->recovery.core);
    }
}

static bool interrupted(const struct pcmig_input *input)
{
    return input->kind == PCMIG_INPUT_EVENT &&
           (input->code == PCMIG_EVENT_SRC_POSTCOPY_FAILED || input->code == PCMIG_EVENT_DST_POSTCOPY_FAILED);
}

/* While the call waits for its turn, events tell of the guest's life before this migration. Only its end counts. */
static bool before_the_call(struct control *c, const struct pcmig_input *input)
{
    if (!c->others.waiting || input->kind == PCMIG_INPUT_REQUEST || input->kind == PCMIG_INPUT_DOWNTIME_LIMIT)
        return false;
    if (input->kind == PCMIG_INPUT_EVENT &&
        (input->code == PCMIG_EVENT_SRC_STOPPED_MIGRATED || input->code == PCMIG_EVENT_SRC_STOPPED_OTHER))
        c->others.guest_gone = true;
    return true;
}

static void on_input(struct control *c, struct pcmig_input *input)
{
    if (before_the_call(c, input))
        return;
    if (input->kind == PCMIG_INPUT_REQUEST)
        on_request(c, (enum pcmig_request)input->code);
    pcmig_control_feed(c, input);
    if (interrupted(input))
        pcmig_bandwidth_open_pace(c);
}

/* Whether the call may have failed alone: libvirt does not end a migration whose caller it lost. What libvirt refuses
 * has not begun, and a job that is seen then is somebody else's. */
static bool may_be_lost(const struct pcmig_virt_error *error)
{
    const enum pcmig_virt_failure failure = pcmig_virt_classify(error);

    return failure == PCMIG_VIRT_FAILURE_CONNECT || failure == PCMIG_VIRT_FAILURE_OTHER;
}

static void on_call_returned(struct control *c, bool succeeded, const struct pcmig_virt_error *error)
{
    if (c->call != CALL_RUNS)
        return;
    c->call_error = *error;
    c->call = succeeded ? CALL_SUCCEEDED : may_be_lost(error) ? CALL_LOST : CALL_FAILED;
    c->unchanged_us = pcmig_migration_now_us(c->m);
    c->look_us = 0;
    if (c->call == CALL_LOST && c->state == PCMIG_ENGINE_RESUMING)
        pcmig_control_trigger(c, PCMIG_TRIGGER_CALL_FAILED);
    /* Of a call that may be lost the policy hears when it is clear that no job goes on without it (ending.c): until
     * then it steers, as it does with a migration that was adopted. */
    if (c->call != CALL_LOST)
        pcmig_control_event(c, succeeded ? PCMIG_EVENT_CALL_SUCCEEDED : PCMIG_EVENT_CALL_FAILED);
}

/* Answers have come late, and are there for this turn: everybody who may have asked is due. */
static void on_answers(struct control *c)
{
    const bool job = pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB);
    struct pcmig_ask ask;
    int result;

    pcmig_ask_arrived(c);
    if (pcmig_ask_take(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_SWITCH, &ask, &result))
        on_switch(c, result, &ask.error);
    if (pcmig_ask_take(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_ABORT, &ask, &result) && result == 0 &&
        c->abort.state == ABORT_WANTED)
        on_abort(c);
    if (pcmig_ask_take(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_PAUSE_QEMU, &ask, &result))
        pcmig_recover_paused(c, result, &ask.error);
    if (c->recovery.pause_again)
        pcmig_recover_pause(c);
    if (job)
        c->due_us = 0;
    c->look_us = 0;
    c->bandwidth.again_us = 0;
    c->abort.try_us = 0;
    c->abort.free_us = 0;
    c->restart.try_us = 0;
    c->kept_half.try_us = 0;
    c->recovery.look_us = 0;
}

/* Everything that came, taken out of the mailbox at once. */
struct mail {
    struct pcmig_input *inputs;
    size_t count;
    size_t capacity;
    int64_t bound_mib; /* -1 = none */
    bool answered;
    bool call_returned;
    bool call_succeeded;
    struct pcmig_virt_error call_error;
};

/* Under the lock. Our empty buffer stays in the mailbox for the full one: nothing is copied, the event thread never
 * waits. */
static void take_mail(struct control *c, struct mail *mail)
{
    struct pcmig_mailbox *box = &c->m->mailbox;
    struct mail taken = {box->inputs,   box->count,         box->capacity,       box->new_bound_mib,
                         box->answered, box->call_returned, box->call_succeeded, box->call_error};

    box->inputs = mail->inputs;
    box->capacity = mail->capacity;
    box->count = 0;
    box->new_bound_mib = -1;
    box->call_returned = false;
    box->answered = false;
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++) {
        c->end[side].reconnect = c->end[side].reconnect || box->closed[side];
        if (side == PCMIG_SIDE_DESTINATION && box->closed[side])
            pcmig_unrun_gap(&c->unrun);
        box->closed[side] = false;
    }
    *mail = taken;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When there is something to do without any mail. */
static int64_t next_due_us(const struct control *c)
{
    int64_t due = sooner(pcmig_others_due_us(c), pcmig_ends_due_us(c));

    if (c->others.waiting)
        return due;
    due = sooner(due, c->due_us);
    if (pcmig_ending_wanted(c))
        due = sooner(due, c->look_us);
    if (pcmig_ending_wanted(c) && !pcmig_engine_before_switch(c->reached))
        return due;
    if (c->bandwidth.refused[OF_PRECOPY] || c->bandwidth.refused[OF_POSTCOPY])
        due = sooner(due, c->bandwidth.again_us);
    if (c->abort.state == ABORT_WANTED)
        due = sooner(due, c->abort.try_us);
    return sooner(due, pcmig_overdue_due_us(c));
}

/* After the switch, a migration whose end is looked for is not steered. */
static void steer(struct control *c)
{
    int64_t now = pcmig_migration_now_us(c->m);

    if (c->others.waiting || (pcmig_ending_wanted(c) && !pcmig_engine_before_switch(c->reached)))
        return;
    if ((c->bandwidth.refused[OF_PRECOPY] || c->bandwidth.refused[OF_POSTCOPY]) && now >= c->bandwidth.again_us)
        pcmig_bandwidth_again(c);
    if (c->abort.state == ABORT_WANTED && now >= c->abort.try_us)
        abort_job(c);
    pcmig_overdue_look(c);
}

/* Asks both hosts once more what they have of the guest. Returns false while an answer is on its way. */
static bool find_again(struct control *c, struct pcmig_preflight_found *found)
{
    struct pcmig_ask ask = {0};

    if (!pcmig_end_ask(c, PCMIG_SIDE_SOURCE) || !pcmig_end_ask(c, PCMIG_SIDE_DESTINATION) ||
        c->end[PCMIG_SIDE_SOURCE].guest.half == PCMIG_HALF_UNKNOWN)
        return false;
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++)
        found->half[side] = c->end[side].guest.half;
    found->saved = pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_SAVED, &ask) > 0;
    if (pcmig_ask_pending(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_SAVED))
        return false;
    found->job_told = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB, &ask) == 0;
    found->job = ask.job;
    return !pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB);
}

/* Makes the migrate call, unless the others are to go first. Returns whether the migration is over. */
static bool call_in_turn(struct control *c)
{
    struct pcmig_preflight_found found = {0};
    struct pcmig_migration *m = c->m;
    struct pcmig_virt_error error = {0};

    if (!c->others.waiting)
        return false;
    if (c->others.given_up || c->detach || c->others.guest_gone) {
        pcmig_finish(c, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE,
                     c->others.guest_gone
                         ? "the guest ended, or left the source, while its migration waited for another one"
                         : "cancelled while it waited for another migration: the guest was not touched",
                     NULL);
        return true;
    }
    if (c->others.turn == PCMIG_TURN_WAITING) {
        c->others.waited = true;
        return false;
    }
    /* A source that cannot be asked now is waited for; it is connected to again in the background. */
    if (c->others.waited && (!c->end[PCMIG_SIDE_SOURCE].known || !find_again(c, &found)))
        return false;
    if (c->others.waited && pcmig_preflight_again(m, &found, &error) < 0) {
        pcmig_finish(c, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "", &error);
        return true;
    }
    c->others.waiting = false;
    pcmig_preflight_queue(m);
    if (pcmig_call_start(c, NULL) == 0)
        return false;
    pcmig_virt_error_set(&error, PCMIG_VIRT_FAILURE_OTHER, "cannot start a thread for the migrate call");
    pcmig_finish(c, PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE, "the guest was not touched", &error);
    return true;
}

/* Whether who answers at the destination is the host that the guest comes in at: a new connection may lead to another
 * one, where the name has several addresses. */
static bool comes_in(const struct control *c)
{
    const struct end *end = &c->end[PCMIG_SIDE_DESTINATION];

    return pcmig_ask_connected(c, PCMIG_SIDE_DESTINATION) && !end->attaching && !end->missed &&
           !pcmig_ending_wanted(c) &&
           (end->guest.half == PCMIG_HALF_MIGRATING || end->guest.half == PCMIG_HALF_POSTCOPY);
}

/* By which UUID the destination's host is known again. libvirt goes through all that the host can do for that, which
 * takes it a second: so it is asked while the migration is set up, or waits; and once more where that connection broke
 * before the answer. */
static void ask_host(struct control *c)
{
    struct pcmig_ask ask = {0};
    int result;

    if (c->host_asked || c->m->args.adopt || (c->host_anew && !comes_in(c)))
        return;
    result = pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_HOST, &ask);
    if (pcmig_ask_pending(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_HOST))
        return;
    c->host_asked = c->host_anew || (result == 0 && ask.host[0] != '\0');
    c->host_anew = true;
    if (result < 0 || ask.host[0] == '\0')
        return;
    pthread_mutex_lock(&c->m->lock);
    memcpy(c->m->status.dest_host, ask.host, sizeof(ask.host));
    pthread_mutex_unlock(&c->m->lock);
    c->publish = true;
}

/* One turn of the loop. Returns whether the migration is over. */
static bool take_turn(struct control *c, struct mail *mail)
{
    if (mail->answered)
        on_answers(c);
    for (size_t i = 0; i < mail->count; i++)
        on_input(c, &mail->inputs[i]);
    if (mail->bound_mib >= 0)
        pcmig_bandwidth_bound(c, mail->bound_mib);
    if (mail->call_returned)
        on_call_returned(c, mail->call_succeeded, &mail->call_error);
    pcmig_ends_connect(c);
    if (pcmig_migration_now_us(c->m) >= pcmig_others_due_us(c))
        pcmig_others_look(c);
    if (call_in_turn(c))
        return true;
    ask_host(c);
    steer(c);
    if (!c->others.waiting && pcmig_migration_now_us(c->m) >= c->due_us)
        take_sample(c);
    if (c->publish)
        pcmig_control_publish(c);
    if (c->detach) {
        if (pcmig_engine_before_switch(c->reached))
            (void)pcmig_bandwidth_restore(c);
        else
            pcmig_bandwidth_leave(c);
        pcmig_finish(c, PCMIG_OUTCOME_DETACHED, PCMIG_ADVICE_NONE, "", NULL);
        return true;
    }
    return !c->others.waiting && pcmig_ending_wanted(c) && pcmig_migration_now_us(c->m) >= c->look_us &&
           pcmig_ending_look(c);
}

static bool turn(struct control *c, struct mail *mail)
{
    bool over = take_turn(c, mail);

    pcmig_ask_forget(c);
    return over;
}

static void run(struct control *c)
{
    struct pcmig_migration *m = c->m;
    struct mail mail = {.inputs = NULL};
    bool over = false;

    while (!over) {
        int64_t due = next_due_us(c);

        pthread_mutex_lock(&m->lock);
        while (!has_mail(m) && pcmig_migration_now_us(m) < due)
            wait_until(m, due);
        take_mail(c, &mail);
        pthread_mutex_unlock(&m->lock);
        over = turn(c, &mail);
    }
    free(mail.inputs);
}

static void clean_up(struct control *c)
{
    struct pcmig_migration *m = c->m;

    pcmig_others_end(c);
    pcmig_ends_leave(c);
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++)
        pcmig_virt_unwatch(m->watch[side]);
    pcmig_virt_domain_free(m->domain);
    for (int side = 0; side < PCMIG_SIDE_COUNT; side++)
        pcmig_virt_close(m->conn[side]);
    pcmig_virt_domain_free(m->call_domain);
    pcmig_virt_close(m->call_conn);
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
    char text[300];

    if (!pcmig_ask_connected(c, PCMIG_SIDE_SOURCE)) {
        snprintf(text, sizeof(text), "%.200s does not answer; it is asked until it does, and nothing is done meanwhile",
                 c->m->args.source_uri);
        pcmig_control_note(c, text, "");
    }
    c->issued = c->m->args.crossed;
    /* Who steered it may have been killed in a drain: pre-copy gets the bandwidth that it is to have. */
    c->bandwidth.wanted_mib[OF_PRECOPY] = c->bandwidth.precopy_mib;
    c->bandwidth.refused[OF_PRECOPY] = true;
    c->end[PCMIG_SIDE_DESTINATION].reconnect = true;
    c->unchanged_us = pcmig_migration_now_us(c->m);
    pcmig_control_trigger(c, PCMIG_TRIGGER_ADOPTED);
    pcmig_others_begin(c);
    run(c);
}

void *pcmig_control_main(void *migration)
{
    struct control control = {.m = migration, .sample = {.queue_bytes = -1}};
    struct pcmig_virt_error error = {0};
    struct pcmig_migration *m = migration;
    bool ready;

    control.bandwidth.bound_mib = m->args.postcopy_bandwidth_mib;
    control.bandwidth.precopy_mib = m->args.bandwidth_mib;
    control.bandwidth.pace_mib = -1;
    pcmig_recovery_init(&control.recovery.core, m->args.params.value[PCMIG_PARAM_STALL_MS], networks(&m->args));
    ready = (m->args.adopt ? pcmig_preflight_adopt(m, &error) : pcmig_preflight(m, &error)) == 0;
    trace_params(m);
    if (ready && m->paused)
        pcmig_control_note(&control, "the guest is paused: it moves in pre-copy, and arrives paused", "");
    if (ready)
        pcmig_ends_begin(&control);
    if (ready && m->args.adopt) {
        adopt(&control);
    } else if (!ready) {
        pcmig_finish(&control, m->args.adopt ? PCMIG_OUTCOME_NEEDS_OPERATOR : PCMIG_OUTCOME_FAILED, PCMIG_ADVICE_NONE,
                     "", &error);
    } else {
        if (pcmig_ask_connected(&control, PCMIG_SIDE_DESTINATION))
            pcmig_unrun_listens(&control.unrun);
        pcmig_others_begin(&control);
        if (!call_in_turn(&control))
            run(&control);
    }
    clean_up(&control);
    pcmig_migration_unref(m);
    return NULL;
}
