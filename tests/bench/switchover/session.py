# SPDX-License-Identifier: Apache-2.0
"""One bed and one guest that goes to and fro between its hosts, each time by another way."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
import types
from collections.abc import Callable
from typing import Any, Self

from tests.bed import Bed, BedError, Guest, GuestSpec, Host
from tests.bed.guest import crash_told
from tests.bed.layer import Reporter
from tests.bench.calm import SETTLE_S, Calm, Work
from tests.bench.figures import since
from tests.bench.switchover import events, machine
from tests.bench.switchover.commands import Place, Ran, migrate
from tests.bench.switchover.events import Listeners
from tests.bench.switchover.figures import trace_late_us
from tests.bench.switchover.ways import Kind, Way

SETTLE_PATIENCE_S = 60.0
EVENT_PATIENCE_S = 15.0
TAIL_S = 2.0


class Session:
    """`with Session(...) as session: session.measure(way)`, as often as wanted."""

    damage = "pages do not hold what the guest wrote"

    def __init__(
        self,
        stack: str,
        rate_mbit: float | None,
        spec: GuestSpec,
        traces: pathlib.Path | None,
        reporter: Reporter,
        *,
        bed: Bed | None = None,
    ) -> None:
        self.stack = stack
        self.spec = spec
        self.traces = traces
        self.bed = bed or Bed(stack, rate_mbit, reporter=reporter)
        self._exits = contextlib.ExitStack()
        self._calm = Calm(spec.heartbeat_ms, SETTLE_PATIENCE_S)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.bed)
            self.listeners = exits.enter_context(Listeners(self.bed.hosts, self.spec.name))
            self.guest: Guest = self.bed.start_guest(self.spec)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def measure(self, way: Way, number: int) -> dict[str, Any]:
        """Migrate the guest to the other host; returns raw figures as they go into the JSON. Raises GuestGone
        when the guest is not fit for another migration."""
        settle = self._calm.wait(self.bed.log)
        source = self.bed.where(self.guest)
        place = self._place(source)
        with self._trace_file(way, number) as trace:
            read_meters = self._meters(source)
            ran = migrate(way, place, trace)
            seen = self._end(place, ran)
            meters = read_meters()
            late_us = trace_late_us(trace.read_text()) if way.kind is Kind.PCMIG and trace.exists() else None
        end_s = seen.get("complete_s") or ran.end_s
        verdict = self.guest.verdict(ran.start_s, end_s, TAIL_S)
        beats = self.guest.heartbeats(ran.start_s - SETTLE_S)
        before = Work.between(beats, ran.start_s - SETTLE_S, ran.start_s)
        # A guest whose pages are watched for writes is slower, under emulation much.
        early = Work.between(beats, ran.start_s, seen.get("switch_s") or end_s)
        during = Work.between(beats, ran.start_s, end_s + TAIL_S)
        row: dict[str, Any] = {
            "stack": self.stack,
            "way": way.name,
            "round": number,
            "direction": f"{source.name}->{place.destination.name}",
            **{key: since(ran.start_s, seen.get(key)) for key in ("switch_s", "complete_s", "source_gone_s")},
            "command_s": round(ran.end_s - ran.start_s, 3),
            "bytes": meters.pop("bytes"),
            **{f"guest_{key}": value for key, value in dataclasses.asdict(verdict).items()},
            "baseline_pps": round(before.pps),
            "work_pages": during.pages,
            "work_elapsed_s": round(during.elapsed_s, 3),
            "work_before_switch_pages": early.pages,
            "work_before_switch_elapsed_s": round(early.elapsed_s, 3),
            **_cpu_figures(ran),
            "trace_switch_late_us": late_us,
            "settle": settle,
            **meters,
            "events": [
                [since(ran.start_s, e.time_s), e.host, e.text] for e in self.listeners.since(ran.start_s)
            ],
            "report": _without_ledger(ran.report),
        }
        row["error"] = _error(row, ran, place, self.guest.said(), self.damage)
        if not verdict.alive:
            raise GuestGone(f"the guest fell silent after {way.name}: {row['error']}", row)
        return row

    def _meters(self, source: Host) -> Callable[[], dict[str, Any]]:
        """Begins to count what SOURCE sends and how busy the machine is; the result of what is returned."""
        sent, cpu = machine.bytes_sent(source), machine.CpuTimes.now()
        return lambda: {
            "bytes": machine.bytes_sent(source) - sent,
            **machine.CpuTimes.now().shares_since(cpu),
        }

    def _place(self, source: Host) -> Place:
        return Place(source, self.bed.other(source), self.guest.name)

    def _end(self, place: Place, ran: Ran) -> dict[str, float]:
        """Moments of the migration by the hosts' events; those that did not come are left out."""
        patience_s = 0.0 if ran.code else EVENT_PATIENCE_S
        wait = self.listeners.wait
        moments = {
            "complete_s": wait(place.destination.name, events.COMPLETE, ran.start_s, patience_s),
            "source_gone_s": wait(place.source.name, events.SOURCE_GONE, ran.start_s, patience_s),
            "switch_s": wait(place.source.name, events.SWITCHED, ran.start_s, 0.0),
        }
        return {name: moment for name, moment in moments.items() if moment is not None}

    @contextlib.contextmanager
    def _trace_file(self, way: Way, number: int) -> Any:
        if self.traces is not None:
            yield self.traces / f"{self.stack}.{way.name.replace('/', '_')}.{number}.trace"
            return
        with tempfile.TemporaryDirectory(prefix="pcmig-bench.") as folder:
            yield pathlib.Path(folder) / "trace"


class GuestGone(BedError):
    """No more migrations with this guest; `row` tells of the last one."""

    def __init__(self, text: str, row: dict[str, Any]) -> None:
        super().__init__(text)
        self.row = row


def _cpu_figures(ran: Ran) -> dict[str, Any]:
    status = (ran.report or {}).get("status") or {}
    return {
        "cpu_ms": round(ran.cpu_s * 1000, 1),
        "cpu_after_start_ms": None
        if ran.cpu_after_start_s is None
        else round(ran.cpu_after_start_s * 1000, 1),
        "cpu_control_ms": round(status["cpu_us"] / 1000, 1) if "cpu_us" in status else None,
        "switch_late_us": status.get("switch_late_us"),
    }


def _without_ledger(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The ledger's rows are many, and none of the figures."""
    return None if report is None else {key: value for key, value in report.items() if key != "ledger"}


def _error(row: dict[str, Any], ran: Ran, place: Place, said: str, damage: str) -> str | None:
    """What makes a round worthless."""
    if ran.error:
        return ran.error
    if words := crash_told(said):
        return words
    if row["guest_host"] != place.destination.name:
        return f"the guest does not run on host {place.destination.name}"
    if row["guest_page_errors"]:
        return f"{row['guest_page_errors']} {damage}"
    if row["complete_s"] is None:
        return f"host {place.destination.name} never said {events.COMPLETE!r}"
    return None
