/* SPDX-License-Identifier: Apache-2.0 */
/* What others do, by their published rules. None of them drains the queue or paces post-copy.
 *
 * virsh: libvirt's tools/virsh-domain.c, --postcopy-after-precopy: when the second iteration is reported.
 * Nova 34: nova/virt/libvirt/migration.py: each 0.5 s; the downtime limit rises in ten steps, each 75 s per GiB long;
 *   at 800 s per GiB the timeout action, here force_complete, that is post-copy (memory counts as 2 GiB at least).
 * KubeVirt 1.9: enhancement 248 (stall detector: progressTimeout 60 s, stallMargin 4 %, patience halved each time),
 *   291 (downtime ramp: 150 ms, from the third iteration each 10 s 150 ms more up to 1050 ms), and for both
 *   completionTimeoutPerGiB 150 s, after which post-copy, which is allowed, is started.
 */
#include "migration.h"

#include <math.h>
#include <string.h>

#define SECOND_US          INT64_C(1000000)
#define POLL_US            500000 /* Nova; virsh-pass looks more often */
#define PASS_POLL_US       50000
#define PROGRESS_S         60
#define STALL_MARGIN       0.04
#define NOVA_STEPS         10
#define NOVA_TIMEOUT_S     800
#define KUBEVIRT_TIMEOUT_S 150
#define RAMP_FIRST_MS      150.0
#define RAMP_STEP_MS       128.57142857142858 /* (1050 - 150) / 7 */
#define RAMP_LAST_MS       1050.0
#define RAMP_COOLDOWN_US   (10 * SECOND_US)
#define PAGE               4096.0
#define FITS_NOT           2

static double gib(const struct scenario *s)
{
    return s->memory_mib / 1024;
}

static double nova_step_s(const struct scenario *s)
{
    return floor(75 * fmax(2, gib(s)));
}

double nova_limit_ms(const struct scenario *s, int64_t elapsed_us)
{
    double step = floor((double)elapsed_us / 1e6 / nova_step_s(s));

    return 50 + 45 * fmin(step, NOVA_STEPS);
}

void rival_begin(struct migration *m)
{
    m->due_us = m->start_us + (m->scenario->way == WAY_VIRSH_PASS ? PASS_POLL_US : POLL_US);
    if (m->scenario->way == WAY_KUBEVIRT_RAMP)
        m->qemu.downtime_ms = RAMP_FIRST_MS;
    if (m->scenario->way == WAY_VIRSH || m->scenario->way == WAY_PRECOPY)
        m->due_us = NEVER_US;
}

/* The least remainder among those older than PROGRESS_S, kept second by second. */
static void remember(struct stall *stall, int64_t second, double remaining)
{
    while (stall->second < second) {
        double *slot = &stall->recent[++stall->second % PROGRESS_S];

        if (*slot > 0 && (stall->old == 0 || *slot < stall->old))
            stall->old = *slot;
        *slot = 0;
    }
    if (stall->recent[second % PROGRESS_S] == 0 || remaining < stall->recent[second % PROGRESS_S])
        stall->recent[second % PROGRESS_S] = remaining;
}

static void detect_stall(struct migration *m, int64_t now_us)
{
    struct stall *stall = &m->stall;
    double remaining = guest_left(&m->qemu.guest);

    remember(stall, (now_us - m->start_us) / SECOND_US, remaining);
    if (stall->best == 0) {
        if (stall->old == 0 || remaining < stall->old * (1 - STALL_MARGIN))
            return;
        stall->best = stall->old;
        for (int i = 0; i < PROGRESS_S; i++)
            stall->best = stall->recent[i] > 0 ? fmin(stall->best, stall->recent[i]) : stall->best;
        stall->patience_us = PROGRESS_S * SECOND_US;
        stall->patient_until_us = now_us + stall->patience_us;
        stall->since = INFINITY;
    }
    stall->since = fmin(stall->since, remaining);
    if (remaining <= stall->best * (1 + STALL_MARGIN)) {
        migration_switch(m, now_us);
    } else if (now_us >= stall->patient_until_us) {
        /* The level of before does not come back: the best of what came since will do. */
        stall->best = fmax(stall->best, stall->since);
        stall->since = INFINITY;
        stall->patience_us /= 2;
        stall->patient_until_us = now_us + stall->patience_us;
    }
}

