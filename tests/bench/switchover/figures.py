# SPDX-License-Identifier: Apache-2.0
"""From the rounds' raw figures to medians, ratios and goals: values in, values out."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Sequence

from tests.bench.figures import Figure, Row, Spread, ratio, spread, time_lost_s
from tests.bench.switchover.commands import START_UP_S

FIGURES = {
    figure.key: figure
    for figure in (
        Figure("guest_switch_silence_ms", "silence at switch", "ms"),
        Figure("guest_later_silence_ms", "later silence", "ms"),
        Figure("time_lost_s", "guest time lost", "s", 1),
        Figure("time_lost_before_s", "of it before", "s", 1),
        Figure("complete_s", "total time", "s", 1),
        Figure("command_s", "command", "s", 1),
        Figure("bytes", "sent", "MB", 0, 1e6),
        Figure("cpu_ms", "CPU", "ms"),
        Figure("engine_cpu_percent", "CPU after start", "%", 2),
    )
}


def engine_cpu_percent(row: Row) -> float | None:
    """Of one core, by the whole process from START_UP_S on; unlike `cpu_ms` without the start of Python."""
    cpu_ms, elapsed_s = row.get("cpu_after_start_ms"), row["command_s"] - START_UP_S
    return None if cpu_ms is None or elapsed_s <= 0 else cpu_ms / elapsed_s / 10


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: with fewer than 100 values, p99 is the greatest of them."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


class Results:
    """The rounds that count: those of one stack that went as they should."""

    def __init__(self, rows: Iterable[Row], stack: str) -> None:
        own = [row for row in rows if row["stack"] == stack]
        best_pps = max((row["baseline_pps"] for row in own), default=0)
        self.rows = [
            row
            | {"time_lost_s": time_lost_s(row, best_pps)}
            | {"time_lost_before_s": time_lost_s(row, best_pps, "work_before_switch")}
            | {"engine_cpu_percent": engine_cpu_percent(row)}
            for row in own
        ]
        self.good = [row for row in self.rows if not row["error"]]
        self.stack = stack
        self.ways = list(dict.fromkeys(row["way"] for row in self.rows))

    def of(self, way: str) -> list[Row]:
        return [row for row in self.good if row["way"] == way]

    def spread(self, way: str, key: str) -> Spread | None:
        return spread(FIGURES[key].of(row) for row in self.of(way))

    def ratio(self, way: str, reference: str, key: str) -> float | None:
        return ratio(self.spread(way, key), self.spread(reference, key))


# Goals


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is to be reached, with a `reference` as a ratio of medians to it."""

    title: str
    key: str
    way: str
    limit: float
    reference: str | None = None
    stacks: tuple[str, ...] = ("forky", "backports")


@dataclasses.dataclass(frozen=True)
class Judged:
    goal: Goal
    value: float | None  # None: not measured

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        return "reached" if self.value <= self.goal.limit else "missed"


# "At the same switch point": QEMU 11 makes virsh's own switch come at once, QEMU 10 after a pass (ways.py).
GOALS = (
    Goal("silence at the switch", "guest_switch_silence_ms", "pcmig", 1 / 4, "virsh"),
    Goal("later silence", "guest_later_silence_ms", "pcmig", 1 / 3, "virsh"),
    Goal("guest time lost", "time_lost_s", "pcmig", 1 / 2, "virsh"),
    Goal(
        "total time, both switch after a pass",
        "complete_s",
        "pcmig-first-pass",
        1.10,
        "virsh-pass",
        ("forky",),
    ),
    Goal("total time, both switch at once", "complete_s", "pcmig-immediate", 1.10, "virsh", ("forky",)),
    Goal(
        "total time, both switch after a pass",
        "complete_s",
        "pcmig-first-pass",
        1.10,
        "virsh",
        ("backports",),
    ),
    Goal("total time of an idle guest", "complete_s", "pcmig-idle", 1.05, "virsh-idle"),
    Goal("pcmig's CPU after its start, % of a core", "engine_cpu_percent", "pcmig", 1.0),
)
LATE_GOAL = Goal("start-postcopy after the decision, p99 in ms", "switch_late_us", "pcmig*", 5.0)


def judge(results: Results) -> list[Judged]:
    judged = []
    for goal in GOALS:
        if results.stack not in goal.stacks:
            continue
        if goal.reference:
            value = results.ratio(goal.way, goal.reference, goal.key)
        else:
            found = results.spread(goal.way, goal.key)
            value = found.median if found else None
        judged.append(Judged(goal, value))
    late = lateness_ms(results)
    return [*judged, Judged(LATE_GOAL, percentile(late, 99) if late else None)]


def lateness_ms(results: Results) -> list[float]:
    """Of every switch of pcmig, whatever its policy: from the decision to the call that libvirt accepted."""
    return [row["switch_late_us"] / 1000 for row in results.good if row.get("switch_late_us") is not None]


def trace_lateness_ms(results: Results) -> list[float]:
    """The same by the traces, with the call itself."""
    late = [row.get("trace_switch_late_us") for row in results.good]
    return [us / 1000 for us in late if us is not None]


_DECISION = re.compile(r"(\d+) decision switch ")
_ISSUED = re.compile(r"(\d+) event switch-issued\b")


def trace_late_us(trace: str) -> int | None:
    """The same by the trace, which can be looked at again later: from the input that was answered with the
    switch to the return of the call, which the engine's own figure leaves out."""
    decided_us: int | None = None
    for line in trace.splitlines():
        if match := _DECISION.match(line):
            decided_us = int(match[1])
        elif (match := _ISSUED.match(line)) and decided_us is not None:
            return int(match[1]) - decided_us
    return None


# The plot's data


@dataclasses.dataclass(frozen=True)
class Cloud:
    """The rounds of one way: total time against silence at the switch."""

    way: str
    points: tuple[tuple[float, float], ...]

    @property
    def median(self) -> tuple[float, float]:
        return statistics.median(x for x, _ in self.points), statistics.median(y for _, y in self.points)


def clouds(results: Results) -> list[Cloud]:
    """In the order in which the ways were measured; without those that never switched to post-copy."""
    found = []
    for way in results.ways:
        points = tuple(
            sorted(
                (row["complete_s"], row["guest_switch_silence_ms"])
                for row in results.of(way)
                if row["switch_s"] is not None and row["guest_switch_silence_ms"] is not None
            )
        )
        if points:
            found.append(Cloud(way, points))
    return found
