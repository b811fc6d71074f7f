# SPDX-License-Identifier: Apache-2.0
"""When a guest is calm enough to measure against, and what it does then."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from tests.bed import Heartbeat
from tests.bed.verdict import parse_line

SETTLE_S = 3.0  # what Guest.verdict takes for the guest's own rate
SETTLE_LOOK_S = 0.5
STEADY_GAP_PERIODS = 4  # a heartbeat later than that many periods is a disturbance of the machine
STEADY_WORK_RATIO = 0.9  # of the slowest to the fastest second
LOG_TAIL_BYTES = 100_000  # more than SETTLE_S of heartbeats


def unsteady(
    beats: Sequence[Heartbeat],
    now_s: float,
    host: str,
    period_ms: int,
    best_pps: float = 0.0,
    work_ratio: float = STEADY_WORK_RATIO,
) -> str | None:
    """Why the guest's last SETTLE_S seconds are no calm to measure against; None when they are.

    Calm is: heartbeats of one host without a gap, and as much work in each second as was ever seen.
    """
    last = [beat for beat in beats if beat.time_s >= now_s - SETTLE_S]
    if not last or any(beat.host != host for beat in last):
        return f"not on host {host} for {SETTLE_S:g} s yet"
    times = [now_s - SETTLE_S, *(beat.time_s for beat in last), now_s]
    gap_ms = max(b - a for a, b in itertools.pairwise(times)) * 1000
    if gap_ms > STEADY_GAP_PERIODS * period_ms:
        return f"a heartbeat took {gap_ms:.0f} ms"
    seconds = [now_s - SETTLE_S + i for i in range(int(SETTLE_S))]
    rates = [Work.between(last, second, second + 1).pps for second in seconds]
    if min(rates) < work_ratio * max(*rates, best_pps):
        return f"{min(rates):.0f} pages/s of work in a second, and {max(*rates, best_pps):.0f} in others"
    return None


@dataclasses.dataclass(frozen=True)
class Work:
    """What the guest got done in a time."""

    pages: int
    elapsed_s: float

    @classmethod
    def between(cls, beats: Sequence[Heartbeat], start_s: float, end_s: float) -> Work:
        inside = [beat for beat in beats if start_s <= beat.time_s <= end_s]
        if len(inside) < 2:
            return cls(0, 0.0)
        return cls(inside[-1].work - inside[0].work, inside[-1].time_s - inside[0].time_s)

    @property
    def pps(self) -> float:
        return self.pages / self.elapsed_s if self.elapsed_s else 0.0


class Calm:
    """Waits for it, and remembers the most that the guest ever did undisturbed."""

    def __init__(self, period_ms: int, patience_s: float, work_ratio: float = STEADY_WORK_RATIO) -> None:
        self._period_ms = period_ms
        self._patience_s = patience_s
        self._work_ratio = work_ratio
        self._best_pps = 0.0

    def wait(self, log: pathlib.Path, host: str | None = None) -> dict[str, Any]:
        """Until the guest of LOG is steady on HOST (default: where it is); after the patience go on and tell
        what disturbs it."""
        start_s = time.monotonic()
        why: str | None = "too early"
        while why and time.monotonic() < start_s + self._patience_s:
            time.sleep(SETTLE_LOOK_S)
            now_s = time.monotonic() - self._period_ms / 1000  # the latest ones may be on their way
            beats = recent_beats(log)
            where = host or (beats[-1].host if beats else "")
            why = unsteady(beats, now_s, where, self._period_ms, self._best_pps, self._work_ratio)
        self._best_pps = max(self._best_pps, Work.between(beats, now_s - SETTLE_S, now_s).pps)
        return {"waited_s": round(time.monotonic() - start_s, 1), "disturbed": why}


def recent_beats(log: pathlib.Path) -> list[Heartbeat]:
    """The last seconds of a log that gets long: reading it whole every time would disturb the guest."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        lines = file.read().decode("latin-1").splitlines()
    if size > LOG_TAIL_BYTES:
        del lines[0]  # cut somewhere
    return [beat for line in lines if (beat := parse_line(line)) is not None]
