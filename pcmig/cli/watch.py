"""`pcmig watch`: shows a migration that is under way, whoever started it."""

from __future__ import annotations

import argparse
import select
import shlex
import signal
import sys
import time

from pcmig import _core
from pcmig.cli.base import Command, CommandError, ExitCode, add_guest
from pcmig.cli.job import HALVES, POLL_S, Job
from pcmig.cli.progress import Display, make_display
from pcmig.cli.signals import SignalPipe

# So long we look on when libvirt does not answer: a daemon that restarts needs a few seconds.
SILENT_S = 30.0


class Watch(Command):
    """show a running migration until it ends

    Connect to the source; once the guest runs at the destination, that host will do as well. Looks twice a
    second and steers nothing: Ctrl-C leaves the migration as it is.
    """

    epilog = (
        "exit codes: 0 the guest has moved; 1 no migration, or it ended and the guest runs on at the source; "
        "2 usage; 3 the guest needs an operator; 4 left while the migration goes on"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        parser.add_argument("-q", "--quiet", action="store_true", help="print the result only")
        parser.add_argument("--no-progress", action="store_true", help="the same as --quiet")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        job = Job(args.connect, args.domain)
        job.find()
        quiet = args.quiet or args.no_progress
        display = make_display(sys.stdout, f"{job.domain} from {job.uri}", quiet=quiet, progress=True)
        try:
            with SignalPipe((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
                code, words = follow(job, display, signals)
        finally:
            display.close()
        if code in (ExitCode.FAILED, ExitCode.NEEDS_OPERATOR):
            raise CommandError(words, code)
        print(words)
        return code


def follow(job: Job, display: Display, signals: SignalPipe) -> tuple[ExitCode, str]:
    """Shows the job until it ends, a signal comes or libvirt stays silent: exit code and last words."""
    heard_s = time.monotonic()
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    while True:
        if end := ending(job):
            return end
        display.update(job.status())
        poller.poll(POLL_S * 1000)
        if signals.take():
            return ExitCode.DETACHED, f"left: the migration of {job.domain} goes on"
        try:
            job.look()
            heard_s = time.monotonic()
        except _core.LibvirtError as err:
            if time.monotonic() - heard_s > SILENT_S:
                return ExitCode.DETACHED, f"left: {job.uri} does not answer ({err}); the migration may go on"


def ending(job: Job) -> tuple[ExitCode, str] | None:
    """The exit code and last words if the migration is over, else None."""
    if job.state == "paused":
        return ExitCode.NEEDS_OPERATOR, (
            f"{job.domain} was interrupted in post-copy; when the hosts reach each other again, type,\n"
            f"with the options that it was started with:\n"
            f"  virsh -c {shlex.quote(job.uri)} migrate --live --p2p --postcopy --postcopy-resume"
            f" {shlex.quote(job.domain)} DESTURI"
        )
    if job.state != "none":
        return None
    if job.half == "absent" and job.source and not job.switched and not job.nearly_done():
        return ExitCode.NEEDS_OPERATOR, (
            f"{job.domain} is gone from {job.uri} in the middle of pre-copy: it ended there, or was ended;"
            f" to be sure ask the destination:\n  virsh -c DESTURI domstate --reason {job.domain}"
        )
    if job.half == "absent" and job.source:
        return ExitCode.DONE, f"done: {job.domain} has left {job.uri}"
    if job.half == "running" and job.source:
        return ExitCode.FAILED, f"the migration has ended, and {job.domain} runs on at the source ({job.uri})"
    if job.half == "running":
        return ExitCode.DONE, f"done: {job.domain} runs at {job.uri} with all of its memory"
    words = f"the migration has ended, and at {job.uri} {job.domain} is {HALVES[job.half]}"
    return ExitCode.NEEDS_OPERATOR, words
