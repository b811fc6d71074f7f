# SPDX-License-Identifier: Apache-2.0
"""When a guest is calm enough to measure against."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests.bed import Heartbeat
from tests.bench.calm import LOG_TAIL_BYTES, Work, recent_beats, unsteady

NOW_S = 100.0
PERIOD_MS = 20


def beats(host: str = "a", start_s: float = 95.0, pages_per_s: float = 1000.0) -> list[Heartbeat]:
    times = [start_s + i * PERIOD_MS / 1000 for i in range(round((NOW_S - start_s) * 1000 / PERIOD_MS))]
    return [Heartbeat(t, host, i, 0, round(t * pages_per_s), 0, 0, 0) for i, t in enumerate(times)]


def test_calm() -> None:
    assert unsteady(beats(), NOW_S, "a", PERIOD_MS) is None


def test_an_idle_guest_is_calm() -> None:
    assert unsteady(beats(pages_per_s=0), NOW_S, "a", PERIOD_MS) is None


def test_a_gap() -> None:
    with_gap = [beat for beat in beats() if not 98.0 < beat.time_s < 98.2]
    assert "a heartbeat took 2" in (unsteady(with_gap, NOW_S, "a", PERIOD_MS) or "")


def test_a_gap_that_lasts() -> None:
    assert unsteady([b for b in beats() if b.time_s < 99.5], NOW_S, "a", PERIOD_MS) is not None


def test_no_time_on_this_host_yet() -> None:
    assert "host b" in (unsteady(beats("a")[:-50] + beats("b")[-50:], NOW_S, "b", PERIOD_MS) or "")
    assert unsteady([], NOW_S, "a", PERIOD_MS) is not None


def test_work_that_comes_and_goes() -> None:
    mixed = [
        dataclasses.replace(beat, written=round(500 * beat.time_s + 500 * max(0.0, beat.time_s - 99)))
        for beat in beats()
    ]
    assert "500 pages/s of work in a second, and 1000" in (unsteady(mixed, NOW_S, "a", PERIOD_MS) or "")


def test_slower_than_it_can() -> None:
    assert unsteady(beats(), NOW_S, "a", PERIOD_MS, best_pps=1050) is None
    assert "1000 pages/s" in (unsteady(beats(), NOW_S, "a", PERIOD_MS, best_pps=2000) or "")


def test_work_between() -> None:
    work = Work.between(beats(), 96.0, 98.0)
    assert work.pps == pytest.approx(1000, rel=0.01)
    assert work.elapsed_s == pytest.approx(2.0, abs=0.03)
    assert Work.between([], 0.0, 1.0).pps == 0.0


def test_recent_beats_of_a_long_log(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "console.log"
    lines = [f"{i / 50:.4f} a HB {i} {i} {i} {i} 0 0\n" for i in range(10_000)]
    log.write_text("".join(lines))
    found = recent_beats(log)
    assert found[-1].sequence == 9999
    assert [b.sequence for b in found] == list(range(10_000 - len(found), 10_000))
    assert 150 < len(found) <= LOG_TAIL_BYTES / len(lines[-1]) + 1
    log.write_text("".join(lines[:3]))
    assert len(recent_beats(log)) == 3
