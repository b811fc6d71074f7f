# SPDX-License-Identifier: Apache-2.0
"""From raw rows to figures, and to a judgement of what the original documents said: values in, values out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pcmig.huge_pages import AT_S
from tests.bed import BedError
from tests.bench.evaluation.cells import DATABASE, LOADS, PAGE_BYTES
from tests.bench.figures import Figure, Row, spread

# A guest that has arrived has lost its huge pages, and works slower for that, for longer than the migration.
WINDOWS_S = ((0, 10), (10, 30), (30, 90))
FULL_LINK = 0.75  # of the rate, on the average of the whole migration: what is left is set-up and the switch
FULL_MACHINE_PERCENT = 90

FIGURES = (
    Figure("complete_s", "total time", "s", 1),
    Figure("guest_switch_silence_ms", "silence at switch", "ms"),
    Figure("guest_later_silence_ms", "later silence", "ms"),
    Figure("bytes", "sent", "MB", 0, 1e6),
    Figure("tps_before", "transactions before", "1/s"),
    Figure("tps_during", "transactions during", "1/s"),
    *(Figure(f"tps_{start}_{end}", f"transactions {start}-{end} s after", "1/s") for start, end in WINDOWS_S),
    Figure("kept_during", "work during", "%", 0, 0.01),
    *(Figure(f"kept_{start}_{end}", f"{start}-{end} s after", "%", 0, 0.01) for start, end in WINDOWS_S),
    Figure("dirty_mb_s", "writes before", "MB/s"),
    Figure("slowest_before", "slowest transaction before", "ms"),
    Figure("slowest_during", "slowest during", "ms"),
    *(Figure(f"slowest_{start}_{end}", f"slowest {start}-{end} s after", "ms") for start, end in WINDOWS_S),
    Figure("huge_before", "huge pages before", "MiB"),
    *(Figure(f"huge_{at}", f"{at} s after", "MiB") for at in AT_S),
)


def derived(row: Row) -> Row:
    """The row with the figures made of it. Work is a share of what the guest did before the start; of a
    database, which is never even, it is as it was."""
    base = row["baseline_pps"]
    during = row["work_pages"] / row["work_elapsed_s"] if row["work_elapsed_s"] else None
    rates = {"during": during} | {f"{each['from_s']}_{each['to_s']}": each["pps"] for each in row["after"]}
    found: Row = {"limited_by": limited_by(row)}
    if row["load"] == DATABASE:
        found |= {f"tps_{when}": rate for when, rate in (rates | {"before": base}).items()}
    else:
        found |= {
            f"kept_{when}": rate / base if base and rate is not None else None for when, rate in rates.items()
        }
    for at, mib in row["huge_mib"].items():
        found[f"huge_{at}"] = mib
    for window, slowest_ms in row.get("slowest_ms", {}).items():
        found[f"slowest_{window}"] = slowest_ms
    return row | found


def limited_by(row: Row) -> str:
    """What kept the migration from ending sooner."""
    elapsed_s = row["complete_s"] or row["command_s"]
    if (row["bytes"] or 0) * 8 / 1e6 >= FULL_LINK * row["rate_mbit"] * elapsed_s:
        return "link"
    return "processor" if row["busy_percent"] >= FULL_MACHINE_PERCENT else "QEMU and libvirt"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All rounds of one cell."""

    rows: tuple[Row, ...]

    @property
    def ended(self) -> int:
        return sum(row["ended"] for row in self.rows)

    def median(self, key: str) -> float | None:
        found = spread(row.get(key) for row in self.rows if row["ended"])
        return found.median if found else None

    def text(self, figure: Figure) -> str:
        """The median as it is shown."""
        value = self.median(figure.key)
        return "-" if value is None else f"{value / figure.per:.{figure.digits}f}"

    @property
    def limits(self) -> str:
        return ", ".join(dict.fromkeys(row["limited_by"] for row in self.rows))


def limits(found: Outcome, accelerator: str) -> str:
    """As it is shown: under emulation the guest's own work takes most of the processor."""
    emulated = "TCG" in accelerator
    return found.limits.replace("processor", "processor (emulation)") if emulated else found.limits


