/* SPDX-License-Identifier: Apache-2.0 */
/* See qemu.h. */
#include "qemu.h"

#include <math.h>
#include <string.h>

#define PAGE            4096.0
#define PAGE_WIRE       4104.0 /* a page and its header */
#define ZERO_WIRE       9.0
#define ZERO_PAGES_PS   2.5e6 /* looked at by one thread */
#define SLICE_US        100000
#define STEPS_OF_A_PASS 4000
#define TURN_US         55000
#define SYNC_US         200.0 /* and so much per GiB: */
#define SYNC_US_PER_GIB 50.0
#define LEVEL_SYNCS     12
#define LEVEL_TIMES     3
#define LEVEL_SAME      0.005
#define LEVEL_LONG      12      /* times, after which ups and downs count as what it is like */
#define ROUNDING        1e-12   /* what sums of bytes over days may be off by */
#define RATE_US         1000000 /* QEMU computes the dirty rate once a second */

void qemu_init(struct qemu *qemu, const struct scenario *s, struct link *link, unsigned index)
{
    memset(qemu, 0, sizeof(*qemu));
    qemu->scenario = s;
    qemu->link = link;
    qemu->flow = &link->flows[index];
    qemu->continuous = s->qemu >= 11;
    qemu->quickack =
        (s->way == WAY_PCMIG || s->way == WAY_SCRIPT) && s->quickack != 0 && s->params.value[PCMIG_PARAM_QUICKACK] != 0;
    qemu->downtime_ms = s->downtime_ms;
    qemu->start_postcopy_us = -1;
    qemu->iteration = 1;
    guest_init(&qemu->guest, s, (uint64_t)s->seed * 64 + index);
}

static bool sends(const struct qemu *qemu)
{
    return qemu->state != QEMU_COMPLETED && qemu->state != QEMU_CANCELLED;
}

static double limit_bps(const struct qemu *qemu)
{
    if (qemu->state == QEMU_PRECOPY)
        return qemu->precopy_bps;
    return qemu->state == QEMU_FINISHING ? 0 : qemu->postcopy_bps;
}

/* Bytes that the limit leaves in this slice. */
static double budget(const struct qemu *qemu)
{
    double limit = limit_bps(qemu) * SLICE_US / 1e6;

    if (limit <= 0)
        return INFINITY;
    return limit > qemu->slice_bytes ? limit - qemu->slice_bytes : 0;
}

