/* SPDX-License-Identifier: Apache-2.0 */
/* The bandwidths of pre-copy and post-copy, the operator's bound of them, and what libvirt refused. See control.h. */
#include "engine/control.h"

/* A bandwidth that libvirt refused is set again that often. */
#define SPEED_AGAIN_US 200000

void pcmig_speed_set(struct control *c, int64_t mib, bool postcopy)
{
    struct pcmig_virt_error error = {0};

    if (postcopy && c->bound_mib > 0 && (mib == 0 || mib > c->bound_mib))
        mib = c->bound_mib;
    c->wanted_mib[postcopy] = mib;
    if (c->m->domain == NULL || pcmig_virt_set_speed(c->m->domain, mib, postcopy, &error) < 0) {
        bool again = c->refused[postcopy];

        c->refused[postcopy] = true;
        c->speed_us = pcmig_migration_now_us(c->m) + SPEED_AGAIN_US;
        if (!again)
            pcmig_control_event(c, PCMIG_EVENT_PACE_REFUSED);
        return;
    }
    c->refused[postcopy] = false;
    if (postcopy) {
        pthread_mutex_lock(&c->m->lock);
        c->m->status.pace_mib = mib;
        pthread_mutex_unlock(&c->m->lock);
    }
}

static bool before_switch(const struct control *c)
{
    return pcmig_ledger_phase_now(c->m->ledger) < PCMIG_PHASE_SWITCHOVER;
}

void pcmig_speed_again(struct control *c)
{
    c->refused[0] = c->refused[0] && before_switch(c);
    for (int postcopy = 0; postcopy < 2; postcopy++) {
        if (c->refused[postcopy])
            pcmig_speed_set(c, c->wanted_mib[postcopy], postcopy != 0);
    }
}

void pcmig_speed_open(struct control *c)
{
    struct pcmig_virt_error error = {0};

    if (c->m->domain == NULL || pcmig_virt_set_speed(c->m->domain, c->bound_mib, true, &error) < 0)
        return;
    c->pace_mib = 0;
    pthread_mutex_lock(&c->m->lock);
    c->m->status.pace_mib = c->bound_mib;
    pthread_mutex_unlock(&c->m->lock);
}

void pcmig_speed_bound(struct control *c, int64_t mib)
{
    c->bound_mib = mib;
    if (c->pace_mib >= 0)
        pcmig_speed_set(c, c->pace_mib, true);
    if (!before_switch(c))
        return;
    c->precopy_mib = mib;
    if (!c->slowed) /* otherwise when the drain ends */
        pcmig_speed_set(c, mib, false);
}
