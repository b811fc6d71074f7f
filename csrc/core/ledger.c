/* SPDX-License-Identifier: Apache-2.0 */
/* What happened in a migration: inputs to rows. See ledger.h. */
#include "core/ledger_rows.h"

#include <stdlib.h>
#include <string.h>

#define BIT(phase)   PCMIG_LEDGER_BIT(phase)
#define AT_SOURCE    PCMIG_LEDGER_AT_SOURCE
#define NOT_OVER     (~BIT(FINISHED))
/* Far beyond any migration, and sums of a few stay inside 64 bits. */
#define TIME_MAX_US  (INT64_MAX / 8)
#define DEFAULT_PAGE 4096u

/* Which event leads from which phases to which. Events that change nothing have no row. A failed call ends only what
 * the call itself drives; after the switch the guest's states decide. */
static const struct {
    enum pcmig_event event;
    unsigned from;
    enum pcmig_phase to;
    bool weak; /* not the end if the job turns out to go on */
} transitions[] = {
    {PCMIG_EVENT_SWITCH_ISSUED, AT_SOURCE, PCMIG_PHASE_SWITCHOVER, false},
    {PCMIG_EVENT_SRC_SUSPENDED_MIGRATED, AT_SOURCE, PCMIG_PHASE_SWITCHOVER, false},
    {PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY, AT_SOURCE, PCMIG_PHASE_SWITCHOVER, false},
    {PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY, BIT(PAUSED), PCMIG_PHASE_POSTCOPY, false},
    {PCMIG_EVENT_DST_RESUMED_POSTCOPY, AT_SOURCE | BIT(SWITCHOVER) | BIT(PAUSED), PCMIG_PHASE_POSTCOPY, false},
    /* At the source only where it broke before it was adopted. */
    {PCMIG_EVENT_SRC_POSTCOPY_FAILED, AT_SOURCE | BIT(SWITCHOVER) | BIT(POSTCOPY), PCMIG_PHASE_PAUSED, false},
    {PCMIG_EVENT_DST_POSTCOPY_FAILED, AT_SOURCE | BIT(SWITCHOVER) | BIT(POSTCOPY), PCMIG_PHASE_PAUSED, false},
    {PCMIG_EVENT_DST_RESUMED_MIGRATED, NOT_OVER, PCMIG_PHASE_FINISHED, false},
    {PCMIG_EVENT_JOB_COMPLETED, NOT_OVER, PCMIG_PHASE_FINISHED, false},
    {PCMIG_EVENT_SRC_STOPPED_MIGRATED, NOT_OVER, PCMIG_PHASE_FINISHED, false},
    {PCMIG_EVENT_SRC_RESUMED, NOT_OVER, PCMIG_PHASE_FINISHED, true},
    {PCMIG_EVENT_CALL_SUCCEEDED, NOT_OVER, PCMIG_PHASE_FINISHED, false},
    {PCMIG_EVENT_CALL_FAILED, AT_SOURCE, PCMIG_PHASE_FINISHED, true},
    {PCMIG_EVENT_SRC_STOPPED_OTHER, AT_SOURCE, PCMIG_PHASE_FINISHED, false},
};

struct pcmig_ledger *pcmig_ledger_new(void)
{
    struct pcmig_ledger *ledger = calloc(1, sizeof(*ledger));

    if (ledger == NULL)
        return NULL;
    pcmig_passes_init(&ledger->passes, PCMIG_PASSES_TOLERANCE_PERMILLE);
    pcmig_latency_init(&ledger->latency);
    ledger->page_size_bytes = DEFAULT_PAGE;
    ledger->suspended_us = -1;
    ledger->resumed_us = -1;
    return ledger;
}

void pcmig_ledger_free(struct pcmig_ledger *ledger)
{
    free(ledger);
}

struct pcmig_ledger *pcmig_ledger_copy(const struct pcmig_ledger *ledger)
{
    struct pcmig_ledger *copy = malloc(sizeof(*copy));

    if (copy != NULL)
        *copy = *ledger; /* flat: no pointers in it */
    return copy;
}

enum pcmig_phase pcmig_ledger_phase_now(const struct pcmig_ledger *ledger)
{
    return ledger->started ? ledger->stays[ledger->current].row.phase : PCMIG_PHASE_SETUP;
}

uint64_t pcmig_ledger_send_bps(const struct pcmig_ledger *ledger, const struct pcmig_sample *latest)
{
    return pcmig_ledger_phase_now(ledger) == PCMIG_PHASE_PAUSED ? 0 : latest->memory_bps;
}

