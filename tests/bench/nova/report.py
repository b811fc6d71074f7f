# SPDX-License-Identifier: Apache-2.0
"""The tables on the terminal."""

from __future__ import annotations

import itertools
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import program
from tests.bench.figures import Figure
from tests.bench.nova.figures import FIGURES, GOAL_TIMES_LESS, GOALS, Results
from tests.bench.nova.ways import STOCK


def show(console: Console, content: dict[str, Any]) -> None:
    machine = content["machine"]
    guest = content["guest"]
    console.print(
        f"\n{machine['cores']} cores ({machine['cpu']}), {machine['memory_mib']} MiB, "
        f"Linux {machine['kernel']}; link {content['rate_mbit']:g} Mb/s"
    )
    for versions in machine["stacks"].values():
        console.print(f"QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}")
    console.print(
        f"guest of {guest['memory_mib']} MiB, worker {guest['worker_mib']} MiB, {guest['write_pps']} writes/s"
    )
    results = Results(content["rounds"])
    console.print(_table("median (least to greatest)", results, results.ways, _spread_cell))
    if STOCK in results.ways:
        others = [way for way in results.ways if way != STOCK]
        console.print(_table(f"\nratio of the medians to {STOCK}", results, others, _ratio_cell))
        for way, (key, what) in itertools.product(others, GOALS.items()):
            times = results.times_less(way, key)
            if times is not None:
                word = "reached" if times >= GOAL_TIMES_LESS else "missed"
                console.print(f"{way}: {what} {times:.0f} times less ({GOAL_TIMES_LESS:.0f}: {word})")
    for row in results.rows:
        if not program.say_if_left_out(console, row) and (why := row["settle"]["disturbed"]):
            console.print(f"[yellow]disturbed before: {row['way']}, round {row['round']}: {why}[/yellow]")
    busy = [row["busy_percent"] for row in results.rows if "busy_percent" in row]
    if busy:
        console.print(f"machine busy {min(busy):.0f} to {max(busy):.0f} % during a migration")


def _table(title: str, results: Results, ways: list[str], cell: Any) -> Table:
    """A column for each way: the figures are too many for one each."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for way in ways:
        table.add_column(way, justify="right")
    table.add_row("rounds", "", *(str(len(results.of(way))) for way in ways))
    for figure in FIGURES.values():
        table.add_row(figure.title, figure.unit, *(cell(results, way, figure) for way in ways))
    return table


def _spread_cell(results: Results, way: str, figure: Figure) -> str:
    found = results.spread(way, figure.key)
    return "-" if found is None else found.text(figure.digits)


def _ratio_cell(results: Results, way: str, figure: Figure) -> str:
    ratio = results.ratio(way, figure.key)
    return "-" if ratio is None else f"{ratio:.2g}" if ratio < 0.1 else f"{ratio:.2f}"
