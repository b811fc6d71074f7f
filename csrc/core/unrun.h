/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the guest never ran at the destination of a migration: what events prove, and what they do not. Pure.
 *
 * The proof: whoever heard every event of the destination's libvirt from before the switch to the end of the half
 * there, on one connection, would have heard of its running. QEMU tells RESUME to its monitor before it lets the
 * first processor run (vm_prepare_start(), QEMU 5.2 to 11), libvirt reads what a monitor has left before it takes note
 * of its end, tells its clients in this order, and QEMU started for an incoming migration (-S) runs only when libvirt
 * says so (libvirt 8.0 to 12.8: qemuMonitorIO, qemuProcessHandleResume, qemuMigrationDstFinish). A gap anywhere, and
 * nothing is proved: then the guest counts as one that ran.
 *
 * A half whose post-copy failed while it was paused is none that ran: libvirt says so when it could not have it run,
 * because its QEMU had just died, and would yet tell of a RESUME that it had not read (qemuMigrationDstPostcopyFailed).
 */
#ifndef PCMIG_CORE_UNRUN_H
#define PCMIG_CORE_UNRUN_H

#include "core/halves.h"
#include "core/input.h"

#include <stdbool.h>

struct pcmig_unrun {
    bool listening; /* every event since before the migrate call was heard */
    bool ran;       /* the guest was seen to run there, or may have */
    bool ended;     /* an event said that the half there ended, while everything was heard */
    bool known;     /* on this connection the destination's libvirt has had a half */
    bool seen_end;  /* and has had none since: it saw the half's process end */
};

/* The destination's events are heard from now on, and the migrate call was not made yet. Whoever begins later has
 * missed something, for all he knows. */
void pcmig_unrun_listens(struct pcmig_unrun *unrun);
/* The connection broke, was closed, or something that came over it was lost. */
void pcmig_unrun_gap(struct pcmig_unrun *unrun);
void pcmig_unrun_event(struct pcmig_unrun *unrun, const struct pcmig_input *input);
/* What the destination said of its half. RUNS: of one whose post-copy failed, whether its processors run. */
void pcmig_unrun_half(struct pcmig_unrun *unrun, enum pcmig_half half, bool runs);

/* Whether it is certain that no instruction of the guest ran there, and that none will. */
bool pcmig_unrun_certain(const struct pcmig_unrun *unrun);

/* Whether all that is missing is that an event says that the half has ended: the host, asked on the connection on which
 * everything was heard, has none any more. libvirt tells nobody where the call that should have had the guest run finds
 * its QEMU dead before the monitor's end is dealt with (qemuMigrationDstFinishActive removes the guest, and
 * processMonitorEOFEvent then finds none; seen with libvirt 12.8, in about a third of all tries). */
bool pcmig_unrun_untold(const struct pcmig_unrun *unrun);

/* Whether the libvirt that looked after the half said later that it has ended: an event, or no half any more on the
 * very connection on which it had one. A libvirt that was started meanwhile may have lost the books of a process that
 * lives, and says the same of it. A gap afterwards takes nothing away: what ended does not come back, but as another
 * half. */
bool pcmig_unrun_seen_end(const struct pcmig_unrun *unrun);

#endif
