/* SPDX-License-Identifier: Apache-2.0 */
/* A switch that comes to nothing can leave the whole guest stopped at the source: libvirtd, killed at that moment,
 * stops the processors and nobody starts them again, or its own attempt fails ("api error"). It is let run again here,
 * when that is certain to be the only copy there ever was.
 *
 * Three witnesses must agree. The destination's host has no half, and never said that one ran. The source's libvirt
 * took note of no post-copy, handed nothing over and runs no job. QEMU at the source is done with the migration and has
 * kept the guest (core/qemu_migration.h): libvirt lets processors run at the destination only after that QEMU got to
 * the end of pre-copy, or into post-copy. Facts: libvirt 8.0 to 12.8, qemuMigrationSrcPerformPeer2Peer3,
 * qemuMigrationDstFinish.
 */
#include "core/guard.h"
#include "core/qemu_migration.h"
#include "engine/control.h"

#include <stdio.h>

/* libvirt clears up behind a failed migration first, which may change everything. */
#define RESTART_AFTER_US   1000000
#define RESTART_AGAIN_US   1000000
/* QEMU may still be busy with cancelling. */
#define RESTART_GIVE_UP_US 15000000

/* Why it is not let run, for people. */
static void tell_why_not(struct control *c, const char *why)
{
    snprintf(c->restart.why_not, sizeof(c->restart.why_not), "%s", why);
}

bool pcmig_restart_possible(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    if (waited_us > RESTART_GIVE_UP_US || evidence->job_active || !c->m->args.recover || c->m->paused ||
        c->call == CALL_RUNS || evidence->call_succeeded || evidence->source_handed_off ||
        evidence->destination != PCMIG_HALF_ABSENT ||
        (evidence->source != PCMIG_HALF_PAUSED && evidence->source != PCMIG_HALF_MIGRATING) ||
        !c->end[PCMIG_SIDE_SOURCE].guest.stopped_to_migrate)
        return false;
    tell_why_not(c, c->crossed ? "it may have run at the destination" : "");
    return !c->crossed;
}

/* Whether QEMU says that the migration is over and the guest still here: then the half is one that is merely paused. */
static bool qemu_has_the_guest(struct control *c)
{
    struct pcmig_ask ask = {0};

    tell_why_not(c, "libvirt at the source does not say that the migration is over");
    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_JOB, &ask) < 0 || ask.job.kind == PCMIG_VIRT_JOB_MIGRATION)
        return false;
    /* A save or a snapshot has stopped it, or needs it as it is. */
    snprintf(c->restart.why_not, sizeof(c->restart.why_not), "libvirt at the source has another job for it: %s",
             ask.job.name != NULL ? ask.job.name : "");
    if (ask.job.kind != PCMIG_VIRT_JOB_NONE)
        return false;
    tell_why_not(c, "QEMU at the source does not answer");
    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_QEMU, &ask) < 0)
        return false;
    snprintf(c->restart.why_not, sizeof(c->restart.why_not), "QEMU at the source says of its migration: %s",
             ask.status);
    return pcmig_qemu_migration_kept(ask.status);
}

void pcmig_restart(struct control *c, const struct pcmig_evidence *seen, int64_t waited_us)
{
    struct pcmig_evidence evidence = *seen;
    struct pcmig_ask ask = {0};
    int64_t now = pcmig_migration_now_us(c->m);

    if (waited_us < RESTART_AFTER_US || now < c->restart.try_us)
        return;
    c->restart.try_us = now + RESTART_AGAIN_US;
    if (!qemu_has_the_guest(c))
        return;
    evidence.source = PCMIG_HALF_PAUSED;
    evidence.job_absent = true;
    evidence.in_flight = true;
    evidence.crossed = false; /* QEMU's own word, even where the switch was issued */
    if (!pcmig_guard_may(&evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_RESUME, false).allowed)
        return;
    c->restart.done = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_RUN, &ask) == 0;
    c->issued = c->issued && !c->restart.done;
}
