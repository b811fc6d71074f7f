# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.switchover: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from rich.console import Console

from tests.bench import program
from tests.bench.switchover import machine, plot, report
from tests.bench.switchover.figures import FIGURES, engine_cpu_percent
from tests.bench.switchover.session import GuestGone, Session
from tests.bench.switchover.ways import DEFAULT_WAYS, FIXED, GUESTS, PCMIG_GRAMMAR, Way, parse_ways

SECONDS_PER_MIGRATION = 40  # of these 3 to settle; for the forecast only


class Bench:
    """Measures round after round, and has its file up to date after each migration."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.stacks = program.STACKS[args.stack]
        self.ways: dict[str, list[Way]] = {
            stack: parse_ways(args.ways or DEFAULT_WAYS[stack]) for stack in self.stacks
        }
        self.content: dict[str, Any] = {}

    def run(self) -> None:
        migrations = self.args.rounds * sum(len(ways) for ways in self.ways.values())
        program.say_how_long(self.console, migrations, migrations * SECONDS_PER_MIGRATION)
        self.content |= {
            **program.head(),
            "rate_mbit": self.args.rate,
            "machine": machine.facts(list(self.stacks)),
            "ways": {way.name: way.meaning for ways in self.ways.values() for way in ways},
        }
        for stack, ways in self.ways.items():
            for idle, spec in GUESTS.items():
                if chosen := [way for way in ways if way.idle == idle]:
                    self._session(Session(stack, self.args.rate, spec, self.args.traces, self._say), chosen)

    def _session(self, session: Session, ways: list[Way]) -> None:
        kind = "idle" if ways[0].idle else "busy"
        self.console.print(f"\n[bold]{session.stack}, {kind} guest[/bold]")
        try:
            with session:
                for number, way in program.in_turn(ways, self.args.rounds):
                    self._take(session.measure(way, number))
        except GuestGone as error:
            self._take(error.row)
            self._say(f"{error}; on with what does not need this guest")

    def _take(self, row: dict[str, Any]) -> None:
        derived = {
            "time_lost_s": row["guest_guest_time_lost_s"],
            "engine_cpu_percent": engine_cpu_percent(row),
        }
        program.take(self.args, self.content, self.console, row, FIGURES.values(), derived)

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.switchover",
        description="Compares ways to migrate a busy guest by what they cost it. Needs root.",
        epilog=f"Ways: {', '.join(FIXED)}, {PCMIG_GRAMMAR}. By default: "
        + "; ".join(f"{stack}: {ways}" for stack, ways in DEFAULT_WAYS.items())
        + ".",
        allow_abbrev=False,
    )
    program.add_bed_options(parser, None)
    program.add_options(parser, rounds=5)
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE.svg", help="silence against total time")
    return parser


def check(args: argparse.Namespace) -> None:
    """Before an hour of measuring: what could fail at its end. Raises BedError."""
    program.check_bed_options(args)
    program.check_writable("--plot", args.plot)
    if args.plot is not None:
        plot.need_matplotlib()


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)

    def show(console: Console, content: dict[str, Any]) -> None:
        report.show(console, content)
        if args.plot:
            plot.draw(content, args.plot)

    return program.run(args, check, Bench, "rate_mbit", show)


if __name__ == "__main__":
    sys.exit(main())
