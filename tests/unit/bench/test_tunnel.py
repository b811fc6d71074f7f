# SPDX-License-Identifier: Apache-2.0
"""What the tunnel's bench makes of its rounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bed import BedError
from tests.bench import program
from tests.bench.tunnel.figures import Results
from tests.bench.tunnel.session import together
from tests.bench.tunnel.ways import DEFAULT_WAYS, parse_ways


def row(way: str, **figures: Any) -> dict[str, Any]:
    return {"way": way, "round": 1, "error": None} | figures


def test_goals_are_ratios_of_medians() -> None:
    results = Results(
        [
            *(row("pcmig", bulk_mb_s=value, added_rtt_us=400) for value in (700, 800, 2000)),
            row("stunnel", bulk_mb_s=400, added_rtt_us=4000),
            row("stunnel", bulk_mb_s=0, added_rtt_us=0) | {"error": "it ended"},
        ]
    )
    found = {(goal.key, goal.other): (value, goal.reached(value)) for goal, value in results.goals()}
    assert found == {("bulk_mb_s", "stunnel"): (2.0, True), ("added_rtt_us", "stunnel"): (0.1, True)}


def test_what_is_missed_is_no_success() -> None:
    results = Results(
        [
            row("pcmig", bulk_mb_s=59, bulk_cpu_s_gb=0.66),
            row("stunnel", bulk_mb_s=40, bulk_cpu_s_gb=1.0),
            row("pcmig-plain", bulk_mb_s=100),
        ]
    )
    assert not any(goal.reached(value) for goal, value in results.goals())
    assert len(results.goals()) == 3


def test_what_two_streams_can_get() -> None:
    one = row("pcmig", bulk_cpu_s_gb=1.5, bulk_ends_s_gb=0.5)
    assert Results([one]).bound_mb_s(2) == 1000
    assert Results([row("pcmig", bulk_cpu_s_gb=1.5)]).bound_mb_s(2) is None
    streams = [
        {"bulk_bytes": 3_000, "bulk_ends_s_gb": 0.4, "bulk_cpu_s_gb": 2.0, "busy_rtt_us": 1},
        {"bulk_bytes": 1_000, "bulk_ends_s_gb": 0.8, "bulk_cpu_s_gb": 2.0, "busy_rtt_us": 2},
    ]
    both = together(streams)
    assert both["bulk_ends_s_gb"] == pytest.approx(0.5) and both["bulk_cpu_s_gb"] == 1.0


def test_ways() -> None:
    assert [way.name for way in parse_ways(DEFAULT_WAYS)] == DEFAULT_WAYS.split(",")
    assert parse_ways("pcmig*4")[0].meaning == "pcmig tunnel, 4 TCP connections for the stream"


@pytest.mark.parametrize(
    "text", ["", "pcmig,", "pcmig*1", "pcmig*17", "pcmig*x", "ghostunnel", "pcmig,pcmig"]
)
def test_unknown_ways_are_named(text: str) -> None:
    with pytest.raises(BedError, match="--ways"):
        parse_ways(text)


def undisturbed(steals: list[float], errors: tuple[int, ...] = ()) -> dict[str, Any]:
    """What counts of rounds in which so much was stolen."""
    left = enumerate(steals)

    def measure() -> dict[str, Any]:
        number, steal = next(left)
        return row("pcmig", steal_percent=steal, number=number) | {"error": "x" if number in errors else None}

    return program.undisturbed(measure, 5)


def test_the_first_calm_round_counts() -> None:
    assert undisturbed([5.0])["again"] == 0
    found = undisturbed([40, 5.1, 3, 0])
    assert (found["number"], found["again"]) == (2, 2)


def test_when_none_is_calm_the_last_one_counts() -> None:
    found = undisturbed([10, 20, 30, 40, 50, 60, 0])
    assert (found["number"], found["steal_percent"]) == (program.TRIES - 1, 60)


def test_a_round_that_failed_is_not_hidden_by_another() -> None:
    found = undisturbed([40, 40, 0], errors=(1,))
    assert (found["number"], found["error"]) == (1, "x")
