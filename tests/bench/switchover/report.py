# SPDX-License-Identifier: Apache-2.0
"""The tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import program
from tests.bench.calm import STEADY_WORK_RATIO
from tests.bench.figures import Figure, Row
from tests.bench.switchover.figures import (
    FIGURES,
    Judged,
    Results,
    judge,
    lateness_ms,
    percentile,
    trace_lateness_ms,
)
from tests.bench.switchover.ways import parse_way


def show(console: Console, content: dict[str, Any]) -> None:
    """All that the JSON holds, as tables: per stack medians, ratios to virsh, and goals."""
    machine = content["machine"]
    console.print(
        f"\n{machine['cores']} cores ({machine['cpu']}), {machine['memory_mib']} MiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}; link {content['rate_mbit']:g} Mb/s"
    )
    for stack, versions in machine["stacks"].items():
        results = Results(content["rounds"], stack)
        if not results.rows:
            continue
        console.print(
            f"\n[bold]{stack}: QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}[/bold]"
        )
        console.print(_medians(results))
        if "virsh" in results.ways:
            console.print(_ratios(results, "virsh"))
        console.print(_goals(judge(results)))
        _notes(console, results)


def _medians(results: Results) -> Table:
    table = Table(title="median (least to greatest)", title_justify="left", box=None, pad_edge=False)
    table.add_column("way", no_wrap=True)
    table.add_column("rounds", justify="right")
    for figure in FIGURES.values():
        table.add_column(f"{figure.title}\n{figure.unit}", justify="right")
    for way in results.ways:
        cells = [_spread_cell(results, way, figure) for figure in FIGURES.values()]
        table.add_row(way, str(len(results.of(way))), *cells)
    return table


def _spread_cell(results: Results, way: str, figure: Figure) -> str:
    found = results.spread(way, figure.key)
    return "-" if found is None else found.text(figure.digits)


def _ratios(results: Results, reference: str) -> Table:
    table = Table(
        title=f"\nratio of the medians to {reference}", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("way")
    columns = [figure for figure in FIGURES.values() if figure.key != "engine_cpu_percent"]
    for figure in columns:
        table.add_column(figure.title, justify="right")
    for way in results.ways:
        if way == reference or parse_way(way).idle:
            continue
        ratios = [results.ratio(way, reference, figure.key) for figure in columns]
        table.add_row(way, *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
    return table


def _goals(judged: list[Judged]) -> Table:
    table = Table(title="\ngoals", title_justify="left", box=None, pad_edge=False)
    for heading, justify in (
        ("goal", "left"),
        ("of", "left"),
        ("limit", "right"),
        ("value", "right"),
        ("", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    colours = {"reached": "green", "missed": "bold red", "not measured": "dim"}
    for one in judged:
        goal = one.goal
        compared = f"{goal.way} / {goal.reference}" if goal.reference else goal.way
        value = "-" if one.value is None else f"{one.value:.2f}"
        table.add_row(
            goal.title,
            compared,
            f"{goal.limit:.2f}",
            value,
            f"[{colours[one.word]}]{one.word}[/{colours[one.word]}]",
        )
    return table


def disturbance(row: Row, best_pps: float) -> str | None:
    """What else the machine did when the round began, as the guest felt it."""
    if row["settle"]["disturbed"]:
        return str(row["settle"]["disturbed"])
    if 0 < row["baseline_pps"] < STEADY_WORK_RATIO * best_pps:
        return f"{row['baseline_pps']} pages/s of work, and {best_pps} in another round"
    return None


def _notes(console: Console, results: Results) -> None:
    """What a reader must know before believing the tables."""
    for what, late in (
        ("from the decision to the call", lateness_ms(results)),
        ("from the decision to the call's return, by the traces", trace_lateness_ms(results)),
    ):
        if late:
            figures = f"p50 {percentile(late, 50):.2f} ms, p99 {percentile(late, 99):.2f} ms"
            console.print(f"start-postcopy, {len(late)} switches, {what}: {figures}")
    best_pps = max((row["baseline_pps"] for row in results.rows), default=0)
    for row in results.rows:
        if not program.say_if_left_out(console, row) and (why := disturbance(row, best_pps)):
            console.print(f"[yellow]disturbed before: {row['way']}, round {row['round']}: {why}[/yellow]")
    if results.rows:
        busy = sorted(row["busy_percent"] for row in results.rows)
        steal = max(row["steal_percent"] for row in results.rows)
        console.print(
            f"machine busy {busy[0]:.0f} to {busy[-1]:.0f} % during a migration, at most {steal:.1f} % stolen"
        )
