# SPDX-License-Identifier: Apache-2.0
"""The figures of one migration of the command's, for Prometheus: while it runs, and when it has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pcmig import journal
from pcmig.cli.background import BackgroundTask, within
from pcmig.cli.base import UsageError, say
from pcmig.metrics import account, live, meter
from pcmig.metrics.families import COMMAND
from pcmig.metrics.store import default_folder

if TYPE_CHECKING:
    from pcmig._core import Migration, Status
    from pcmig.journal import Entry

ENVIRONMENT = "PCMIG_METRICS_DIR"  # empty: no file is written

LOOK_MS = round(meter.EVERY_S * 1000)

# So long a file system that does not answer is waited for: none does that for less than its own time-outs.
HUNG_S = 10.0

# So long another process that writes is waited for when there is no next time; it may be stopped.
END_S = 2.0


def textfiles(given: str | None) -> str | None:
    """The folder for node_exporter's file: the one GIVEN, or that of the environment, or Debian's where that
    is. Raises UsageError for one that was named and cannot be used."""
    for name, folder in (("--metrics-dir", given), (f"${ENVIRONMENT}", os.environ.get(ENVIRONMENT))):
        if folder is None:
            continue
        if folder and (why := unusable(folder)):
            raise UsageError(
                f"{name} {folder!r} cannot be written to: {why}; give the folder of node_exporter's "
                "--collector.textfile.directory, or '' for none"
            )
        return folder or None
    return None if unusable(meter.TEXTFILE_FOLDER) else meter.TEXTFILE_FOLDER


def unusable(folder: str) -> str | None:
    """Why no file can be written to FOLDER."""
    found: list[str | None] = []

    def look() -> None:
        if meter.usable_folder(folder) is not None:
            found.append(None)
        else:
            found.append("permission denied" if os.path.isdir(folder) else "there is no such folder")

    return found[0] if within(HUNG_S, look) else f"it has not answered for {HUNG_S:g} s"


def make_meter(folder: str | None, *, quiet: bool = False) -> meter.Meter:
    """The command's, with its file in FOLDER."""

    def tell(text: str) -> None:
        if not quiet:
            say(f"pcmig: note: {text}", sys.stderr)

    return meter.Meter(COMMAND, default_folder(), journal.default_folder(), folder, tell)


class Metering:
    """Of the migration of ENTRY. POLICY is what the engine was told. The file for node_exporter is written
    aside: one that hangs keeps nobody from following a migration, whose end waits HUNG_S for it."""

    def __init__(self, meter: meter.Meter, migration: Migration, entry: Entry, policy: str) -> None:
        self._meter = meter
        self._migration = migration
        self._entry = entry
        self._policy = policy
        self._writer = BackgroundTask("pcmig-metrics")

    def look(self, status: Status) -> None:
        """Writes what is new, now and then, and each phase as it begins."""
        # What was not written by the next time is written then.
        if self._writer.busy or not self._meter.due(status["phase"]):
            return
        try:
            rows = [self._row(status)]
        except Exception as err:  # a defect of ours ends no migration
            self._meter.tell(f"metrics are not written: {type(err).__name__}: {err}")
            return
        self._write(rows, 0)

    def _write(self, rows: list[live.Row], wait_s: float) -> None:
        self._writer.begin(lambda: self._meter.publish(rows, wait_s=wait_s))

    def _row(self, status: Status) -> live.Row:
        totals: Mapping[str, Any] = self._migration.ledger().get("totals") or {}
        return live.row(
            name=self._entry.name,
            uuid=self._entry.uuid,
            dest_uri=self._entry.dest_uri,
            policy=self._policy,
            status=status,
            page_bytes=int(totals.get("page_size_bytes", 0)),
        )

    def ended(self, status: Status, *, gated: bool) -> None:
        """Counts it, unless it was left to itself. GATED: its switch was to wait for ports."""
        if status["outcome"] in (None, "detached"):
            return
        try:
            more = account.increments(
                outcome=str(status["outcome"]),
                policy=self._policy,
                ledger=self._migration.ledger(),
                decisions=self._migration.decisions(),
                gated=gated,
            )
        except Exception as err:  # a defect of ours ends no migration
            self._meter.tell(f"this migration is not counted: {type(err).__name__}: {err}")
            return
        name = f"{self._entry.uuid} {self._entry.started} {status['outcome']}"
        # What hangs may be the folder of the counts as well; what is counted by then is in the file below.
        if not within(HUNG_S, lambda: self._meter.ended(name, more, END_S)):
            self._meter.tell(f"this migration is not counted: {self._meter.store.folder} does not answer")

    def close(self) -> None:
        """This process looks after it no more."""
        if self._writer.wait(HUNG_S):
            self._write([], END_S)
            if self._writer.wait(HUNG_S):
                return
        self._meter.tell(
            f"metrics are not written: {self._meter.textfiles} has not answered for {HUNG_S:g} s"
        )