static void add_entry(struct pcmig_ledger *ledger, enum pcmig_ledger_entry_kind kind, int code)
{
    const struct pcmig_ledger_entry *last = ledger->entry_count ? &ledger->entries[ledger->entry_count - 1] : NULL;

    /* A switch that is refused is tried again many times. */
    if (last != NULL && last->kind == kind && last->code == code)
        return;
    if (ledger->entry_count == PCMIG_LEDGER_ENTRIES_MAX) {
        ledger->entries_lost++;
        return;
    }
    ledger->entries[ledger->entry_count++] = (struct pcmig_ledger_entry){ledger->now_us, kind, code};
}

static void add_time(struct pcmig_ledger *ledger, int64_t t_us)
{
    struct pcmig_ledger_stay *stay = &ledger->stays[ledger->current];
    struct pcmig_ledger_row *pass = pcmig_ledger_running_pass(ledger);

    if (t_us > TIME_MAX_US)
        t_us = TIME_MAX_US;
    if (t_us <= ledger->now_us)
        return;
    if (stay->row.phase != PCMIG_PHASE_FINISHED) {
        stay->row.duration_us += t_us - ledger->now_us;
        if (ledger->asked && stay->row.phase == PCMIG_PHASE_PRECOPY)
            ledger->gate_us += t_us - ledger->now_us;
        if (ledger->waits && stay->row.phase == PCMIG_PHASE_SETUP)
            ledger->waited_us += t_us - ledger->now_us;
        stay->unsampled_us += t_us - ledger->now_us;
        stay->row.end_us = t_us;
    }
    if (pass != NULL && (PCMIG_LEDGER_DIRTIES & 1u << stay->row.phase) != 0) {
        pass->end_us = t_us;
        pass->duration_us = t_us - pass->start_us;
    }
    ledger->now_us = t_us;
}

static void enter(struct pcmig_ledger *ledger, enum pcmig_phase phase)
{
    size_t same = pcmig_ledger_latest(ledger, 1u << phase, PCMIG_LEDGER_ROWS_MAX);
    struct pcmig_ledger_row *row;

    if (ledger->stay_count)
        ledger->stays[ledger->current].row.complete = true;
    if (ledger->stay_count < PCMIG_LEDGER_STAYS_MAX || same == PCMIG_LEDGER_ROWS_MAX) {
        ledger->current = ledger->stay_count++;
        row = &ledger->stays[ledger->current].row;
        *row = (struct pcmig_ledger_row){
            .phase = phase,
            .number = (unsigned)ledger->stay_count,
            .start_us = ledger->now_us,
            .end_us = ledger->now_us,
            .queue_peak_bytes = -1,
        };
    } else {
        ledger->current = same;
        row = &ledger->stays[same].row;
        row->merged++;
        row->end_us = ledger->now_us;
    }
    row->complete = phase == PCMIG_PHASE_FINISHED;
    if (phase == PCMIG_PHASE_SWITCHOVER) {
        ledger->requests_since_us = ledger->now_us;
        ledger->requests_before = ledger->counted[PCMIG_QUANTITY_REQUESTS];
    }
    add_entry(ledger, PCMIG_LEDGER_ENTRY_PHASE, (int)phase);
}

static void begin(struct pcmig_ledger *ledger, int64_t t_us)
{
    if (ledger->started)
        return;
    ledger->started = true;
    ledger->now_us = t_us < 0 ? 0 : t_us < TIME_MAX_US ? t_us : TIME_MAX_US;
    ledger->start_us = ledger->now_us;
    enter(ledger, PCMIG_PHASE_SETUP);
}

/* The phase as the rules see it: a weak end is none. */
static enum pcmig_phase phase_of_rules(const struct pcmig_ledger *ledger)
{
    enum pcmig_phase phase = pcmig_ledger_phase_now(ledger);

    return phase == PCMIG_PHASE_FINISHED && ledger->finish_is_weak ? ledger->before_finish : phase;
}

static void change_phase(struct pcmig_ledger *ledger, enum pcmig_phase to, bool weak)
{
    ledger->before_finish = phase_of_rules(ledger);
    ledger->finish_is_weak = weak;
    if (pcmig_ledger_phase_now(ledger) != to)
        enter(ledger, to);
}

