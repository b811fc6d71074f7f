# SPDX-License-Identifier: Apache-2.0
"""`pcmig watch`: shows a migration that is under way, whoever started it."""

from __future__ import annotations

import argparse
import contextlib
import select
import shlex
import signal
import sys
import time

from pcmig import _core
from pcmig.cli.base import Command, CommandError, ExitCode, add_guest, given_uri
from pcmig.cli.job import HALVES, POLL_S, Job
from pcmig.cli.progress import Display, make_display
from pcmig.cli.record import PROGRAM, resume_command, word
from pcmig.cli.signals import SignalPipe
from pcmig.cli.turn_back import bound, refuse_bound
from pcmig.journal import Entry, Journal, JournalError
from pcmig_common import units

# So long we look on when libvirt does not answer: a daemon that restarts needs a few seconds.
SILENT_S = 30.0

# One half that takes post-copy for interrupted is not believed at once: it may be no more than the daemons'
# connection that broke, and the two QEMUs go on. As the engine does it (csrc/core/ending.c):
# so long without the destination's word, ...
INTERRUPTED_S = 15.0
# ... and so long when it says that the guest runs on there, pages still missing.
INTERRUPTED_RUNNING_S = 180.0

# So long the destination has to confirm that it has what left the source, and the source to end its half.
CONFIRM_S = 5.0


