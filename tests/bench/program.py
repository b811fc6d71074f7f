# SPDX-License-Identifier: Apache-2.0
"""What the benches share as programs: options, rounds as they come, the file of a run, how a run ends."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.table import Table

from tests.bed import Bed, BedError
from tests.bench.figures import Figure, Row, spread

T = TypeVar("T")

SCHEMA = 1
STACKS = {"forky": ("forky",), "backports": ("backports",), "both": ("forky", "backports")}
TRIES = 6  # of a round that the machine below disturbs
WIDTH_MIN = 180  # where the table would wrap otherwise, also into a file


def make_console() -> Console:
    return Console(highlight=False, width=max(WIDTH_MIN, shutil.get_terminal_size().columns))


def head() -> dict[str, Any]:
    """What the file of a run begins with, and its rounds, of which there is none yet."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"schema": SCHEMA, "started": started, "rounds": []}


def say_how_long(console: Console, migrations: int, seconds: float) -> None:
    console.print(f"{migrations} migrations, about {seconds / 60:.0f} min; leave the machine alone meanwhile")


def add_options(parser: argparse.ArgumentParser, rounds: int, rate: bool = True, steal: bool = False) -> None:
    """ROUNDS is how many there are by default; RATE whether there is a link to limit; STEAL whether rounds
    that the machine below disturbs are played again."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"of each way (default: {rounds})"
    )
    if rate:
        parser.add_argument(
            "--rate", type=float, default=100, metavar="MBIT", help="migration link (default: 100)"
        )
    if steal:
        parser.add_argument(
            "--steal",
            type=float,
            default=5,
            metavar="PERCENT",
            help="a round in which the machine below took more of the CPUs than that is played again, "
            f"{TRIES - 1} times at the most (default: 5; 100: never)",
        )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="every round's figures")
    parser.add_argument(
        "--from",
        dest="recorded",
        type=pathlib.Path,
        metavar="FILE",
        help="measure nothing: show this --json file",
    )


def add_bed_options(parser: argparse.ArgumentParser, ways: str | None) -> None:
    """Of a bench on the two-host bed that drives pcmig. WAYS by default; None: they depend on the stack."""
    parser.add_argument("--stack", choices=STACKS, default="both", help="QEMU and libvirt (default: both)")
    parser.add_argument(
        "--ways", metavar="LIST", default=ways, help=f"between commas (default: {ways or 'see below'})"
    )
    parser.add_argument("--traces", type=pathlib.Path, metavar="FOLDER", help="keep pcmig's traces there")


def check_bed_options(args: argparse.Namespace) -> None:
    """Raises BedError."""
    check_options(args)
    if args.traces is not None and not args.traces.is_dir():
        raise BedError(f"--traces {args.traces}: there is no such folder")
    for stack in STACKS[args.stack]:
        Bed(stack, args.rate)


def check_options(args: argparse.Namespace) -> None:
    """Raises BedError."""
    if args.rounds < 1:
        raise BedError(f"--rounds {args.rounds}: use 1 or more")
    if not 0 <= getattr(args, "steal", 0) <= 100:
        raise BedError(f"--steal {args.steal:g}: use 0 to 100")
    check_writable("--json", args.json)


def check_writable(option: str, path: pathlib.Path | None) -> None:
    """What could fail at the end of a long run. Raises BedError."""
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise BedError(f"{option} {path}: cannot be written")


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise BedError(f"--json {path}: {error.strerror}") from error


def read(path: pathlib.Path, key: str) -> dict[str, Any]:
    """KEY: what files of this bench have, and those of others may not."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise BedError(f"--from {path}: {error.strerror}") from error
    except ValueError as error:
        raise BedError(f"--from {path}: no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or key not in content:
        raise BedError(f"--from {path}: not of this bench, or of another version of it")
    return content


def in_turn(ways: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Each way with the number of its round. Every other round runs backwards: a guest that goes to and fro
    then takes both directions with each way, whatever their number, no way always follows the same other one,
    and what is restarted for a way is restarted less often."""
    for index in range(rounds):
        for way in reversed(ways) if index % 2 else ways:
            yield index + 1, way


def undisturbed(measure: Callable[[], Row], steal_percent: float) -> Row:
    """The first of TRIES rounds without an error in which no more was stolen, else the last; `again` is how
    many there were before it. The same for all ways, and whatever the figures are."""
    for again in range(TRIES):
        row = measure()
        row["again"] = again
        if row["error"] or row.get("steal_percent", 0) <= steal_percent:
            break
    return row


def say_how_calm(console: Console, rows: Sequence[Row], steal_percent: float) -> None:
    again = sum(row.get("again", 0) for row in rows)
    loud = [row for row in rows if row.get("steal_percent", 0) > steal_percent]
    console.print(
        f"{again} rounds were played again, as the machine below took more than {steal_percent:g} % of the "
        f"CPUs; it did so in {len(loud)} of those that count"
    )


def take(
    args: argparse.Namespace,
    content: dict[str, Any],
    console: Console,
    row: Row,
    figures: Iterable[Figure],
    derived: Row | None = None,
) -> None:
    """A round is over: into CONTENT, the file and a line. DERIVED: figures that are not kept."""
    content["rounds"].append(row)
    if args.json:
        write(args.json, content)
    known = ((figure, figure.of((derived or {}) | row)) for figure in figures)
    text = [f"{f.title} {value:.{f.digits}f} {f.unit}" for f, value in known if value is not None]
    error = f" [red]{row['error']}[/red]" if row["error"] else ""
    width = max(map(len, content["ways"]))
    console.print(f"{row['round']:2} {row['way']:{width}} {', '.join(text)}{error}", soft_wrap=True)


def table_of_ways(figures: Iterable[Figure], ways: Iterable[str], rows: Sequence[Row]) -> Table:
    """A line for each way, of the rounds that went as they should."""
    figures = list(figures)
    table = Table(title="median (least to greatest)", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for figure in figures:
        table.add_column(f"{figure.title}, {figure.unit}", justify="right")
    for way in ways:
        good = [row for row in rows if row["way"] == way and not row["error"]]
        spreads = ((spread(figure.of(row) for row in good), figure) for figure in figures)
        table.add_row(way, *("-" if s is None else s.text(f.digits) for s, f in spreads))
    return table


def say_if_left_out(console: Console, row: Row) -> bool:
    if row["error"]:
        console.print(f"[red]left out: {row['way']}, round {row['round']}: {row['error']}[/red]")
    return bool(row["error"])


def complain(error: BedError) -> None:
    print(f"bench: {error}", file=sys.stderr)


class Measuring(Protocol):
    """A bench, made of its options before anything is started. CONTENT is what it has measured so far."""

    content: dict[str, Any]

    def run(self) -> None: ...


def run(
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], None],
    make: Callable[[argparse.Namespace, Console], Measuring],
    key: str,
    show: Callable[[Console, dict[str, Any]], None],
) -> int:
    """What options that were parsed ask for: CHECK, and MAKE the bench, before an hour of measuring; or show
    a recorded run, which has KEY. Returns the exit status."""
    console = make_console()
    try:
        check(args)
        bench = None if args.recorded else make(args, console)
    except BedError as error:
        complain(error)
        return 2
    content: dict[str, Any] = bench.content if bench else {}
    fill = bench.run if bench else lambda: content.update(read(args.recorded, key))
    return finish(content, fill, lambda: show(console, content))


def finish(content: dict[str, Any], fill: Callable[[], None], show: Callable[[], None]) -> int:
    """FILL measures, or reads, into CONTENT. SHOW tells what there is of it, also after an interruption: what
    was measured stays measured. Returns the exit status: 1 for an error or a round that failed."""
    code = 0
    try:
        fill()
    except BedError as error:
        complain(error)
        code = 1
    except KeyboardInterrupt:
        print("bench: interrupted, everything is taken down", file=sys.stderr)
        code = 130
    if not content.get("rounds"):
        return code or 1
    try:
        show()
    except BedError as error:
        complain(error)
        code = code or 1
    return code or int(any(row["error"] for row in content["rounds"]))
