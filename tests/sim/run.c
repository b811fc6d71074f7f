/* SPDX-License-Identifier: Apache-2.0 */
/* See run.h. */
#include "run.h"

#include "migration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEERED(m) ((m)->scenario->way == WAY_PCMIG)

static bool over(const struct migration *m)
{
    return m->qemu.state == QEMU_COMPLETED || m->qemu.state == QEMU_CANCELLED;
}

/* It has a slot. */
static bool runs(const struct migration *m, int64_t now_us)
{
    return m->start_us <= now_us && !over(m);
}

/* Its migrate call was made. */
static bool called(const struct migration *m, int64_t now_us)
{
    return runs(m, now_us) && !m->waits;
}

static void call(struct migration *m, int64_t now_us)
{
    m->waits = false;
    m->due_us = now_us;
    m->qemu.busy_until_us = now_us + (int64_t)(m->scenario->setup_ms * 1000);
    m->qemu.slice_us = m->qemu.turn_us = m->qemu.rate_us = m->qemu.busy_until_us;
    if (STEERED(m))
        steer_event(m, now_us, PCMIG_EVENT_MIGRATE_CALLED);
    else
        rival_begin(m);
}

static int begin(struct migration *m, int64_t now_us, const char *trace)
{
    const struct scenario *s = m->scenario;
    char path[4096];

    m->start_us = m->due_us = now_us;
    if (!STEERED(m)) {
        call(m, now_us);
        return 0;
    }
    if (trace != NULL)
        snprintf(path, sizeof(path), "%s/guest-%u.trace", trace, m->number);
    if (steer_begin(m, trace != NULL ? path : NULL) < 0)
        return -1;
    if (s->guests > 1 && s->turns != 0)
        turns_begin(m, now_us);
    else
        call(m, now_us);
    return 0;
}

/* As many as there are slots, in their order. */
static int begin_due(struct migration *all, const struct scenario *s, int64_t now_us, const char *trace)
{
    unsigned running = 0;

    for (unsigned i = 0; i < (unsigned)s->guests; i++)
        running += runs(&all[i], now_us);
    for (unsigned i = 0; i < (unsigned)s->guests && running < s->slots; i++) {
        if (all[i].start_us == NEVER_US && (double)now_us >= i * s->stagger_ms * 1000) {
            if (begin(&all[i], now_us, trace) < 0)
                return -1;
            running++;
        }
    }
    return 0;
}

/* Tells who steers what has happened. */
static void tell(struct migration *m, int64_t now_us)
{
    static const enum pcmig_event events[] = {
        [QEMU_FINISHING] = PCMIG_EVENT_SRC_SUSPENDED_MIGRATED,
        [QEMU_SWITCHING] = PCMIG_EVENT_SRC_SUSPENDED_POSTCOPY,
        [QEMU_POSTCOPY] = PCMIG_EVENT_DST_RESUMED_POSTCOPY,
        [QEMU_COMPLETED] = PCMIG_EVENT_DST_RESUMED_MIGRATED,
        [QEMU_CANCELLED] = PCMIG_EVENT_SRC_RESUMED,
    };
    struct qemu *qemu = &m->qemu;

    if (qemu->synchronised) {
        qemu->synchronised = false;
        if (STEERED(m))
            steer_iteration(m, now_us);
        else
            rival_iteration(m, now_us);
    }
    if (m->issue_us <= now_us && qemu->start_postcopy_us < 0) {
        qemu->start_postcopy_us = now_us;
        if (STEERED(m))
            steer_event(m, now_us, PCMIG_EVENT_SWITCH_ISSUED);
    }
    if (qemu->state == m->seen)
        return;
    m->seen = qemu->state;
    if (!STEERED(m))
        return;
    if (qemu->state == QEMU_SWITCHING)
        steer_event(m, now_us, PCMIG_EVENT_SRC_SUSPENDED_MIGRATED); /* libvirt's first event of it */
    if (qemu->state == QEMU_COMPLETED)
        steer_final(m, now_us);
    steer_event(m, now_us, events[qemu->state]);
}

/* KubeVirt sets limits of its own. */
static bool under_nova(const struct scenario *s)
{
    return s->way == WAY_NOVA || (s->nova_steps != 0 && s->way != WAY_KUBEVIRT && s->way != WAY_KUBEVIRT_RAMP);
}

