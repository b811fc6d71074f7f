# SPDX-License-Identifier: Apache-2.0
"""`pcmig abort`: cancels a migration while the guest still runs at the source."""

from __future__ import annotations

import argparse
import contextlib
import shlex

from pcmig import _core
from pcmig.cli.base import CommandError, ExitCode, Leavable, add_guest
from pcmig.cli.job import CONFIRM_S, HALVES, Job
from pcmig.cli.record import watch_command
from pcmig.cli.turn_back import refuse_bound
from pcmig.journal import Entry, Journal, JournalError

TOO_LATE = (
    "{domain} runs at the destination already, and only the two hosts together hold its memory: cancelling "
    "now would lose the guest, so libvirt does not do it. Let it finish:\n  {watch}"
)


class Abort(Leavable):
    """cancel a migration; the guest runs on at the source

    Works while the guest is still at the source. In post-copy it is refused: the guest would be lost. Ctrl-C
    leaves it at once; what libvirt was asked for by then it may yet do.
    """

    epilog = (
        "exit codes: 0 cancelled; 1 there is no migration, or it could not be cancelled; 2 usage; "
        "3 the guest does not run: it, or its interrupted migration, needs an operator; "
        "4 in post-copy, the migration goes on; 130 left by Ctrl-C, while libvirt may yet cancel it"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        job = Job(args.connect, args.domain)
        try:
            job.find()
        except CommandError as err:
            raise CommandError(f"{err}{what_may_free(job)}", err.code) from err
        refuse_bound(job.uri, job.uuid, job.domain)
        refuse(job)
        self.left = (
            f"interrupted: libvirt was asked to cancel the migration of {job.domain}, and may yet do it; "
            f"what comes of it:\n  {watch_command(job.uri, job.word)}"
        )
        try:
            _core.job_abort(job.uri, job.uuid)
        except _core.InvalidOperationError:
            job.look()
            refuse(job)
            raise
        job.wait_while("precopy", CONFIRM_S)
        refuse(job)
        if job.state != "none" and free_source(job):
            job.wait_while("precopy", CONFIRM_S)
            refuse(job)
        if job.state != "none":
            raise CommandError(stands_still(job))
        if job.half == "absent":
            raise CommandError(f"the migration of {job.domain} had finished before it could be cancelled")
        if job.half != "running":
            look = shlex.join(["virsh", "-c", job.uri, "domstate", "--reason", job.word])
            raise CommandError(
                f"the migration has ended, but {job.domain} does not run at {job.uri}: "
                f"it is {HALVES[job.half]}; see '{look}'",
                ExitCode.NEEDS_OPERATOR,
            )
        print(f"cancelled: {job.domain} runs on at the source ({job.uri})")
        return ExitCode.DONE


def noted(job: Job) -> Entry | None:
    """The migration's record on this host, if the guest was never seen to leave."""
    with contextlib.suppress(JournalError):
        entry = Journal().read(job.uuid)
        return entry if entry is not None and not entry.crossed else None
    return None


def free_source(job: Job) -> bool:
    """Of a cancellation that libvirt took and that does not end: whether what the source may wait for, its
    empty half at the destination, is gone now (csrc/engine/empty_half.h)."""
    entry = noted(job)
    if entry is None or job.half != "running":
        return False
    try:
        _core.remove_empty_half(job.uri, entry.dest_uri, job.uuid)
    except _core.LibvirtError:
        return False
    print(
        f"{job.domain}: the cancellation did not end, and QEMU at the source may have waited for its other "
        "end; the empty half at the destination was removed, which lets it go on"
    )
    return True


def what_may_free(job: Job) -> str:
    """Of a QEMU at the source that does not answer. Whether somebody cancelled is not known here."""
    if not job.silent or (destroy := empty_half(job)) is None:
        return ""
    return (
        ". If the migration was cancelled in the moment at which it began, it waits for its other end; "
        f"removing that lets it go on:\n  {destroy}"
    )


def empty_half(job: Job) -> str | None:
    """What removes the half at the destination, where the guest never left the source."""
    entry = noted(job)
    if entry is None or job.half != "running":
        return None
    try:
        there = _core.half(entry.dest_uri, job.uuid)["half"]
    except _core.LibvirtError:
        return None
    memory = _core.memory_where(source="running", destination=there, in_flight=True, job_active=True)
    if (there, memory) != ("migrating", "source"):
        return None
    return shlex.join(["virsh", "-c", entry.dest_uri, "destroy", job.uuid])


def stands_still(job: Job) -> str:
    """A cancellation that libvirt took and that does not end: what is known of it, and what frees the source
    where nothing is lost by it (csrc/engine/overdue.c)."""
    text = (
        f"{job.domain}: libvirt took the cancellation, but the migration still runs; whether the guest "
        "does is not known"
    )
    if (destroy := empty_half(job)) is None:
        return text
    return (
        f"{text}. The half at the destination is empty, and removing it lets the source go on:\n  {destroy}"
    )


def refuse(job: Job) -> None:
    """Raises CommandError where nothing may be cancelled any more."""
    if job.state == "postcopy":
        raise CommandError(
            TOO_LATE.format(domain=job.domain, watch=watch_command(job.uri, job.word)), ExitCode.DETACHED
        )
    if job.state == "paused":
        raise CommandError(
            f"{job.domain} was interrupted in post-copy and waits to be resumed; cancelling would lose it",
            ExitCode.NEEDS_OPERATOR,
        )
