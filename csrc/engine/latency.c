/* SPDX-License-Identifier: Apache-2.0 */
/* How long page requests take, as QEMU at the destination counts it (core/latency.h). See control.h. */
#include "core/latency.h"

#include "engine/control.h"

#include <stdio.h>
#include <stdlib.h>

/* So long a QEMU that does not answer is waited for: the guest has moved. */
#define PATIENCE_US 2000000

/* Lines of people's: what becomes of what was asked for. */
static void tell(struct pcmig_migration *m, const char *why)
{
    pthread_mutex_lock(&m->lock);
    snprintf(m->status.note, sizeof(m->status.note), "how long page requests take is estimated: %.400s", why);
    pthread_mutex_unlock(&m->lock);
}

/* The guest's definition at the destination, with what has its QEMU count; NULL with WHY not. */
static char *definition(struct pcmig_migration *m, char *why, size_t size)
{
    struct pcmig_virt_error error = {0};
    unsigned long libvirt, qemu = 0;
    char *own = NULL, *counting;

    if (m->conn[PCMIG_SIDE_DESTINATION] == NULL ||
        pcmig_virt_versions(m->conn[PCMIG_SIDE_DESTINATION], &libvirt, &qemu, &error) < 0 || qemu == 0) {
        snprintf(why, size, "it is not known which QEMU the destination has");
        return NULL;
    }
    if (qemu < PCMIG_LATENCY_QEMU) {
        snprintf(why, size, "QEMU counts it since 10.1, and the destination has %lu.%lu.%lu", qemu / 1000000,
                 qemu / 1000 % 1000, qemu % 1000);
        return NULL;
    }
    if (m->args.dest_xml == NULL) {
        own = pcmig_virt_migratable_xml(m->domain, &error);
        if (own == NULL) {
            snprintf(why, size, "the guest's definition cannot be read: %.300s", error.message);
            return NULL;
        }
    }
    counting = pcmig_latency_counting(own != NULL ? own : m->args.dest_xml);
    if (counting == NULL)
        snprintf(why, size, "the guest's definition has no end, or memory is short");
    free(own);
    return counting;
}

void pcmig_latency_arrange(struct pcmig_migration *m)
{
    char why[400] = "", *xml;

    if (!m->args.count_faults || m->args.policy == PCMIG_POLICY_NEVER)
        return;
    xml = definition(m, why, sizeof(why));
    if (xml == NULL) {
        m->args.count_faults = false;
        tell(m, why);
        return;
    }
    free((char *)m->args.dest_xml);
    m->args.dest_xml = xml;
}

bool pcmig_latency_pending(struct control *c, int64_t waited_us)
{
    struct pcmig_input input = {.kind = PCMIG_INPUT_LATENCY};
    struct pcmig_ask ask = {0};
    int result;

    if (!c->m->args.count_faults || c->latency_done || !c->crossed)
        return false;
    result = pcmig_ask(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_LATENCY, &ask);
    if (result < 0 && pcmig_ask_pending(c, PCMIG_SIDE_DESTINATION, PCMIG_ASK_LATENCY) && waited_us < PATIENCE_US)
        return true;
    c->latency_done = true;
    if (result < 0)
        pcmig_control_note(c, "how long page requests took is estimated: QEMU at the destination did not tell", "");
    if (result <= 0)
        return false;
    input.latency = ask.latency;
    input.t_us = pcmig_migration_now_us(c->m);
    pcmig_control_feed(c, &input);
    return false;
}
