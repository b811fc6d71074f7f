# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.evaluation: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bed import BedError
from tests.bench import program
from tests.bench.evaluation import page, rst
from tests.bench.evaluation.cells import (
    DEFAULT_WAYS,
    LOADS,
    TRANSPORTS,
    WAYS,
    Cell,
    cells,
    parse_list,
    parse_rates,
)
from tests.bench.evaluation.figures import FIGURES, WINDOWS_S, derived, known, outcome, places, statements
from tests.bench.evaluation.session import LoadSession
from tests.bench.switchover import machine, plot
from tests.bench.switchover.session import GuestGone

MIGRATION_S = 30  # for the forecast only


class Bench:
    """Cell after cell, round after round; its file is up to date after each migration."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        ways = [WAYS[name] for name in parse_list("--ways", args.ways, WAYS)]
        self.loads = parse_list("--loads", args.loads, LOADS)
        transports = parse_list("--transports", args.transports, TRANSPORTS)
        self.cells = list(cells(self.loads, parse_rates(args.rates), transports, ways))
        self.content: dict[str, Any] = {
            "ways": {cell.way.name: cell.way.meaning for cell in self.cells},
        }

    def run(self) -> None:
        count = len(self.cells) * self.args.rounds
        seconds = count * (MIGRATION_S + self.args.after)
        self.console.print(
            f"{count} migrations, about {seconds / 60:.0f} min; leave the machine alone meanwhile"
        )
        self.content |= {
            "schema": program.SCHEMA,
            "evaluation": True,
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "give_up_s": self.args.give_up,
            "after_s": self.args.after,
            "accelerator": "QEMU's emulation (TCG)",
            "machine": machine.facts([self.args.stack]),
            "rounds": [],
        }
        for load in self.loads:
            own = [cell for cell in self.cells if cell.load == load]
            self.console.print(f"\n[bold]{self.args.stack}, {load} guest[/bold]")
            try:
                with LoadSession(
                    self.args.stack, load, self.args.after, self.args.give_up, self._say
                ) as session:
                    for number, cell in program.in_turn(own, self.args.rounds):
                        self._take(cell, session.play(cell, number))
            except GuestGone as error:
                self._say(f"{error}; on with the next load")

    def _take(self, cell: Cell, row: dict[str, Any]) -> None:
        self.console.print(f"   {cell.name}" + ("" if row["ended"] else ": did not end, given up"))
        program.take(self.args, self.content, self.console, row, FIGURES, derived(row))

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}")


def show(console: Console, content: dict[str, Any]) -> None:
    for place in places(content["rounds"]):
        load, rate_mbit, transport = place
        table = Table(
            title=f"\n{load} guest, {rate_mbit:g} Mb/s, {transport}",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        found = {way: each for way in content["ways"] if (each := outcome(content["rounds"], place, way))}
        shown = known(found.values())
        table.add_column("way", no_wrap=True)
        table.add_column("ended", justify="right")
        for figure in shown:
            table.add_column(f"{figure.title}, {figure.unit}", justify="right")
        table.add_column("limited by")
        for way, each in found.items():
            values = (each.text(figure) for figure in shown)
            table.add_row(way, f"{each.ended} of {len(each.rows)}", *values, each.limits)
        console.print(table)
    console.print()
    for said in statements(content["rounds"]):
        console.print(f"{said.text}: [bold]{said.word}[/bold] ({said.evidence})", soft_wrap=True)
    for row in content["rounds"]:
        program.say_if_left_out(console, row)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.evaluation",
        description="Pre-copy, post-copy and both, by load of the guest and rate of the link. Needs root.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--stack",
        choices=("forky", "backports"),
        default="backports",
        help="QEMU and libvirt (default: backports, whose counter of iterations counts passes)",
    )
    for option, names in (("--loads", LOADS), ("--transports", TRANSPORTS)):
        parser.add_argument(
            option, metavar="LIST", default=",".join(names), help="between commas (default: %(default)s)"
        )
    parser.add_argument(
        "--rates", metavar="LIST", default="100,1000,10000", help="of the link, Mb/s (default: %(default)s)"
    )
    parser.add_argument(
        "--ways",
        metavar="LIST",
        default=DEFAULT_WAYS,
        help=f"of {', '.join(WAYS)} (default: {DEFAULT_WAYS})",
    )
    parser.add_argument(
        "--give-up",
        type=float,
        default=60,
        metavar="SECONDS",
        help="cancel what is in pre-copy by then (default: 60)",
    )
    parser.add_argument(
        "--after",
        type=float,
        default=90,
        metavar="SECONDS",
        help=f"watch the guest so long after each migration; windows end at "
        f"{', '.join(str(end) for _, end in WINDOWS_S)} s (default: 90)",
    )
    program.add_options(parser, rounds=1, rate=False)
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="a page with pictures")
    parser.add_argument(
        "--rst", type=pathlib.Path, metavar="FILE", help="the tables of doc/refer/evaluation.rst"
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Before an hour of measuring: what could fail at its end. Raises BedError."""
    program.check_options(args)
    program.check_writable("--html", args.html)
    program.check_writable("--rst", args.rst)
    if args.give_up < 5:
        raise BedError(f"--give-up {args.give_up:g}: use 5 s or more")
    if args.after < 0:
        raise BedError(f"--after {args.after:g}: use 0 s or more")
    if args.html is not None:
        plot.need_matplotlib()


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)

    def tell(console: Console, content: dict[str, Any]) -> None:
        show(console, content)
        if args.html:
            page.write(content, args.html)
        if args.rst:
            rst.write(content, args.rst)

    return program.run(args, check, Bench, "evaluation", tell)


if __name__ == "__main__":
    sys.exit(main())