static void on_event(struct pcmig_ledger *ledger, enum pcmig_event event)
{
    unsigned phase = 1u << phase_of_rules(ledger);

    add_entry(ledger, PCMIG_LEDGER_ENTRY_EVENT, (int)event);
    if (event == PCMIG_EVENT_SRC_SUSPENDED_MIGRATED || event == PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY) {
        if (ledger->suspended_us < 0)
            ledger->suspended_us = ledger->now_us;
    } else if (event == PCMIG_EVENT_DST_RESUMED_MIGRATED || event == PCMIG_EVENT_DST_RESUMED_POSTCOPY) {
        if (ledger->resumed_us < 0)
            ledger->resumed_us = ledger->now_us;
    } else if (event == PCMIG_EVENT_SRC_RESUMED && ledger->resumed_us < 0) {
        ledger->suspended_us = -1;
    }
    if (event >= PCMIG_EVENT_DST_STARTED && event <= PCMIG_EVENT_DST_STOPPED)
        ledger->dst_seen = true;

    /* Nobody will tell us when the guest resumes at a destination that we do not hear. */
    if (event == PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY && !ledger->dst_seen && (phase & (AT_SOURCE | BIT(SWITCHOVER)))) {
        change_phase(ledger, PCMIG_PHASE_POSTCOPY, false);
        return;
    }
    for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++) {
        if (transitions[i].event == event && (transitions[i].from & phase) != 0) {
            change_phase(ledger, transitions[i].to, transitions[i].weak);
            return;
        }
    }
}

static void open_pass(struct pcmig_ledger *ledger, int64_t start_us, uint64_t remaining_bytes)
{
    struct pcmig_ledger_row *row;

    if (ledger->pass_count == PCMIG_LEDGER_PASSES_MAX) {
        row = &ledger->pass_rows[ledger->pass_count - 1];
        row->merged++;
        row->complete = false;
        ledger->pass_dirtied_before = row->dirtied_pages;
        return;
    }
    row = &ledger->pass_rows[ledger->pass_count++];
    *row = (struct pcmig_ledger_row){
        .phase = PCMIG_PHASE_PRECOPY,
        .number = (unsigned)ledger->pass_count,
        .start_us = start_us,
        .end_us = start_us,
        .remaining_start_bytes = remaining_bytes,
        .remaining_end_bytes = remaining_bytes,
        .queue_peak_bytes = -1,
    };
    ledger->pass_dirtied_before = 0;
}

/* After the sample's figures went to the running pass. */
static void feed_passes(struct pcmig_ledger *ledger, const struct pcmig_sample *sample)
{
    struct pcmig_ledger_row *row = pcmig_ledger_running_pass(ledger);
    bool ended = pcmig_passes_feed(&ledger->passes, ledger->now_us, sample);
    const struct pcmig_pass *pass = ended ? &ledger->passes.last : &ledger->passes.running;

    if (row != NULL) {
        row->remaining_end_bytes = pass->remaining_pages * ledger->page_size_bytes;
        row->dirtied_pages = pcmig_ledger_add(ledger->pass_dirtied_before, pass->dirtied_pages);
        row->reported_dirty_pages_ps = sample->dirty_pages_ps ? sample->dirty_pages_ps : row->reported_dirty_pages_ps;
        row->complete = ended;
    }
    if (ended)
        open_pass(ledger, ledger->now_us, pass->remaining_pages * ledger->page_size_bytes);
}

static void note_queue(struct pcmig_ledger *ledger, int64_t queue_bytes)
{
    struct pcmig_ledger_row *row = &ledger->stays[ledger->current].row, *pass = pcmig_ledger_running_pass(ledger);

    if (queue_bytes > row->queue_peak_bytes)
        row->queue_peak_bytes = queue_bytes;
    if (pass != NULL && (AT_SOURCE & 1u << row->phase) != 0 && queue_bytes > pass->queue_peak_bytes)
        pass->queue_peak_bytes = queue_bytes;
}

static void on_sample(struct pcmig_ledger *ledger, const struct pcmig_sample *sample, bool final)
{
    bool precopy;
    uint64_t guest_pages = pcmig_passes_pages(sample, sample->memory_total_bytes);

    if (!final) {
        note_queue(ledger, sample->queue_bytes);
        if (sample->elapsed_ms != 0 && sample->elapsed_ms < ledger->last_elapsed_ms) {
            ledger->late_samples++;
            return;
        }
        ledger->last_elapsed_ms = sample->elapsed_ms ? sample->elapsed_ms : ledger->last_elapsed_ms;
        /* An active job that has sent more: the call failed (our connection, say), the migration did not. */
        if (ledger->finish_is_weak && pcmig_ledger_phase_now(ledger) == PCMIG_PHASE_FINISHED &&
            sample->memory_processed_bytes > ledger->seen[PCMIG_QUANTITY_WIRE_BYTES])
            change_phase(ledger, ledger->before_finish, false);
    }
    if (sample->page_size_bytes != 0)
        ledger->page_size_bytes = sample->page_size_bytes;
    if (guest_pages > ledger->guest_pages)
        ledger->guest_pages = guest_pages;
    if (phase_of_rules(ledger) == PCMIG_PHASE_SETUP && !final && guest_pages != 0 &&
        (sample->iteration != 0 || pcmig_passes_sent_pages(sample) != 0))
        change_phase(ledger, PCMIG_PHASE_PRECOPY, false);

    precopy = !final && guest_pages != 0 && (PCMIG_LEDGER_DIRTIES & 1u << pcmig_ledger_phase_now(ledger)) != 0;
    if (precopy && ledger->pass_count == 0) {
        /* Before its first pages are given away. */
        open_pass(ledger, ledger->stays[ledger->current].row.start_us, sample->memory_total_bytes);
    }
    pcmig_ledger_spread(ledger, sample, final);
    if (precopy) {
        if (sample->dirty_pages_ps != 0)
            ledger->stays[ledger->current].row.reported_dirty_pages_ps = sample->dirty_pages_ps;
        feed_passes(ledger, sample);
    }
}

