# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.ports: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

from rich.console import Console

from tests.bench import program
from tests.bench.ports.figures import FIGURES, complaint
from tests.bench.ports.session import Session
from tests.bench.ports.ways import SETUPS, WAYS, chosen, chosen_ways
from tests.bench.switchover import machine


class Bench:
    """Measures round after round, and has its file up to date after each migration."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.setups = chosen(args.setups)
        self.ways = chosen_ways(args.ways)
        self.content: dict[str, Any] = {}

    def run(self) -> None:
        self.content |= {
            **program.head(),
            "rate_mbit": self.args.rate,
            "machine": machine.facts([self.args.stack]),
            "setups": {each.name: each.meaning for each in self.setups},
            "ways": {name: WAYS[name] for name in self.ways},
        }
        for setup in self.setups:
            self.console.print(f"\n[bold]{setup.name}[/bold]: {setup.meaning}")
            with Session(self.args.stack, self.args.rate, setup, self._say) as session:
                for number, way in program.in_turn(self.ways, self.args.rounds):
                    row = session.measure(way, number)
                    row["announced"] = _announced(row)
                    program.take(self.args, self.content, self.console, row, FIGURES)

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}")


def _announced(row: dict[str, Any]) -> int | None:
    """How many times, as the destination told."""
    told = ((row["ports"] or {}).get("announced") or "").split()
    if "once" in told:
        return 1
    return next((int(a) for a, b in itertools.pairwise(told) if b == "times"), None)


def show(console: Console, content: dict[str, Any]) -> None:
    for name, meaning in content["setups"].items():
        rows = [row for row in content["rounds"] if row["setup"] == name]
        if not rows:
            continue
        console.print(f"\n[bold]{name}[/bold]: {meaning}")
        console.print(program.table_of_ways(FIGURES, content["ways"], rows))
        for row in rows:
            if program.say_if_left_out(console, row) or row["way"] != "pcmig-ports":
                continue
            if said := complaint(row):
                console.print(f"[red]round {row['round']}: {said}[/red]")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.ports",
        description="For how long a guest is not reached when it is switched, from outside and from its old "
        "host. Needs root, and Open vSwitch for one of the set-ups.",
        epilog=f"Set-ups: {', '.join(each.name for each in SETUPS)}. Ways: {', '.join(WAYS)}.",
        allow_abbrev=False,
    )
    parser.add_argument("--stack", choices=("forky", "backports"), default="forky", help="QEMU and libvirt")
    parser.add_argument("--setups", metavar="LIST", help="between commas (default: all)")
    parser.add_argument("--ways", metavar="LIST", help="between commas (default: all)")
    program.add_options(parser, rounds=3)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return program.run(args, program.check_options, Bench, "setups", show)


if __name__ == "__main__":
    sys.exit(main())
