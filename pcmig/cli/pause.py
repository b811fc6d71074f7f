# SPDX-License-Identifier: Apache-2.0
"""`pcmig pause`: interrupts post-copy on purpose, and has it wait."""

from __future__ import annotations

import argparse
import shlex

from pcmig import _core
from pcmig.cli.base import Command, CommandError, ExitCode, add_guest, default_connect
from pcmig.cli.job import CONFIRM_S, Job
from pcmig.cli.record import find, resume_command, tell
from pcmig.cli.turn_back import refuse_bound
from pcmig.journal import Entry, Journal

# So long the process that looks after the migration has to pause it; then it is done without it.
ASKED_S = 5.0


class Pause(Command):
    """interrupt post-copy, and let it wait until 'pcmig resume'

    The guest stands still meanwhile, as soon as it needs a page that has not arrived; both halves are kept. A
    'pcmig migrate' or 'resume' that looks after the migration waits too. In pre-copy there is nothing to
    pause: the guest runs at the source, and 'pcmig abort' leaves it there.
    """

    epilog = (
        "exit codes: 0 post-copy is paused; 1 there is no migration, it is not in post-copy, or it could not "
        "be paused; 2 usage"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser, journal=True)
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        book = Journal()
        entry = find(book, args.domain, args.connect)
        uri = args.connect or (entry.source_uri if entry else default_connect())
        job = Job(uri, entry.uuid if entry else args.domain)
        job.find()
        refuse_bound(job.uri, job.uuid, job.domain, entry)
        refuse(job, entry)
        try:
            # First of all: who looks after it asks the journal, as soon as the stream breaks.
            entry = book.update(entry.uuid, held=True) if entry else None
            if entry and tell(entry):
                job.wait_while("postcopy", ASKED_S)
            if job.state == "postcopy":
                _core.job_pause(uri, job.uuid)
            job.wait_while("postcopy", CONFIRM_S)
        finally:
            if entry and job.state != "paused":
                book.update(entry.uuid, held=False)
                tell(entry)
        if job.state == "none":
            raise CommandError(f"the migration of {job.domain} ended before it could be paused")
        if job.state != "paused":
            raise CommandError(f"{job.domain}: libvirt took the request, but post-copy still runs")
        resume = resume_command(uri, job.word, entry.dest_uri if entry else "DESTURI")
        print(f"paused: both halves of {job.domain} are kept; to go on:\n  {resume}")
        return ExitCode.DONE


def refuse(job: Job, entry: Entry | None) -> None:
    """Raises CommandError where nothing can be paused, or not without harm."""
    domain = job.domain
    if job.state == "precopy":
        raise CommandError(
            f"{domain} is in pre-copy and runs at the source: there is nothing to pause; to leave it there:\n"
            f"  {shlex.join(['pcmig', 'abort', '-c', job.uri, job.word])}"
        )
    if job.state == "postcopy" and (why := _core.resume_hold(version(entry), version_of(job.uri))):
        raise CommandError(f"{domain} is not paused, because it could not be resumed: {why}")


def version(entry: Entry | None) -> int:
    """Of libvirt at the destination; 0 when it cannot be asked."""
    return version_of(entry.dest_uri) if entry else 0


def version_of(uri: str) -> int:
    try:
        return _core.host_facts(uri)["libvirt_version"]
    except _core.LibvirtError:
        return 0
