# SPDX-License-Identifier: Apache-2.0
"""What the benches make of their rounds: columns, medians and their ratios; values in, values out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]  # one round as a bench's session.py makes it


@dataclasses.dataclass(frozen=True)
class Figure:
    """A column. `per` is what the raw value is divided by for its unit."""

    key: str
    title: str
    unit: str
    digits: int = 0
    per: float = 1.0

    def of(self, row: Row) -> float | None:
        value = row.get(self.key)
        return None if value is None else float(value) / self.per


def time_lost_s(row: Row, best_pps: float, part: str = "work") -> float | None:
    """Time in which the guest did not work, against the best rate seen before any round: its worker is held
    to a rate, so nothing makes it faster, but a busy machine makes it slower."""
    pages, elapsed_s = row[f"{part}_pages"], row[f"{part}_elapsed_s"]
    return float(elapsed_s - pages / best_pps) if best_pps and row["work_pages"] else None


@dataclasses.dataclass(frozen=True)
class Spread:
    count: int
    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """`250 (200-300)`, of a single value that value."""
        if self.count == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(len(known), statistics.median(known), min(known), max(known)) if known else None


def ratio(mine: Spread | None, other: Spread | None) -> float | None:
    """Median to median; None without either, or against nothing."""
    return None if mine is None or other is None or other.median <= 0 else mine.median / other.median


def since(start_s: float, moment_s: float | None) -> float | None:
    """Seconds from the start to a moment of the same clock, if it came."""
    return None if moment_s is None else round(moment_s - start_s, 3)
