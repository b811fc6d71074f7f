# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import datetime
import functools
import ssl
import sys
from typing import Any

from rich.console import Console

from tests.bed import BedError
from tests.bench import program
from tests.bench.switchover import machine
from tests.bench.tunnel.figures import FIGURES, Results
from tests.bench.tunnel.session import Session
from tests.bench.tunnel.ways import DEFAULT_WAYS, GRAMMAR, Way, parse_ways


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tunnel",
        description="Compares pcmig's tunnel with others, from unix socket to unix socket. Needs root.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--ways", default=DEFAULT_WAYS, metavar="LIST", help=f"{GRAMMAR} (default: {DEFAULT_WAYS})"
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, metavar="S", help="of each of the two loads (default: 4)"
    )
    program.add_options(parser, rounds=5, rate=False, steal=True)
    return parser


def measure(args: argparse.Namespace, ways: list[Way], content: dict[str, Any], console: Console) -> None:
    content |= {
        "schema": program.SCHEMA,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.facts([]) | {"openssl": ssl.OPENSSL_VERSION},
        "steal_percent": args.steal,
        "seconds": args.seconds,
        "ways": {way.name: way.meaning for way in ways},
        "rounds": [],
    }
    with Session(args.seconds) as session:
        for number, way in program.in_turn(ways, args.rounds):
            row = program.undisturbed(functools.partial(session.measure, way, number), args.steal)
            program.take(args, content, console, row, FIGURES.values())


def show(console: Console, content: dict[str, Any]) -> None:
    facts = content["machine"]
    console.print(
        f"\n{facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, {facts['openssl']}, "
        f"congestion control of the host {facts['congestion']}"
    )
    results = Results(content["rounds"])
    console.print(program.table_of_ways(FIGURES.values(), results.ways, results.rows))
    for goal, value in results.goals():
        word = "reached" if goal.reached(value) else "missed"
        console.print(f"pcmig: {value:.2f} {goal.text}: {word}")
    program.say_how_calm(console, results.rows, content["steal_percent"])
    for row in results.rows:
        program.say_if_left_out(console, row)


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    console = program.make_console()
    content: dict[str, Any] = {}
    try:
        ways = parse_ways(args.ways)
        program.check_options(args)
        if not 0.5 <= args.seconds <= 60:
            raise BedError(f"--seconds {args.seconds:g}: use 0.5 to 60")
    except BedError as error:
        program.complain(error)
        return 2

    def fill() -> None:
        if args.recorded:
            content.update(program.read(args.recorded, "seconds"))
        else:
            measure(args, ways, content, console)

    return program.finish(content, fill, lambda: show(console, content))


if __name__ == "__main__":
    sys.exit(main())
