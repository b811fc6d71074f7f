# SPDX-License-Identifier: Apache-2.0
"""tests/faults/judge.py: every end, every kind of problem."""

from __future__ import annotations

import dataclasses

import pytest

from tests.bed.verdict import Heartbeat
from tests.faults.judge import (
    WHOLE,
    Claim,
    End,
    Evidence,
    Half,
    Kind,
    double_runs,
    find_end,
    judge,
    longest_silence_s,
    settled,
    since_boot,
)

RUNNING = Half("running (migrated)", 1)
NONE = Half("", 0)
BROKEN = Half("paused (post-copy failed)", 1)


def beats(*pairs: tuple[str, int], start_s: float = 100.0) -> list[Heartbeat]:
    return [
        Heartbeat(start_s + index / 10, host, sequence, 0, 0, 0, 0, 0)
        for index, (host, sequence) in enumerate(pairs)
    ]


MOVED = Evidence(
    "a", "b", {"a": NONE, "b": RUNNING}, beats(("a", 1), ("a", 2), ("b", 3)), 0, True, Claim.MOVED
)


@pytest.mark.parametrize(
    ("source", "destination", "end"),
    [
        (RUNNING, RUNNING, End.DOUBLE),
        (NONE, RUNNING, End.MOVED),
        (Half("paused (post-copy)", 1), RUNNING, End.MOVED),  # with something left over
        (RUNNING, NONE, End.STAYED),
        (RUNNING, Half("paused (migrating)", 1), End.STAYED),
        (BROKEN, BROKEN, End.SPLIT),
        (Half("paused (post-copy)", 1), Half("running (post-copy)", 1), End.SPLIT),
        (Half("paused (migrating)", 1), Half("paused (migrating)", 1), End.SPLIT),
        (Half(None, 1), Half("running (post-copy failed)", 1), End.SPLIT),
        (BROKEN, NONE, End.SOURCE_HALF),
        (Half("paused (migrating)", 1), NONE, End.SOURCE_HALF),
        (NONE, BROKEN, End.DESTINATION_HALF),
        (Half("paused (user)", 1), NONE, End.PAUSED),
        (NONE, Half("paused (unknown)", 1), End.PAUSED),
        (NONE, NONE, End.GONE),
        (Half("shut off (crashed)", 0), NONE, End.GONE),
        (Half("running (post-copy failed)", 1), NONE, End.TURNED_BACK),
        (Half("running (post-copy failed)", 1), RUNNING, End.DOUBLE),
        (Half("running (post-copy failed)", 1), BROKEN, End.DOUBLE),
        (NONE, Half("crashed (panicked)", 1), End.CRASHED),
    ],
)
def test_where_the_guest_is(source: Half, destination: Half, end: End) -> None:
    assert find_end(source, destination) is end


def test_settled_is_whole_and_nothing_left() -> None:
    assert settled(NONE, RUNNING) and settled(RUNNING, NONE)
    assert not settled(RUNNING, Half("paused (migrating)", 1))
    assert not settled(RUNNING, Half("in shutdown (unknown)", 0))
    assert not settled(BROKEN, BROKEN) and not settled(NONE, NONE)


BACK = dataclasses.replace(
    MOVED,
    halves={"a": Half("running (post-copy failed)", 1), "b": NONE},
    beats=beats(*[("a", 1), ("a", 2)] + [("b", n) for n in range(3, 20)] + [("a", 3), ("a", 4)]),
    claim=Claim.TURNED_BACK,
)


def test_a_guest_that_turned_back_does_again_what_is_undone() -> None:
    assert judge(BACK, {End.TURNED_BACK}).problems == ()


def test_where_both_hosts_live_it_may_turn_back_only_unheard() -> None:
    """What a guest did at the destination is undone for nothing there."""
    unheard = dataclasses.replace(BACK, beats=beats(("a", 1), ("a", 2), ("a", 3)))
    verdict = judge(unheard, {*WHOLE, End.UNHEARD})
    assert (verdict.end, verdict.problems) == (End.TURNED_BACK, ())
    [problem] = judge(BACK, {*WHOLE, End.UNHEARD}).problems
    assert problem.kind is Kind.LOST and "never heard where it was to go was possible" in problem.text
    # It runs, and nobody heard what is undone; where it had to be moved it took a hand.
    unheard = dataclasses.replace(BACK, beats=beats(("a", 1), ("a", 2), ("a", 3)))
    assert [problem.kind for problem in judge(unheard, {End.MOVED}).problems] == [Kind.STUCK]
    assert judge(unheard, WHOLE).problems


