"""`pcmig switch`: tells a running migration to go to post-copy now."""

from __future__ import annotations

import argparse

from pcmig import _core
from pcmig.cli import job
from pcmig.cli.base import Command, CommandError, ExitCode, add_connect

CONFIRM_S = 10.0


class Switch(Command):
    """switch a running migration to post-copy now

    The migration must have been started with post-copy enabled, by whatever program.
    """

    epilog = (
        "exit codes: 0 the guest runs at the destination; 1 there is no migration, or it was refused; "
        "2 usage; 3 the migration is paused and needs an operator"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_connect(parser)
        parser.add_argument("domain", metavar="DOMAIN", help="guest: name, UUID or id")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        uri, domain = args.connect, args.domain
        state = job.find(uri, domain)["state"]
        if state == "precopy":
            _core.job_switch(uri, domain)
            state = job.wait_while(uri, domain, "precopy", CONFIRM_S)["state"]
        if state == "paused":
            raise CommandError(f"{domain} was interrupted in post-copy", ExitCode.NEEDS_OPERATOR)
        if state == "none":
            raise CommandError(
                f"the migration of {domain} ended before it could switch; the guest is at {uri}"
            )
        if state == "precopy":
            raise CommandError(f"{domain}: libvirt took the request, but the migration is still in pre-copy")
        print(f"post-copy: {domain} runs at the destination")
        return ExitCode.DONE
