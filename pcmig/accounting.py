# SPDX-License-Identifier: Apache-2.0
"""The ledger of a migration as tables: phases, passes over memory, totals, balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pcmig import latency

if TYPE_CHECKING:
    from rich.console import Console

    from pcmig._core import Ledger, LedgerRow, LedgerTotals

MIB = 1024 * 1024
COLUMNS = (
    "time s",
    "MiB",
    "MiB/s",
    "normal",
    "zero",
    "again %",
    "dirty/s",
    "left MiB",
    "requests",
    "peak/s",
    "B/page",
)


class Section(NamedTuple):
    """One table: its title, the heading of the first column, rows of texts."""

    title: str
    first: str
    rows: list[tuple[str, ...]]


def render(ledger: Ledger, console: Console) -> None:
    """Prints LEDGER: rich tables on a terminal, aligned plain text otherwise."""
    for section in sections(ledger):
        if console.is_terminal:
            _print_table(section, console)
        else:
            _print_plain(section, console)
    for line in summary(ledger):
        console.print(line)


def sections(ledger: Ledger) -> list[Section]:
    """The tables of LEDGER; a table without rows is left out."""
    phases = [(_phase_name(row), *_cells(row)) for row in ledger["phases"] if row["phase"] != "finished"]
    if phases:
        phases.append(("total", *_cells(ledger["totals"])))
    passes = [(_pass_name(row), *_cells(row)) for row in ledger["passes"]]
    found = (Section("Phases", "phase", phases), Section("Passes over memory", "pass", passes))
    return [section for section in found if section.rows]


def summary(ledger: Ledger) -> list[str]:
    """Sentences below the tables."""
    totals = ledger["totals"]
    lines = [_downtime(totals)]
    if waited := latency.words(ledger.get("latency")):  # older ledgers have none
        lines.append(waited)
    if waited_us := totals.get("waited_us"):  # older ledgers have none
        lines.append(f"turn: others of the host went first, {waited_us / 1e6:.3f} s of the set-up")
    if totals["gate_us"]:
        lines.append(f"gate: the switch waited for it, {totals['gate_us'] / 1e6:.3f} s of pre-copy")
    if totals["disk_bytes"]:
        lines.append(f"disks: {totals['disk_bytes'] / MIB:.1f} MiB")
    if totals["late_samples"] or totals["counters_backwards"]:
        lines.append(
            f"odd reports: {totals['late_samples']} statistics came late, "
            f"{totals['counters_backwards']} times a counter fell"
        )
    if ledger["events_lost"]:
        lines.append(f"{ledger['events_lost']} state changes did not fit into the ledger")
    lines.append(f"balance: {ledger['balance']['text']}")
    return lines


def tunnel_lines(figures: dict[str, Any] | None) -> list[str]:
    """Sentences on a migration's way through the tunnel; none where it did not take it."""
    if not figures:
        return []
    lines = []
    for kind in ("memory", "disks"):
        found = figures.get(kind)
        if not isinstance(found, dict):
            continue
        parts = [
            f"{found.get('bytes_out', 0) / MIB:.1f} MiB out in {found.get('records_out', 0)} records",
            f"{found.get('bytes_in', 0) / MIB:.1f} MiB in",
            f"crypto {(found.get('crypto_out_us', 0) + found.get('crypto_in_us', 0)) / 1e6:.2f} s",
            f"queue at most {found.get('queue_max_bytes', 0) / 1024:.0f} KiB",
        ]
        if found.get("reconnects"):
            parts.append(f"{found['reconnects']} reconnects")
        if found.get("cipher"):
            parts.append(str(found["cipher"]))
        lines.append(f"tunnel to {figures['peer']}, {kind}: {', '.join(parts)}")
    return lines


def _downtime(totals: LedgerTotals) -> str:
    reported, seen = totals["downtime_reported_ms"], totals["downtime_events_us"]
    by_libvirt = "not reported" if reported is None else f"{reported} ms"
    by_events = "not seen" if seen is None else f"{seen / 1000:.0f} ms"
    return f"downtime: {by_libvirt} by libvirt, {by_events} by events"


def _phase_name(row: LedgerRow) -> str:
    return f"{row['phase']} (x{row['merged'] + 1})" if row["merged"] else row["phase"]


def _pass_name(row: LedgerRow) -> str:
    if row["merged"]:
        return f"{row['number']}-{row['number'] + row['merged']}"
    return str(row["number"]) if row["complete"] else f"{row['number']} (part)"


def _cells(row: LedgerRow) -> tuple[str, ...]:
    requests = row["requests"]
    return (
        f"{row['duration_us'] / 1e6:.3f}",
        f"{row['wire_bytes'] / MIB:.1f}",
        f"{row['send_bps'] / MIB:.1f}",
        str(row["normal_pages"]),
        str(row["zero_pages"]),
        f"{row['retransmitted_permille'] / 10:.1f}",
        str(row["dirty_pages_ps"]),
        f"{row['remaining_end_bytes'] / MIB:.1f}",
        str(requests),
        str(row["requests_peak_ps"]) if requests else "-",
        str(row["bytes_per_guest_page"]),
    )


def _print_table(section: Section, console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(section.first, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in section.rows:
        table.add_row(*row, style="bold" if row[0] == "total" else None)
    console.print(table)


def _print_plain(section: Section, console: Console) -> None:
    lines = [(section.first, *COLUMNS), *section.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    console.print(section.title)
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(widths[i + 1]) for i, cell in enumerate(line[1:]))]
        console.print("  " + "  ".join(cells))
    console.print()
