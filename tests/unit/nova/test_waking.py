# SPDX-License-Identifier: Apache-2.0
"""When the destination's nova-compute is asked to have QEMU there notice that its stream is dead."""

from __future__ import annotations

import itertools
from typing import Any

from pcmig.nova.waking import AGAIN_S, Waking


def status(broken: bool, outcome: str | None = None) -> dict[str, Any]:
    return {"recovery": {"state": "waiting"} if broken else None, "outcome": outcome}


def asked_at(until_s: int, *, broken_from_s: int = 0, broken_to_s: int = 10**9) -> list[int]:
    """Looks each second."""
    asked: list[int] = []
    now_s = 0
    waking = Waking(lambda: asked.append(now_s), lambda: float(now_s))
    for second in range(until_s):
        now_s = second
        waking.look(status(broken_from_s <= second < broken_to_s))
    return asked


def test_not_before_a_stream_counts_as_silent_and_then_ever_more_seldom() -> None:
    asked = asked_at(300)
    assert asked[:3] == [AGAIN_S, 2 * AGAIN_S, 3 * AGAIN_S]
    pauses = [b - a for a, b in itertools.pairwise(asked)]
    assert pauses == sorted(pauses) and pauses[-1] > 4 * AGAIN_S


def test_never_while_post_copy_flows_and_anew_for_the_next_interruption() -> None:
    assert asked_at(100, broken_from_s=100) == []
    assert asked_at(100, broken_from_s=50, broken_to_s=55) == []
    assert asked_at(100, broken_from_s=80) == [90]


def test_not_of_one_that_is_over() -> None:
    asked: list[int] = []
    now_s = 0
    waking = Waking(lambda: asked.append(now_s), lambda: float(now_s))
    for second in range(60):
        now_s = second
        waking.look(status(True, "needs operator"))
    assert asked == []
