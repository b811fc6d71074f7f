# SPDX-License-Identifier: Apache-2.0
"""The tables of the ledger."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pcmig import _core, accounting
from tests.unit import traces


@pytest.fixture
def ledger() -> _core.Ledger:
    return _core.ledger_from_trace(traces.recorded())


def render(ledger: _core.Ledger, terminal: bool, width: int = 120) -> str:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=width, no_color=True, highlight=False, soft_wrap=not terminal
    )
    accounting.render(ledger, console)
    return out.getvalue()


def test_plain(ledger: _core.Ledger) -> None:
    text = render(ledger, terminal=False)
    lines = text.splitlines()
    assert lines[0] == "Phases"
    table = lines[1 : lines.index("")]
    assert len({len(line) for line in table}) == 1, "columns are not aligned"
    assert table[0].split()[0] == "phase"
    assert table[-1].split()[0] == "total"
    assert "finished" not in text
    assert "downtime: 4 ms by libvirt, 1 ms by events" in lines
    assert lines[-1] == "balance: balanced"
    assert "\x1b" not in text


def test_a_wait_for_the_gate(ledger: _core.Ledger) -> None:
    assert not any(line.startswith("gate: ") for line in accounting.summary(ledger))
    ledger["totals"]["gate_us"] = 12_345_600
    assert "gate: the switch waited for it, 12.346 s of pre-copy" in accounting.summary(ledger)


def test_a_wait_for_other_guests(ledger: _core.Ledger) -> None:
    assert not any(line.startswith("turn: ") for line in accounting.summary(ledger))
    ledger["totals"]["waited_us"] = 24_900_000
    assert "turn: others of the host went first, 24.900 s of the set-up" in accounting.summary(ledger)
    del ledger["totals"]["waited_us"]  # type: ignore[misc]  # of an older version
    assert not any(line.startswith("turn: ") for line in accounting.summary(ledger))


def test_plain_is_not_wrapped(ledger: _core.Ledger) -> None:
    assert render(ledger, terminal=False, width=20) == render(ledger, terminal=False, width=200)


def test_terminal(ledger: _core.Ledger) -> None:
    text = render(ledger, terminal=True)
    for word in ("Phases", "Passes over memory", "postcopy", "total", "balance: balanced"):
        assert word in text


def test_figures(ledger: _core.Ledger) -> None:
    phases, passes = accounting.sections(ledger)
    total = phases.rows[-1]
    columns = dict(zip((phases.first, *accounting.COLUMNS), total, strict=True))
    totals = ledger["totals"]
    assert columns["normal"] == str(totals["normal_pages"])
    assert columns["MiB"] == f"{totals['wire_bytes'] / 2**20:.1f}"
    assert columns["requests"] == "1460"
    assert passes.rows[0][0] == "1"
    assert passes.rows[-1][0].endswith("(part)")


def test_unfinished_and_odd(ledger: _core.Ledger) -> None:
    empty = _core.ledger_from_trace(["pcmig-trace 1", "params policy=auto"])
    assert accounting.sections(empty) == []
    assert accounting.summary(empty)[0] == "downtime: not reported by libvirt, not seen by events"
    assert render(empty, terminal=False).endswith("balance: no final statistics\n")
    ledger["totals"]["late_samples"] = 2
    ledger["events_lost"] = 3
    ledger["phases"][1]["merged"] = 4
    ledger["passes"][0]["merged"] = 7
    text = render(ledger, terminal=False)
    assert "2 statistics came late" in text
    assert "3 state changes did not fit" in text
    assert "precopy (x5)" in text
    assert "\n  1-8 " in text