def test_a_guest_that_turned_back_under_a_new_libvirtd() -> None:
    """Which has forgotten the migration."""
    back = dataclasses.replace(BACK, halves={"a": Half("running (unpaused)", 1), "b": NONE})
    assert judge(back, {End.TURNED_BACK}) == judge(BACK, {End.TURNED_BACK})
    assert judge(back, WHOLE).problems
    stayed = dataclasses.replace(back, beats=beats(("a", 1), ("a", 2)), claim=Claim.STAYED)
    assert judge(stayed, WHOLE).end is End.STAYED


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        (
            {"beats": beats(*[("b", n) for n in range(3, 20)], ("a", 4), ("b", 20), ("a", 5))},
            Kind.DOUBLE,
            "before the last one of the other",
        ),
        ({"beats": beats(("a", 3), ("b", 4))}, Kind.DOUBLE, "last heartbeat came from host b"),
        ({"claim": Claim.MOVED}, Kind.TOLD, "turned back, and the operator is told: moved"),
        ({"verified": False}, Kind.STUCK, "does not verify"),
    ],
)
def test_what_is_wrong_with_turning_back(changes: dict[str, object], kind: Kind, text: str) -> None:
    problems = judge(dataclasses.replace(BACK, **changes), {End.TURNED_BACK}).problems  # type: ignore[arg-type]
    assert any(problem.kind is kind and text in problem.text for problem in problems), problems


def test_turning_back_is_as_good_as_staying_where_nothing_ran() -> None:
    unrun = dataclasses.replace(
        BACK,
        beats=beats(("a", 1), ("a", 2), ("a", 3)),
        claim=Claim.STAYED,
        said="nothing is lost: no instruction of it ran at the destination",
    )
    verdict = judge(unrun, WHOLE)
    assert (verdict.end, verdict.problems) == (End.UNRUN, ())
    assert judge(unrun, {End.MOVED}).problems  # not for a guest that had left
    assert judge(dataclasses.replace(unrun, said=""), WHOLE).end is End.TURNED_BACK
    heard = dataclasses.replace(unrun, beats=beats(("a", 1), ("b", 2), ("a", 3)))
    assert judge(heard, WHOLE).end is End.TURNED_BACK
    twice = dataclasses.replace(unrun, beats=beats(("a", 1), ("a", 1)))
    assert [problem.kind for problem in judge(twice, WHOLE).problems] == [Kind.DOUBLE]


def test_a_guest_that_crashed_is_not_said_to_run() -> None:
    crashed = dataclasses.replace(MOVED, halves={"a": NONE, "b": Half("crashed (panicked)", 1)})
    told = dataclasses.replace(crashed, said="done: g1 moved to there, and has crashed there")
    assert judge(told, {End.CRASHED}).problems == ()
    wrong = judge(dataclasses.replace(crashed, said="done: g1 runs at there after 3 s"), {End.CRASHED})
    assert [problem.kind for problem in wrong.problems] == [Kind.TOLD]


def test_a_host_that_does_not_answer_may_yet_have_its_half() -> None:
    lost = dataclasses.replace(
        MOVED,
        halves={"a": BROKEN, "b": Half(None, 0)},
        claim=Claim.RECOVERING,
        beats=beats(("a", 1), ("b", 2)),
    )
    assert judge(lost, {End.SOURCE_HALF}).problems == ()
    lost = dataclasses.replace(lost, halves={"a": BROKEN, "b": NONE})
    assert [problem.kind for problem in judge(lost, {End.SOURCE_HALF}).problems] == [Kind.TOLD]


def test_beats_since_the_guest_began_anew() -> None:
    told = beats(("a", 500), ("b", 501), ("b", 0), ("b", 1))
    assert [beat.sequence for beat in since_boot(told)] == [0, 1]
    assert since_boot(told[:2]) == told[:2]
    # It had just booted when it was told to do so again.
    young = beats(("a", 5), ("a", 6), ("b", 0), ("b", 5))
    assert [beat.sequence for beat in since_boot(young)] == [0, 5]