/* A page that was asked for counts from when it is sent until it is there. */
double qemu_queue_bytes(const struct qemu *qemu, int64_t now_us)
{
    double in_flight = qemu->link->rate_bps * qemu->link->rtt_s;
    double queue = qemu->flow->waiting + qemu->flow->queued, asked = 0;

    if (qemu->state == QEMU_POSTCOPY) {
        asked = floor(qemu->others_in_flight + 0.5);
        if (qemu->guest.blocked && now_us >= qemu->answer_us)
            asked++;
        asked *= qemu->guest.host_page * PAGE_WIRE;
    }
    return queue > 1 ? fmax(queue + fmin(in_flight, queue), asked) : asked;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

double qemu_step_s(const struct qemu *qemu, int64_t now_us)
{
    double rate = qemu->link->rate_bps, step = 0.05, left = guest_left(&qemu->guest) * PAGE;
    double to_slice = (double)(qemu->slice_us + SLICE_US - now_us) / 1e6;
    double limit = limit_bps(qemu);
    double faults = guest_faults_ps(&qemu->guest) * qemu->guest.vcpus;

    if (!sends(qemu))
        return 1;
    switch (qemu->state) {
    case QEMU_PRECOPY:
        /* Passes of minutes, and nobody who looks at them often. */
        if (qemu->scenario->way != WAY_PCMIG)
            step = fmax(step, left / rate / STEPS_OF_A_PASS);
        step = fmin(step, fmax(guest_next(&qemu->guest) * PAGE, left / 8) / rate / 4);
        if (qemu->start_postcopy_us >= 0)
            step = fmin(step, 0.001);
        if (qemu->continuous && qemu->turn_us + TURN_US > now_us)
            step = fmin(step, (double)(qemu->turn_us + TURN_US - now_us) / 1e6);
        break;
    case QEMU_FINISHING:
    case QEMU_SWITCHING:
        step = 0.0005;
        break;
    default:
        /* Finely while the queue fills or empties, since a request waits in it. */
        if (qemu->guest.core_missing > 0)
            step = 0.0005;
        else if (faults > 1)
            step = fmin(0.02, fmax(qemu->flow->waiting > 0 ? 0.002 : qemu->flow->queued / rate / 4, 0.0005));
        step = fmin(step, left / rate / 4);
        break;
    }
    /* A burst is short, what follows it up to the end of the slice need not be looked at so often. */
    if (limit > 0 && budget(qemu) > 0)
        step = fmin(step, fmax(budget(qemu) / rate / 2, 0.0005));
    if (limit > 0)
        step = fmin(step, to_slice);
    if (qemu->busy_until_us > now_us)
        step = fmin(step, (double)(qemu->busy_until_us - now_us) / 1e6);
    return fmax(step, 0.00005);
}

void qemu_offer(struct qemu *qemu, int64_t now_us, double dt_s)
{
    const struct scenario *s = qemu->scenario;
    double left = guest_next(&qemu->guest), zero, per_page_s, threads, pages;

    qemu->offered_pages = 0;
    if (!sends(qemu))
        return;
    if (qemu->state == QEMU_PRECOPY)
        guest_write(&qemu->guest, s, now_us, dt_s);
    if (qemu->state == QEMU_FINISHING || left <= 0 || qemu->busy_until_us > now_us)
        return;
    /* multifd carries pages of pre-copy only. */
    threads = qemu->state == QEMU_PRECOPY ? s->multifd : 1;
    zero = guest_next_zero(&qemu->guest) / left;
    per_page_s = (zero / ZERO_PAGES_PS + (1 - zero) * PAGE_WIRE / (s->cpu_mbs * 1e6)) / threads;
    qemu->page_bytes = zero * ZERO_WIRE + (1 - zero) * PAGE_WIRE;
    pages = fmin(left, dt_s / per_page_s);
    pages = fmin(pages, budget(qemu) / qemu->page_bytes);
    qemu->offered_pages = pages;
    qemu->flow->offer = pages * qemu->page_bytes;
}

/* --- pre-copy ----------------------------------------------------------------------------------------------------- */

static void send(struct qemu *qemu)
{
    double pages = qemu->offered_pages > 0 ? qemu->flow->accepted / qemu->page_bytes : 0;
    double left = guest_next(&qemu->guest);
    double zero = left > 0 ? pages * guest_next_zero(&qemu->guest) / left : 0;

    qemu->zero_pages += zero;
    qemu->normal_pages += pages - zero;
    qemu->sent_bytes += qemu->flow->accepted;
    qemu->slice_bytes += qemu->flow->accepted;
    guest_sent(&qemu->guest, pages);
}

/* Pre-copy is steady when the least that was left in a long enough time is what it was in the time before. */
static void note_level(struct qemu *qemu, int64_t now_us)
{
    struct level *level = &qemu->level;
    const struct scenario *s = qemu->scenario;
    double left = guest_left(&qemu->guest), enough_s = 3 * left * PAGE / qemu->link->rate_bps;

    enough_s = fmax(enough_s, 2 * fmax(s->phase_ms, s->burst_every_ms) / 1000);
    level->least = level->syncs == 0 ? left : fmin(level->least, left);
    level->syncs++;
    if (level->syncs < LEVEL_SYNCS || (double)(now_us - level->since_us) / 1e6 < enough_s)
        return;
    level->steady = fabs(level->least - level->before) <= LEVEL_SAME * level->before ? level->steady + 1 : 0;
    level->times++;
    level->before = level->least;
    level->syncs = 0;
    level->since_us = now_us;
}

bool qemu_steady(const struct qemu *qemu)
{
    return qemu->state == QEMU_PRECOPY && (qemu->level.steady >= LEVEL_TIMES || qemu->level.times >= LEVEL_LONG);
}

void qemu_skip(struct qemu *qemu, int64_t us)
{
    double bytes = qemu->bandwidth_bps * (double)us / 1e6;

    qemu->slice_us += us;
    qemu->turn_us += us;
    qemu->rate_us += us;
    qemu->level.since_us += us;
    qemu->level.steady = 0;
    qemu->level.times = 0;
    qemu->busy_until_us += us;
    qemu->sent_bytes += bytes;
    qemu->normal_pages += bytes / PAGE_WIRE;
    qemu->flow->delivered += bytes;
}

static void synchronise(struct qemu *qemu, int64_t now_us)
{
    double cost_us = SYNC_US + SYNC_US_PER_GIB * qemu->guest.pages / 262144;

    qemu->dirtied_pages += guest_synchronise(&qemu->guest);
    qemu->iteration++;
    qemu->synchronised = true;
    qemu->busy_until_us = now_us + (int64_t)cost_us;
    qemu->turn_us = qemu->busy_until_us;
    note_level(qemu, now_us);
    if (now_us - qemu->rate_us >= RATE_US) {
        qemu->dirty_pages_ps = qemu->dirtied_pages * 1e6 / (double)(now_us - qemu->rate_us);
        qemu->dirtied_pages = 0;
        qemu->rate_us = now_us;
    }
}

/* The guest stops; its device state goes behind what is on its way. */
static void stop(struct qemu *qemu, int64_t now_us, enum qemu_state state)
{
    qemu->state = state;
    qemu->stopped_us = now_us;
    guest_stop(&qemu->guest, now_us);
    guest_synchronise(&qemu->guest);
    if (state == QEMU_FINISHING) {
        double left = guest_left(&qemu->guest), zero = guest_next_zero(&qemu->guest);
        double bytes = (left - zero) * PAGE_WIRE + zero * ZERO_WIRE;

        qemu->normal_pages += left - zero;
        qemu->zero_pages += zero;
        qemu->sent_bytes += bytes;
        qemu->flow->waiting += bytes;
        guest_sent(&qemu->guest, guest_next(&qemu->guest));
        guest_sent(&qemu->guest, guest_next(&qemu->guest));
    } else {
        guest_spread_to_host_pages(&qemu->guest);
        qemu->slice_us = now_us;
        qemu->slice_bytes = 0;
    }
    qemu->flow->waiting += qemu->scenario->device_kib * 1024;
    qemu->resume_at_bytes = qemu->flow->delivered + qemu->flow->waiting + qemu->flow->queued;
}

static void precopy(struct qemu *qemu, int64_t now_us)
{
    double left = guest_left(&qemu->guest) * PAGE;
    bool used_up = budget(qemu) < PAGE_WIRE;

    if (qemu->busy_until_us > now_us)
        return;
    /* The thread looks when its turn of 50 ms or the slice is over. */
    if (qemu->start_postcopy_us >= 0 && now_us >= qemu->start_postcopy_us &&
        (now_us - qemu->turn_us >= TURN_US || (used_up && now_us - qemu->slice_us >= SLICE_US) || left < PAGE)) {
        stop(qemu, now_us, QEMU_SWITCHING);
        return;
    }
    if (qemu->continuous ? now_us - qemu->turn_us < TURN_US && left >= PAGE
                         : left >= qemu->threshold_bytes && left >= PAGE) {
        if (!qemu->continuous && now_us - qemu->turn_us >= TURN_US)
            qemu->turn_us = now_us;
        return;
    }
    synchronise(qemu, now_us);
    left = guest_left(&qemu->guest) * PAGE;
    /* In this order, migration_iteration_run() asks: what is pending, is post-copy wanted, does it fit. So a guest
     * whose passes are shorter than a turn is switched as well. */
    if (qemu->start_postcopy_us >= 0 && now_us >= qemu->start_postcopy_us)
        stop(qemu, now_us, QEMU_SWITCHING);
    else if (left < qemu->threshold_bytes || left < PAGE)
        stop(qemu, now_us, QEMU_FINISHING);
}

/* --- the switch and post-copy
 * ------------------------------------------------------------------------------------------ */

static void resume_when_there(struct qemu *qemu, int64_t now_us)
{
    const struct scenario *s = qemu->scenario;

    if (qemu->resume_us == 0 && qemu->flow->delivered >= qemu->resume_at_bytes - 1 - ROUNDING * qemu->resume_at_bytes)
        qemu->resume_us = now_us + (int64_t)(s->rtt_us / 2 + s->switch_ms * 1000);
    if (qemu->resume_us == 0 || now_us < qemu->resume_us)
        return;
    qemu->running_us = now_us;
    guest_resume(&qemu->guest, now_us, qemu->state == QEMU_SWITCHING);
    if (qemu->state == QEMU_FINISHING) {
        guest_reach(&qemu->guest, now_us + SLICE_US);
        qemu->end_us = now_us;
        qemu->state = QEMU_COMPLETED;
    } else {
        qemu->state = QEMU_POSTCOPY;
    }
}

/* From the fault to the page's being in place. */
static double answer_s(struct qemu *qemu, int64_t now_us, double pages)
{
    const struct scenario *s = qemu->scenario;
    double bytes = pages * PAGE_WIRE, seconds = s->fault_us / 1e6 + qemu->link->rtt_s / 2;
    int64_t acknowledged_us = qemu->burst_end_us + 40000;

    /* Nagle at the destination, a delayed acknowledgement at the source: the first request after a burst waits. */
    if (!qemu->quickack && qemu->burst_end_us > 0 && now_us < acknowledged_us)
        seconds += (double)(acknowledged_us - now_us) / 1e6;
    qemu->sent_bytes += bytes;
    qemu->normal_pages += pages;
    return seconds + (s->preempt != 0 ? link_urgent(qemu->link, qemu->flow, now_us, bytes, guest_random(&qemu->guest))
                                      : link_behind(qemu->link, qemu->flow, bytes));
}

static void first_vcpu(struct qemu *qemu, int64_t now_us)
{
    struct guest *guest = &qemu->guest;

    while (guest->next_us <= now_us) {
        if (guest->blocked) {
            guest_go_on(guest);
        } else {
            double seconds = answer_s(qemu, guest->next_us, guest->host_page);

            qemu->requests++;
            qemu->answer_us = guest->next_us + (int64_t)qemu->scenario->fault_us;
            guest->lost_s += seconds / guest->vcpus;
            guest_meet(guest, (int64_t)(seconds * 1e6));
        }
    }
    guest_reach(guest, now_us);
}

static void other_vcpus(struct qemu *qemu, int64_t now_us, double dt_s)
{
    struct guest *guest = &qemu->guest;
    double others = guest->vcpus - 1, faults_ps = guest_faults_ps(guest), wait_s, met;

    qemu->others_in_flight = 0;
    if (others <= 0 || faults_ps < 1e-9)
        return;
    wait_s = qemu->scenario->fault_us / 1e6 + qemu->link->rtt_s +
             (qemu->link->fq ? 0 : qemu->flow->queued) / qemu->link->rate_bps +
             guest->host_page * PAGE_WIRE / qemu->link->rate_bps;
    met = others * faults_ps / (1 + faults_ps * wait_s) * dt_s;
    met = fmin(met, guest_left(guest) / guest->host_page);
    qemu->others_in_flight = met / dt_s * (wait_s - qemu->scenario->fault_us / 1e6);
    guest->lost_s += met * wait_s / guest->vcpus;
    link_stream(qemu->link, qemu->flow, now_us, met * guest->host_page * PAGE_WIRE);
    qemu->sent_bytes += met * guest->host_page * PAGE_WIRE;
    qemu->normal_pages += met * guest->host_page;
    guest_fetch(guest, met, false);
    qemu->others_requests += met;
    qemu->requests += (uint64_t)qemu->others_requests;
    qemu->others_requests -= floor(qemu->others_requests);
}

static void postcopy(struct qemu *qemu, int64_t now_us, double dt_s)
{
    if (budget(qemu) > PAGE_WIRE)
        qemu->burst_end_us = 0;
    else if (qemu->burst_end_us == 0)
        qemu->burst_end_us = now_us;
    first_vcpu(qemu, now_us);
    other_vcpus(qemu, now_us, dt_s);
    if (guest_left(&qemu->guest) < 0.5 && qemu->flow->waiting + qemu->flow->queued < 1) {
        guest_sent(&qemu->guest, 1);
        qemu->end_us = now_us + (int64_t)(qemu->link->rtt_s * 1e6);
        qemu->guest.core_missing = 0;
        if (qemu->guest.blocked)
            guest_go_on(&qemu->guest);
        guest_reach(&qemu->guest, now_us + SLICE_US);
        qemu->state = QEMU_COMPLETED;
    }
}

void qemu_settle(struct qemu *qemu, int64_t now_us, double dt_s)
{
    if (!sends(qemu))
        return;
    send(qemu);
    switch (qemu->state) {
    case QEMU_PRECOPY:
        precopy(qemu, now_us);
        break;
    case QEMU_FINISHING:
    case QEMU_SWITCHING:
        resume_when_there(qemu, now_us);
        break;
    default:
        postcopy(qemu, now_us, dt_s);
        break;
    }
    /* Not within a synchronisation, for which the thread stands: its time counts, as if the link were slower. */
    if (now_us - qemu->slice_us >= SLICE_US && now_us >= qemu->busy_until_us) {
        qemu->bandwidth_bps = qemu->slice_bytes * 1e6 / (double)(now_us - qemu->slice_us);
        qemu->threshold_bytes = qemu->bandwidth_bps * qemu->downtime_ms / 1000;
        qemu->slice_us = now_us;
        qemu->slice_bytes = 0;
    }
}

void qemu_statistics(const struct qemu *qemu, int64_t now_us, int64_t start_us, struct pcmig_sample *out)
{
    memset(out, 0, sizeof(*out));
    out->elapsed_ms = (uint64_t)((now_us - start_us) / 1000);
    out->queue_bytes = qemu->scenario->queue_seen != 0 ? (int64_t)qemu_queue_bytes(qemu, now_us) : -1;
    if (qemu->sent_bytes <= 0)
        return;
    out->memory_total_bytes = (uint64_t)qemu->guest.pages * 4096;
    out->memory_remaining_bytes = (uint64_t)guest_left(&qemu->guest) * 4096;
    out->memory_processed_bytes = (uint64_t)qemu->sent_bytes;
    out->memory_bps = (uint64_t)qemu->bandwidth_bps;
    out->normal_pages = (uint64_t)qemu->normal_pages;
    out->normal_bytes = out->normal_pages * 4096;
    out->zero_pages = (uint64_t)qemu->zero_pages;
    out->dirty_pages_ps = (uint64_t)qemu->dirty_pages_ps;
    out->iteration = qemu->iteration;
    out->page_size_bytes = 4096;
    out->postcopy_requests = qemu->requests;
}
