/* SPDX-License-Identifier: Apache-2.0 */
/* pcmig: the real policy, pacing, ledger and trace, driven as the engine's control thread drives them
 * (csrc/engine/control.c). */
#include "migration.h"

#include "core/trace.h"

#include <math.h>

/* libvirt's calls take that long until QEMU knows. */
#define CALL_US         1500
/* When the result of the sampling is there, how many pages QEMU looks at, and how much of the truth it finds: six
 * traces of the bed have 19 to 38 MiB, 28 in the mean, where the guest writes to 34 MiB in a second. */
#define SAMPLED_US      1200000
#define SAMPLED_PER_GIB 512
#define SAMPLED_SHARE   0.85

bool sim_verbose;

void migration_switch(struct migration *m, int64_t now_us)
{
    if (m->issue_us == NEVER_US)
        m->issue_us = now_us + CALL_US;
}

int steer_begin(struct migration *m, const char *trace_path)
{
    const struct scenario *s = m->scenario;
    struct pcmig_params params = s->params;
    char line[PCMIG_TRACE_LINE_MAX];

    if (s->nova_steps != 0) {
        /* As pcmig/nova/planning.py does: QEMU's limit is Nova's, which tells the core of each step. */
        params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] = 500;
        params.value[PCMIG_PARAM_DOWNTIME_CONTROL] = 0;
    } else if (params.value[PCMIG_PARAM_DOWNTIME_CONTROL] == 0) {
        params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS] = (int64_t)s->downtime_ms;
    }
    m->policy = pcmig_policy_new(s->policy, &params, false);
    m->ledger = pcmig_ledger_new();
    if (m->policy == NULL || m->ledger == NULL)
        return -1;
    if (trace_path != NULL && (m->trace = fopen(trace_path, "w")) != NULL) {
        pcmig_trace_write_header(line, sizeof(line));
        fputs(line, m->trace);
        pcmig_trace_write_params(line, sizeof(line), s->policy, false, &params);
        fputs(line, m->trace);
    }
    return 0;
}

void steer_end(struct migration *m)
{
    pcmig_policy_free(m->policy);
    pcmig_ledger_free(m->ledger);
    if (m->trace != NULL)
        (void)fclose(m->trace);
}

static double bounded(const struct migration *m, double bps)
{
    double bound = (double)m->bound_mib * 1024 * 1024;

    return bound > 0 && (bps <= 0 || bps > bound) ? bound : bps;
}

void steer_bandwidth(struct migration *m)
{
    m->qemu.precopy_bps = bounded(m, m->precopy_bps);
    m->qemu.postcopy_bps = bounded(m, m->postcopy_bps);
}

static void feed(struct migration *m, int64_t now_us, struct pcmig_input *input);

static void act(struct migration *m, int64_t now_us, const struct pcmig_decision *decision)
{
    double bps = (double)decision->pace_mib * 1024 * 1024;

    switch (decision->action) {
    case PCMIG_ACTION_DRAIN:
        m->draining = true;
        m->why = decision->reason;
        m->drain_us = now_us;
        m->precopy_bps = bps;
        break;
    case PCMIG_ACTION_UNDRAIN:
        m->draining = false;
        m->precopy_bps = 0;
        break;
    case PCMIG_ACTION_SET_PACE:
        m->postcopy_bps = bps;
        break;
    case PCMIG_ACTION_SWITCH:
        m->draining = false;
        migration_switch(m, now_us);
        break;
    case PCMIG_ACTION_ABORT:
        m->draining = false;
        m->qemu.state = QEMU_CANCELLED;
        m->qemu.end_us = now_us;
        break;
    default:
        break;
    }
    steer_bandwidth(m);
}

static void feed(struct migration *m, int64_t now_us, struct pcmig_input *input)
{
    struct pcmig_decision decision;
    char line[PCMIG_TRACE_LINE_MAX];

    input->t_us = now_us - m->start_us;
    if (m->trace != NULL && pcmig_trace_write_input(line, sizeof(line), input) > 0)
        fputs(line, m->trace);
    pcmig_ledger_feed(m->ledger, input);
    pcmig_policy_feed(m->policy, input, &decision);
    m->due_us = decision.next_us == INT64_MAX ? NEVER_US : decision.next_us + m->start_us;
    if (decision.action == PCMIG_ACTION_KEEP)
        return;
    m->decisions++;
    if (m->trace != NULL && pcmig_trace_write_decision(line, sizeof(line), &decision) > 0)
        fputs(line, m->trace);
    pcmig_ledger_note_action(m->ledger, &decision);
    if (sim_verbose) {
        pcmig_decision_describe(&decision, line, sizeof(line));
        fprintf(stderr, "%u: %9.3f s %-12s %s (%lld MiB/s; link %.1f MB/s)\n", m->number, (double)input->t_us / 1e6,
                pcmig_action_name(decision.action), line, (long long)decision.pace_mib,
                (double)pcmig_policy_link_bps(m->policy) / 1e6);
    }
    act(m, now_us, &decision);
}

