/* See policy.h. How auto judges convergence is told in doc/switchover.rst. */
#include "core/policy.h"

#include "core/pacing.h"
#include "core/passes.h"
#include "core/rate.h"

#include <stdlib.h>
#include <string.h>

/* While draining, the queue is looked at this often; 5 ms of a link are what an empty queue may be missed by. */
#define DRAIN_LOOK_US     5000
/* Without a sign of the switch, look at the statistics after this long: requests mean that it has happened. */
#define SWITCH_LOOK_US    1000000
#define RETRY_MAX_US      1000000
/* Immediate waits that long at the most for a first measurement of the link. */
#define IMMEDIATE_WAIT_US 1000000
/* 285 years. Times beyond, which only a damaged trace has, count as this one, so that sums and products of times fit. */
#define TIME_MAX_US       (INT64_C(1) << 53)

enum stage {
    STAGE_PRECOPY,
    STAGE_DRAIN,  /* pre-copy slowed, waiting for an empty queue */
    STAGE_SWITCH, /* start-postcopy decided, the answer is awaited */
    STAGE_RETRY,  /* libvirt refused, waiting to try again */
    STAGE_POSTCOPY,
    STAGE_PAUSED, /* post-copy was interrupted, and may be resumed */
    STAGE_DONE,
};

struct pcmig_policy {
    enum pcmig_policy_kind kind;
    struct pcmig_params params;
    enum stage stage;
    int64_t now_us;
    struct pcmig_sample sample;
    int64_t sample_us;
    bool has_sample;
    int64_t last_iteration_us;
    struct pcmig_passes passes;
    struct pcmig_rate rate;
    struct pcmig_pacing pacing;
    struct pcmig_gate gate;
    int64_t drain_start_us;
    int64_t drained_us;    /* since when only the gate is waited for; -1 = not drained yet */
    bool drained_pace_set; /* the post-copy pace was set ahead of the switch */
    bool requested;        /* the operator asked for the switch, and nothing has refused it */
    int64_t refused_since_us;
    int64_t retry_us;
    unsigned attempts;
    bool issued; /* libvirt accepted the switch */
    bool undrained;
    bool finishing; /* FINISH_PRECOPY was said and still holds */
};

static int64_t param_us(const struct pcmig_policy *policy, enum pcmig_param param)
{
    return policy->params.value[param] * 1000;
}

struct pcmig_policy *pcmig_policy_new(enum pcmig_policy_kind kind, const struct pcmig_params *params, bool gated)
{
    struct pcmig_policy *policy = calloc(1, sizeof(*policy));

    if (policy == NULL)
        return NULL;
    policy->kind = kind;
    policy->params = *params;
    policy->last_iteration_us = INT64_MIN / 2;
    pcmig_passes_init(&policy->passes, (unsigned)params->value[PCMIG_PARAM_PASS_TOLERANCE_PERMILLE]);
    pcmig_rate_init(&policy->rate);
    pcmig_gate_init(&policy->gate, gated);
    return policy;
}

void pcmig_policy_free(struct pcmig_policy *policy)
{
    free(policy);
}

/* --- when to hear next ---------------------------------------------------------------------------------------------- */

/* A quarter of the time that the running pass still takes, so that its end is seen late by little, and often enough in
 * absolute terms that nothing is missed, rarely enough that nobody is disturbed. */
static int64_t next_sample_us(const struct pcmig_policy *policy)
{
    int64_t min = param_us(policy, PCMIG_PARAM_SAMPLE_MIN_MS);
    int64_t max = param_us(policy, PCMIG_PARAM_SAMPLE_MAX_MS);
    const struct pcmig_pass *pass = &policy->passes.running;
    int64_t interval = max;

    if (!policy->has_sample) {
        interval = min;
    } else if (pass->number > 0 && pass->sent_pages > 0 && policy->now_us > pass->start_us) {
        uint64_t left =
            pass->start_remaining_pages > pass->sent_pages ? pass->start_remaining_pages - pass->sent_pages : 0;
        uint64_t elapsed_us = (uint64_t)(policy->now_us - pass->start_us);

        if (left <= UINT64_MAX / 4 / (elapsed_us + 1))
            interval = (int64_t)(left * elapsed_us / pass->sent_pages / 4);
    }
    if (interval > max)
        interval = max;
    if (interval < min)
        interval = min;
    return policy->sample_us + interval;
}

