/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_model.h. Figures are expected values, so a run is the same every time. */
#include "guest_model.h"

#include <math.h>
#include <string.h>

#define STEP_US     INT64_C(5000)
#define STEP_S      0.005
#define SYNC_US     INT64_C(55000)
#define ANSWER_US   INT64_C(20000) /* from start-postcopy to the event */
#define PAGE        4096.0
#define PAGE_OF_MIB 256.0
#define QUEUE_PAGES 600.0 /* what socket buffers hold */

static void feed(struct guest_model *m, struct pcmig_input *input);

void guest_model_init(struct guest_model *m, enum pcmig_policy_kind kind, const struct pcmig_params *params, bool gated)
{
    struct pcmig_params defaults;

    memset(m, 0, sizeof(*m));
    pcmig_params_defaults(&defaults);
    if (params == NULL)
        params = &defaults;
    m->queue_seen = true;
    m->guest_pages = 65536;
    m->working_pages = 32768;
    m->writes_ps = 20000;
    m->link_pages_ps = 12.5e6 / PAGE;
    m->downtime_s = (double)params->value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] / 1000;
    m->left = m->guest_pages;
    m->policy = pcmig_policy_new(kind, params, gated);
    policy_rules_init(&m->rules, kind, params, gated);
    m->iteration = 1;
    m->answer_us = INT64_MAX;
    guest_model_event(m, PCMIG_EVENT_MIGRATE_CALLED);
}

void guest_model_free(struct guest_model *m)
{
    pcmig_policy_free(m->policy);
    m->policy = NULL;
}

static void act(struct guest_model *m, const struct pcmig_decision *d)
{
    if (d->action == PCMIG_ACTION_KEEP)
        return;
    if (m->said_count < MODEL_DECISIONS)
        m->said[m->said_count++] = *d;
    switch (d->action) {
    case PCMIG_ACTION_DRAIN:
        m->draining = true;
        m->bandwidth = (double)d->pace_mib * PAGE_OF_MIB;
        return;
    case PCMIG_ACTION_UNDRAIN:
        m->draining = false;
        m->bandwidth = 0;
        return;
    case PCMIG_ACTION_SET_PACE:
        if (m->postcopy)
            m->bandwidth = (double)d->pace_mib * PAGE_OF_MIB;
        return;
    case PCMIG_ACTION_SWITCH:
        m->draining = false;
        if (m->refusals > 0) {
            m->refusals--;
            guest_model_event(m, PCMIG_EVENT_SWITCH_REFUSED);
            return;
        }
        m->answer_us = m->now_us + ANSWER_US;
        guest_model_event(m, PCMIG_EVENT_SWITCH_ISSUED);
        return;
    case PCMIG_ACTION_ABORT:
        m->aborted = true;
        return;
    default:
        return;
    }
}

static void feed(struct guest_model *m, struct pcmig_input *input)
{
    struct pcmig_decision decision;
    const char *broken;

    input->t_us = m->now_us;
    pcmig_policy_feed(m->policy, input, &decision);
    broken = policy_rules_check(&m->rules, m->policy, input, &decision);
    if (m->broken == NULL)
        m->broken = broken;
    m->due_us = decision.next_us;
    act(m, &decision);
}

void guest_model_event(struct guest_model *m, enum pcmig_event event)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = event};

    feed(m, &input);
}

void guest_model_request(struct guest_model *m, enum pcmig_request request)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_REQUEST, .code = request};

    feed(m, &input);
}

void guest_model_turn(struct guest_model *m, enum pcmig_turn turn)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_TURN, .code = turn};

    feed(m, &input);
}

