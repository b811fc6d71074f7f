"""`pcmig watch`: shows a migration that is under way, whoever started it."""

from __future__ import annotations

import argparse
import select
import signal
import sys
import time
from typing import Any

from pcmig import _core
from pcmig.cli import job
from pcmig.cli.base import Command, CommandError, ExitCode, add_connect
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
        add_connect(parser)
        parser.add_argument("domain", metavar="DOMAIN", help="guest: name, UUID or id")
        parser.add_argument("-q", "--quiet", action="store_true", help="print the result only")
        parser.add_argument("--no-progress", action="store_true", help="the same as --quiet")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        uri, domain = args.connect, args.domain
        seen = still(job.find(uri, domain), {})
        quiet = args.quiet or args.no_progress
        display = make_display(sys.stdout, f"{domain} from {uri}", quiet=quiet, progress=True)
        try:
            with SignalPipe((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)) as signals:
                code, words = follow(uri, domain, seen, display, signals)
        finally:
            display.close()
        if code in (ExitCode.FAILED, ExitCode.NEEDS_OPERATOR):
            raise CommandError(words, code)
        print(words)
        return code


def follow(
    uri: str, domain: str, seen: dict[str, Any], display: Display, signals: SignalPipe
) -> tuple[ExitCode, str]:
    """Shows the job until it ends, a signal comes or libvirt stays silent. Returns the exit code and last
    words."""
    started_s = heard_s = time.monotonic()
    poller = select.poll()
    poller.register(signals.fileno(), select.POLLIN)
    while True:
        if end := ending(uri, domain, seen):
            return end
        status = job.as_status(seen)
        if not seen.get("elapsed_ms"):
            status["elapsed_ms"] = int((time.monotonic() - started_s) * 1000)
        display.update(status)
        poller.poll(job.POLL_S * 1000)
        if signals.take():
            return ExitCode.DETACHED, f"left: the migration of {domain} goes on"
        try:
            seen = still(_core.job_status(uri, domain), seen)
            heard_s = time.monotonic()
        except _core.NoDomainError:
            seen = {**seen, "state": "gone"}
        except _core.LibvirtError as err:
            # Around the switch a statistics call may fail; it says nothing about the migration.
            if time.monotonic() - heard_s > SILENT_S:
                return (
                    ExitCode.DETACHED,
                    f"left: {uri} does not answer any more ({err}); the migration may go on",
                )


def still(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """NOW, with the knowledge from BEFORE on which side of the migration this host is."""
    arrives = now["state"] == "postcopy" and now["domain_state"] == "running"
    return {**now, "destination": before.get("destination", False) or arrives}


def ending(uri: str, domain: str, seen: dict[str, Any]) -> tuple[ExitCode, str] | None:
    """The exit code and last words if SEEN is the end of a migration."""
    state = seen["state"]
    destination = seen.get("destination", False)
    if state == "gone":
        if destination:
            return ExitCode.NEEDS_OPERATOR, f"{domain} is gone from the destination {uri}"
        return ExitCode.DONE, f"done: {domain} has left {uri}"
    if state == "paused":
        return ExitCode.NEEDS_OPERATOR, (
            f"{domain} was interrupted in post-copy; when the hosts reach each other again, type "
            "at the source:\n"
            f"  virsh migrate --live --p2p --postcopy --postcopy-resume {domain} DESTURI"
        )
    if state != "none":
        return None
    if destination:
        return ExitCode.DONE, f"done: {domain} runs at {uri} with all of its memory"
    if seen["domain_state"] == "running":
        return ExitCode.FAILED, f"the migration has ended, and {domain} runs on at the source ({uri})"
    if seen["domain_state"] in ("shutoff", "shut off"):
        return ExitCode.DONE, f"done: {domain} has left {uri}"
    words = (
        f"the migration has ended, and {domain} is {seen['domain_state']} ({seen['domain_reason']}) at {uri}"
    )
    return ExitCode.NEEDS_OPERATOR, words
