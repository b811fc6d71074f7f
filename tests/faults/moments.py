# SPDX-License-Identifier: Apache-2.0
"""When a fault strikes, and how chance decides it: every number of a cell comes from its seed."""

from __future__ import annotations

import dataclasses
import fnmatch
import random

PRECOPY, SWITCH, POSTCOPY = "pre-copy", "switch", "post-copy"
SWITCH_WINDOW_S = 0.05


@dataclasses.dataclass(frozen=True)
class Moment:
    """low_s and high_s: bounds of the random time, since pre-copy has put its first bytes on the wire, or
    since the switch; a negative time is one before it."""

    name: str
    title: str
    low_s: float
    high_s: float


MOMENTS: dict[str, Moment] = {
    moment.name: moment
    for moment in (
        Moment(PRECOPY, "in pre-copy", 0.0, 2.0),
        Moment(SWITCH, "at the switch (± 50 ms)", -SWITCH_WINDOW_S, SWITCH_WINDOW_S),
        Moment(POSTCOPY, "in post-copy", 0.2, 3.0),
    )
}


def cell_name(fault: str, moment: str) -> str:
    return f"{fault}/{moment}"


def choose_cells(pattern: str, faults: list[str]) -> list[tuple[str, str]]:
    """(fault, moment) of all cells that one of the globs between commas fits; a fault's name alone means all
    of its moments."""
    globs = [glob.strip() for glob in pattern.split(",") if glob.strip()]
    return [
        (fault, moment)
        for fault in faults
        for moment in MOMENTS
        if any(
            fnmatch.fnmatchcase(cell_name(fault, moment), glob) or fnmatch.fnmatchcase(fault, glob)
            for glob in globs
        )
    ]


def delay_s(cell: str, seed: int) -> float:
    """The random time of a cell; the same for the same name and seed, on any machine."""
    moment = MOMENTS[cell.rpartition("/")[2]]
    return round(random.Random(f"{seed} {cell}").uniform(moment.low_s, moment.high_s), 4)
