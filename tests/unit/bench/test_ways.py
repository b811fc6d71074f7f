# SPDX-License-Identifier: Apache-2.0
"""Names of ways, and their order in the rounds."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bed import BedError
from tests.bench.program import in_turn
from tests.bench.switchover.ways import DEFAULT_WAYS, FIXED, Kind, Way, parse_way, parse_ways


def test_fixed_names() -> None:
    assert [way.kind for way in parse_ways("virsh, poll,virsh-pass,virsh-idle")] == [
        Kind.VIRSH,
        Kind.POLL,
        Kind.VIRSH_PASS,
        Kind.VIRSH_PRECOPY,
    ]


def test_policies_of_pcmig() -> None:
    plain, first_pass, passes, idle = parse_ways("pcmig,pcmig-first-pass,pcmig-passes=3,pcmig-idle")
    assert (plain.policy, first_pass.policy, passes.policy) == ("auto", "first-pass", "passes=3")
    assert (idle.policy, idle.idle, plain.idle) == ("auto", True, False)


def test_settings_keep_their_commas() -> None:
    text = "virsh,pcmig-first-pass@time_factor_permille=1200,request_wait_ms=2,poll,pcmig@quickack=0"
    first, second, third, fourth = parse_ways(text)
    assert second.settings == ("time_factor_permille=1200", "request_wait_ms=2")
    assert second.policy == "first-pass"
    assert (first.name, third.name) == ("virsh", "poll")
    assert fourth.settings == ("quickack=0",)
    assert "--set quickack=0" in fourth.meaning


def test_policy_with_a_value_after_settings_is_a_way() -> None:
    assert [way.policy for way in parse_ways("pcmig@request_wait_ms=2,pcmig-passes=3")] == [
        "auto",
        "passes=3",
    ]


def test_each_way_once() -> None:
    assert [way.name for way in parse_ways("virsh,poll,virsh,")] == ["virsh", "poll"]


@pytest.mark.parametrize(
    "text", ["", " , ", "virtsh", "pcmig-", "pcmigs", "virsh@a=1", "pcmig@", "pcmig@a", "pcmig@=1"]
)
def test_what_is_no_way(text: str) -> None:
    with pytest.raises(BedError, match=r"use virsh|NAME=VALUE"):
        parse_ways(text)


def test_defaults_are_ways_and_have_what_the_goals_compare() -> None:
    from tests.bench.switchover.figures import GOALS

    for stack, text in DEFAULT_WAYS.items():
        names = {way.name for way in parse_ways(text)}
        for goal in GOALS:
            if stack in goal.stacks:
                assert {goal.way, goal.reference} - {None} <= names


@given(st.text(alphabet="pcmigvrsh-@=,a1 ", max_size=40))
def test_any_text_is_ways_or_a_message(text: str) -> None:
    with contextlib.suppress(BedError):
        assert parse_ways(text)


@given(count=st.integers(1, 9), rounds=st.integers(2, 8))
def test_both_directions_with_each_way(count: int, rounds: int) -> None:
    ways = [Way(str(i), Kind.PCMIG) for i in range(count)]
    hops = [way for _, way in in_turn(ways, rounds)]
    for way in ways:
        directions = [hop % 2 for hop, one in enumerate(hops) if one is way]
        assert directions == [(directions[0] + i) % 2 for i in range(rounds)]


def test_parse_way_knows_every_fixed_name() -> None:
    assert [parse_way(name).name for name in FIXED] == list(FIXED)
