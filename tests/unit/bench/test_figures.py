# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios and goals, on made-up rounds whose answers are plain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import spread
from tests.bench.switchover.figures import (
    FIGURES,
    Judged,
    Results,
    clouds,
    engine_cpu_percent,
    judge,
    lateness_ms,
    percentile,
    trace_late_us,
)

TRACE = """\
pcmig-trace 1
1000 decision drain requested a=0 b=0 c=0 pace_mib=1 next_us=490000
2000 decision switch drained a=0 b=144 c=0 pace_mib=0 next_us=9223372036854775807
2900 event switch-refused
4000 decision switch retry a=1 b=0 c=0 pace_mib=0 next_us=9223372036854775807
4001 tick
5500 event switch-issued
9000 event src-suspended-postcopy
"""


def row(way: str, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "stack": "forky",
        "way": way,
        "error": None,
        "guest_switch_silence_ms": 1000.0,
        "guest_later_silence_ms": 300.0,
        "baseline_pps": 1000,
        "work_pages": 22_000,
        "work_elapsed_s": 32.0,
        "work_before_switch_pages": 10_000,
        "work_before_switch_elapsed_s": 12.0,
        "complete_s": 30.0,
        "switch_s": 12.0,
        "command_s": 32.0,
        "bytes": 300_000_000,
        "cpu_ms": 400.0,
        "cpu_after_start_ms": 150.0,
        "switch_late_us": None,
    }
    return base | more


def found(rows: list[dict[str, Any]], title: str, stack: str = "forky") -> Judged:
    return next(one for one in judge(Results(rows, stack)) if one.goal.title.startswith(title))


def test_spread() -> None:
    result = spread([3.0, None, 1.0, 8.0])
    assert result is not None
    assert (result.count, result.median, result.low, result.high) == (3, 3.0, 1.0, 8.0)
    assert spread([None]) is None


def test_percentile_is_one_of_the_values() -> None:
    assert percentile([5.0, 1.0, 3.0], 99) == 5.0
    assert percentile([5.0, 1.0, 3.0], 50) == 3.0
    assert percentile(list(range(1, 201)), 99) == 198


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_stays_within(values: list[float], percent: float) -> None:
    assert percentile(values, percent) in values


def test_units() -> None:
    assert FIGURES["bytes"].of(row("virsh")) == 300.0
    assert FIGURES["guest_switch_silence_ms"].of(row("virsh", guest_switch_silence_ms=None)) is None


def test_engine_cpu_leaves_the_start_out() -> None:
    assert engine_cpu_percent(row("pcmig", command_s=32.0, cpu_after_start_ms=150.0)) == pytest.approx(0.5)
    assert engine_cpu_percent(row("pcmig", cpu_after_start_ms=None)) is None
    assert engine_cpu_percent(row("pcmig", command_s=1.0)) is None


def test_rounds_that_failed_do_not_count() -> None:
    results = Results([row("virsh"), row("virsh", error="exit status 1", complete_s=1.0)], "forky")
    assert len(results.rows) == 2
    assert results.spread("virsh", "complete_s") == spread([30.0])


def test_goals_by_medians() -> None:
    rows = [row("virsh"), row("virsh", guest_switch_silence_ms=5000.0), row("virsh")]
    rows += [row("pcmig", guest_switch_silence_ms=240.0, guest_later_silence_ms=150.0)]
    reached, missed = found(rows, "silence at the switch"), found(rows, "later silence")
    assert reached.value == pytest.approx(0.24)
    assert reached.word == "reached"
    assert missed.value == pytest.approx(0.5)
    assert missed.word == "missed"
    assert found(rows, "total time of an idle guest").word == "not measured"


def test_the_same_switch_point_differs_between_stacks() -> None:
    rows = [
        row(way, complete_s=total)
        for way, total in (("virsh", 20), ("virsh-pass", 30), ("pcmig-first-pass", 33))
    ]
    assert found(rows, "total time, both switch after a pass").value == pytest.approx(1.1)
    for one in rows:
        one["stack"] = "backports"
    assert found(rows, "total time, both switch after a pass", "backports").value == pytest.approx(1.65)


def test_ratio_against_nothing() -> None:
    results = Results([row("virsh", work_pages=32_000), row("pcmig")], "forky")
    assert results.ratio("pcmig", "virsh", "time_lost_s") is None
    assert results.ratio("pcmig", "poll", "complete_s") is None


def test_time_lost_is_against_the_best_rate() -> None:
    rows = [row("virsh"), row("pcmig", baseline_pps=700), row("virsh-idle", work_pages=0, baseline_pps=0)]
    assert [one["time_lost_before_s"] for one in Results(rows, "forky").rows] == [2.0, 2.0, None]
    assert [one["time_lost_s"] for one in Results(rows, "forky").rows] == [10.0, 10.0, None]


def test_lateness_is_of_every_switch_of_pcmig() -> None:
    rows = [row("virsh"), row("pcmig", switch_late_us=900), row("pcmig-immediate", switch_late_us=5100)]
    assert lateness_ms(Results(rows, "forky")) == [0.9, 5.1]
    assert found(rows, "start-postcopy").word == "missed"


def test_lateness_by_the_trace_is_of_the_accepted_switch() -> None:
    assert trace_late_us(TRACE) == 1500
    assert trace_late_us("pcmig-trace 1\n5500 event switch-issued\n") is None
    assert trace_late_us("") is None


def test_clouds_have_only_those_that_switched() -> None:
    rows = [
        row("virsh"),
        row("pcmig", complete_s=31.0),
        row("pcmig", complete_s=29.0),
        row("virsh-idle", switch_s=None),
    ]
    clouds_found = clouds(Results(rows, "forky"))
    assert [cloud.way for cloud in clouds_found] == ["virsh", "pcmig"]
    assert clouds_found[1].points == ((29.0, 1000.0), (31.0, 1000.0))
    assert clouds_found[1].median == (30.0, 1000.0)