/* After the phase is that of the input. One that was late is in no figure. */
static void feed_latency(struct pcmig_ledger *ledger, const struct pcmig_input *input)
{
    const unsigned phase = 1u << phase_of_rules(ledger);
    struct pcmig_input now = *input;

    now.t_us = ledger->now_us;
    pcmig_latency_feed(&ledger->latency, &now, (phase & BIT(PRECOPY)) != 0, (phase & PCMIG_LEDGER_AFTER) != 0);
}

void pcmig_ledger_feed(struct pcmig_ledger *ledger, const struct pcmig_input *input)
{
    begin(ledger, input->t_us);
    add_time(ledger, input->t_us);
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
        on_sample(ledger, &input->sample, false);
        break;
    case PCMIG_INPUT_FINAL:
        /* First the end, so that nothing is given to a phase "finished"; then the last figures. */
        if (pcmig_ledger_phase_now(ledger) != PCMIG_PHASE_FINISHED || ledger->finish_is_weak)
            change_phase(ledger, PCMIG_PHASE_FINISHED, false);
        on_sample(ledger, &input->sample, true);
        ledger->final = true;
        ledger->final_sample = input->sample;
        break;
    case PCMIG_INPUT_QUEUE:
        note_queue(ledger, input->sample.queue_bytes);
        break;
    case PCMIG_INPUT_EVENT:
        if (input->code >= 0 && input->code < PCMIG_EVENT_COUNT)
            on_event(ledger, (enum pcmig_event)input->code);
        break;
    case PCMIG_INPUT_ITERATION:
        /* The first dirty bitmap ends the set-up. */
        if (phase_of_rules(ledger) == PCMIG_PHASE_SETUP)
            change_phase(ledger, PCMIG_PHASE_PRECOPY, false);
        break;
    case PCMIG_INPUT_REQUEST:
        if (input->code >= 0 && input->code < PCMIG_REQUEST_COUNT)
            add_entry(ledger, PCMIG_LEDGER_ENTRY_REQUEST, (int)input->code);
        break;
    case PCMIG_INPUT_TURN:
        ledger->waits = input->code == PCMIG_TURN_WAITING;
        break;
    case PCMIG_INPUT_TICK:
    case PCMIG_INPUT_DIRTY_RATE:
    case PCMIG_INPUT_DOWNTIME_LIMIT:
    case PCMIG_INPUT_LINK_RATE:
    case PCMIG_INPUT_BEHIND:
    case PCMIG_INPUT_ROUND_TRIP:
    case PCMIG_INPUT_HOST_PAGE:
    case PCMIG_INPUT_LATENCY:
    case PCMIG_INPUT_VCPUS:
    case PCMIG_INPUT_KIND_COUNT:
        break;
    }
    feed_latency(ledger, input);
}

void pcmig_ledger_note_action(struct pcmig_ledger *ledger, const struct pcmig_decision *decision)
{
    enum pcmig_phase phase;

    if (decision->action == PCMIG_ACTION_KEEP || decision->action == PCMIG_ACTION_SET_PACE)
        return;
    begin(ledger, decision->t_us);
    add_time(ledger, decision->t_us);
    add_entry(ledger, PCMIG_LEDGER_ENTRY_ACTION, (int)decision->action);
    ledger->asked = decision->action == PCMIG_ACTION_ASK; /* every other one ends the wait */
    phase = pcmig_ledger_phase_now(ledger);
    if (decision->action == PCMIG_ACTION_DRAIN && (phase == PCMIG_PHASE_PRECOPY || phase == PCMIG_PHASE_SETUP))
        change_phase(ledger, PCMIG_PHASE_DRAIN, false);
    else if (decision->action == PCMIG_ACTION_UNDRAIN && phase == PCMIG_PHASE_DRAIN)
        change_phase(ledger, PCMIG_PHASE_PRECOPY, false);
}
