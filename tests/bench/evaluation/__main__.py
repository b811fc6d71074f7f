# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.evaluation: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bed import Bed, BedError, accel
from tests.bed.program import add_accel
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
from tests.bench.evaluation.figures import (
    FIGURES,
    WINDOWS_S,
    derived,
    known,
    limits,
    merge,
    outcome,
    places,
    statements,
)
from tests.bench.evaluation.remote import Pair, RemoteSession, check_uri
from tests.bench.evaluation.session import LoadSession, images_of
from tests.bench.switchover import machine, plot
from tests.bench.switchover.session import GuestGone

RATES = "100,1000,10000"
MIGRATION_S = 30  # for the forecast only


class Bench:
    """Cell after cell, round after round; its file is up to date after each migration."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        ways = [WAYS[name] for name in parse_list("--ways", args.ways, WAYS)]
        self.ways = ways
        self.loads = parse_list("--loads", args.loads, LOADS)
        transports = parse_list("--transports", args.transports or ",".join(TRANSPORTS), TRANSPORTS)
        rates = parse_rates(args.rates or RATES)
        self.addresses: tuple[str, str] | None = None
        if args.source:
            self.addresses = (
                check_uri("--source", args.source),
                check_uri("--destination", args.destination),
            )
            rates, transports = [0.0], ["plain"]  # the rate is measured
        self.cells = list(cells(self.loads, rates, transports, ways))
        self.content: dict[str, Any] = {
            "ways": {cell.way.name: cell.way.meaning for cell in self.cells},
        }

    def run(self) -> None:
        count = len(self.cells) * self.args.rounds
        program.say_how_long(self.console, count, count * (MIGRATION_S + self.args.after))
        self.content |= {
            **program.head(),
            "evaluation": True,
            "give_up_s": self.args.give_up,
            "after_s": self.args.after,
        }
        if not self.addresses:
            self._say_where(accel.choose(self.args.accel).meaning, machine.facts([self.args.stack]))
        for load in self.loads:
            self.console.print(
                f"\n[bold]{self.args.stack if not self.addresses else 'hosts'}, {load} guest[/bold]"
            )
            try:
                with self._session(load) as session:
                    own = [cell for cell in self.cells if cell.load == load]
                    if isinstance(session, RemoteSession):
                        own = self._measured(session, load)
                    for number, cell in program.in_turn(own, self.args.rounds):
                        self._take(cell, session.play(cell, number))
            except GuestGone as error:
                self._say(f"{error}; on with the next load")

    def _session(self, load: str) -> LoadSession:
        args = self.args
        times = (args.after, args.give_up, self._say)
        if self.addresses:
            pair = Pair(
                args.stack,
                (args.source, args.destination),
                self.addresses,
                accelerator=args.accel,
                images=images_of(load),
                reporter=self._say,
            )
            return RemoteSession(pair, load, *times)
        bed = Bed(args.stack, None, accel=args.accel, images=images_of(load), reporter=self._say)
        return LoadSession(bed, load, *times)

    def _measured(self, session: RemoteSession, load: str) -> list[Cell]:
        """The cells of hosts whose link is what it is: measured once, with the first guest."""
        if "link_mbit" not in self.content:
            self._say_where(session.pair.accel.meaning, session.pair.machine())
            self.content["link_mbit"] = session.measure_link()
            self._say(f"a plain migration sends {self.content['link_mbit']:g} Mb/s: the link's rate here")
        return list(cells([load], [self.content["link_mbit"]], ["plain"], self.ways))

    def _say_where(self, accelerator: str, facts: dict[str, Any]) -> None:
        self.content |= {"accelerator": accelerator, "machine": facts}

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
            table.add_row(
                way, f"{each.ended} of {len(each.rows)}", *values, limits(each, content["accelerator"])
            )
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
    parser.add_argument(
        "--loads", metavar="LIST", default=",".join(LOADS), help="between commas (default: %(default)s)"
    )
    parser.add_argument(
        "--transports", metavar="LIST", help=f"between commas (default: {','.join(TRANSPORTS)})"
    )
    parser.add_argument("--rates", metavar="LIST", help=f"of the link, Mb/s (default: {RATES})")
    for option, which in (("--source", "one host"), ("--destination", "the other")):
        parser.add_argument(
            option,
            metavar="URI",
            help=f"libvirt of {which}, as this machine and the other host reach it, such as "
            "qemu+ssh://root@HOST/system: two real hosts instead of the bed",
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
    add_accel(parser)
    program.add_options(parser, rounds=1, rate=False)
    parser.add_argument(
        "--add",
        type=pathlib.Path,
        metavar="FILE",
        action="append",
        help="with --from: the migrations of this --json file as well",
    )
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="a page with pictures")
    parser.add_argument(
        "--rst",
        type=pathlib.Path,
        metavar="FILE",
        help="the tables of doc/refer/evaluation.rst; what is said of post-copy goes beside it",
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
    if args.add and not args.recorded:
        raise BedError("--add: adds a recorded run to another one, which --from names")
    if bool(args.source) != bool(args.destination):
        raise BedError("--source and --destination: hosts of your own are two, so name both")
    if args.source:
        for option, value in (("--rates", args.rates), ("--transports", args.transports)):
            if value is not None:
                raise BedError(
                    f"{option} {value}: the link of hosts of your own is measured, not set; leave it out"
                )
    else:
        accel.choose(args.accel)
    if args.html is not None:
        plot.need_matplotlib()


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)

    def tell(console: Console, content: dict[str, Any]) -> None:
        for path in args.add or ():
            merge(content, program.read(path, "evaluation"))
        show(console, content)
        if args.html:
            page.write(content, args.html)
        if args.rst:
            rst.write(content, args.rst)

    return program.run(args, check, Bench, "evaluation", tell)


if __name__ == "__main__":
    sys.exit(main())