/* In a drain: the queue is looked at often, the gate's answer comes as an input. */
static int64_t next_of_drain_us(const struct pcmig_policy *policy)
{
    int64_t next = policy->now_us + DRAIN_LOOK_US, gate;

    if (!pcmig_gate_holds(&policy->gate))
        return next;
    gate = policy->gate.wanted_us + param_us(policy, PCMIG_PARAM_GATE_WAIT_MS);
    return policy->drained_us >= 0 || gate < next ? gate : next;
}

static void keep(const struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason)
{
    int64_t abort_after = param_us(policy, PCMIG_PARAM_ABORT_AFTER_MS);
    int64_t deadline = param_us(policy, PCMIG_PARAM_DEADLINE_MS);
    int64_t gate_again = policy->gate.again_us;

    memset(out, 0, sizeof(*out));
    out->t_us = policy->now_us;
    out->action = PCMIG_ACTION_KEEP;
    out->reason = reason;
    out->next_us = INT64_MAX;
    switch (policy->stage) {
    case STAGE_PRECOPY:
        out->next_us = next_sample_us(policy);
        /* A deadline that is over waits for the first statistics, which come no sooner for asking often. */
        if (policy->kind == PCMIG_POLICY_DEADLINE && deadline > policy->now_us && out->next_us > deadline)
            out->next_us = deadline;
        if (gate_again > policy->now_us && out->next_us > gate_again)
            out->next_us = gate_again;
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_DRAIN:
        out->next_us = next_of_drain_us(policy);
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_SWITCH:
        /* The answer comes as an event; should events get lost, the statistics tell. */
        out->next_us = policy->now_us + SWITCH_LOOK_US;
        break;
    case STAGE_RETRY:
        out->next_us = policy->retry_us;
        if (abort_after > 0 && out->next_us > abort_after)
            out->next_us = abort_after;
        break;
    case STAGE_POSTCOPY:
        out->next_us = policy->sample_us + param_us(policy, PCMIG_PARAM_PACE_PERIOD_MS);
        break;
    case STAGE_PAUSED:
    case STAGE_DONE:
        break;
    }
    if (out->next_us <= policy->now_us)
        out->next_us = policy->now_us + 1000;
}

static void decide(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_action action,
                   enum pcmig_reason reason, int64_t a, int64_t b, int64_t c)
{
    keep(policy, out, reason);
    out->action = action;
    out->a = a;
    out->b = b;
    out->c = c;
}

/* --- pre-copy ------------------------------------------------------------------------------------------------------- */

/* Towards the switch, unless a gate says not now. */
static void begin_drain(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                        int64_t b, int64_t c)
{
    if (!pcmig_gate_want(&policy->gate, policy->now_us, reason == PCMIG_REASON_REQUESTED)) {
        keep(policy, out, reason);
        return;
    }
    policy->stage = STAGE_DRAIN;
    policy->drain_start_us = policy->now_us;
    policy->drained_us = -1;
    policy->undrained = false;
    policy->attempts = 0;
    policy->drained_pace_set = false;
    policy->finishing = false;
    pcmig_pacing_begin(&policy->pacing, &policy->params, policy->rate.link_bps);
    decide(policy, out, PCMIG_ACTION_DRAIN, reason, a, b, c);
    out->pace_mib = policy->params.value[PCMIG_PARAM_DRAIN_PACE_MIB];
}

/* Pages that QEMU can send within the downtime limit: with no more than these left it finishes pre-copy by itself. */
static uint64_t final_pages(const struct pcmig_policy *policy)
{
    uint64_t bytes = policy->rate.link_bps / 1000 * (uint64_t)policy->params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS];

    return pcmig_passes_pages(&policy->sample, bytes);
}

/* The evidence is pages found dirty per page sent, within one pass from the second on (in the first, pages that were not
 * sent yet cannot become dirty again). The ratio only grows within a pass, as more of what was sent can become dirty: so
 * a ratio that is too high in the middle of a pass cannot be better at its end. */
