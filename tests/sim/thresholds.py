# SPDX-License-Identifier: Apache-2.0
"""What each threshold of pcmig costs: the same scenarios with it at half and at twice its default."""

from __future__ import annotations

import math
import statistics
import subprocess
from collections.abc import Iterator, Sequence

from tests.sim import compare, program
from tests.sim.program import Result, Scenario

# Those that do not decide when to switch, or how fast to send.
OTHERS = ("passes", "deadline_ms", "abort_after_ms", "gate_wait_ms", "stall_ms", "still_ms", "retry_ms")


def params() -> dict[str, tuple[int, int, int]]:
    """Default, least and greatest value of each, as the core has them."""
    listed = subprocess.run(
        [str(program.build()), "-p"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return {name: (int(default), int(low), int(high)) for name, default, low, high in rows}


def values(default: int, low: int, high: int) -> list[int]:
    """What is tried: a switch both ways, a figure at half and at twice."""
    if (low, high) == (0, 1):
        return [1 - default]
    tried = (max(low, default // 2), min(high, default * 2))
    return [value for value in tried if value != default]


def _ratio(ours: Sequence[Result], base: Sequence[Result], what: str) -> float:
    measure = compare.called if what == "time" else compare.silence
    floor = compare.SILENCE_FLOOR_MS
    logs = [
        math.log(max(measure(new), floor) / max(measure(old), floor))
        for new, old in zip(ours, base, strict=True)
        if math.isfinite(measure(new)) and math.isfinite(measure(old))
    ]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def table(scenarios: Sequence[Scenario]) -> Iterator[str]:
    told = [{**scenario, "way": "pcmig", "policy": "auto"} for scenario in scenarios]
    base = program.run(told)
    heads = ("value", "time", "silence", "switched", "no end")
    yield f"{'parameter':<28}" + "".join(f"{head:>10}" for head in heads)
    for name, (default, low, high) in params().items():
        if name in OTHERS:
            continue
        for value in (default, *values(default, low, high)):
            results = base if value == default else program.run([{**s, f"set.{name}": value} for s in told])
            cells = (
                str(value),
                f"{_ratio(results, base, 'time'):.3f}",
                f"{_ratio(results, base, 'silence'):.3f}",
                str(sum(r["outcome"] == "postcopy" for r in results)),
                str(sum(r["outcome"] == "unfinished" for r in results)),
            )
            yield f"{name if value == default else '':<28}" + "".join(f"{cell:>10}" for cell in cells)