void rival_iteration(struct migration *m, int64_t now_us)
{
    if (m->scenario->way == WAY_VIRSH && m->qemu.iteration >= 2)
        migration_switch(m, now_us);
    if (m->scenario->way == WAY_KUBEVIRT)
        detect_stall(m, now_us);
}

static void ramp(struct migration *m, int64_t now_us)
{
    if (m->qemu.iteration < 3)
        return;
    if (m->qemu.downtime_ms > RAMP_LAST_MS - 1) {
        m->raise_us = 0;
        return;
    }
    if (m->raise_us == 0)
        m->raise_us = now_us + RAMP_COOLDOWN_US;
    if (now_us < m->raise_us)
        return;
    m->qemu.downtime_ms = fmin(m->qemu.downtime_ms + RAMP_STEP_MS, RAMP_LAST_MS);
    m->raise_us = now_us + RAMP_COOLDOWN_US;
}

static void script(struct migration *m, int64_t now_us)
{
    const struct scenario *s = m->scenario;

    m->due_us = NEVER_US;
    for (; m->steps_taken < s->steps; m->steps_taken++) {
        const struct step *step = &s->script[m->steps_taken];
        double bps = (double)step->pace_mib * 1048576;

        if (m->start_us + step->at_us > now_us) {
            m->due_us = m->start_us + step->at_us;
            return;
        }
        /* As pcmig then did: not before the link needs no more than 10 ms for its queue. */
        if (step->action == PCMIG_ACTION_SWITCH && qemu_queue_bytes(&m->qemu, now_us) > m->qemu.link->rate_bps / 100) {
            m->due_us = now_us + 5000;
            return;
        }
        if (step->action == PCMIG_ACTION_SWITCH)
            migration_switch(m, now_us);
        else if (step->action == PCMIG_ACTION_DRAIN)
            m->qemu.precopy_bps = bps;
        else
            m->qemu.postcopy_bps = bps;
    }
}

void rival_look(struct migration *m, int64_t now_us)
{
    const struct scenario *s = m->scenario;
    double elapsed_s = (double)(now_us - m->start_us) / 1e6;

    m->due_us = now_us + POLL_US;
    switch (s->way) {
    case WAY_VIRSH_PASS:
        m->due_us = now_us + PASS_POLL_US;
        if (m->qemu.normal_pages + m->qemu.zero_pages >= m->qemu.guest.pages)
            migration_switch(m, now_us);
        return;
    case WAY_SCRIPT:
        script(m, now_us);
        return;
    case WAY_NOVA:
        if (elapsed_s >= NOVA_TIMEOUT_S * fmax(2, gib(s)))
            migration_switch(m, now_us);
        return;
    case WAY_KUBEVIRT_RAMP:
        ramp(m, now_us);
        if (elapsed_s >= KUBEVIRT_TIMEOUT_S * fmax(1, gib(s)))
            migration_switch(m, now_us);
        return;
    case WAY_KUBEVIRT:
        if (elapsed_s >= KUBEVIRT_TIMEOUT_S * fmax(1, gib(s)))
            migration_switch(m, now_us);
        return;
    default:
        m->due_us = NEVER_US;
        return;
    }
}

int64_t rival_next_us(const struct migration *m)
{
    const struct scenario *s = m->scenario;
    double elapsed_s = (double)(m->due_us - m->start_us) / 1e6, next_s = INFINITY;
    double step_s = nova_step_s(s), step;

    if (s->way == WAY_KUBEVIRT || s->way == WAY_SCRIPT || m->raise_us > 0)
        return m->due_us; /* has a rule about iterations, or about the next few seconds */
    if (s->way == WAY_NOVA)
        next_s = NOVA_TIMEOUT_S * fmax(2, gib(s));
    if (s->way == WAY_KUBEVIRT_RAMP)
        next_s = KUBEVIRT_TIMEOUT_S * fmax(1, gib(s));
    /* A step of the limit in which the least that is ever left does not fit by far changes nothing. */
    for (step = floor(elapsed_s / step_s) + 1; (s->way == WAY_NOVA || s->nova_steps != 0) && step <= NOVA_STEPS;
         step++) {
        if (nova_limit_ms(s, (int64_t)((step + 0.5) * step_s * 1e6)) / 1000 * m->qemu.bandwidth_bps >
            m->qemu.level.before * PAGE / FITS_NOT) {
            next_s = fmin(next_s, step * step_s);
            break;
        }
    }
    return next_s < 1e12 ? m->start_us + (int64_t)(next_s * 1e6) : NEVER_US;
}