class Watch(Command):
    """show a running migration until it ends

    Connect to the source; once the guest runs at the destination, that host will do as well. Looks twice a
    second and steers nothing: Ctrl-C leaves the migration as it is. With --dest the destination is asked as
    well how it ended; without, that is judged from what was seen here, and the last line says by what.
    """

    epilog = (
        "exit codes: 0 the guest has moved; 1 no migration, or it ended and the guest runs on at the source; "
        "2 usage; 3 the guest needs an operator; 4 left while the migration goes on"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        parser.add_argument(
            "--dest",
            type=given_uri,
            metavar="URI",
            help="libvirt of the destination, to be asked how it ended",
        )
        parser.add_argument("-q", "--quiet", action="store_true", help="print the result only")
        parser.add_argument("--no-progress", action="store_true", help="the same as --quiet")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        job = Job(args.connect, args.domain)
        job.find()
        refuse_bound(job.uri, job.uuid, job.domain)
        other = Other(args.dest, job.uuid) if args.dest else None
        notes = Notes(job.uuid)
        quiet = args.quiet or args.no_progress
        display = make_display(sys.stdout, f"{job.domain} from {job.uri}", quiet=quiet, progress=True)
        try:
            with SignalPipe((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
                code, words = follow(job, display, signals, notes, other)
        finally:
            display.close()
        if code in (ExitCode.DONE, ExitCode.FAILED):
            notes.close()
        if code in (ExitCode.FAILED, ExitCode.NEEDS_OPERATOR):
            raise CommandError(words, code)
        print(words)
        return code


class Notes:
    """What the journal of this host says of the migration; it need not say anything."""

    def __init__(self, uuid: str) -> None:
        self._book = Journal()
        self._uuid = uuid
        self._told: str | None = None

    def entry(self) -> Entry | None:
        with contextlib.suppress(JournalError):
            return self._book.read(self._uuid)
        return None

    def attended(self, display: Display) -> bool:
        """Whether a process looks after the migration; what it does is shown."""
        entry = self.entry()
        if entry is None or entry.keeper is None:
            return False
        told = (entry.recovery or {}).get("text") or "post-copy is interrupted"
        if told != self._told:
            self._told = told
            display.note(f"{told} (process {entry.keeper.pid} looks after it)")
        return True

    def close(self) -> None:
        """The migration is settled. An entry of the command that has no owner any more has served."""
        entry = self.entry()
        if entry is not None and entry.keeper is None and entry.caller.get("program") == PROGRAM:
            with contextlib.suppress(JournalError):
                self._book.remove(self._uuid)


class Other:
    """The guest's half at the destination, asked when the source alone does not settle it."""

    def __init__(self, uri: str, guest: str) -> None:
        self.uri = uri
        self.guest = guest

    def half(self) -> str:
        """As HALVES names it; "unknown" when the host cannot be asked."""
        try:
            return _core.job_status(self.uri, self.guest)["half"]
        except _core.NoDomainError:
            return "absent"
        except _core.LibvirtError:
            return "unknown"


def follow(
    job: Job, display: Display, signals: SignalPipe, notes: Notes, other: Other | None = None
) -> tuple[ExitCode, str]:
    """Shows the job until it ends, a signal comes or libvirt stays silent: exit code and last words."""
    heard_s = changed_s = time.monotonic()
    before = None
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    while True:
        if job.state != before:
            before, changed_s = job.state, time.monotonic()
        if job.state == "paused" and (words := bound(job.uri, job.uuid, job.domain, notes.entry())):
            return ExitCode.FAILED, words
        attended = job.state == "paused" and notes.attended(display)
        if not attended and (end := ending(job, other, time.monotonic() - changed_s, notes)):
            return end
        display.update(job.status())
        poller.poll(POLL_S * 1000)
        if signals.take():
            return ExitCode.DETACHED, f"left: the migration of {job.domain} goes on"
        try:
            job.look()
            heard_s = heard_s if job.silent else time.monotonic()
            silence = f"QEMU of {job.domain} does not answer libvirt at {job.uri}"
        except _core.LibvirtError as err:
            silence = f"{job.uri} does not answer ({err})"
        if time.monotonic() - heard_s > SILENT_S:
            return ExitCode.DETACHED, f"left: {silence}; the migration may go on, see pcmig status"


def ending(job: Job, other: Other | None, since_s: float, notes: Notes) -> tuple[ExitCode, str] | None:
    """The exit code and last words if the migration is over, else None. SINCE_S: seconds in this state."""
    if job.state == "paused":
        return interrupted(job, other, since_s, notes)
    if job.state != "none":
        return None
    if job.half == "absent" and job.source:
        return (other and departed(job, other, since_s)) or vanished(job, other, since_s)
    if job.half == "running" and job.source:
        return ExitCode.FAILED, f"the migration has ended, and {job.domain} runs on at the source ({job.uri})"
    if job.half == "running":
        return ExitCode.DONE, f"done: {job.domain} runs at {job.uri} with all of its memory"
    if job.half == "dead" and since_s < CONFIRM_S:
        return None
    words = f"the migration has ended, and at {job.uri} {job.domain} is {HALVES[job.half]}"
    return ExitCode.NEEDS_OPERATOR, words


def interrupted(job: Job, other: Other | None, since_s: float, notes: Notes) -> tuple[ExitCode, str] | None:
    """Post-copy counts as interrupted when both halves say so, or this one has said so for long. Nobody looks
    after it."""
    half = other.half() if other else "unknown"
    patience_s = INTERRUPTED_RUNNING_S if half in ("postcopy", "running") else INTERRUPTED_S
    if half != "postcopy-failed" and since_s < patience_s:
        return None
    said = f"{job.uri} has said so for {since_s:.0f} s"
    if other:
        said = f"{job.uri} says so, and at {other.uri} it is {HALVES[half]}"
    words = f"{job.domain} was interrupted in post-copy ({said}), and nobody resumes it; type"
    if entry := notes.entry():
        resume = resume_command(entry.source_uri, word(entry), entry.dest_uri)
        return ExitCode.NEEDS_OPERATOR, f"{words}:\n  {resume}"
    ends = (job.uri if job.source else "SOURCEURI", other.uri if other else "DESTURI")
    return ExitCode.NEEDS_OPERATOR, (
        f"{words},\nwith the options that it was started with:\n"
        f"  {resume_command(ends[0], job.word, ends[1])}"
    )


def departed(job: Job, other: Other, since_s: float) -> tuple[ExitCode, str] | None:
    """What the destination says of a guest that has left the source; None: nothing that settles it."""
    half = other.half()
    if half == "running":
        return ExitCode.DONE, f"done: {job.domain} runs at {other.uri}, as that host says"
    if half == "paused":
        return ExitCode.DONE, f"done: {job.domain} is at {other.uri}, paused there, as that host says"
    if half == "unknown" or since_s < CONFIRM_S:
        return None
    return ExitCode.NEEDS_OPERATOR, (
        f"{job.domain} is gone from {job.uri}, and at {other.uri} it is {HALVES[half]}, as that host says"
    )


def vanished(job: Job, other: Other | None, since_s: float) -> tuple[ExitCode, str] | None:
    """What is most likely of a guest that has left the source, and by what evidence."""
    if other and since_s < CONFIRM_S:
        return None
    left = job.figures.get("memory_remaining_bytes", 0)
    last = f"{units.size(left)} left at {units.rate(job.figures.get('memory_bps', 0))}, when it was last seen"
    asked = f"{other.uri} could not be asked" if other else "the destination was not asked, see --dest"
    ask = shlex.join(
        ["virsh", "-c", other.uri if other else "DESTURI", "domstate", "--reason", job.uuid or job.word]
    )
    if not job.switched and not job.nearly_done():
        return ExitCode.NEEDS_OPERATOR, (
            f"{job.domain} is gone from {job.uri} in the middle of pre-copy ({last}): it ended there, or was"
            f" ended; {asked}; to be sure:\n  {ask}"
        )
    seen = "it was in post-copy, and then its half here ended" if job.switched else f"pre-copy had {last}"
    return ExitCode.DONE, f"done: {job.domain} has left {job.uri} (judged by: {seen}; {asked})"