static void steer(struct migration *m, int64_t now_us)
{
    const struct scenario *s = m->scenario;

    if (under_nova(s) && m->qemu.state == QEMU_PRECOPY) {
        double limit_ms = nova_limit_ms(s, now_us - m->start_us);

        if (limit_ms != m->qemu.downtime_ms && STEERED(m))
            steer_limit(m, now_us, limit_ms);
        m->qemu.downtime_ms = limit_ms;
    }
    if (now_us < m->due_us)
        return;
    if (STEERED(m))
        steer_look(m, now_us);
    else
        rival_look(m, now_us);
}

static double step_s(struct migration *all, unsigned count, int64_t now_us)
{
    double step = count == 1 ? 10 : 0.1; /* what shares the link changes */

    for (unsigned i = 0; i < count; i++) {
        const struct migration *m = &all[i];

        if (runs(m, now_us) && m->look_us != NEVER_US)
            step = fmin(step, fmax((double)(m->look_us - now_us) / 1e6, 0.00002));
        if (!called(m, now_us))
            continue;
        step = fmin(step, qemu_step_s(&m->qemu, now_us));
        if (m->due_us != NEVER_US)
            step = fmin(step, fmax((double)(m->due_us - now_us) / 1e6, 0.00002));
        if (m->issue_us != NEVER_US && m->issue_us > now_us)
            step = fmin(step, (double)(m->issue_us - now_us) / 1e6);
    }
    return step;
}

/* A rival that waits for a time that is hours away, with a guest of which each pass is like the one before: on to it.
 */
static int64_t skip_us(const struct migration *m, const struct scenario *s, int64_t now_us, int64_t until_us)
{
    int64_t next_us, period_us = (int64_t)(fmax(s->phase_ms, s->burst_every_ms) * 1000), far_us;

    if (STEERED(m) || s->guests > 1 || !qemu_steady(&m->qemu) ||
        (s->burst_mib > 0 && (double)now_us < (s->burst_at_ms + s->burst_ms) * 1000) ||
        (double)now_us < s->change_at_ms * 1000)
        return 0;
    next_us = rival_next_us(m);
    if (next_us > until_us)
        next_us = until_us;
    far_us = next_us - now_us - 500000;
    if (period_us > 0)
        far_us -= far_us % period_us; /* to the same moment of its phase, or of the longer of two */
    return far_us > 500000 ? far_us : 0;
}

static double until_s(const struct scenario *s)
{
    double mbps = s->change_at_ms > 0 ? fmin(s->link_mbps, s->change_mbps) : s->link_mbps;
    /* A window per round trip, or QEMU's thread, may be less than the link. */
    double slowest_bps = fmin(s->sndbuf_kib * 1024 / (s->rtt_us / 1e6), s->cpu_mbs * 1e6);
    double bps = fmin(mbps * 1e6 / 8 * (1 - s->other_permille / 1000) / (1 + s->other_flows), slowest_bps);
    double pass_s = s->memory_mib * 1048576 * s->guests / bps;
    double rule_s = s->way == WAY_NOVA ? 800 * fmax(2, s->memory_mib / 1024) : 0;

    if (s->until_s > 0)
        return s->until_s;
    if (s->way == WAY_KUBEVIRT || s->way == WAY_KUBEVIRT_RAMP)
        rule_s = 150 * fmax(1, s->memory_mib / 1024);
    return 60 + 20 * pass_s + rule_s;
}