static void judge_convergence(struct pcmig_policy *policy, struct pcmig_decision *out, bool pass_ended)
{
    const struct pcmig_pass *pass = pass_ended ? &policy->passes.last : &policy->passes.running;
    uint64_t limit = (uint64_t)policy->params.value[PCMIG_PARAM_CONVERGE_RATIO_PERMILLE];
    uint64_t evidence = (uint64_t)policy->params.value[PCMIG_PARAM_CONVERGE_EVIDENCE_PERMILLE];
    uint64_t final = final_pages(policy);
    uint64_t permille;

    if (pass->number < 2) {
        keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    if (!pass_ended && (pass->sent_pages == 0 || pass->sent_pages * 1000 < pass->start_remaining_pages * evidence)) {
        keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    /* What is left fits in the downtime limit: QEMU is about to finish, whatever the ratio. */
    if (pass->remaining_pages <= final) {
        keep(policy, out, PCMIG_REASON_CONVERGING);
        return;
    }
    permille = pass->sent_pages == 0 ? 1000 : pass->dirtied_pages * 1000 / pass->sent_pages;
    if (permille >= limit) {
        begin_drain(policy, out, PCMIG_REASON_NOT_CONVERGING, (int64_t)pass->dirtied_pages, (int64_t)pass->sent_pages,
                    (int64_t)permille);
        return;
    }
    if (policy->passes.done >= (unsigned)policy->params.value[PCMIG_PARAM_CONVERGE_PASSES]) {
        begin_drain(policy, out, PCMIG_REASON_TOO_SLOW, policy->passes.done,
                    policy->params.value[PCMIG_PARAM_CONVERGE_PASSES], 0);
        return;
    }
    if (pass_ended && !policy->finishing) {
        policy->finishing = true;
        decide(policy, out, PCMIG_ACTION_FINISH_PRECOPY, PCMIG_REASON_CONVERGING, (int64_t)pass->remaining_pages,
               (int64_t) final, (int64_t)permille);
        return;
    }
    keep(policy, out, PCMIG_REASON_CONVERGING);
}

static void precopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out, bool pass_ended)
{
    switch (policy->kind) {
    case PCMIG_POLICY_AUTO:
    case PCMIG_POLICY_DEADLINE:
        judge_convergence(policy, out, pass_ended);
        return;
    case PCMIG_POLICY_FIRST_PASS:
    case PCMIG_POLICY_PASSES: {
        int64_t wanted = policy->kind == PCMIG_POLICY_FIRST_PASS ? 1 : policy->params.value[PCMIG_PARAM_PASSES];

        if (policy->passes.done >= wanted)
            begin_drain(policy, out, PCMIG_REASON_PASSES_DONE, policy->passes.done, 0, 0);
        else
            keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    }
    case PCMIG_POLICY_IMMEDIATE:
        /* The pace after the switch is a share of the link, so the link is measured first: half a second. */
        if (policy->sample.memory_total_bytes > 0 &&
            (policy->rate.link_bps > 0 || policy->now_us - policy->passes.running.start_us > IMMEDIATE_WAIT_US))
            begin_drain(policy, out, PCMIG_REASON_IMMEDIATE, 0, 0, 0);
        else
            keep(policy, out, PCMIG_REASON_GATHERING);
        return;
    case PCMIG_POLICY_MANUAL:
    case PCMIG_POLICY_NEVER:
    case PCMIG_POLICY_KIND_COUNT:
        break;
    }
    keep(policy, out, PCMIG_REASON_NONE);
}

/* Returns whether it decided. */
static bool abort_due(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t abort_after = param_us(policy, PCMIG_PARAM_ABORT_AFTER_MS);

    if (abort_after <= 0 || policy->now_us < abort_after)
        return false;
    policy->stage = STAGE_DONE; /* nothing may switch a guest whose migration is being cancelled */
    decide(policy, out, PCMIG_ACTION_ABORT, PCMIG_REASON_ABORT_AFTER, policy->now_us / 1000, 0, 0);
    return true;
}

/* What comes due by time alone. Returns whether it decided. */
static bool precopy_due(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (abort_due(policy, out))
        return true;
    if (policy->kind == PCMIG_POLICY_DEADLINE && policy->now_us >= param_us(policy, PCMIG_PARAM_DEADLINE_MS) &&
        policy->has_sample) {
        begin_drain(policy, out, PCMIG_REASON_DEADLINE, policy->now_us / 1000, 0, 0);
        return true;
    }
    if (policy->requested && policy->now_us >= policy->gate.again_us) {
        begin_drain(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0); /* the gate was not answered the time before */
        return true;
    }
    return false;
}

/* --- the switch ----------------------------------------------------------------------------------------------------- */

static void do_switch(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                      int64_t b)
{
    policy->stage = STAGE_SWITCH;
    decide(policy, out, PCMIG_ACTION_SWITCH, reason, a, b, 0);
}

/* Back to pre-copy at full speed. */
static void give_up_drain(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a)
{
    policy->stage = STAGE_PRECOPY;
    policy->sample_us = policy->now_us;
    pcmig_rate_pause(&policy->rate);
    decide(policy, out, PCMIG_ACTION_UNDRAIN, reason, a, 0, 0);
}

/* The queue is as empty as it gets: switch, or wait for the gate. */
static void drained(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a,
                    int64_t b)
{
    policy->drained_us = policy->now_us;
    if (pcmig_gate_holds(&policy->gate))
        keep(policy, out, reason);
    else
        do_switch(policy, out, reason, a, b);
}

static void drain(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t waited_us = policy->now_us - policy->drain_start_us;
    int64_t gate_us = policy->now_us - policy->gate.wanted_us;
    int64_t queue = policy->sample.queue_bytes;
    int64_t empty =
        (int64_t)(policy->rate.link_bps / 1000 * (uint64_t)policy->params.value[PCMIG_PARAM_DRAIN_QUEUE_MS]);

    if (abort_due(policy, out))
        return;
    if (pcmig_gate_timed_out(&policy->gate, policy->now_us, param_us(policy, PCMIG_PARAM_GATE_WAIT_MS))) {
        give_up_drain(policy, out, PCMIG_REASON_GATE_TIMEOUT, gate_us / 1000);
        return;
    }
    if (policy->drained_us >= 0) {
        keep(policy, out, PCMIG_REASON_NONE); /* the gate is all that is missing */
        return;
    }
    if (!policy->drained_pace_set) {
        /* Ahead of the switch, so that not one background page goes out faster. */
        policy->drained_pace_set = true;
        decide(policy, out, PCMIG_ACTION_SET_PACE, PCMIG_REASON_REQUESTS_RISE, 0, policy->pacing.pace_mib, 0);
        out->pace_mib = policy->pacing.pace_mib;
        return;
    }
    if (queue < 0) {
        if (waited_us >= param_us(policy, PCMIG_PARAM_DRAIN_BLIND_MS))
            drained(policy, out, PCMIG_REASON_DRAIN_BLIND, waited_us / 1000, 0);
        else
            keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    if (queue <= empty) {
        drained(policy, out, PCMIG_REASON_DRAINED, queue, waited_us / 1000);
        return;
    }
    if (waited_us >= param_us(policy, PCMIG_PARAM_DRAIN_MAX_MS)) {
        drained(policy, out, PCMIG_REASON_DRAIN_TIMEOUT, queue, waited_us / 1000);
        return;
    }
    keep(policy, out, PCMIG_REASON_NONE);
}

static void refused(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    int64_t pause_us = param_us(policy, PCMIG_PARAM_RETRY_MS);

    if (policy->attempts == 0)
        policy->refused_since_us = policy->now_us;
    for (unsigned i = 0; i < policy->attempts && pause_us < RETRY_MAX_US; i++)
        pause_us *= 2;
    if (pause_us > RETRY_MAX_US)
        pause_us = RETRY_MAX_US;
    policy->attempts++;
    policy->stage = STAGE_RETRY;
    policy->retry_us = policy->now_us + pause_us;
    if (!policy->undrained && policy->now_us - policy->refused_since_us >= param_us(policy, PCMIG_PARAM_DRAIN_MAX_MS)) {
        /* It will take longer: do not hold pre-copy back meanwhile. */
        policy->undrained = true;
        decide(policy, out, PCMIG_ACTION_UNDRAIN, PCMIG_REASON_RETRY, policy->attempts, 0, 0);
        return;
    }
    keep(policy, out, PCMIG_REASON_RETRY);
}

/* Tries a refused switch again when its time has come. */
static void retry(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->stage == STAGE_RETRY && abort_due(policy, out))
        return;
    if (policy->stage == STAGE_RETRY && policy->now_us >= policy->retry_us)
        do_switch(policy, out, PCMIG_REASON_RETRY, policy->attempts + 1, 0);
    else
        keep(policy, out, PCMIG_REASON_NONE);
}

/* --- the gate ------------------------------------------------------------------------------------------------------- */

static void gate_opened(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool wanted = policy->gate.state == PCMIG_GATE_WANTED;

    pcmig_gate_answer(&policy->gate, true);
    if (policy->stage == STAGE_DRAIN && policy->drained_us >= 0 && wanted) {
        do_switch(policy, out, PCMIG_REASON_GATE_OPEN, (policy->now_us - policy->gate.wanted_us) / 1000,
                  (policy->now_us - policy->drained_us) / 1000);
        return;
    }
    /* It counts for the next time, which may have come already. */
    policy->gate.again_us = 0;
    if (policy->stage != STAGE_PRECOPY || !precopy_due(policy, out))
        keep(policy, out, PCMIG_REASON_NONE);
}

static void gate_refused(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->gate.state == PCMIG_GATE_NONE) {
        keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    if (policy->stage >= STAGE_SWITCH && policy->stage != STAGE_RETRY) {
        keep(policy, out, PCMIG_REASON_TOO_LATE);
        return;
    }
    pcmig_gate_answer(&policy->gate, false);
    policy->requested = false;
    if (policy->stage == STAGE_PRECOPY)
        keep(policy, out, PCMIG_REASON_GATE_REFUSED);
    else
        give_up_drain(policy, out, PCMIG_REASON_GATE_REFUSED, 0);
}

/* --- post-copy ------------------------------------------------------------------------------------------------------ */

static void set_pace(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_reason reason, int64_t a)
{
    decide(policy, out, PCMIG_ACTION_SET_PACE, reason, a, policy->pacing.pace_mib, 0);
    out->pace_mib = policy->pacing.pace_mib;
}

static void postcopy_sample(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    static const enum pcmig_reason reasons[] = {
        [PCMIG_PACING_UNCHANGED] = PCMIG_REASON_NONE,
        [PCMIG_PACING_REQUESTS_RISE] = PCMIG_REASON_REQUESTS_RISE,
        [PCMIG_PACING_REQUESTS_FADE] = PCMIG_REASON_REQUESTS_FADE,
        [PCMIG_PACING_TIME_BOUND] = PCMIG_REASON_TIME_BOUND,
    };
    enum pcmig_pacing_cause cause = pcmig_pacing_feed(&policy->pacing, policy->now_us, &policy->sample);

    if (cause == PCMIG_PACING_UNCHANGED)
        keep(policy, out, PCMIG_REASON_NONE);
    else
        set_pace(policy, out, reasons[cause], (int64_t)policy->pacing.requests_ps);
}

static void enter_postcopy(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool paced = (policy->stage == STAGE_SWITCH || policy->stage == STAGE_RETRY) && policy->drained_pace_set;

    policy->stage = STAGE_POSTCOPY;
    policy->sample_us = policy->now_us;
    if (paced) {
        keep(policy, out, PCMIG_REASON_NONE);
        return;
    }
    /* Switched by somebody else (virsh migrate-postcopy, for instance): no pace was set yet. */
    pcmig_pacing_begin(&policy->pacing, &policy->params, policy->rate.link_bps);
    set_pace(policy, out, PCMIG_REASON_REQUESTS_RISE, 0);
}

/* --- inputs --------------------------------------------------------------------------------------------------------- */

static bool before_switch(const struct pcmig_policy *policy)
{
    return policy->stage < STAGE_POSTCOPY;
}

static void on_event(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_event event)
{
    switch (event) {
    case PCMIG_EVENT_SWITCH_ISSUED:
        policy->issued = policy->issued || policy->stage == STAGE_SWITCH;
        break;
    case PCMIG_EVENT_SWITCH_REFUSED:
        if (policy->stage == STAGE_SWITCH && !policy->issued) {
            refused(policy, out);
            return;
        }
        break;
    case PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY:
    case PCMIG_EVENT_DST_RESUMED_POSTCOPY:
        if (before_switch(policy) || policy->stage == STAGE_PAUSED) {
            enter_postcopy(policy, out);
            return;
        }
        break;
    case PCMIG_EVENT_SRC_POSTCOPY_FAILED:
    case PCMIG_EVENT_DST_POSTCOPY_FAILED:
        if (policy->stage != STAGE_DONE)
            policy->stage = STAGE_PAUSED;
        break;
    case PCMIG_EVENT_SRC_RESUMED:
    case PCMIG_EVENT_SRC_STOPPED_MIGRATED:
    case PCMIG_EVENT_SRC_STOPPED_OTHER:
    case PCMIG_EVENT_DST_RESUMED_MIGRATED:
    case PCMIG_EVENT_DST_STOPPED:
    case PCMIG_EVENT_JOB_COMPLETED:
    case PCMIG_EVENT_CALL_SUCCEEDED:
        policy->stage = STAGE_DONE;
        break;
    case PCMIG_EVENT_CALL_FAILED:
        /* In post-copy the guest may well complete after its caller was told of an error. */
        if (before_switch(policy))
            policy->stage = STAGE_DONE;
        break;
    default:
        break;
    }
    keep(policy, out, PCMIG_REASON_NONE);
}

static void on_request(struct pcmig_policy *policy, struct pcmig_decision *out, enum pcmig_request request)
{
    switch (request) {
    case PCMIG_REQUEST_SWITCH:
        /* Under never, libvirt was not told of post-copy and would refuse for ever. */
        if (policy->stage == STAGE_PRECOPY && policy->kind != PCMIG_POLICY_NEVER) {
            policy->requested = true;
            begin_drain(policy, out, PCMIG_REASON_REQUESTED, 0, 0, 0);
            return;
        }
        break;
    case PCMIG_REQUEST_ABORT:
        if (policy->stage < STAGE_SWITCH || policy->stage == STAGE_RETRY) {
            policy->stage = STAGE_DONE; /* nothing may switch a guest whose migration is being cancelled */
            decide(policy, out, PCMIG_ACTION_ABORT, PCMIG_REASON_REQUESTED, 0, 0, 0);
            return;
        }
        keep(policy, out, PCMIG_REASON_TOO_LATE);
        return;
    case PCMIG_REQUEST_DETACH:
        if (policy->stage == STAGE_POSTCOPY || policy->stage == STAGE_SWITCH) {
            policy->pacing.pace_mib = pcmig_pacing_unattended_mib(&policy->pacing);
            policy->stage = STAGE_DONE;
            set_pace(policy, out, PCMIG_REASON_DETACHED, policy->pacing.pace_mib);
            return;
        }
        if (policy->stage == STAGE_DRAIN || policy->stage == STAGE_RETRY) {
            policy->stage = STAGE_DONE;
            decide(policy, out, PCMIG_ACTION_UNDRAIN, PCMIG_REASON_DETACHED, 0, 0, 0);
            return;
        }
        policy->stage = STAGE_DONE;
        break;
    case PCMIG_REQUEST_OPEN_GATE:
        gate_opened(policy, out);
        return;
    case PCMIG_REQUEST_REFUSE_GATE:
        gate_refused(policy, out);
        return;
    case PCMIG_REQUEST_PAUSE: /* the stream's business, and not that of switch and pace (recovery.h) */
    case PCMIG_REQUEST_RESUME:
    case PCMIG_REQUEST_COUNT:
        break;
    }
    keep(policy, out, PCMIG_REASON_NONE);
}

static void on_sample(struct pcmig_policy *policy, struct pcmig_decision *out, const struct pcmig_sample *sample)
{
    bool pass_ended = false;

    policy->sample = *sample;
    policy->sample_us = policy->now_us;
    policy->has_sample = true;
    if (policy->stage == STAGE_PRECOPY) {
        pcmig_rate_feed(&policy->rate, policy->now_us, sample);
        pass_ended = pcmig_passes_feed(&policy->passes, policy->now_us, sample);
        if (!precopy_due(policy, out))
            precopy_sample(policy, out, pass_ended);
    } else if (policy->stage == STAGE_DRAIN) {
        drain(policy, out);
    } else if (policy->stage == STAGE_POSTCOPY) {
        postcopy_sample(policy, out);
    } else if (policy->stage == STAGE_SWITCH && policy->issued && sample->postcopy_requests > 0) {
        enter_postcopy(policy, out);
    } else {
        retry(policy, out);
    }
}

static void on_tick(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    if (policy->stage == STAGE_PRECOPY) {
        policy->sample_us = policy->now_us; /* the statistics were asked for and did not come */
        if (precopy_due(policy, out))
            return;
    }
    if (policy->stage == STAGE_POSTCOPY)
        policy->sample_us = policy->now_us;
    if (policy->stage == STAGE_DRAIN) {
        drain(policy, out);
        return;
    }
    retry(policy, out);
}

/* QEMU up to 10 has just synchronised its bitmap at the end of a pass: the moment to look. QEMU 11 says so every 55 ms,
 * which would be too often. */
static void on_iteration(struct pcmig_policy *policy, struct pcmig_decision *out)
{
    bool rare = policy->now_us - policy->last_iteration_us >= param_us(policy, PCMIG_PARAM_SAMPLE_MAX_MS);

    policy->last_iteration_us = policy->now_us;
    keep(policy, out, PCMIG_REASON_NONE);
    if (rare && policy->stage == STAGE_PRECOPY)
        out->next_us = policy->now_us;
}

void pcmig_policy_feed(struct pcmig_policy *policy, const struct pcmig_input *input, struct pcmig_decision *out)
{
    if (input->t_us > policy->now_us)
        policy->now_us = input->t_us < TIME_MAX_US ? input->t_us : TIME_MAX_US;
    switch (input->kind) {
    case PCMIG_INPUT_SAMPLE:
        on_sample(policy, out, &input->sample);
        return;
    case PCMIG_INPUT_QUEUE:
        policy->sample.queue_bytes = input->sample.queue_bytes;
        if (policy->stage == STAGE_DRAIN)
            drain(policy, out);
        else
            keep(policy, out, PCMIG_REASON_NONE);
        return;
    case PCMIG_INPUT_EVENT:
        on_event(policy, out, (enum pcmig_event)input->code);
        return;
    case PCMIG_INPUT_ITERATION:
        on_iteration(policy, out);
        return;
    case PCMIG_INPUT_TICK:
        on_tick(policy, out);
        return;
    case PCMIG_INPUT_REQUEST:
        on_request(policy, out, (enum pcmig_request)input->code);
        return;
    case PCMIG_INPUT_FINAL:
    case PCMIG_INPUT_KIND_COUNT:
        break;
    }
    keep(policy, out, PCMIG_REASON_NONE);
}

void pcmig_policy_progress(const struct pcmig_policy *policy, unsigned *passes, unsigned *permille)
{
    *passes = policy->passes.done;
    *permille = pcmig_passes_permille(&policy->passes);
}

uint64_t pcmig_policy_link_bps(const struct pcmig_policy *policy)
{
    return policy->rate.link_bps;
}

enum pcmig_gate_state pcmig_policy_gate(const struct pcmig_policy *policy)
{
    /* Whatever ended the drain, nobody needs to answer any more. */
    if (policy->gate.state == PCMIG_GATE_WANTED && policy->stage != STAGE_DRAIN)
        return PCMIG_GATE_CLOSED;
    return policy->gate.state;
}

uint64_t pcmig_policy_requests_ps(const struct pcmig_policy *policy)
{
    return policy->stage == STAGE_POSTCOPY ? policy->pacing.requests_ps : 0;
}
