# SPDX-License-Identifier: Apache-2.0
"""From the rounds' raw figures to medians, ratios and the goals: values in, values out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tests.bench.figures import Figure, Row, Spread, ratio, spread
from tests.bench.tunnel.ways import APART, ONE_CORE, PARALLEL, PCMIG, PLAIN, STUNNEL

FIGURES = {
    figure.key: figure
    for figure in (
        Figure("bulk_mb_s", "bulk", "MB/s"),
        Figure("bulk_cpu_s_gb", "CPU in between", "s/GB", 2),
        Figure("bulk_ends_s_gb", "CPU of the load", "s/GB", 2),
        Figure("idle_rtt_us", "request alone", "ms", 2, 1000),
        Figure("busy_rtt_us", "request under load", "ms", 2, 1000),
        Figure("busy_rtt_p99_us", "the same, p99", "ms", 2, 1000),
        Figure("added_rtt_us", "added by load", "ms", 2, 1000),
        Figure("busy_mb_s", "bulk meanwhile", "MB/s"),
        Figure("busy_percent", "machine busy", "%"),
        Figure("steal_percent", "stolen at most", "%", 1),
    )
}


@dataclasses.dataclass(frozen=True)
class Goal:
    """A ratio of medians, pcmig's to another way's, and what it has to be."""

    key: str
    other: str
    least: float | None
    most: float | None
    text: str
    way: str = PCMIG

    def verdict(self, value: float) -> str:
        """ "" for one that only says what the machine can do."""
        if self.least is None and self.most is None:
            return ""
        return ": reached" if self.reached(value) else ": missed"

    def reached(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


GOALS = (
    Goal("bulk_mb_s", STUNNEL, 1.5, None, "times stunnel's bytes per second (goal: 1.5 or more)"),
    Goal("bulk_cpu_s_gb", STUNNEL, None, 0.65, "of stunnel's CPU per GB (goal: 0.65 or less)"),
    Goal("bulk_mb_s", PLAIN, 0.8, None, "times itself with encryption off (goal: 0.8 or more)"),
    Goal(
        "added_rtt_us", STUNNEL, None, 0.1, "of the time that load adds to a request with stunnel (goal: 0.1)"
    ),
    # One stream has two cores busy, with what feeds it: so one core is what two are compared with.
    Goal(
        "bulk_mb_s", ONE_CORE, 1.6, None, "times as much by two streams as by one on one core (1.6)", PARALLEL
    ),
    # What is missing there, and not here, is what it costs that a stream's processes are on both cores.
    Goal("bulk_mb_s", ONE_CORE, None, None, "times that by two that share nothing, each on its core", APART),
    Goal("bulk_mb_s", APART, None, None, "of what those get, wherever the kernel has them run", PARALLEL),
)


class Results:
    """All rounds, and of each way those that went as they should."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self.ways = list(dict.fromkeys(row["way"] for row in self.rows))

    def of(self, way: str) -> list[Row]:
        return [row for row in self.rows if row["way"] == way and not row["error"]]

    def spread(self, way: str, key: str) -> Spread | None:
        return spread(FIGURES[key].of(row) for row in self.of(way))

    def bound_mb_s(self, cores: int) -> float | None:
        """What CORES can move at the CPU that one stream and its load take."""
        costs = [self.spread(PCMIG, key) for key in ("bulk_cpu_s_gb", "bulk_ends_s_gb")]
        taken_s = sum(cost.median for cost in costs if cost is not None)
        return cores * 1000 / taken_s if None not in costs and taken_s else None

    def goals(self) -> list[tuple[Goal, float]]:
        found = (
            (goal, ratio(self.spread(goal.way, goal.key), self.spread(goal.other, goal.key)))
            for goal in GOALS
        )
        return [(goal, value) for goal, value in found if value is not None]
