# SPDX-License-Identifier: Apache-2.0
"""tests/faults/table.py and the record file."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from rich.console import Console

from tests.bed import BedError
from tests.faults import table
from tests.faults.__main__ import line, main, make_parser, plan
from tests.faults.faults import faults_of
from tests.faults.moments import choose_cells
from tests.faults.record import Record, counted


def row(**changes: Any) -> dict[str, Any]:
    return {
        "when": "2026-11-29T05:00:00+00:00",
        "commit": "1",
        "bed": "hosts",
        "driver": "pcmig",
        "stack": "forky",
        "cell": "stream-5s/post-copy",
        "fault": "stream-5s",
        "moment": "post-copy",
        "seed": 1,
        "good": True,
        "end": "moved",
        "problems": [],
        "heal_s": 3.0,
        "silence_s": 5.1,
        "offset_ms": 812.0,
        **changes,
    }


BAD = row(
    driver="stock",
    good=False,
    end="kept in halves",
    heal_s=None,
    problems=[["left to be healed by hand", "kept in halves where moved was possible"]],
)


def test_rounds_are_added_up() -> None:
    rows = [row(seed=seed, heal_s=float(seed)) for seed in (1, 2, 9)]
    tally = table.Tally.of([*rows, row(seed=4, good=None, error="too late")])
    assert (tally.rounds, tally.good, tally.broken) == (3, 3, 1)
    assert (tally.heal_s, tally.heal_max_s) == (2.0, 9.0)
    assert tally.text() == "3/3 moved, 2 s"
    assert tally.colour == "green"


def test_a_cell_that_went_wrong_is_seen() -> None:
    tally = table.Tally.of([BAD])
    assert tally.text() == "✗ kept in halves"
    assert tally.colour == "red"
    both = table.Tally.of([row(), row(seed=2, good=False, end="gone", heal_s=None)])
    assert both.text() == "1/2 gone or moved, 3 s"


def test_a_cell_without_a_verdict() -> None:
    assert table.Tally.of([row(good=None, error="no migration")]).text() == "?"


def test_a_round_counts_until_what_it_found_is_mended() -> None:
    cell = "stream-5s/post-copy"
    rows = [
        row(good=False),
        row(good=False, bed="cloud"),
        row(good=False, driver="stock"),
        row(good=False, cell="stream-5s/switch"),
        row(commit="2", when="2026-11-29T06:00:00+00:00", good=False),
    ]
    assert counted(rows, {}) == rows
    mended = {f"hosts {cell}": {"since": "2026-11-29T05:30", "why": "it was not resumed"}}
    assert counted(rows, mended) == rows[1:]


def test_the_codes_that_were_played_are_told_the_newest_last() -> None:
    rows = [row(commit="b", when="2"), row(commit="b", when="3"), row(commit="a", when="1")]
    assert table.codes([*rows, row(commit="c", when="4", good=None)]) == "a (1), b (2)"
    assert "by the commit that was played: 1 (1)" in table.rst([row(), BAD], {})
    played = [row(commit="b", when="3"), row(commit="a", when="1"), row(commit="b", when="2")]
    assert table.latest([*played, row(commit="c", when="4", good=None)]) == "2 of 3 (b)"
    assert table.latest([]) == ""
    assert "with the latest code that was played: 1 of 1 (1); the others with older" in table.rst([row()], {})


def planned(rows: list[dict[str, Any]], *words: str) -> list[tuple[str, str, int]]:
    args = make_parser().parse_args(["--cells", "stream-5s", *words])
    cells = choose_cells(args.cells, faults_of(args.bed))
    return [(turn.fault, turn.moment, turn.seed) for turn in plan(args, cells, rows)]


def test_the_plan_goes_round_after_round() -> None:
    turns = planned([], "--rounds", "2", "--seed", "5")
    assert [(moment, seed) for _, moment, seed in turns] == [
        (moment, seed) for seed in (5, 6) for moment in ("pre-copy", "switch", "post-copy")
    ]
    assert planned([], "--rounds", "2", "--seed", "5", "--limit", "4") == turns[:4]


def test_a_shuffled_plan_has_the_same_turns_in_an_order_of_its_own() -> None:
    turns = planned([], "--rounds", "5")
    mixed = planned([], "--rounds", "5", "--shuffle", "1")
    assert mixed != turns and sorted(mixed) == sorted(turns)
    assert mixed == planned([], "--rounds", "5", "--shuffle", "1")
    assert mixed != planned([], "--rounds", "5", "--shuffle", "2")


def test_a_batch_goes_on_where_the_one_before_ended() -> None:
    turns = planned([], "--rounds", "2")
    rows = [row(), row(seed=2, good=None, error="too late"), row(seed=3)]
    assert planned(rows, "--rounds", "2", "--missing") == [t for t in turns if t[1] != "post-copy"]
    lacking = [turn for turn in planned(rows, "--rounds", "4", "--missing") if turn[1] == "post-copy"]
    assert [seed for *_, seed in lacking] == [2, 4]
    # A round of before the record counts, but its moment is not known.
    old = [row(stack="unknown")]
    assert ("stream-5s", "post-copy", 1) in planned(old, "--rounds", "2", "--missing")
    assert len(planned(old, "--rounds", "2", "--missing")) == 5
    assert planned(rows, "--rounds", "2") == turns
    # Another stack, driver or bed is another round.
    assert planned(rows, "--rounds", "2", "--missing", "--stack", "backports") == turns
    assert planned(rows, "--rounds", "2", "--missing", "--driver", "stock") == turns


def test_what_was_played_least_comes_first() -> None:
    rows = [row(seed=1), row(seed=2), row(seed=1, moment="switch", cell="stream-5s/switch")]
    turns = planned(rows, "--rounds", "3", "--missing")
    assert [(moment, seed) for _, moment, seed in turns] == [
        ("pre-copy", 1),
        ("pre-copy", 2),
        ("switch", 2),
        ("pre-copy", 3),
        ("switch", 3),
        ("post-copy", 3),
    ]


def test_shares_are_of_the_same_plan() -> None:
    turns = planned([row()], "--rounds", "3", "--missing")
    shares = [planned([row()], "--rounds", "3", "--missing", "--share", f"{i}/3") for i in (1, 2, 3)]
    assert sorted(turn for share in shares for turn in share) == sorted(turns)
    assert {len(share) for share in shares} <= {2, 3}
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(SystemExit):
            planned([], "--share", wrong)


def test_the_summary_counts_kinds_of_problems() -> None:
    text = table.summary([row(), BAD], "stock")
    assert text.startswith("stock: 0 of 1 as good as can be; 0 guests lost, 0 double runs")
    assert text.endswith("1 left to be healed by hand")
    assert "1 of 1" in table.summary([row(), BAD], "pcmig")


def test_restructured_text() -> None:
    stacks = {"forky": {"qemu": "11.1.2", "libvirt": "12.8.0"}}
    lines = table.rst([row(), BAD, row(bed="cloud", stack="other")], stacks).splitlines()
    assert lines[0] == ".. list-table:: hosts bed (QEMU 11.1.2, libvirt 12.8.0)"
    start = next(index for index, text in enumerate(lines) if "stream cut for 5 s" in text)
    assert lines[start] == "   * - stream cut for 5 s"
    # In pre-copy and at the switch nothing was played; every line has as many cells as the head.
    assert lines[start + 1 : start + 7] == ["     -"] * 4 + ["     - moved, 3 s", "     - ✗ kept in halves"]
    head = lines.index("   * - fault")
    assert all(text.startswith("     - ") for text in lines[head + 1 : head + 7])
    assert any(text.startswith(".. list-table:: cloud bed") for text in lines)


def test_what_was_not_played_is_said() -> None:
    found = table.tallies([row(), row(seed=2), row(moment="switch", cell="stream-5s/switch")], "hosts")
    text = table.not_played(found, "hosts", "pcmig")
    assert text.startswith("stream cut for 5 s (in pre-copy); stream cut for 60 s")
    assert "tunnel of both" in text and "tunnel" not in table.not_played(found, "hosts", "stock")
    assert table.rounds_of(found, "pcmig") == "1 cells once, 1 cells twice"


def test_the_terminal() -> None:
    console = Console(record=True, width=200)
    table.show(console, [row(), BAD])
    text = console.export_text()
    assert "moved, 3 s" in text
    assert "stock stream-5s/post-copy: kept in halves where moved was possible" in text


def test_a_line_for_each_cell() -> None:
    assert "healed in 3 s, silent 5.1 s" in line(row())
    assert "-12 ms from the switch" in line(row(moment="switch", offset_ms=-12.0))
    assert "no verdict: too late" in line(row(good=None, error="too late"))
    assert "where moved was possible" in line(BAD)


def test_the_record_is_added_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cells.json"
    Record(path).add(row())
    second = Record(path)
    second.add(row(seed=2))
    assert [each["seed"] for each in Record(path).rows] == [1, 2]
    path.write_text("[]")
    with pytest.raises(BedError, match="not of this program"):
        Record(path)


def test_two_records_are_merged(tmp_path: pathlib.Path) -> None:
    here, there = Record(tmp_path / "here.json"), Record(tmp_path / "there.json")
    here.add(row(said="done: g1"))
    there.add(row(said="done: g1"))
    there.add(row(seed=2, said="done: g1"))
    there.add(row(seed=3, said="g1 is lost", good=False))
    assert here.merge(there) == 2 and here.merge(there) == 0
    here.save()
    again = Record(here.path)
    assert [each["seed"] for each in again.rows] == [1, 2, 3]
    assert "said" not in again.rows[1] and again.rows[2]["said"] == "g1 is lost"
    assert here.path is not None
    assert len([each for each in here.path.read_text().splitlines() if '"cell":' in each]) == 3


def test_the_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--cells", "loss"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["--list", "--cells", "lost"]) == 2
    assert "fits none" in capsys.readouterr().err
    assert main(["--rounds", "0"]) == 2
    assert main(["--limit", "0"]) == 2
    assert "--limit 0: use more than 0" in capsys.readouterr().err
    path, rst = tmp_path / "cells.json", tmp_path / "faults.rst"
    Record(path).add(row())
    assert main(["--show", "--json", str(path), "--rst", str(rst)]) == 0
    assert "1 of 1 as good as can be" in capsys.readouterr().out
    assert "moved, 3 s" in rst.read_text()
    assert main(["--show", "--json", str(path), "--merge", str(tmp_path / "none.json")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert main(["--json", str(path), "--merge", str(path)]) == 2
    assert "give it with --show and --json" in capsys.readouterr().err
    other = tmp_path / "other.json"
    Record(other).add(row(seed=7))
    assert main(["--show", "--json", str(path), "--merge", str(other)]) == 0
    assert [each["seed"] for each in Record(path).rows] == [1, 7]
