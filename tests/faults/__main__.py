# SPDX-License-Identifier: Apache-2.0
"""python -m tests.faults: see README.rst."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import operator
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from tests.bed import Bed, BedError
from tests.bed.layer import STACKS
from tests.bench.program import make_console
from tests.bench.switchover import machine
from tests.faults import table
from tests.faults.faults import FAULTS, faults_of
from tests.faults.moments import MOMENTS, SWITCH, cell_name, choose_cells
from tests.faults.record import Record
from tests.faults.runner import Runner
from tests.faults.stage import DRIVERS, PCMIG, STAGES

NEAR_MS = 1000
BEFORE = "unknown"  # the stack of rounds from before the record


@dataclasses.dataclass(frozen=True)
class Turn:
    """One cell to be played."""

    fault: str
    moment: str
    seed: int


def plan(
    args: argparse.Namespace, cells: list[tuple[str, str]], rows: Iterable[Mapping[str, Any]]
) -> list[Turn]:
    """What to play, in order: round after round, or as --shuffle has it; with --missing what the cells lack,
    those that were played least first. ROWS have been played before."""
    if args.missing:
        ranked = lacking(args, cells, rows)
    else:
        seeds = range(args.seed, args.seed + args.rounds)
        ranked = [(0, Turn(fault, moment, seed)) for seed in seeds for fault, moment in cells]
    if args.shuffle is not None:
        random.Random(args.shuffle).shuffle(ranked)
    turns = [turn for _, turn in sorted(ranked, key=operator.itemgetter(0))]
    share, shares = args.share
    return turns[share - 1 :: shares][: args.limit]


def lacking(
    args: argparse.Namespace, cells: list[tuple[str, str]], rows: Iterable[Mapping[str, Any]]
) -> list[tuple[int, Turn]]:
    """What each cell lacks of its rounds, each with the first seed that was not played; and how many rounds
    the cell will have had before it."""
    played: dict[str, set[int]] = {}
    rounds: collections.Counter[str] = collections.Counter()
    for row in rows:
        if (row["bed"], row["driver"]) != (args.bed, args.driver) or row["good"] is None:
            continue
        if row["stack"] == args.stack:
            played.setdefault(row["cell"], set()).add(row["seed"])
        if row["stack"] in (args.stack, BEFORE):
            rounds[row["cell"]] += 1
    ranked = []
    for fault, moment in cells:
        cell = cell_name(fault, moment)
        fresh = (seed for seed in itertools.count(args.seed) if seed not in played.get(cell, ()))
        ranked += [(rank, Turn(fault, moment, next(fresh))) for rank in range(rounds[cell], args.rounds)]
    return ranked


def play(args: argparse.Namespace, turns: list[Turn], record: Record, console: Console) -> bool:
    """Whether every cell was good."""
    record.stacks |= machine.facts([args.stack])["stacks"]

    def say(text: str) -> None:
        console.print(f"   {text}", soft_wrap=True)

    good = True
    started_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="pcmig-faults.") as folder,
        STAGES[args.bed](args.driver, args.stack, pathlib.Path(folder), say) as stage,
    ):
        runner = Runner(stage, args.bed, args.stack)
        for number, turn in enumerate(turns):
            if args.minutes is not None and time.monotonic() - started_s > args.minutes * 60:
                say(f"{args.minutes:g} minutes are over; not played: {len(turns) - number} of {len(turns)}")
                break
            row = runner.play(FAULTS[turn.fault], turn.moment, turn.seed)
            record.add(row)
            console.print(line(row), soft_wrap=True)
            good = good and bool(row["good"])
    return good


def line(row: dict[str, Any]) -> str:
    """A cell just played."""
    name = f"{row['driver']:6} {row['cell']:36} seed {row['seed']:3}"
    if row["good"] is None:
        return f"{name}  [yellow]no verdict: {row['error']}[/yellow]"
    times = [f"silent {row['silence_s']:g} s"]
    if row["heal_s"] is not None:
        times.insert(0, f"healed in {row['heal_s']:g} s")
    if row["moment"] == SWITCH:
        # Before the fault it was a forecast, and a fault may keep the switch away for long, or for ever.
        offset_ms = row["offset_ms"]
        known = offset_ms is not None and abs(offset_ms) < NEAR_MS
        times.append(f"{offset_ms:+.0f} ms from the switch" if known else "before the switch")
    colour = "green" if row["good"] else "red"
    problems = "".join(f"\n       [red]{problem}[/red]" for _, problem in row["problems"])
    return f"{name}  [{colour}]{row['end']}[/{colour}], {', '.join(times)}{problems}"


def share_of(text: str) -> tuple[int, int]:
    """Of "2/6": (2, 6)."""
    share, _, shares = text.partition("/")
    if share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares):
        return int(share), int(shares)
    raise argparse.ArgumentTypeError(f"{text!r}: use for example 2/6, the second of six shares")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Breaks live migrations in every way and tells what became of the guest. Needs root.",
        epilog="exit codes: 0 every cell was as good as can be; 1 some were not; 2 usage",
        allow_abbrev=False,
    )
    parser.add_argument("--bed", choices=sorted(STAGES), default="hosts", help="default: hosts")
    parser.add_argument(
        "--cells", default="*", metavar="GLOB", help="FAULT or FAULT/MOMENT, also several between commas"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="each with the next seed")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first round (default: 1)")
    parser.add_argument(
        "--shuffle", type=int, metavar="S", help="all rounds mixed, in an order that S alone decides"
    )
    parser.add_argument(
        "--share",
        type=share_of,
        default=(1, 1),
        metavar="I/N",
        help="play the I-th of N equal shares of it: N of them at once, each with a --json of its own",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="play the first N of them only")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no cell after M minutes")
    parser.add_argument(
        "--missing", action="store_true", help="play what the cells in --json lack of so many rounds"
    )
    parser.add_argument("--driver", choices=DRIVERS, default=PCMIG, help="stock: virsh, or Nova's own driver")
    parser.add_argument("--stack", choices=STACKS, default="forky", help="QEMU and libvirt (default: forky)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add every cell to this file")
    parser.add_argument(
        "--merge",
        type=pathlib.Path,
        action="append",
        default=[],
        metavar="FILE",
        help="add its rounds to --json",
    )
    parser.add_argument(
        "--rst", type=pathlib.Path, metavar="FILE", help="write the tables of all cells in it"
    )
    parser.add_argument("--list", action="store_true", help="list the cells and exit")
    parser.add_argument("--show", action="store_true", help="play nothing: show what --json holds")
    return parser


def check(args: argparse.Namespace, cells: list[tuple[str, str]]) -> None:
    """Before many minutes: what could fail at their end. Raises BedError that says what would be right."""
    if not cells:
        raise BedError(f"--cells {args.cells!r} fits none: see --list")
    if args.rounds < 1:
        raise BedError(f"--rounds {args.rounds}: use 1 or more")
    for option, number in (("--limit", args.limit), ("--minutes", args.minutes)):
        if number is not None and number <= 0:
            raise BedError(f"{option} {number}: use more than 0")
    for option, path in (("--json", args.json), ("--rst", args.rst)):
        if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
            raise BedError(f"{option} {path}: cannot be written")
    if args.merge and not (args.show and args.json):
        raise BedError("--merge: give it with --show and --json")
    for path in args.merge:
        if not path.exists():
            raise BedError(f"--merge {path}: there is no such file")
    Bed(args.stack)


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    console = make_console()
    cells = choose_cells(args.cells, faults_of(args.bed, args.driver))
    try:
        check(args, cells)
        record = Record(args.json)
        others = [Record(path) for path in args.merge]
    except BedError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    if args.list:
        for fault, moment in cells:
            console.print(f"{fault + '/' + moment:36} {FAULTS[fault].title}, {MOMENTS[moment].title}")
        return 0
    code = 0
    for path, other in zip(args.merge, others, strict=True):
        console.print(f"{path}: {record.merge(other)} rounds added")
        record.save()
    turns = [] if args.show else plan(args, cells, record.counted())
    try:
        if turns and not play(args, turns, record, console):
            code = 1
    except BedError as error:
        print(f"faults: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("faults: interrupted, everything is taken down", file=sys.stderr)
        code = 130
    if rows := record.counted():  # after an interruption too
        table.show(console, rows)
        for driver in sorted({row["driver"] for row in rows}):
            console.print(table.summary(rows, driver))
        if args.rst:
            args.rst.write_text(table.rst(rows, record.stacks))
    return code


if __name__ == "__main__":
    sys.exit(main())
