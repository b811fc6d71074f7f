# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.many: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console

from tests.bed import BedError
from tests.bench import program
from tests.bench.many.figures import FIGURES, judge, ratio_to
from tests.bench.many.session import OwnConsole, Session
from tests.bench.switchover import machine
from tests.bench.switchover.ways import FIXED, PCMIG_GRAMMAR, Way, parse_ways

# Total times are compared between ways that switch at the same point: virsh switches at once with QEMU 11,
# and after a pass with QEMU 10, as auto does there.
DEFAULT_WAYS = {"forky": "virsh,pcmig,pcmig-immediate", "backports": "virsh,pcmig"}


class Bench:
    """Measures round after round, and has its file up to date after each."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.ways: dict[str, list[Way]] = {
            stack: parse_ways(args.ways or DEFAULT_WAYS[stack]) for stack in program.STACKS[args.stack]
        }
        self.content: dict[str, Any] = {}

    def run(self) -> None:
        stacks = list(self.ways)
        self.content |= {
            **program.head(),
            "rate_mbit": self.args.rate,
            "many": self.args.guests,
            "machine": machine.facts(stacks),
            "ways": {way.name: way.meaning for ways in self.ways.values() for way in ways},
        }
        for stack in stacks:
            self.console.print(f"\n[bold]{stack}, {self.args.guests} guests[/bold]")
            with Session(stack, self.args.rate, guests(self.args), self.args.traces, self._say) as session:
                for number, way in program.in_turn(self.ways[stack], self.args.rounds):
                    row = session.measure(way, number)
                    program.take(self.args, self.content, self.console, row, FIGURES.values())
                    if row["error"]:
                        break  # the guests are no longer on one host

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}")


def guests(args: argparse.Namespace) -> list[OwnConsole]:
    return [
        OwnConsole(
            name=f"many{i + 1}",  # a name that no other bed of the machine has
            memory_mib=args.memory,
            worker_mib=args.worker,
            write_pps=args.write_pps,
            verify_pps=args.write_pps,
        )
        for i in range(args.guests)
    ]


def show(console: Console, content: dict[str, Any]) -> None:
    console.print(
        f"\n{content['many']} guests at once, link {content['rate_mbit']:g} Mb/s, "
        f"{content['machine']['cores']} cores"
    )
    for stack, versions in content["machine"]["stacks"].items():
        rows = [row for row in content["rounds"] if row["stack"] == stack]
        if not rows:
            continue
        console.print(
            f"\n[bold]{stack}: QEMU {versions.get('qemu')}, libvirt {versions.get('libvirt')}[/bold]"
        )
        console.print(program.table_of_ways(FIGURES.values(), content["ways"], rows))
        for way in content["ways"]:
            if way != "virsh" and any(row["way"] == way for row in rows):
                ratios = {figure.title: ratio_to(rows, way, "virsh", key) for key, figure in FIGURES.items()}
                text = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items() if value is not None)
                console.print(f"{way} / virsh: {text or 'nothing to compare'}")
        for title, limit, value in judge(rows, stack):
            word = "not measured" if value is None else "reached" if value <= limit else "missed"
            console.print(f"goal: {title}: {'-' if value is None else f'{value:.2f}'} of {limit:.2f}: {word}")
        for row in rows:
            if not program.say_if_left_out(console, row) and row["settle"]:
                where = f"{row['way']}, round {row['round']}"
                console.print(f"[yellow]disturbed before: {where}: {row['settle'][0]}[/yellow]")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.many",
        description="Compares ways to move several busy guests off one host at once. Needs root.",
        epilog=f"Ways: {', '.join(FIXED)}, {PCMIG_GRAMMAR}. By default: "
        + "; ".join(f"{stack}: {ways}" for stack, ways in DEFAULT_WAYS.items())
        + ".",
        allow_abbrev=False,
    )
    program.add_bed_options(parser, None)
    parser.add_argument("--guests", type=int, default=3, metavar="N", help="at once (default: 3)")
    parser.add_argument("--memory", type=int, default=128, metavar="MIB", help="of each (default: 128)")
    parser.add_argument(
        "--worker", type=int, default=32, metavar="MIB", help="that it writes to (default: 32)"
    )
    parser.add_argument(
        "--write-pps", type=int, default=3000, metavar="N", help="pages it writes a second (default: 3000)"
    )
    program.add_options(parser, rounds=3)
    return parser


def check(args: argparse.Namespace) -> None:
    """Before an hour of measuring: what could fail at its end. Raises BedError."""
    program.check_bed_options(args)
    if not 1 <= args.guests <= 50:
        raise BedError(f"--guests {args.guests}: use 1 to 50")
    for spec in guests(args):
        spec.check()


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return program.run(args, check, Bench, "many", show)


if __name__ == "__main__":
    sys.exit(main())
