# SPDX-License-Identifier: Apache-2.0
"""`pcmig watch`: shows a migration that is under way, whoever started it."""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pcmig import _core
from pcmig.cli.base import (
    Command,
    CommandError,
    ExitCode,
    UsageError,
    add_connect,
    given,
    given_uri,
    is_terminal,
)
from pcmig.cli.job import HALVES, POLL_S, Job
from pcmig.cli.options import check_policy, parse_settings
from pcmig.cli.progress import Display, SafeDisplay, make_display
from pcmig.cli.record import PROGRAM, resume_command, word
from pcmig.cli.signals import SignalPipe
from pcmig.cli.terminal import Keys, Screen
from pcmig.cli.turn_back import bound, refuse_bound
from pcmig.cli.watched import Beside, Watched, merged, told
from pcmig.journal import Entry, Journal, JournalError
from pcmig.shadow import Shadow
from pcmig_common import units

if TYPE_CHECKING:
    from pcmig._core import Decision, Status

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

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
    """show migrations of this host, or one until it ends

    Whoever drives them: Nova, virsh or pcmig. On a terminal without DOMAIN a screen of all that run, of their
    phase, rates and requests, and of those that ended lately; with DOMAIN that one in detail, until it ends.
    Elsewhere lines, and with --json one object for each look. Nothing is steered: q or Ctrl-C leaves
    everything as it is. Connect to the source; once the guest runs at the destination, that host will do as
    well. With --dest the destination is asked as well how it ended; without, that is judged from what was
    seen here, and the last line says by what.
    """

    epilog = (
        "exit codes: 0 the guest has moved, or without DOMAIN: left; 1 no migration, or it ended and the "
        "guest runs on at the source; 2 usage; 3 the guest needs an operator; 4 left while the migration "
        "goes on"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_connect(parser)
        parser.add_argument(
            "domain", type=given, nargs="?", metavar="DOMAIN", help="this guest only: name, UUID or id"
        )
        parser.add_argument(
            "--dest",
            type=given_uri,
            metavar="URI",
            help="libvirt of the destination, to be asked how it ended, and when the guest ran there",
        )
        parser.add_argument(
            "--shadow", action="store_true", help="say what pcmig would have decided, and when"
        )
        parser.add_argument(
            "--policy", metavar="POLICY", help="with --shadow: the policy to judge by (default: auto)"
        )
        parser.add_argument(
            "--set",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            dest="settings",
            help="with --shadow: a parameter of it (more than one: repeat it)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object for each look")
        parser.add_argument("-q", "--quiet", action="store_true", help="print the result only")
        parser.add_argument("--no-progress", action="store_true", help="the same as --quiet")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        shadows = judged_by(args)
        if args.domain is None:
            return self._all(args, shadows)
        job = Watched(args.connect, args.domain, shadows(), args.dest)
        try:
            return self._one(args, job)
        finally:
            job.close()

    def _all(self, args: argparse.Namespace, shadows: Callable[[], Shadow]) -> int:
        from pcmig.cli import watch_all

        if args.dest:
            raise UsageError("--dest is of one guest: name it, or leave --dest out")

        def end(job: Job, since_s: float, entry: Entry | None) -> tuple[ExitCode, str] | None:
            if job.half == "migrating":
                return None
            return ending(job, None, since_s, Known(entry))

        with SignalPipe(SIGNALS) as signals:
            try:
                return watch_all.watch_all(
                    args.connect,
                    shadows,
                    end,
                    signals,
                    shadow=args.shadow,
                    as_json=args.json,
                    quiet=args.quiet or args.no_progress,
                )
            except _core.LibvirtError as err:  # libvirt's own words need not name the host
                raise CommandError(f"{args.connect} cannot be asked for its migrations: {err}") from err

    def _one(self, args: argparse.Namespace, job: Watched) -> int:
        try:
            job.find()
        except CommandError as err:
            from pcmig.cli import watch_all

            if (waits := watch_all.waiting(job.uri).get(job.uuid)) is None:
                raise
            raise CommandError(
                f"the migration of {job.domain} has not begun: it waits for {waits[0]['waits_for']}; "
                "'pcmig watch' shows when its turn comes",
                err.code,
            ) from None
        refuse_bound(job.uri, job.uuid, job.domain)
        other = Other(args.dest, job.uuid) if args.dest else None
        notes = Notes(job.uuid)
        view = View(job, shadow=args.shadow)
        with SignalPipe(SIGNALS) as signals, contextlib.ExitStack() as stack:
            display, keys = view.display(args, stack)
            code, words = follow(job, display, signals, notes, other, view, keys)
            view.ended(display, (code, words))
        if code in (ExitCode.DONE, ExitCode.FAILED):
            notes.close()
        if code in (ExitCode.FAILED, ExitCode.NEEDS_OPERATOR):
            raise CommandError(words, code)
        if not args.json:
            print(words)
        return code


def judged_by(args: argparse.Namespace) -> Callable[[], Shadow]:
    """Makes accounts with the policy of ARGS. Raises UsageError."""
    if not args.shadow and (args.policy is not None or args.settings):
        raise UsageError("--policy and --set say by what --shadow judges: give that as well")
    params = parse_settings(args.settings, _core.params())
    policy = args.policy or "auto"
    check_policy("--policy", policy, params)
    return lambda: Shadow(policy, params)


class View:
    """One migration, as it is shown: with what pcmig's own processes tell of it."""

    def __init__(self, job: Watched, *, shadow: bool) -> None:
        self.job = job
        self.shadow = shadow
        self.beside = Beside()

    def status(self) -> Status:
        from pcmig.cli import watch_all

        self.beside = watch_all.beside(self.job.domain, self.job.uuid)
        return merged(self.job, self.beside)

    def display(self, args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Display, Keys | None]:
        """What suits ARGS and standard output; STACK closes it."""
        title = f"{self.job.domain} from {self.job.uri}"
        if args.json:
            return JsonDisplay(self), None
        quiet = args.quiet or args.no_progress
        if not quiet and is_terminal(sys.stdout):
            keys = stack.enter_context(Keys())
            return SafeDisplay(ScreenDisplay(self, stack.enter_context(Screen()))), keys
        display = make_display(sys.stdout, title, quiet=quiet, progress=True)
        stack.callback(display.close)
        return display, None

    def ended(self, display: Display, end: tuple[ExitCode, str]) -> None:
        if isinstance(display, JsonDisplay):
            display.update(self.status(), end)
        elif self.shadow:
            display.note(self.job.seen.words())


class JsonDisplay:
    """One object for each look."""

    interval_ms: int | None = None

    def __init__(self, view: View) -> None:
        self._view = view

    def update(self, status: Status, end: tuple[ExitCode, str] | None = None) -> None:
        view = self._view
        found = told(view.job.uri, view.job, status, view.beside, shadow=view.shadow, end=end)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()

    def decision(self, decision: Decision) -> None: ...
    def note(self, text: str) -> None: ...
    def drop(self) -> None: ...
    def close(self) -> None: ...


class ScreenDisplay:
    """One migration on the whole screen."""

    interval_ms: int | None = None

    def __init__(self, view: View, terminal: Screen) -> None:
        self._view = view
        self._terminal = terminal
        self._notes: list[str] = []

    def update(self, status: Status) -> None:
        from pcmig.cli import screen, watch_all

        view = self._view
        row = watch_all.row_of(
            watch_all.Moment(view.job, status, view.beside, rates=tuple(view.job.rates)), view.shadow
        )
        width, height = self._terminal.size
        self._terminal.draw(
            screen.one(
                view.job.uri,
                row._replace(ledger=view.job.seen.ledger()),
                time.monotonic(),
                time.strftime("%H:%M:%S"),
                width,
                height,
                self._notes[-3:],
            )
        )

    def decision(self, decision: Decision) -> None: ...

    def note(self, text: str) -> None:
        self._notes.append(text)

    def drop(self) -> None: ...
    def close(self) -> None: ...


class Known:
    """What is on record, as Notes tells it, for who has read it already."""

    def __init__(self, entry: Entry | None) -> None:
        self._entry = entry

    def entry(self) -> Entry | None:
        return self._entry


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
    job: Watched,
    display: Display,
    signals: SignalPipe,
    notes: Notes,
    other: Other | None,
    view: View,
    keys: Keys | None = None,
) -> tuple[ExitCode, str]:
    """Shows the job until it ends, a signal or a key comes, or libvirt stays silent: exit code and last
    words."""
    said: str | None = None  # of what pcmig would have done
    heard_s = changed_s = time.monotonic()
    before = None
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    if keys is not None:
        keys.watch(poller)
    while True:
        if job.state != before:
            before, changed_s = job.state, time.monotonic()
        if job.state == "paused" and (words := bound(job.uri, job.uuid, job.domain, notes.entry())):
            return ExitCode.FAILED, words
        attended = job.state == "paused" and notes.attended(display)
        if not attended and (end := ending(job, other, time.monotonic() - changed_s, notes)):
            return end
        if view.shadow and job.seen.verdict is not None and said is None:
            said = job.seen.words()
            display.note(said)
        display.update(view.status())
        poller.poll(min(POLL_S, job.patience_s(view.shadow)) * 1000)
        if signals.take() or (keys is not None and keys.leave()):
            return ExitCode.DETACHED, f"left: the migration of {job.domain} goes on"
        try:
            job.look()
            heard_s = heard_s if job.silent else time.monotonic()
            silence = f"QEMU of {job.domain} does not answer libvirt at {job.uri}"
        except _core.LibvirtError as err:
            silence = f"{job.uri} does not answer ({err})"
        if time.monotonic() - heard_s > SILENT_S:
            return ExitCode.DETACHED, f"left: {silence}; the migration may go on, see pcmig status"


def ending(
    job: Job, other: Other | None, since_s: float, notes: Notes | Known
) -> tuple[ExitCode, str] | None:
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


def interrupted(
    job: Job, other: Other | None, since_s: float, notes: Notes | Known
) -> tuple[ExitCode, str] | None:
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