def merge(content: dict[str, Any], other: dict[str, Any]) -> None:
    """The migrations of another run into CONTENT. Raises BedError where they do not compare."""
    for key in ("accelerator", "give_up_s", "machine"):
        one, two = content.get(key), other.get(key)
        if one != two:
            raise BedError(
                f"runs that do not belong together: {key} is {one!r} in one, and {two!r} in the other"
            )
    content["ways"] |= other["ways"]
    content["rounds"] += other["rounds"]


Place = tuple[str, float, str]  # load, rate in Mb/s, transport


def places(rows: Iterable[Row]) -> list[Place]:
    return list(dict.fromkeys((row["load"], row["rate_mbit"], row["transport"]) for row in rows))


def outcome(rows: Iterable[Row], place: Place, way: str) -> Outcome | None:
    """Of the rounds that went as they should; given up is one of the ways in which they should."""
    found = [
        derived(row)
        for row in rows
        if (row["load"], row["rate_mbit"], row["transport"], row["way"]) == (*place, way) and not row["error"]
    ]
    return Outcome(tuple(found)) if found else None


def known(outcomes: Iterable[Outcome]) -> list[Figure]:
    """The figures of which any of OUTCOMES has one: how long a guest was watched decides."""
    outcomes = list(outcomes)
    return [figure for figure in FIGURES if any(each.median(figure.key) is not None for each in outcomes)]


# What the original documents say


@dataclasses.dataclass(frozen=True)
class Statement:
    text: str
    word: str  # "holds", "does not hold", "not measured"
    evidence: str


def statements(rows: Sequence[Row]) -> list[Statement]:
    good = [row for row in rows if not row["error"]]
    return [
        _of_all(
            "post-copy ends, whatever the guest writes",
            [row for row in good if row["way"].startswith("post-copy-0") or row["way"] == "pcmig-immediate"],
            lambda row: row["ended"],
        ),
        _of_all(
            "pre-copy does not end when the guest writes more than the link carries",
            [row for row in good if row["way"] == "pre-copy" and _writes_more(row) is True],
            lambda row: not row["ended"],
        ),
        _of_all(
            "pre-copy ends when the guest writes less than the link carries",
            [row for row in good if row["way"] == "pre-copy" and _writes_more(row) is False],
            lambda row: row["ended"],
        ),
        _of_all(
            "the hybrid (pcmig's own choice) ends, whatever the guest writes",
            [row for row in good if row["way"] == "pcmig"],
            lambda row: row["ended"],
        ),
        *(_faster(good, way) for way in ("post-copy-0", "pcmig")),
    ]


def _writes_more(row: Row) -> bool | None:
    """As the guest wrote before the start; what it writes is a part of its work, or was sampled. None: it was
    not, as QEMU did not answer in time."""
    if row["load"] == DATABASE:
        sampled = row.get("dirty_mb_s")
        return None if sampled is None else bool(sampled * 8 > row["rate_mbit"])
    spec = LOADS[row["load"]]
    work = spec.write_pps + spec.verify_pps
    written_pps = row["baseline_pps"] * spec.write_pps / work if work else 0.0
    return bool(written_pps * PAGE_BYTES * 8 / 1e6 > row["rate_mbit"])


def _of_all(text: str, rows: Sequence[Row], holds: Callable[[Row], bool]) -> Statement:
    if not rows:
        return Statement(text, "not measured", "no such migration")
    held = [row for row in rows if holds(row)]
    by_load = [
        f"{load} {sum(row['load'] == load for row in held)} of {count}"
        for load in LOADS
        if (count := sum(row["load"] == load for row in rows))
    ]
    word = "holds" if len(held) == len(rows) else "does not hold"
    return Statement(text, word, f"{len(held)} of {len(rows)}: {', '.join(by_load)}")


def _faster(rows: Sequence[Row], way: str) -> Statement:
    """Ten times the link; how much of that is seen is a figure, not a verdict."""
    text = f"10 Gb/s against 1 Gb/s, {way}"
    told = []
    for load in LOADS:
        slow, fast = (outcome(rows, (load, rate, "plain"), way) for rate in (1000.0, 10_000.0))
        if slow and fast and (a := slow.median("complete_s")) and (b := fast.median("complete_s")):
            told.append(f"{load}: {a:.1f} s to {b:.1f} s ({a / b:.1f} times; limited by {fast.limits})")
    return Statement(text, "measured" if told else "not measured", "; ".join(told) or "no such pair")
