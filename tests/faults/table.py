# SPDX-License-Identifier: Apache-2.0
"""The matrix as a table: on the terminal, and as reStructuredText for doc/develop/faults.rst."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.faults import FAULTS, faults_of
from tests.faults.judge import Kind
from tests.faults.moments import MOMENTS, cell_name
from tests.faults.stage import PCMIG

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Tally:
    """All rounds of one cell by one driver. `broken`: rounds in which the fault could not strike; they count
    for nothing."""

    rounds: int
    good: int
    broken: int
    ends: tuple[str, ...]  # the most frequent first
    heal_s: float | None  # median
    heal_max_s: float | None
    problems: tuple[str, ...]  # each once

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Tally:
        judged = [row for row in rows if row["good"] is not None]
        healed = [row["heal_s"] for row in judged if row["heal_s"] is not None]
        ends = [row["end"] for row in judged]
        return cls(
            len(judged),
            sum(bool(row["good"]) for row in judged),
            len(rows) - len(judged),
            tuple(sorted(set(ends), key=lambda end: (-ends.count(end), end))),
            round(statistics.median(healed), 1) if healed else None,
            max(healed) if healed else None,
            tuple(dict.fromkeys(text for row in judged for _, text in row["problems"])),
        )

    def text(self) -> str:
        """E.g. "20/20 moved, 3.1 s"."""
        if not self.rounds:
            return "?" if self.broken else "-"
        count = f"{self.good}/{self.rounds} " if self.rounds > 1 else "" if self.good else "✗ "
        heal = "" if self.heal_s is None else f", {self.heal_s:g} s"
        return f"{count}{' or '.join(self.ends)}{heal}"

    @property
    def colour(self) -> str:
        if not self.rounds:
            return "yellow"
        return "green" if self.good == self.rounds else "red"


def tallies(rows: Iterable[Row], bed: str) -> dict[tuple[str, str], Tally]:
    """By cell and driver."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["bed"] == bed:
            found.setdefault((row["cell"], row["driver"]), []).append(row)
    return {key: Tally.of(each) for key, each in found.items()}


def beds_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["bed"] for row in rows))


def _drivers(found: Mapping[tuple[str, str], Tally]) -> list[str]:
    return sorted({driver for _, driver in found})


def _lines(found: Mapping[tuple[str, str], Tally]) -> list[tuple[str, list[Tally | None]]]:
    """A line for each fault that was played: its title, and for each moment each driver's tally."""
    drivers = _drivers(found)
    return [
        (
            fault.title,
            [found.get((cell_name(fault.name, moment), driver)) for moment in MOMENTS for driver in drivers],
        )
        for fault in FAULTS.values()
        if any((cell_name(fault.name, moment), driver) in found for moment in MOMENTS for driver in drivers)
    ]


def show(console: Console, rows: Sequence[Row]) -> None:
    for bed in beds_of(rows):
        found = tallies(rows, bed)
        table = Table(title=f"\n{bed} bed", title_justify="left", show_lines=True)
        table.add_column("fault")
        for moment in MOMENTS.values():
            for driver in _drivers(found):
                table.add_column(f"{moment.title}\n{driver}")
        for title, cells in _lines(found):
            table.add_row(
                title, *("" if tally is None else f"[{tally.colour}]{tally.text()}[/]" for tally in cells)
            )
        console.print(table)
        for (cell, driver), tally in found.items():
            for problem in tally.problems:
                console.print(f"[red]{driver} {cell}: {problem}[/red]", soft_wrap=True, highlight=False)


def summary(rows: Sequence[Row], driver: str) -> str:
    """How many rounds were as good as can be, and how many had each kind of problem."""
    judged = [row for row in rows if row["driver"] == driver and row["good"] is not None]
    counts = [
        f"{sum(any(kind == each.value for kind, _ in row['problems']) for row in judged)} {each.value}"
        for each in Kind
    ]
    good = sum(bool(row["good"]) for row in judged)
    return f"{driver}: {good} of {len(judged)} as good as can be; {', '.join(counts)}"


