# SPDX-License-Identifier: Apache-2.0
"""pcmig against its rivals, scenario by scenario: what counts as worse, and how often it is."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence

from tests.sim import program, scenarios
from tests.sim.program import Result, Scenario
from tests.sim.scenarios import SETUP_MS

RIVALS = ("virsh", "virsh-pass", "nova", "kubevirt", "kubevirt-ramp")
TIME_FACTOR = 1.1
SILENCE_FACTOR = 1.5
# Nobody notices less: a heartbeat of 20 ms and a little, and what pre-copy ends with anyhow.
SILENCE_FLOOR_MS = 50.0
# The pause that somebody permitted, with what a forecast may be wrong by: by default, or at last by Nova.
PERMITTED_MS = 1.15 * 300
PERMITTED_BY_NOVA_MS = 1.15 * 500
# What an operator, and Nova, wait for is the migrate call: a QEMU is started at the destination before the
# first page, which a drawn scenario has in it (scenarios.SETUP_MS), and the one at the source ended after the
# last. On the bed that takes one to three seconds before and 1.3 to 2.4 s after, whoever steers: two seconds
# in all are less than the least of it.
AROUND_MS = 2000.0 - SETUP_MS


def total(result: Result) -> float:
    """The mean time until a guest has arrived; one that never ends, never."""
    return (
        math.inf
        if result["outcome"] != "precopy" and result["outcome"] != "postcopy"
        else float(result["total_ms"])
    )


def called(result: Result) -> float:
    """How long the migrate call takes."""
    return total(result) + AROUND_MS


def silence(result: Result) -> float:
    return max(float(result["silence_ms"]), float(result["later_ms"]))


def cost(result: Result) -> float:
    """One figure, to tell which rival is the best: twice as long is as bad as twice as silent."""
    return called(result) * max(silence(result), SILENCE_FLOOR_MS)


def moved(scenario: Scenario, result: Result) -> bool:
    """By pre-copy alone, and with a pause no longer than the downtime limit permits."""
    permitted_ms = PERMITTED_BY_NOVA_MS if scenario.get("nova_steps") else PERMITTED_MS
    return result["outcome"] == "precopy" and float(result["downtime_ms"]) <= permitted_ms


@dataclasses.dataclass
class Case:
    """One scenario, as pcmig and as its rivals did it."""

    scenario: Scenario
    ours: Result
    theirs: dict[str, Result]
    precopy: Result

    @property
    def best(self) -> str:
        return min(self.theirs, key=lambda way: cost(self.theirs[way]))

    @property
    def slower(self) -> bool:
        best = self.theirs[self.best]
        return called(self.ours) > TIME_FACTOR * called(best)

    @property
    def permitted(self) -> bool:
        """Ended in pre-copy, with the pause that the downtime limit permits: nobody asked for less."""
        return self.ours["outcome"] == "precopy" and not self.slower

    @property
    def more_silent(self) -> bool:
        if self.permitted:
            return False
        best = self.theirs[self.best]
        return silence(self.ours) > SILENCE_FACTOR * max(silence(best), SILENCE_FLOOR_MS)

    @property
    def worse(self) -> bool:
        return self.slower or self.more_silent

    @property
    def dearer(self) -> bool:
        """Worse, and not for the sake of the other figure: by the product of both as well."""
        return self.worse and cost(self.ours) > cost(self.theirs[self.best])

    @property
    def kept(self) -> bool:
        """Worse, and left in pre-copy, which moved it: the best rival switched a guest that converges."""
        return (
            self.worse
            and self.ours["outcome"] == "precopy"
            and self.theirs[self.best]["outcome"] == "postcopy"
        )

    def of(self, way: str) -> Case:
        """The same with WAY in the place of pcmig, and pcmig among its rivals."""
        results = {"pcmig": self.ours, **self.theirs}
        return Case(self.scenario, results.pop(way), results, self.precopy)

    @property
    def never(self) -> bool:
        """It does not come to an end."""
        return self.ours["outcome"] == "unfinished"

    @property
    def needless(self) -> bool:
        """Switched, although pre-copy alone would have moved it within the factor on total time."""
        return (
            self.ours["outcome"] == "postcopy"
            and moved(self.scenario, self.precopy)
            and called(self.precopy) <= TIME_FACTOR * called(self.ours)
        )


def run(scenarios: Sequence[Scenario], ours: Scenario | None = None) -> list[Case]:
    """OURS is what pcmig is told beyond the scenario: a policy, parameters."""
    told: dict[str, float | str] = {"way": "pcmig", "policy": "auto", **(ours or {})}
    ways: list[dict[str, float | str]] = [told, {"way": "precopy"}]
    ways += [{"way": way} for way in RIVALS]
    results = program.run([{**scenario, **way} for scenario in scenarios for way in ways])
    cases = []
    for index, scenario in enumerate(scenarios):
        of = results[index * len(ways) : (index + 1) * len(ways)]
        cases.append(Case({**scenario, **told}, of[0], dict(zip(RIVALS, of[2:], strict=True)), of[1]))
    return cases


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    found = sorted(value for value in values if math.isfinite(value))
    if not found:
        return math.inf, math.inf
    return statistics.median(found), found[min(len(found) - 1, math.ceil(0.95 * len(found)) - 1)]


def table(cases: Sequence[Case]) -> Iterator[str]:
    """The lines that are printed."""
    heads = ("total s", "p95", "silence ms", "p95", "switched", "no end", "best", "worse")
    yield f"{'way':<15}" + "".join(f"{head:>11}" for head in heads)
    rows = {"pcmig": [case.ours for case in cases], "precopy": [case.precopy for case in cases]}
    rows |= {way: [case.theirs[way] for case in cases] for way in RIVALS}
    for way, results in rows.items():
        times, silences = _quantiles([total(r) for r in results]), _quantiles([silence(r) for r in results])
        switched = sum(r["outcome"] == "postcopy" for r in results)
        never = sum(r["outcome"] == "unfinished" for r in results)
        best = sum(case.best == way for case in cases)
        cells = [f"{value / 1000:.1f}" for value in times] + [f"{value:.0f}" for value in silences]
        cells += [str(switched), str(never), str(best) if way in RIVALS else ""]
        if way != "precopy":  # each by the bar that is pcmig's: against the best of all the others
            cells += [f"{100 * sum(case.of(way).worse for case in cases) / max(len(cases), 1):.1f} %"]
        yield f"{way:<15}" + "".join(f"{cell:>11}" for cell in cells)
    yield ""
    count = len(cases)
    for name, what in (
        ("never", "do not end"),
        ("worse", f"worse than the best rival ({TIME_FACTOR} x its time or {SILENCE_FACTOR} x its silence)"),
        ("slower", "  of them by time"),
        ("more_silent", "  of them by silence"),
        ("dearer", "  of them by the product of time and silence as well"),
        ("kept", "  of them moved by pre-copy, where the best rival switched"),
        ("permitted", "ended in pre-copy, with a pause as the downtime limit permits"),
        ("needless", "switched although pre-copy would have ended as soon"),
    ):
        found = sum(getattr(case, name) for case in cases)
        yield f"{found:>6} of {count} ({100 * found / max(count, 1):.1f} %)  {what}"


def decisions(result: Result) -> tuple[float | str, ...]:
    return result["outcome"], result["reason"]


def depends_on_the_unit(drawn: Sequence[Scenario], factor: float) -> list[Scenario]:
    """Scenarios in which pcmig decides otherwise when all bytes and rates are FACTOR times as many, or at
    another time."""
    told: Scenario = {"way": "pcmig", "policy": "auto"}
    pairs = [(scenarios.scaled(s, 1), scenarios.scaled(s, factor)) for s in drawn]
    results = program.run([{**scenario, **told} for pair in pairs for scenario in pair])
    found: list[Scenario] = []
    for index, scenario in enumerate(drawn):
        small, large = results[2 * index : 2 * index + 2]
        times = [float(result["stopped_ms"]) for result in (small, large)]
        if decisions(small) != decisions(large) or abs(times[0] - times[1]) > 200 + 0.05 * times[0]:
            found.append({**scenario, **told})
    return found


def switched_before_the_deadline(drawn: Sequence[Scenario]) -> tuple[list[Scenario], int]:
    """Scenarios in which pre-copy alone would have moved the guest within two thirds of the deadline, and the
    policy "deadline" switched all the same; and of how many."""
    alone = program.run([{**scenario, "way": "precopy"} for scenario in drawn])
    told = [
        {**scenario, "way": "pcmig", "policy": f"deadline={float(result['total_ms']) * 1.5e-3:.3f}"}
        for scenario, result in zip(drawn, alone, strict=True)
        if moved(scenario, result)
    ]
    results = program.run(told)
    switched = [s for s, result in zip(told, results, strict=True) if result["outcome"] != "precopy"]
    return [*switched], len(told)
