/* SPDX-License-Identifier: Apache-2.0 */
/* The bandwidths of pre-copy and post-copy, the operator's bound of them, and what libvirt refused. See control.h. */
#include "engine/control.h"

/* A bandwidth that libvirt refused (another job held the guest, the connection was broken) is set again that often. */
#define AGAIN_US 200000

static const enum pcmig_ask_kind orders[BANDWIDTHS] = {
    [OF_PRECOPY] = PCMIG_TELL_PRECOPY_SPEED,
    [OF_POSTCOPY] = PCMIG_TELL_POSTCOPY_SPEED,
};

int64_t pcmig_bandwidth_shared(const struct control *c, int64_t mib)
{
    const int64_t bound = c->others.bound_mib;

    return bound > 0 && (mib == 0 || mib > bound) ? bound : mib;
}

void pcmig_bandwidth_set(struct control *c, enum bandwidth which, int64_t mib)
{
    struct pcmig_ask ask;
    bool before = c->bandwidth.refused[which];

    if (which == OF_POSTCOPY && c->bandwidth.bound_mib > 0 && (mib == 0 || mib > c->bandwidth.bound_mib))
        mib = c->bandwidth.bound_mib;
    c->bandwidth.wanted_mib[which] = mib;
    mib = pcmig_bandwidth_shared(c, mib);
    if (which == OF_PRECOPY && c->call == CALL_RUNS && c->sample.memory_processed_bytes == 0)
        c->others.set_again = true;
    ask.number = mib;
    c->bandwidth.refused[which] = pcmig_ask(c, PCMIG_SIDE_SOURCE, orders[which], &ask) < 0;
    if (c->bandwidth.refused[which]) {
        c->bandwidth.again_us = pcmig_migration_now_us(c->m) + AGAIN_US;
        if (!before)
            pcmig_control_event(c, PCMIG_EVENT_PACE_REFUSED);
    } else if (which == OF_POSTCOPY) {
        pthread_mutex_lock(&c->m->lock);
        c->m->status.pace_mib = mib;
        pthread_mutex_unlock(&c->m->lock);
    }
}

void pcmig_bandwidth_again(struct control *c)
{
    /* Beyond the switch the one of pre-copy is of no use to this migration. */
    c->bandwidth.refused[OF_PRECOPY] = c->bandwidth.refused[OF_PRECOPY] && !c->crossed;
    for (int which = 0; which < BANDWIDTHS; which++) {
        if (c->bandwidth.refused[which])
            pcmig_bandwidth_set(c, (enum bandwidth)which, c->bandwidth.wanted_mib[which]);
    }
}

void pcmig_bandwidth_heed(struct control *c)
{
    const int64_t precopy_mib = c->bandwidth.slowed ? c->bandwidth.wanted_mib[OF_PRECOPY] : c->bandwidth.precopy_mib;

    if (pcmig_engine_before_switch(c->reached))
        pcmig_bandwidth_set(c, OF_PRECOPY, precopy_mib);
    else if (c->bandwidth.pace_mib >= 0)
        pcmig_bandwidth_set(c, OF_POSTCOPY, c->bandwidth.pace_mib);
}

void pcmig_bandwidth_open_pace(struct control *c)
{
    struct pcmig_ask ask = {.number = c->bandwidth.bound_mib};

    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_POSTCOPY_SPEED, &ask) < 0) {
        if (!pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_POSTCOPY_SPEED))
            return;
        /* It may be in force, or be an older one that is: it is set once more when the answer is there. */
        c->bandwidth.pace_mib = 0;
        c->bandwidth.wanted_mib[OF_POSTCOPY] = c->bandwidth.bound_mib;
        c->bandwidth.refused[OF_POSTCOPY] = true;
        c->bandwidth.again_us = pcmig_migration_now_us(c->m) + AGAIN_US;
        return;
    }
    c->bandwidth.pace_mib = 0;
    c->bandwidth.refused[OF_POSTCOPY] = false; /* nor is an older pace set again */
    pthread_mutex_lock(&c->m->lock);
    c->m->status.pace_mib = c->bandwidth.bound_mib;
    pthread_mutex_unlock(&c->m->lock);
}

bool pcmig_bandwidth_restore(struct control *c)
{
    const bool bounded = c->others.bound_mib > 0 && !c->others.waiting;

    c->others.bound_mib = 0;
    if (c->bandwidth.slowed || bounded || c->bandwidth.refused[OF_PRECOPY]) {
        pcmig_bandwidth_set(c, OF_PRECOPY, c->bandwidth.precopy_mib);
        c->bandwidth.slowed = c->bandwidth.refused[OF_PRECOPY];
    }
    if (c->bandwidth.pace_mib > 0)
        pcmig_bandwidth_open_pace(c);
    return !c->bandwidth.slowed;
}

void pcmig_bandwidth_leave(struct control *c)
{
    if (c->others.bound_mib == 0 || c->bandwidth.pace_mib < 0)
        return;
    c->others.bound_mib = 0;
    pcmig_bandwidth_set(c, OF_POSTCOPY, c->bandwidth.pace_mib);
}

void pcmig_bandwidth_bound(struct control *c, int64_t mib)
{
    c->bandwidth.bound_mib = mib;
    if (c->bandwidth.pace_mib >= 0)
        pcmig_bandwidth_set(c, OF_POSTCOPY, c->bandwidth.pace_mib);
    if (!pcmig_engine_before_switch(c->reached))
        return;
    c->bandwidth.precopy_mib = mib;
    if (!c->bandwidth.slowed && !c->others.waiting) /* otherwise when the drain ends, or with the call */
        pcmig_bandwidth_set(c, OF_PRECOPY, mib);
}