void steer_event(struct migration *m, int64_t now_us, enum pcmig_event event)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_EVENT, .code = event};

    if (sim_verbose && event != PCMIG_EVENT_MIGRATE_CALLED)
        fprintf(stderr, "%u: %9.3f s event %d\n", m->number, (double)(now_us - m->start_us) / 1e6, (int)event);
    feed(m, now_us, &input);
}

void steer_iteration(struct migration *m, int64_t now_us)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_ITERATION, .code = (int64_t)m->qemu.iteration};

    feed(m, now_us, &input);
}

void steer_limit(struct migration *m, int64_t now_us, double limit_ms)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_DOWNTIME_LIMIT, .code = (int64_t)limit_ms};

    feed(m, now_us, &input);
}

/* What QEMU's sampling before the migration has found: pages written to within a second, as a rate. It samples, and
 * finds fewer than there are. */
static void tell_dirty_rate(struct migration *m, int64_t now_us)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_DIRTY_RATE};
    double pages = 0, all = m->qemu.guest.pages, sampled = fmax(1, all / 262144 * SAMPLED_PER_GIB), share, error = 0;

    if (m->rate_told || now_us - m->start_us < SAMPLED_US)
        return;
    m->rate_told = true;
    for (int i = 0; i < SET_COUNT; i++) {
        const struct set *set = &m->qemu.guest.sets[i];

        if (set->pages > 0)
            pages += set->pages * (1 - exp(-set->writes_ps / set->pages));
    }
    share = fmin(1, pages * SAMPLED_SHARE / all);
    /* What the draw adds or takes: a binomial distribution, near enough. */
    for (int i = 0; i < 12; i++)
        error += guest_random(&m->qemu.guest) - 0.5;
    share = fmax(0, share + error * sqrt(share * (1 - share) / sampled));
    input.code = (int64_t)(share * all * 4096);
    feed(m, now_us, &input);
}

static void tell_round_trip(struct migration *m, int64_t now_us)
{
    if (m->trip_told || m->scenario->queue_seen == 0 || m->qemu.sent_bytes <= 0)
        return;
    m->trip_told = true;
    if (m->scenario->host_page_kib > 4)
        steer_tell(m, now_us, PCMIG_INPUT_HOST_PAGE, (int64_t)m->scenario->host_page_kib * 1024);
    steer_tell(m, now_us, PCMIG_INPUT_ROUND_TRIP, (int64_t)(link_least_trip_s(m->qemu.link) * 1e6));
}

static void set_downtime(struct migration *m, int64_t now_us)
{
    int64_t had_ms = m->downtime_set_ms, ms = pcmig_policy_qemu_downtime_ms(m->policy, had_ms);

    if (ms == had_ms)
        return;
    m->downtime_set_ms = ms;
    m->qemu.downtime_ms = (double)ms;
    if (had_ms != 0 || ms != m->scenario->params.value[PCMIG_PARAM_DOWNTIME_LIMIT_MS])
        steer_limit(m, now_us, (double)ms);
}

void steer_look(struct migration *m, int64_t now_us)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_SAMPLE};

    m->samples++;
    if (m->scenario->dirty_rate != 0)
        tell_dirty_rate(m, now_us);
    tell_round_trip(m, now_us);
    qemu_statistics(&m->qemu, now_us, m->start_us, &input.sample);
    if (m->draining)
        input.kind = PCMIG_INPUT_QUEUE;
    else if (m->qemu.state == QEMU_FINISHING || m->qemu.state == QEMU_SWITCHING || m->qemu.sent_bytes <= 0)
        input.kind = PCMIG_INPUT_TICK; /* libvirt has no statistics at the switch, nor in setup */
    else if (m->scenario->nova_steps == 0 && m->scenario->params.value[PCMIG_PARAM_DOWNTIME_CONTROL] != 0)
        set_downtime(m, now_us);
    feed(m, now_us, &input);
    if (input.kind == PCMIG_INPUT_SAMPLE)
        turns_sample(m, now_us, &input.sample);
    else if (input.kind == PCMIG_INPUT_QUEUE)
        m->meter.row.queue_bytes = input.sample.queue_bytes;
}

void steer_tell(struct migration *m, int64_t now_us, enum pcmig_input_kind kind, int64_t figure)
{
    struct pcmig_input input = {.kind = kind, .code = figure};

    feed(m, now_us, &input);
}

void steer_turn(struct migration *m, int64_t now_us, enum pcmig_turn turn)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_TURN, .code = turn};

    if (sim_verbose)
        fprintf(stderr, "%u: %9.3f s turn %d, bound %lld MiB/s\n", m->number, (double)(now_us - m->start_us) / 1e6,
                (int)turn, (long long)m->bound_mib);
    feed(m, now_us, &input);
}

void steer_final(struct migration *m, int64_t now_us)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_FINAL};

    qemu_statistics(&m->qemu, now_us, m->start_us, &input.sample);
    feed(m, now_us, &input);
}