def test_a_guest_that_moved_as_it_should() -> None:
    judgment = judge(MOVED, WHOLE)
    assert judgment.end is End.MOVED
    assert judgment.problems == ()


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"errors": 3}, Kind.MEMORY, "3 pages"),
        ({"errors": 3, "lost_writes": True}, Kind.MEMORY, "one write behind, as emulation with QEMU 11"),
        ({"verified": False}, Kind.STUCK, "does not verify"),
        ({"claim": Claim.STAYED}, Kind.TOLD, "moved, and the operator is told: stayed"),
        ({"claim": Claim.SILENT}, Kind.TOLD, "no end and no word"),
        ({"contradictions": ("ACTIVE on a",)}, Kind.TOLD, "ACTIVE on a"),
        ({"said": "Traceback (most recent call last):"}, Kind.TOLD, "traceback"),
        ({"halves": {"a": BROKEN, "b": RUNNING}}, Kind.STUCK, "host a still has 1 QEMU"),
        ({"halves": {"a": Half("shut off (failed)", 0), "b": RUNNING}}, Kind.STUCK, "shut off"),
        ({"beats": beats(("a", 1), ("b", 2), ("a", 3))}, Kind.DOUBLE, "last heartbeat came from host a"),
    ],
)
def test_what_is_not_as_it_should_be(changes: dict[str, object], kind: Kind, text: str) -> None:
    problems = judge(dataclasses.replace(MOVED, **changes), WHOLE).problems  # type: ignore[arg-type]
    assert any(problem.kind is kind and text in problem.text for problem in problems), problems


@pytest.mark.parametrize(
    ("halves", "kind"),
    [
        ({"a": RUNNING, "b": RUNNING}, Kind.DOUBLE),
        ({"a": BROKEN, "b": BROKEN}, Kind.STUCK),
        ({"a": NONE, "b": NONE}, Kind.LOST),
        ({"a": BROKEN, "b": NONE}, Kind.LOST),
        ({"a": NONE, "b": BROKEN}, Kind.LOST),
    ],
)
def test_an_end_that_need_not_be(halves: dict[str, Half], kind: Kind) -> None:
    problems = judge(dataclasses.replace(MOVED, halves=halves, claim=Claim.OPERATOR), WHOLE).problems
    assert problems[0].kind is kind
    assert "moved or stayed was possible" in problems[0].text


def test_what_physics_forbids_is_fine_when_it_is_told() -> None:
    lost = dataclasses.replace(MOVED, halves={"a": NONE, "b": BROKEN}, verified=False, claim=Claim.OPERATOR)
    assert judge(lost, {End.DESTINATION_HALF}).problems == ()
    silent = dataclasses.replace(lost, claim=Claim.SILENT)
    assert [problem.kind for problem in judge(silent, {End.DESTINATION_HALF}).problems] == [Kind.TOLD]


def test_heartbeats_of_one_guest() -> None:
    assert double_runs([], "a") == []
    assert double_runs(beats(("a", 1), ("a", 2)), "a") == []
    # Taken down late, but told in order.
    assert double_runs(beats(("a", 1), ("b", 3), ("a", 2), ("b", 4)), "a") == []


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([("a", 1), ("b", 2), ("a", 2), ("b", 3)], "heartbeat 2 came from both hosts"),
        ([("a", 7), ("a", 8), ("a", 7)], "heartbeat 7 came from host a twice"),
        ([("a", 1), ("b", 2), ("a", 3)], "changed hosts 2 times"),
        ([("b", 1), ("a", 2)], "changed hosts 1 times, from b"),
    ],
)
def test_heartbeats_of_two(pairs: list[tuple[str, int]], text: str) -> None:
    assert text in double_runs(beats(*pairs), "a")[0]


def test_silence_is_counted_from_the_start_and_to_the_end() -> None:
    found = beats(("a", 1), ("a", 2), ("a", 3))  # at 100, 100.1 and 100.2 s
    assert longest_silence_s(found, 100.05, 100.3) == pytest.approx(0.1)
    assert longest_silence_s(found, 99.0, 100.3) == pytest.approx(1.0)
    assert longest_silence_s(found, 100.0, 105.0) == pytest.approx(4.8)
    assert longest_silence_s([], 100.0, 105.0) == pytest.approx(5.0)