static void look(struct guest_model *m)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_TICK};

    m->looks++;
    input.sample.queue_bytes = m->queue_seen ? (int64_t)(m->queue * PAGE) : -1;
    if (m->draining) {
        input.kind = PCMIG_INPUT_QUEUE;
    } else if (!m->stats_fail) {
        m->samples++;
        input.kind = PCMIG_INPUT_SAMPLE;
        input.sample.memory_total_bytes = (uint64_t)(m->guest_pages * PAGE);
        input.sample.memory_remaining_bytes = (uint64_t)floor(m->left) * 4096;
        input.sample.memory_processed_bytes = (uint64_t)(m->sent * PAGE);
        input.sample.normal_pages = (uint64_t)m->sent;
        input.sample.page_size_bytes = 4096;
        input.sample.iteration = m->iteration;
        input.sample.postcopy_requests = m->requests;
    }
    feed(m, &input);
}

/* Writes make pages dirty that are neither waiting to be sent nor dirty already. In the first pass only what was sent
 * can become dirty. */
static void write_memory(struct guest_model *m)
{
    double unsent = m->sent < m->guest_pages ? m->guest_pages - m->sent : 0;
    double waiting = unsent * m->working_pages / m->guest_pages + (m->left > unsent ? m->left - unsent : 0);
    double clean = m->working_pages - waiting - m->dirty;
    double clean_share = clean > 0 ? clean / m->working_pages : 0;

    m->dirty += m->writes_ps * STEP_S * clean_share;
}

static void synchronise(struct guest_model *m)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_ITERATION};

    m->left += m->dirty;
    m->dirty = 0;
    m->sync_us = m->now_us;
    input.code = (int64_t)++m->iteration;
    feed(m, &input);
    if (m->left <= m->link_pages_ps * m->downtime_s && m->answer_us == INT64_MAX) {
        guest_model_event(m, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED);
        m->finished = true;
    }
}

/* QEMU sends at its bandwidth into the queue, the link empties it. */
static void send(struct guest_model *m)
{
    double out = m->link_pages_ps * STEP_S;
    double in = m->bandwidth > 0 && m->bandwidth < m->link_pages_ps ? m->bandwidth * STEP_S : out;

    if (m->bandwidth == 0)
        in += QUEUE_PAGES - m->queue < out ? QUEUE_PAGES - m->queue : out;
    if (in > m->left)
        in = m->left;
    m->left -= in;
    m->sent += in;
    m->queue += in - out;
    if (m->queue < 0)
        m->queue = 0;
    if (m->queue_stuck)
        m->queue = QUEUE_PAGES;
}

static void step(struct guest_model *m)
{
    m->now_us += STEP_US;
    if (m->postcopy) {
        /* Requests fade with what is missing. */
        m->requests += (uint64_t)(m->left / m->guest_pages * 20);
        send(m);
        m->finished = m->left <= 0;
    } else {
        write_memory(m);
        send(m);
        if (m->continuous ? m->now_us - m->sync_us >= SYNC_US : m->left <= 0)
            synchronise(m);
    }
    if (!m->finished && m->now_us >= m->answer_us && !m->postcopy) {
        m->postcopy = true;
        m->left += m->dirty;
        m->dirty = 0;
        guest_model_event(m, PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY);
        guest_model_event(m, PCMIG_EVENT_DST_RESUMED_POSTCOPY);
    }
    if (!m->finished && m->now_us >= m->due_us)
        look(m);
}

void guest_model_run(struct guest_model *m, int64_t for_us)
{
    int64_t end_us = m->now_us + for_us;

    while (m->now_us < end_us && !m->finished && (!m->aborted || m->ignores_abort))
        step(m);
    if (m->aborted && !m->ignores_abort)
        guest_model_event(m, PCMIG_EVENT_SRC_RESUMED);
    if (m->finished)
        guest_model_event(m, PCMIG_EVENT_JOB_COMPLETED);
}

const struct pcmig_decision *guest_model_said(const struct guest_model *m, enum pcmig_action action,
                                              enum pcmig_reason reason)
{
    for (unsigned i = 0; i < m->said_count; i++) {
        if (m->said[i].action == action && (reason == PCMIG_REASON_COUNT || m->said[i].reason == reason))
            return &m->said[i];
    }
    return NULL;
}

unsigned guest_model_count(const struct guest_model *m, enum pcmig_action action)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->said_count; i++)
        n += m->said[i].action == action;
    return n;
}
