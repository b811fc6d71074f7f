/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that has arrived, and whose source keeps its half, paused: libvirt there did not hear, or not in the state in
 * which it listens, that all had crossed (core/recovery.c says when), and only the end of that half is left to be done.
 *
 * Two witnesses must agree. libvirt at the destination says that the guest runs there with all of its memory; and QEMU
 * at the source says of its migration "completed", which it does once it has sent all of it and its return path has
 * ended without an error, that is with the destination's word that all has come (QEMU 7.2 to 11.1, migration.c,
 * migration_completion; libvirt ends the half on the same word, qemuProcessHandleMigrationStatus).
 */
#include "core/guard.h"
#include "core/qemu_migration.h"
#include "engine/control.h"

/* libvirt's own end of it comes first. */
#define END_AFTER_US   3000000
#define END_AGAIN_US   1000000
#define END_GIVE_UP_US 30000000

bool pcmig_kept_half(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    return waited_us <= END_GIVE_UP_US && c->m->args.recover && c->call != CALL_RUNS && c->crossed &&
           (evidence->source == PCMIG_HALF_POSTCOPY_FAILED || evidence->source == PCMIG_HALF_PAUSED) &&
           evidence->destination == PCMIG_HALF_RUNNING && !evidence->turned_back && !evidence->job_active;
}

void pcmig_kept_half_end(struct control *c, const struct pcmig_evidence *seen, int64_t waited_us)
{
    struct pcmig_evidence evidence = *seen;
    struct pcmig_ask ask = {0};
    const int64_t now = pcmig_migration_now_us(c->m);

    if (waited_us < END_AFTER_US || now < c->kept_half_us)
        return;
    c->kept_half_us = now + END_AGAIN_US;
    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_QEMU, &ask) < 0)
        return;
    evidence.source_completed = pcmig_qemu_migration_completed(ask.status);
    evidence.in_flight = true;
    if (!pcmig_guard_may(&evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false).allowed ||
        pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_DESTROY, &ask) < 0)
        return;
    pcmig_control_note(c,
                       "all of the guest has crossed, as both hosts say; libvirt at the source kept its half, paused, "
                       "and that was ended",
                       "");
}
