/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that has arrived, and whose source keeps its half, paused: libvirt there did not hear that all had crossed,
 * as somebody's resume waited for its connection just then (doc/refer/safety.rst), and only the end of that half is
 * left to be done.
 *
 * Two witnesses must agree. libvirt at the destination says that the guest runs there with all of its memory; and QEMU
 * at the source says of its migration, one that went out, "completed", which it does once it has sent all of it and its
 * return path has ended without an error, that is with the destination's word that all has come (QEMU 7.2 to 11.1,
 * migration.c, migration_completion; libvirt ends the half on the same word, qemuProcessHandleMigrationStatus).
 *
 * libvirt ends that half as one that has migrated; virDomainDestroy, of a migration that goes out, as any other guest:
 * it gives the guest's files back to their owner (qemuDomainDestroyFlags, qemuSecurityRestoreAllLabel), which would
 * take those on storage that both hosts use from the guest that runs. Where there may be such files the half is left to
 * a person.
 */
#include "core/flags.h"
#include "core/guard.h"
#include "core/qemu_migration.h"
#include "engine/control.h"

/* libvirt's own end of it comes first. */
#define END_AFTER_US   3000000
#define END_AGAIN_US   1000000
#define END_GIVE_UP_US 30000000

bool pcmig_kept_half(struct control *c, const struct pcmig_evidence *evidence, int64_t waited_us)
{
    if (c->kept_half.ordered && evidence->source == PCMIG_HALF_ABSENT) {
        c->kept_half.ordered = false;
        pcmig_control_note(c,
                           "all of the guest has crossed, as both hosts say; libvirt at the source kept its half, "
                           "paused, and that was ended",
                           "");
    }
    return waited_us <= END_GIVE_UP_US && c->m->args.recover && c->call != CALL_RUNS && evidence->crossed &&
           (evidence->source == PCMIG_HALF_POSTCOPY_FAILED || evidence->source == PCMIG_HALF_PAUSED) &&
           evidence->destination == PCMIG_HALF_RUNNING && pcmig_end_turned_back(c) == 0 &&
           !c->end[PCMIG_SIDE_SOURCE].guest.runs_on && !evidence->job_active;
}

/* Those that were copied are each host's own, where all of them were. */
static bool may_share_files(struct control *c)
{
    struct pcmig_ask ask = {0};
    int found;

    if ((c->m->args.flags & (PCMIG_FLAG_NON_SHARED_DISK | PCMIG_FLAG_NON_SHARED_INC)) != 0 && c->m->args.disks == NULL)
        return false;
    if (c->kept_half.files == FILES_UNKNOWN) {
        found = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_FILES, &ask);
        c->kept_half.files = found < 0 ? FILES_UNKNOWN : found > 0 ? FILES_PERHAPS : FILES_NONE;
    }
    return c->kept_half.files != FILES_NONE;
}

void pcmig_kept_half_end(struct control *c, const struct pcmig_evidence *seen, int64_t waited_us)
{
    struct pcmig_evidence evidence = *seen;
    struct pcmig_ask ask = {0};
    const int64_t now = pcmig_migration_now_us(c->m);

    if (waited_us < END_AFTER_US || now < c->kept_half.try_us)
        return;
    c->kept_half.try_us = now + END_AGAIN_US;
    if (pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_ASK_QEMU, &ask) < 0)
        return;
    /* Of a migration that came in it does not say what was sent. */
    evidence.source_completed = pcmig_qemu_migration_completed(ask.status) && ask.sent_bytes > 0;
    evidence.in_flight = true;
    if (!pcmig_guard_may(&evidence, PCMIG_SIDE_SOURCE, PCMIG_ACT_DESTROY, false).allowed || may_share_files(c))
        return;
    c->kept_half.ordered = pcmig_ask(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_DESTROY, &ask) == 0 ||
                           pcmig_ask_pending(c, PCMIG_SIDE_SOURCE, PCMIG_TELL_DESTROY);
}