static void report(const struct migration *all, const struct scenario *s, FILE *out)
{
    double total = 0, arrival = 0, silence = 0, later = 0, lost = 0, sent = 0, downtime = 0, switched_at = 0, drain = 0;
    unsigned switched = 0, cancelled = 0, unfinished = 0, count = (unsigned)s->guests, samples = 0, decisions = 0;
    uint64_t requests = 0;

    for (unsigned i = 0; i < count; i++) {
        const struct migration *m = &all[i];
        const struct qemu *qemu = &m->qemu;
        bool crossed = qemu->running_us > 0 && qemu->start_postcopy_us >= 0 && qemu->requests + 1 > 0 &&
                       (qemu->state == QEMU_POSTCOPY || qemu->end_us > qemu->running_us);

        unfinished += !over(m);
        cancelled += qemu->state == QEMU_CANCELLED;
        switched += crossed;
        total = fmax(total, (double)qemu->end_us / 1000);
        arrival += (double)qemu->end_us / 1000 / count;
        if (qemu->running_us > 0) {
            silence = fmax(silence, (double)qemu->guest.silence_switch_us / 1000 + s->late_ms);
            later = fmax(later, (double)qemu->guest.silence_later_us / 1000 + s->late_ms);
            downtime = fmax(downtime, (double)(qemu->running_us - qemu->stopped_us) / 1000);
            switched_at = fmax(switched_at, (double)(qemu->stopped_us - m->start_us) / 1000);
        }
        if (m->drain_us > 0)
            drain = fmax(drain, (double)(qemu->stopped_us - m->drain_us) / 1000);
        lost = fmax(lost, qemu->guest.lost_s * 1000);
        sent += qemu->flow->delivered / 1048576;
        requests += qemu->requests;
        samples += m->samples;
        decisions += m->decisions;
    }
    fprintf(out,
            "outcome=%s switched=%u total_ms=%.3f arrival_ms=%.3f stopped_ms=%.3f downtime_ms=%.3f silence_ms=%.3f "
            "later_ms=%.3f lost_ms=%.3f drain_ms=%.3f sent_mib=%.3f requests=%llu iterations=%llu samples=%u "
            "decisions=%u reason=%s link_mbs=%.3f\n",
            unfinished > 0  ? "unfinished"
            : cancelled > 0 ? "cancelled"
            : switched > 0  ? "postcopy"
                            : "precopy",
            switched, total, arrival, switched_at, downtime, silence, later, lost, drain, sent,
            (unsigned long long)requests, (unsigned long long)all[0].qemu.iteration, samples, decisions,
            all[0].why != PCMIG_REASON_NONE ? pcmig_reason_name(all[0].why) : "none",
            all[0].policy != NULL ? (double)pcmig_policy_link_bps(all[0].policy) / 1e6 : 0);
}

/* With --try, of several: how much went over the link in each second. */
static void tell_use(const struct migration *all, unsigned count, int64_t now_us)
{
    static double before;
    static int64_t second;
    double sent = 0;

    if (!sim_verbose || count == 1 || now_us < (second + 1) * 1000000)
        return;
    for (unsigned i = 0; i < count; i++)
        sent += all[i].qemu.flow->delivered;
    second = now_us / 1000000;
    fprintf(stderr, "      %3lld s: %.1f MB/s\n", (long long)second, (sent - before) / 1e6);
    before = sent;
}

int run_scenario(const struct scenario *s, const char *trace, FILE *out)
{
    unsigned count = (unsigned)s->guests, left = count;
    struct migration *all = calloc(count, sizeof(*all));
    struct link link;
    int64_t now_us = 0, until_us = (int64_t)(until_s(s) * 1e6);
    int status = all == NULL ? -1 : 0;

    link_init(&link, s, count);
    for (unsigned i = 0; i < count && status == 0; i++) {
        all[i] = (struct migration){
            .scenario = s, .number = i + 1, .start_us = NEVER_US, .issue_us = NEVER_US, .look_us = NEVER_US};
        qemu_init(&all[i].qemu, s, &link, i);
    }
    while (status == 0 && left > 0 && now_us < until_us) {
        int64_t skipped_us;
        double dt_s;

        status = begin_due(all, s, now_us, trace);
        dt_s = step_s(all, count, now_us);
        link_rate(&link, s, now_us);
        for (unsigned i = 0; i < count; i++) {
            if (called(&all[i], now_us))
                qemu_offer(&all[i].qemu, now_us, dt_s);
        }
        if (link.count > count)
            link.flows[count].offer = 1e15;
        link_step(&link, now_us, dt_s);
        now_us += (int64_t)ceil(dt_s * 1e6);
        tell_use(all, count, now_us);
        left = 0;
        for (unsigned i = 0; i < count; i++) {
            struct migration *m = &all[i];

            if (runs(m, now_us) && m->look_us <= now_us && turns_look(m, all, count, now_us))
                call(m, now_us);
            else if (called(m, now_us - 1) && m->start_us < now_us) {
                qemu_settle(&m->qemu, now_us, dt_s);
                tell(m, now_us);
                if (!over(m))
                    steer(m, now_us);
            }
            if (over(m))
                m->meter.row.phase = PCMIG_TURNS_NONE;
            left += !over(m);
        }
        skipped_us = skip_us(&all[0], s, now_us, until_us);
        if (skipped_us > 0) {
            qemu_skip(&all[0].qemu, skipped_us);
            all[0].due_us += all[0].due_us == NEVER_US ? 0 : skipped_us;
            now_us += skipped_us;
        }
    }
    for (unsigned i = 0; i < count && all != NULL; i++) {
        if (!over(&all[i]))
            all[i].qemu.end_us = now_us;
    }
    if (status == 0)
        report(all, s, out);
    for (unsigned i = 0; i < count && all != NULL; i++)
        steer_end(&all[i]);
    free(all);
    return status;
}
