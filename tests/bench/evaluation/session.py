# SPDX-License-Identifier: Apache-2.0
"""A guest under one load that is moved cell by cell, and watched for as long afterwards as was asked."""

from __future__ import annotations

import contextlib
import pathlib
import re
import tempfile
import time
from typing import Any

from tests.bed import Host
from tests.bed.layer import Reporter
from tests.bench.calm import Work
from tests.bench.evaluation.cells import LOADS, Cell
from tests.bench.evaluation.figures import HUGE_AT_S, WINDOWS_S
from tests.bench.switchover.commands import Place, Ran
from tests.bench.switchover.session import Session
from tests.functional.tunnel_scene import Daemon, make_daemons, start_daemons

_HUGE = re.compile(r"^AnonHugePages:\s+(\d+) kB", re.M)


class LoadSession(Session):
    """`with LoadSession(...) as session: session.play(cell, round)`, as often as wanted."""

    def __init__(self, stack: str, load: str, after_s: float, give_up_s: float, reporter: Reporter) -> None:
        super().__init__(stack, None, LOADS[load], None, reporter)
        self.after_s = after_s
        self.give_up_s = give_up_s
        self._daemons: dict[str, Daemon] = {}
        self._tunnel = False
        self._huge_mib: dict[str, float | None] = {}
        self._ended_s = 0.0

    def play(self, cell: Cell, number: int) -> dict[str, Any]:
        """The raw figures of one migration. Raises GuestGone."""
        self.bed.network.limit(cell.rate_mbit)
        self._tunnel = cell.transport == "tunnel"
        if self._tunnel:
            self._start_tunnel()
        before_mib = self._huge_of(self.bed.where(self.guest))
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
        return row

    def _watch(self, row: dict[str, Any]) -> list[dict[str, float]]:
        """What the guest got done in each window after the end, against what it did before the start."""
        destination = self.bed.where(self.guest)
        for at_s in HUGE_AT_S[1:]:
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

    def _place(self, source: Host) -> Place:
        control = str(self._daemons[source.name].control) if self._tunnel else ""
        return Place(source, self.bed.other(source), self.guest.name, control, self.give_up_s)

    def _end(self, place: Place, ran: Ran) -> dict[str, float]:
        seen = super()._end(place, ran)
        self._ended_s = seen.get("complete_s", ran.end_s)
        self._huge_mib = {"0": self._huge_of(place.destination)} if "complete_s" in seen else {}
        return seen

    def _huge_of(self, host: Host) -> float | None:
        """Of the guest's memory, what the host's kernel holds in huge pages; None where it does not tell."""
        with contextlib.suppress(OSError, ValueError):
            (pid,) = host.qemu_pids()
            match = _HUGE.search(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())
            return round(int(match[1]) / 1024, 1) if match else None
        return None

    def _start_tunnel(self) -> None:
        if not self._daemons:
            pki = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="pcmig-bench."))
            self._daemons = make_daemons(self.bed, pathlib.Path(pki))
        start_daemons(self._daemons)