def codes(rows: Sequence[Row]) -> str:
    """With which code the rounds were played, the newest last."""
    counts: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row["when"]):
        if row["good"] is not None:
            counts[row["commit"]] = counts.get(row["commit"], 0) + 1
    return ", ".join(f"{commit} ({count})" for commit, count in counts.items())


def latest(rows: Sequence[Row]) -> str:
    """How many of the rounds were played with the latest code among them: e.g. "24 of 520 (8ba794d)"."""
    judged = sorted((row for row in rows if row["good"] is not None), key=lambda row: row["when"])
    if not judged:
        return ""
    commit = judged[-1]["commit"]
    count = sum(row["commit"] == commit for row in judged)
    return f"{count} of {len(judged)} ({commit})"


def not_played(found: Mapping[tuple[str, str], Tally], bed: str, driver: str) -> str:
    """The cells without a verdict, by fault: e.g. "``loss`` (in pre-copy, in post-copy)"."""
    texts = []
    for fault in faults_of(bed, driver):
        cells = {moment: found.get((cell_name(fault, moment), driver)) for moment in MOMENTS}
        missing = [
            MOMENTS[moment].title for moment, tally in cells.items() if tally is None or not tally.rounds
        ]
        if missing:
            where = "" if len(missing) == len(MOMENTS) else f" ({', '.join(missing)})"
            texts.append(f"{FAULTS[fault].title}{where}")
    return "; ".join(texts)


def rounds_of(found: Mapping[tuple[str, str], Tally], driver: str) -> str:
    """How often the cells were played: e.g. "3 cells once, 2 cells 5 times"."""
    counts = collections.Counter(tally.rounds for (_, each), tally in found.items() if each == driver)
    return ", ".join(f"{counts[rounds]} cells {times(rounds)}" for rounds in sorted(counts) if rounds)


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def rst(rows: Sequence[Row], stacks: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables to be included by a page; a heading is the page's business. STACKS: versions by stack."""
    blocks = []
    for bed in beds_of(rows):
        names = dict.fromkeys(row["stack"] for row in rows if row["bed"] == bed)
        known = [stacks[name] for name in names if name in stacks]
        versions = "; ".join(f"QEMU {each.get('qemu')}, libvirt {each.get('libvirt')}" for each in known)
        found = tallies(rows, bed)
        drivers = _drivers(found)
        head = [f"{moment.title}: {driver}" for moment in MOMENTS.values() for driver in drivers]
        lines = [
            f".. list-table:: {bed} bed{versions and f' ({versions})'}",
            "   :header-rows: 1",
            "   :stub-columns: 1",
            "",
            *_list_row(["fault", *head]),
        ]
        for title, cells in _lines(found):
            lines += _list_row([title, *("" if tally is None else tally.text() for tally in cells)])
        blocks.append("\n".join(lines))
        here = [row for row in rows if row["bed"] == bed]
        notes = [summary(here, driver) for driver in drivers]
        own = [row for row in here if row["driver"] == PCMIG]
        ours = codes(own)
        notes += [f"{driver}: {rounds_of(found, driver)}" for driver in drivers]
        for driver in drivers:
            if missing := not_played(found, bed, driver):
                notes.append(f"{driver}, not played: {missing}")
        if ours:
            notes.append(
                f"rounds of pcmig with the latest code that was played: {latest(own)}; the others with older"
            )
            notes.append(f"rounds of pcmig by the commit that was played: {ours}")
        notes += [
            f"{driver}, ``{cell}``: {problem}"
            for (cell, driver), tally in found.items()
            for problem in tally.problems
        ]
        blocks.append("\n".join(f"* {note}" for note in notes))
    return "\n\n".join(blocks) + "\n"


def _list_row(cells: Sequence[str]) -> list[str]:
    return [f"   {'*' if index == 0 else ' '} - {cell}".rstrip() for index, cell in enumerate(cells)]
