# SPDX-License-Identifier: Apache-2.0
"""A guest under one load that is moved cell by cell, and watched for as long afterwards as was asked."""

from __future__ import annotations

import contextlib
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any, Self

from pcmig import huge_pages
from pcmig_common import units
from tests.bed import Bed, BedError, Host
from tests.bed.guest import ensure_images
from tests.bed.layer import Reporter
from tests.bench.calm import Calm, Work
from tests.bench.evaluation import database
from tests.bench.evaluation.cells import DATABASE, LOADS, Cell
from tests.bench.evaluation.figures import WINDOWS_S
from tests.bench.switchover.commands import Place, Ran
from tests.bench.switchover.session import SETTLE_PATIENCE_S, Session
from tests.functional.tunnel_scene import Daemon, make_daemons, start_daemons

BEFORE_S = 10.0
DATABASE_WORK_RATIO = 0.5
DIRTY_PATIENCE_S = 10.0
LOAD_PATIENCE_S = 180.0
CHECK_PATIENCE_S = 120.0
_DIRTY = re.compile(r"dirtyrate\.megabytes_per_second=(\d+)")
_MEASURED = re.compile(r"dirtyrate\.calc_status=2\b")


def images_of(load: str) -> Callable[[Reporter], pathlib.Path]:
    return database.ensure_images if load == DATABASE else ensure_images


