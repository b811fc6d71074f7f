# SPDX-License-Identifier: Apache-2.0
"""`pcmig switch`: tells a running migration to go to post-copy now."""

from __future__ import annotations

import argparse

from pcmig import _core
from pcmig.cli.base import CommandError, ExitCode, Leavable, add_guest
from pcmig.cli.job import CONFIRM_S, Job
from pcmig.cli.record import watch_command
from pcmig.cli.turn_back import refuse_bound


class Switch(Leavable):
    """switch a running migration to post-copy now

    The migration must have been started with post-copy enabled, by whatever program. Ctrl-C leaves it at
    once; what libvirt was asked for by then it may yet do.
    """

    epilog = (
        "exit codes: 0 the guest runs at the destination; 1 there is no migration, or it was refused; "
        "2 usage; 3 the migration is paused and needs an operator; 130 left by Ctrl-C, while libvirt may yet "
        "switch it"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        job = Job(args.connect, args.domain)
        job.find()
        refuse_bound(job.uri, job.uuid, job.domain)
        if job.state == "precopy":
            self.left = (
                f"interrupted: libvirt was asked to switch {job.domain} to post-copy, and may yet do it; "
                f"what comes of it:\n  {watch_command(job.uri, job.word)}"
            )
            _core.job_switch(job.uri, job.uuid)
            job.wait_while("precopy", CONFIRM_S)
        if job.state == "paused":
            raise CommandError(f"{job.domain} was interrupted in post-copy", ExitCode.NEEDS_OPERATOR)
        if job.state == "precopy":
            raise CommandError(
                f"{job.domain}: libvirt took the request, but the migration is still in pre-copy"
            )
        if job.state == "none" and job.half != "absent":
            raise CommandError(
                f"the migration of {job.domain} ended before it could switch; it is at {job.uri}"
            )
        print(f"post-copy: {job.domain} runs at the destination")
        return ExitCode.DONE
