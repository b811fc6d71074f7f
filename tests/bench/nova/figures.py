# SPDX-License-Identifier: Apache-2.0
"""From the rounds' raw figures to medians, ratios and the goal: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable

from tests.bench.figures import Figure, Row, Spread, ratio, spread, time_lost_s
from tests.bench.nova.logs import Switch
from tests.bench.nova.ways import STOCK

GOAL_TIMES_LESS = 50.0
STARTED = "Started Migrated"
GOALS = {  # the second holds QEMU's own time to stop the guest, too, which no driver shortens
    "call_ms": "from the decision to the return of start-postcopy",
    "switch_ms": "from the decision to the guest's stop",
}

FIGURES = {
    figure.key: figure
    for figure in (
        Figure("late_ms", "decision to call", "ms", 3),
        Figure("call_ms", "to its return", "ms", 1),
        Figure("switch_ms", "to the guest's stop", "ms", 1),
        Figure("decided_ms", "with draining", "ms"),
        Figure("guest_switch_silence_ms", "silence at switch", "ms"),
        Figure("guest_later_silence_ms", "later silence", "ms"),
        Figure("time_lost_s", "guest time lost", "s", 1),
        Figure("stopped_s", "switched after", "s", 1),
        Figure("complete_s", "guest moved", "s", 1),
        Figure("copy_s", "of it copying", "s", 1),
        Figure("record_s", "record completed", "s", 1),
        Figure("bytes", "sent", "MB", 0, 1e6),
        Figure("memory_processed", "sent by record", "MB", 0, 1e6),
        Figure("cpu_s", "nova-compute CPU", "s", 2),
        Figure("cpu_percent", "nova-compute CPU", "%", 1),
    )
}


def stock_delays(
    timeout_s: float | None, switched_s: float | None, stopped_s: float | None
) -> dict[str, float | None]:
    """Of Nova's driver: the timeout's warning, the line after the call, libvirt's event; all of one clock."""
    stop_ms = _ms_between(timeout_s, stopped_s)
    call_ms = _ms_between(timeout_s, switched_s)
    return {"late_ms": None, "call_ms": call_ms, "switch_ms": stop_ms, "decided_ms": stop_ms}


def pcmig_delays(
    switch: Switch | None, late_us: int | None, timeout_s: float | None, stopped_s: float | None
) -> dict[str, float | None]:
    """Of pcmig's driver. With timeout_s, the moment of its warning, the timeout decided and not a policy."""
    if switch is None:
        return dict.fromkeys(("late_ms", "call_ms", "switch_ms", "decided_ms"))
    decided_ms: float | None = (switch.stopped_us - switch.decided_us) / 1000
    if timeout_s is not None:
        decided_ms = _ms_between(timeout_s, stopped_s)
    return {
        "late_ms": None if late_us is None else late_us / 1000,
        "call_ms": (switch.issued_us - switch.switched_us) / 1000,
        "switch_ms": (switch.stopped_us - switch.switched_us) / 1000,
        "decided_ms": decided_ms,
    }


def _ms_between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else round((end_s - start_s) * 1000, 3)


def copy_s(row: Row) -> float | None:
    """From the destination's QEMU, which waits for the guest, to the guest's arrival: without what Nova does
    before, which depends much on how long ago its services were started."""
    started_s = next((time_s for time_s, _, text in row["events"] if text == STARTED), None)
    return None if started_s is None or row["complete_s"] is None else float(row["complete_s"] - started_s)


class Results:
    """All rounds, and of each way those that count: that went as they should."""

    def __init__(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        best_pps = max((row["baseline_pps"] for row in rows), default=0)
        self.rows = [row | {"time_lost_s": time_lost_s(row, best_pps), "copy_s": copy_s(row)} for row in rows]
        self.ways = list(dict.fromkeys(row["way"] for row in self.rows))

    def of(self, way: str) -> list[Row]:
        return [row for row in self.rows if row["way"] == way and not row["error"]]

    def spread(self, way: str, key: str) -> Spread | None:
        return spread(FIGURES[key].of(row) for row in self.of(way))

    def ratio(self, way: str, key: str) -> float | None:
        """Median to Nova's median; None without either, or against nothing."""
        return ratio(self.spread(way, key), self.spread(STOCK, key))

    def times_less(self, way: str, key: str) -> float | None:
        """How many times less than Nova's a median is."""
        ratio = self.ratio(way, key)
        return 1 / ratio if ratio else None
