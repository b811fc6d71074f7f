# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.nova: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from rich.console import Console

from tests.bed import Bed, BedError, GuestSpec
from tests.bench import program
from tests.bench.nova import report
from tests.bench.nova.figures import FIGURES
from tests.bench.nova.session import Session
from tests.bench.nova.ways import DEFAULT_WAYS, GRAMMAR, Way, parse_ways
from tests.bench.switchover import machine


class Bench:
    """Measures round after round, and has its file up to date after each migration."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.ways: list[Way] = parse_ways(args.ways)
        self.spec = GuestSpec(
            name="guest", memory_mib=args.memory, worker_mib=args.worker, write_pps=args.write_pps
        )
        self.content: dict[str, Any] = {}

    def run(self) -> None:
        self.content |= {
            **program.head(),
            "rate_mbit": self.args.rate,
            "guest": dataclasses.asdict(self.spec),
            "machine": machine.facts([self.args.stack]),
            "ways": {way.name: way.meaning for way in self.ways},
        }
        with Session(self.args.stack, self.args.rate, self.spec, self._say) as session:
            for number, way in program.in_turn(self.ways, self.args.rounds):
                row = session.measure(way, number)
                program.take(self.args, self.content, self.console, row, FIGURES.values())

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}", soft_wrap=True)


def make_parser() -> argparse.ArgumentParser:
    spec = GuestSpec()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.nova",
        description="Compares Nova's own driver and pcmig's in one cloud. Needs root.",
        allow_abbrev=False,
    )
    # Not the newest: with QEMU 11 and libvirt 12.8 Nova's own driver fails at many a switch.
    parser.add_argument("--stack", default="backports", help="QEMU and libvirt (default: backports)")
    parser.add_argument(
        "--ways", default=DEFAULT_WAYS, metavar="LIST", help=f"{GRAMMAR} (default: {DEFAULT_WAYS})"
    )
    parser.add_argument("--memory", type=int, default=spec.memory_mib, metavar="MIB", help="of the guest")
    parser.add_argument("--worker", type=int, default=spec.worker_mib, metavar="MIB", help="that it rewrites")
    parser.add_argument("--write-pps", type=int, default=spec.write_pps, metavar="N", help="pages a second")
    program.add_options(parser, rounds=3)
    return parser


def check(args: argparse.Namespace, bench: Bench) -> None:
    """Before many minutes of measuring: what could fail at their end. Raises BedError."""
    program.check_options(args)
    bench.spec.check()
    Bed(args.stack, args.rate)


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    console = program.make_console()
    try:
        bench = Bench(args, console)
        check(args, bench)
    except BedError as error:
        program.complain(error)
        return 2
    content = bench.content
    fill = (lambda: content.update(program.read(args.recorded, "guest"))) if args.recorded else bench.run
    return program.finish(content, fill, lambda: report.show(console, content))


if __name__ == "__main__":
    sys.exit(main())
