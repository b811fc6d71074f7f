# SPDX-License-Identifier: Apache-2.0
"""Verdicts on made-up heartbeats: every number that the demo prints has a case whose answer is plain."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bed.verdict import Heartbeat, judge, parse_line

START_S, END_S = 10.0, 20.0


def beats_at(
    times_s: list[float], host: str = "a", per_s: float = 1000.0, offset: float = 0.0
) -> list[Heartbeat]:
    """Heartbeats of a guest that writes and verifies per_s pages a second each, but for offset seconds."""
    return [
        Heartbeat(t, host, i, int(t * 1000), int((t - offset) * per_s), int((t - offset) * per_s), 0, 0)
        for i, t in enumerate(times_s)
    ]


def every(step_s: float, start_s: float, end_s: float) -> list[float]:
    count = round((end_s - start_s) / step_s)
    return [round(start_s + i * step_s, 6) for i in range(count)]


def migrated(silence_s: float = 0.5) -> list[Heartbeat]:
    """A guest that beats every 20 ms, is silent for silence_s at 15 s and lives on host b from then on."""
    return beats_at(every(0.02, 5, 15)) + beats_at(every(0.02, 14.98 + silence_s, 23), "b", offset=silence_s)


def test_quiet_migration() -> None:
    verdict = judge(migrated(), START_S, END_S)
    assert verdict.host == "b"
    assert verdict.alive
    assert verdict.page_errors == 0
    assert verdict.switch_silence_ms == pytest.approx(500, abs=1)
    assert verdict.before_silence_ms == pytest.approx(20, abs=1)
    assert verdict.later_silence_ms == pytest.approx(20, abs=1)
    assert verdict.guest_time_lost_s == pytest.approx(0.5, abs=0.03)
    assert verdict.pages_checked == pytest.approx(2 * 1000 * (12 - 0.5), abs=100)


def test_later_silence_is_not_the_one_at_the_switch() -> None:
    beats = [beat for beat in migrated(1.0) if not 17 < beat.time_s < 17.3]
    verdict = judge(beats, START_S, END_S)
    assert verdict.switch_silence_ms == pytest.approx(1000, abs=1)
    assert verdict.later_silence_ms == pytest.approx(300, abs=25)


def test_guest_that_never_speaks_again() -> None:
    beats = beats_at(every(0.02, 5, 15))
    verdict = judge(beats, START_S, END_S)
    assert verdict.host == "a"
    assert not verdict.alive
    assert verdict.switch_silence_ms is None
    assert verdict.later_silence_ms is None
    assert verdict.before_silence_ms == pytest.approx(7020, abs=1)


def test_guest_that_dies_on_the_destination() -> None:
    beats = [beat for beat in migrated() if beat.time_s < 18]
    verdict = judge(beats, START_S, END_S)
    assert not verdict.alive
    assert verdict.later_silence_ms == pytest.approx(4020, abs=25)


def test_silence_that_began_before_the_migration_counts_whole() -> None:
    beats = [beat for beat in beats_at(every(0.02, 5, 22)) if not 9 <= beat.time_s < 11]
    assert judge(beats, START_S, END_S).before_silence_ms == pytest.approx(2020, abs=1)


def test_bad_pages_are_counted_even_before_the_start() -> None:
    beats = [dataclasses.replace(beat, bad=3) for beat in migrated()]
    assert judge(beats, START_S, END_S).page_errors == 3


def test_idle_guest_has_no_rate_to_lose_time_against() -> None:
    beats = beats_at(every(0.02, 5, 22), per_s=0)
    verdict = judge(beats, START_S, END_S)
    assert verdict.guest_time_lost_s is None
    assert verdict.pages_checked == 0


@pytest.mark.parametrize(
    ("passes_at_change", "passes_at_end", "full"), [(4, 4, 0), (4, 5, 0), (4, 6, 1), (0, 9, 8)]
)
def test_full_passes_leave_out_the_one_that_began_elsewhere(
    passes_at_change: int, passes_at_end: int, full: int
) -> None:
    beats = migrated()
    beats[-1] = dataclasses.replace(beats[-1], time_s=END_S + 1.9)
    beats = [
        dataclasses.replace(beat, passes=passes_at_end if beat is beats[-1] else passes_at_change)
        for beat in beats
        if beat.time_s <= END_S + 2
    ]
    assert judge(beats, START_S, END_S).full_passes_after == full


def test_no_heartbeat_at_all() -> None:
    verdict = judge([], START_S, END_S)
    assert verdict.host is None
    assert not verdict.alive
    assert verdict.heartbeats == 0
    assert verdict.before_silence_ms == pytest.approx(12_000)
    assert verdict.guest_time_lost_s is None


def test_line_of_the_log() -> None:
    assert parse_line("12.3456 b HB 7 140 10 20 0 1") == Heartbeat(12.3456, "b", 7, 140, 10, 20, 0, 1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "12.3456 b FILLED 32768",
        "12.3456 b BAD 17 3 0 512 1",
        "12.3456 b HB 7 140 10 20 0",  # cut off by the switch
        "12.3456 b 40 10 20 0 1",  # and its rest, from the other host
        "12.3456 b xHB 7 140 10 20 0 1",
    ],
)
def test_other_lines_are_no_heartbeats(line: str) -> None:
    assert parse_line(line) is None


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=40))
def test_silences_never_exceed_the_time_watched(marks: list[tuple[float, str]]) -> None:
    beats = [Heartbeat(t, host, i, 0, i, i, 0, 0) for i, (t, host) in enumerate(sorted(marks))]
    verdict = judge(beats, START_S, END_S)
    longest_ms = max(
        verdict.before_silence_ms, verdict.switch_silence_ms or 0.0, verdict.later_silence_ms or 0.0
    )
    assert 0 <= longest_ms <= (END_S + 2) * 1000 + 1
    assert verdict.heartbeats <= len(beats)