class LoadSession(Session):
    """`with LoadSession(...) as session: session.play(cell, round)`, as often as wanted."""

    def __init__(
        self,
        bed: Bed,
        load: str,
        after_s: float,
        give_up_s: float,
        reporter: Reporter,
    ) -> None:
        self.database = load == DATABASE
        super().__init__(bed.stack, None, LOADS[load], None, reporter, bed=bed)
        if self.database:
            self.damage = "transactions failed, or were lost"
            # PostgreSQL writes out what has changed every so often, and vacuums its tables.
            self._calm = Calm(self.spec.heartbeat_ms, SETTLE_PATIENCE_S, DATABASE_WORK_RATIO)
        self.after_s = after_s
        self.give_up_s = give_up_s
        self._daemons: dict[str, Daemon] = {}
        self._tunnel = False
        self._huge_mib: dict[str, float | None] = {}
        self._started_s = 0.0
        self._ended_s = 0.0

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._wait_for_load()
        except BaseException:
            self._exits.close()
            raise
        return self

    def _wait_for_load(self) -> None:
        deadline_s = time.monotonic() + LOAD_PATIENCE_S
        while self.database and not self.guest.heartbeats()[-1].written:
            if time.monotonic() > deadline_s:
                raise BedError(f"no transaction in {LOAD_PATIENCE_S:g} s: {self.guest.said()[-300:]}")
            time.sleep(0.5)

    def play(self, cell: Cell, number: int) -> dict[str, Any]:
        """The raw figures of one migration. Raises GuestGone."""
        self.bed.network.limit(cell.rate_mbit)
        self._tunnel = cell.transport == "tunnel"
        if self._tunnel:
            self._start_tunnel()
        before_mib = self._huge_of(self.bed.where(self.guest))
        dirty = self._writes() if self.database else None
        row = self.measure(cell.way, number)
        row |= {"load": cell.load, "rate_mbit": cell.rate_mbit, "transport": cell.transport}
        row["ended"] = row["complete_s"] is not None
        if (
            not row["ended"]
            and row["guest_host"] == row["direction"].partition("->")[0]
            and row["guest_alive"]
        ):
            row["error"] = None  # given up, as was asked for: that is a result
        row["huge_mib"] = {"before": before_mib} | self._huge_mib
        row["after"] = self._watch(row) if row["ended"] else []
        if self.database:
            row |= {"dirty_mb_s": dirty, "slowest_ms": self._slowest(row)}
            if row["error"] is None and not self._is_whole():
                row["error"] = f"{self.guest.heartbeats()[-1].bad} {self.damage}"
        return row

    def _watch(self, row: dict[str, Any]) -> list[dict[str, float]]:
        """What the guest got done in each window after the end, against what it did before the start."""
        destination = self.bed.where(self.guest)
        for at_s in huge_pages.AT_S[1:]:
            if at_s <= self.after_s:
                time.sleep(max(0.0, self._ended_s + at_s - time.monotonic()))
                row["huge_mib"][f"{at_s}"] = self._huge_of(destination)
        windows = [(start, end) for start, end in WINDOWS_S if end <= self.after_s]
        if windows:
            time.sleep(max(0.0, self._ended_s + windows[-1][1] - time.monotonic()))
        beats = self.guest.heartbeats(self._ended_s)
        done = [Work.between(beats, self._ended_s + start, self._ended_s + end) for start, end in windows]
        return [
            {"from_s": start, "to_s": end, "pps": round(work.pps)}
            for (start, end), work in zip(windows, done, strict=True)
        ]

    def _writes(self) -> float | None:
        """What pages the guest writes in a second, in MB, as QEMU samples them before a migration."""
        host = self.bed.where(self.guest)
        host.virsh("domdirtyrate-calc", self.guest.name, "--seconds", "1")
        deadline_s = time.monotonic() + DIRTY_PATIENCE_S
        while time.monotonic() < deadline_s:
            time.sleep(0.5)
            said = host.virsh("domstats", "--dirtyrate", self.guest.name)
            if _MEASURED.search(said):
                match = _DIRTY.search(said)
                return round(int(match[1]) * 1.048576, 1) if match else None
        return None

    def _slowest(self, row: dict[str, Any]) -> dict[str, float | None]:
        """The slowest transaction that ended before, during the migration, and in each window after it."""
        lines = self.guest.said().splitlines()
        seen = [found for line in lines if (found := database.parse_line(line)) is not None]
        beats = self.guest.heartbeats()
        spans = {
            "before": (self._started_s - BEFORE_S, self._started_s),
            "during": (self._started_s, self._ended_s),
            **{
                f"{each['from_s']}_{each['to_s']}": (
                    self._ended_s + each["from_s"],
                    self._ended_s + each["to_s"],
                )
                for each in row["after"]
            },
        }
        return {name: database.slowest_ms(seen, beats, *span) for name, span in spans.items()}

    def _is_whole(self) -> bool:
        """Whether all that the transactions did is in the database's tables, and none has failed."""
        before = self.guest.heartbeats()[-1]
        self.guest.tell("check")
        deadline_s = time.monotonic() + CHECK_PATIENCE_S
        while time.monotonic() < deadline_s:
            last = self.guest.heartbeats()[-1]
            if last.bad or last.passes > before.passes:
                return not last.bad
            time.sleep(0.2)
        return False

    def _place(self, source: Host) -> Place:
        control = str(self._daemons[source.name].control) if self._tunnel else ""
        return Place(source, self.bed.other(source), self.guest.name, control, self.give_up_s)

    def _end(self, place: Place, ran: Ran) -> dict[str, float]:
        seen = super()._end(place, ran)
        self._started_s = ran.start_s
        self._ended_s = seen.get("complete_s", ran.end_s)
        self._huge_mib = {"0": self._huge_of(place.destination)} if "complete_s" in seen else {}
        return seen

    def _huge_of(self, host: Host) -> float | None:
        """Of the guest's memory, what the host's kernel holds in huge pages; None where it does not tell."""
        with contextlib.suppress(OSError, ValueError):
            (pid,) = host.qemu_pids()
            found = huge_pages.of_process(pid).bytes
            return None if found is None else round(found / units.MIB, 1)
        return None

    def _start_tunnel(self) -> None:
        if not self._daemons:
            pki = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="pcmig-bench."))
            self._daemons = make_daemons(self.bed, pathlib.Path(pki))
        start_daemons(self._daemons)
