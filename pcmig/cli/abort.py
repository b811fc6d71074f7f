"""`pcmig abort`: cancels a migration while the guest still runs at the source."""

from __future__ import annotations

import argparse

from pcmig import _core
from pcmig.cli import job
from pcmig.cli.base import Command, CommandError, ExitCode, add_connect

CONFIRM_S = 10.0

TOO_LATE = (
    "{domain} runs at the destination already, and only the two hosts together hold its memory: cancelling "
    "now would lose the guest, so libvirt does not do it. Let it finish: pcmig watch {domain}"
)


class Abort(Command):
    """cancel a migration; the guest runs on at the source

    Works while the guest is still at the source. In post-copy it is refused: the guest would be lost.
    """

    epilog = (
        "exit codes: 0 cancelled; 1 there is no migration, or it could not be cancelled; 2 usage; "
        "3 the migration is paused and needs an operator; 4 in post-copy, the migration goes on"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_connect(parser)
        parser.add_argument("domain", metavar="DOMAIN", help="guest: name, UUID or id")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        uri, domain = args.connect, args.domain
        refuse(job.find(uri, domain)["state"], domain)
        try:
            _core.job_abort(uri, domain)
        except _core.InvalidOperationError:
            refuse(_core.job_status(uri, domain)["state"], domain)
            raise
        state = job.wait_while(uri, domain, "precopy", CONFIRM_S)["state"]
        refuse(state, domain)
        if state == "gone":
            raise CommandError(f"the migration of {domain} had finished before it could be cancelled")
        if state != "none":
            raise CommandError(f"{domain}: libvirt took the cancellation, but the migration still runs")
        print(f"cancelled: {domain} runs on at the source ({uri})")
        return ExitCode.DONE


def refuse(state: str, domain: str) -> None:
    """Raises CommandError in a STATE where nothing may be cancelled."""
    if state == "postcopy":
        raise CommandError(TOO_LATE.format(domain=domain), ExitCode.DETACHED)
    if state == "paused":
        raise CommandError(
            f"{domain} was interrupted in post-copy and waits to be resumed; cancelling would lose it",
            ExitCode.NEEDS_OPERATOR,
        )
