# SPDX-License-Identifier: Apache-2.0
"""What a migration did to the guest, by its own word: heartbeats in, a verdict out; no clocks, no files."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

BASELINE_S = 3.0  # the guest's own rate is measured in these seconds before the migration

_LINE = re.compile(r"(\d+\.\d+) (\w+) HB (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$")


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """One line of the worker, stamped on its arrival with CLOCK_MONOTONIC and the host that it came from."""

    time_s: float
    host: str
    sequence: int
    guest_ms: int
    written: int
    verified: int
    bad: int
    passes: int

    @property
    def work(self) -> int:
        """Pages written (each verified before) and pages verified in turn."""
        return self.written + self.verified


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Silence is the time between two heartbeats, the heartbeat's own period included.

    pages_checked:     pages that the guest verified from the migration's start to the end of the tail
    page_errors:       pages that did not hold what the guest had written, since its boot
    full_passes_after: times that every page was verified on the new host (1 or more: nothing was left out)
    before_silence_ms: longest silence from the start to the change of host
    switch_silence_ms: silence around the change of host; None when the guest did not change hosts
    later_silence_ms:  longest silence after that, to the end of the tail; None likewise
    guest_time_lost_s: time in which the guest did not work, against its rate in the seconds before the start;
                       None when there is no such rate (an idle guest, or too few heartbeats)
    host:              where the last heartbeat came from; None when there was none
    alive:             the guest still had a heartbeat in the tail
    """

    heartbeats: int
    pages_checked: int
    page_errors: int
    full_passes_after: int
    before_silence_ms: float
    switch_silence_ms: float | None
    later_silence_ms: float | None
    guest_time_lost_s: float | None
    host: str | None
    alive: bool


def parse_line(line: str) -> Heartbeat | None:
    """A line of the collector's log; None for anything that is no complete heartbeat."""
    match = _LINE.match(line)
    if match is None:
        return None
    return Heartbeat(float(match[1]), match[2], *(int(number) for number in match.groups()[2:]))


def judge(beats: Sequence[Heartbeat], start_s: float, end_s: float, tail_s: float = 2.0) -> Verdict:
    """Judge a migration that ran from start_s to end_s, with the tail_s seconds after it."""
    last_s = end_s + tail_s
    # The heartbeat before the start opens the first silence.
    first = max((i for i, beat in enumerate(beats) if beat.time_s < start_s), default=0)
    window = [beat for beat in beats[first:] if beat.time_s <= last_s]
    inside = [beat for beat in window if beat.time_s >= start_s]

    change = next((i for i, (a, b) in enumerate(itertools.pairwise(window)) if a.host != b.host), None)
    silences_ms = [(b.time_s - a.time_s) * 1000 for a, b in itertools.pairwise(window)]
    if window:
        # A guest that fell silent for good is silent to the end.
        silences_ms.append((last_s - window[-1].time_s) * 1000)
    else:
        silences_ms.append((last_s - start_s) * 1000)

    if change is None:
        before_ms, switch_ms, later_ms = max(silences_ms), None, None
    else:
        before_ms = max(silences_ms[:change], default=0.0)
        switch_ms = silences_ms[change]
        later_ms = max(silences_ms[change + 1 :])
    after = window[change + 1 :] if change is not None else []
    return Verdict(
        heartbeats=len(inside),
        pages_checked=window[-1].work - window[0].work if window else 0,
        page_errors=max((beat.bad for beat in window), default=0),
        # The first pass after the change began before it.
        full_passes_after=max(0, after[-1].passes - after[0].passes - 1) if after else 0,
        before_silence_ms=round(before_ms, 1),
        switch_silence_ms=None if switch_ms is None else round(switch_ms, 1),
        later_silence_ms=None if later_ms is None else round(later_ms, 1),
        guest_time_lost_s=_time_lost_s(beats, inside, start_s),
        host=window[-1].host if window else None,
        alive=any(beat.time_s > end_s for beat in inside),
    )


def _time_lost_s(beats: Sequence[Heartbeat], inside: Sequence[Heartbeat], start_s: float) -> float | None:
    """Elapsed time less the time that the work done would have taken undisturbed."""
    before = [beat for beat in beats if start_s - BASELINE_S <= beat.time_s < start_s]
    if len(before) < 2 or len(inside) < 2:
        return None
    work, baseline_s = before[-1].work - before[0].work, before[-1].time_s - before[0].time_s
    if work <= 0 or baseline_s <= 0:
        return None
    rate = work / baseline_s
    elapsed_s = inside[-1].time_s - inside[0].time_s
    return round(elapsed_s - (inside[-1].work - inside[0].work) / rate, 2)
