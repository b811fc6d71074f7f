# SPDX-License-Identifier: Apache-2.0
"""`pcmig metrics`: the figures of this host's migrations, for Prometheus."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping

from pcmig import journal
from pcmig.cli import metering, status
from pcmig.cli.background import within
from pcmig.cli.base import Command, CommandError, ExitCode, given_path
from pcmig.cli.metering import END_S, make_meter
from pcmig.journal import Journal
from pcmig.metrics import exposition, view
from pcmig.metrics.families import COMMAND, NOVA
from pcmig.metrics.meter import FILES, Meter
from pcmig.metrics.store import NOVA_FOLDER, Store, StoreError, default_folder


class Metrics(Command):
    """print the figures of this host's migrations, for Prometheus

    What was counted of migrations that have ended, and those that run. Both hosts are asked about each one on
    record that nobody looks after.
    """

    epilog = (
        "exit codes: 0 printed, or written; 1 FILE or the counts cannot be used, or prometheus-client is not "
        "installed; 2 usage"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--textfile",
            metavar="FILE",
            type=given_path,
            help="write the command's there, for node_exporter's textfile collector: pcmig.prom in its "
            "folder, as migrations do; nova-compute writes its own",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> ExitCode:
        meter = make_meter(None)
        situations = asked(journal.default_folder())
        try:
            if args.textfile is not None:
                meter.publish(situations=situations, wait_s=0)  # what is busy is told by the next
                if not within(metering.HUNG_S, lambda: write(meter, args.textfile)):
                    raise CommandError(
                        f"{args.textfile} is not written: it has not answered for {metering.HUNG_S:g} s"
                    )
                return ExitCode.DONE
            views = [view.view(COMMAND, meter.store, meter.book, situations=situations)]
            views += of_nova()
            print(exposition.text(lambda: exposition.families(views)), end="")
        except StoreError as err:
            raise CommandError(str(err)) from err
        except ImportError as err:
            raise CommandError(exposition.MISSING.format(err)) from err
        return ExitCode.DONE


def write(meter: Meter, path: str) -> None:
    """Raises StoreError, ImportError."""
    if os.path.isdir(path):
        raise StoreError(f"{path} is a folder: name the file in it, {os.path.join(path, FILES[COMMAND])}")
    meter.write(path, END_S)


def of_nova() -> list[exposition.View]:
    """nova-compute's, if there is one that was set up as packages do and it may be read. Raises
    StoreError."""
    if default_folder() == NOVA_FOLDER or os.environ.get(journal.ENVIRONMENT) or os.geteuid() != 0:
        return []
    if not NOVA_FOLDER.is_dir():
        return []
    return [view.view(NOVA, Store(NOVA_FOLDER), journal.NOVA_FOLDER)]


def asked(folder: pathlib.Path) -> Mapping[str, str]:
    """What both hosts say of migrations in the journal in FOLDER that nobody looks after, by the guest's UUID
    (csrc/core/situation.h)."""
    book = Journal(folder)
    todo = [
        status.Todo(lambda entry=entry: status.of_entry(book, entry))  # type: ignore[misc]
        for entry in view.unattended(book.all()[0])
    ]
    rows = status.at_once(todo, [])
    return {str(row["uuid"]): str(row["phase"]) for row in rows}
