# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.watch: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from tests.bed import Bed, BedError, GuestSpec, Host
from tests.bench import program
from tests.bench.figures import Figure, Row, ratio, spread
from tests.bench.switchover import machine
from tests.bench.switchover.commands import TICKS_PER_S
from tests.bench.switchover.session import Session
from tests.bench.switchover.ways import parse_way

# Small, so that there are many rounds; busy enough that pre-copy does not end.
GUEST = GuestSpec(memory_mib=112, worker_mib=32)
ALONE = "alone"
# Options of `pcmig watch`, of all migrations of the host, by the name of the way.
WATCHERS: dict[str, tuple[str, ...] | None] = {
    ALONE: None,
    "watch": ("--json",),
    "watch-shadow": ("--json", "--shadow"),
}
SECONDS_PER_MIGRATION = 18

FIGURES = (
    Figure("complete_s", "total time", "s", 2),
    Figure("guest_switch_silence_ms", "silence at switch", "ms"),
    Figure("guest_later_silence_ms", "later silence", "ms"),
    Figure("bytes", "sent", "MB", 1, 1e6),
    Figure("looks", "looks", ""),
    Figure("watch_cpu_ms", "CPU of watch", "ms"),
)


class Bench:
    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args = args
        self.console = console
        self.way = parse_way(args.way)
        self.content: dict[str, Any] = {}

    def run(self) -> None:
        migrations = self.args.rounds * len(WATCHERS)
        program.say_how_long(self.console, migrations, migrations * SECONDS_PER_MIGRATION)
        self.content |= {
            **program.head(),
            "rate_mbit": self.args.rate,
            "machine": machine.facts([self.args.stack]),
            "watched": self.way.meaning,
            "ways": {name: " ".join(["pcmig watch", *(words or ())]) for name, words in WATCHERS.items()},
        }
        self.content["ways"][ALONE] = "nobody watches"
        with Session(self.args.stack, self.args.rate, GUEST, None, self._say) as session:
            for number, name in program.in_turn(list(WATCHERS), self.args.rounds):
                row = self._round(session, name, number)
                program.take(self.args, self.content, self.console, row, FIGURES)

    def _round(self, session: Session, name: str, number: int) -> Row:
        source = session.bed.where(session.guest)
        with watching(source, WATCHERS[name]) as seen:
            row = session.measure(self.way, number)
        return row | {"way": name, **seen}

    def _say(self, text: str) -> None:
        self.console.print(f"   {text}")


@contextlib.contextmanager
def watching(host: Host, words: tuple[str, ...] | None) -> Iterator[Row]:
    """`pcmig watch` on HOST meanwhile, with WORDS; None: nobody. Yields what is known of it in the end."""
    seen: Row = {}
    if words is None:
        yield seen
        return
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            host.command(
                [
                    "env",
                    "--default-signal=INT",
                    f"PCMIG_JOURNAL_DIR={host.state.parent / 'journal'}",
                    *(sys.executable, "-m", "pcmig.cli.main", "watch", "--connect", host.uri, *words),
                ]
            ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield seen
        finally:
            used_ms = cpu_ms(process.pid)
            process.kill()
            process.wait()
            out.seek(0)
            seen |= {"watch_cpu_ms": used_ms, "looks": sum(line.startswith("{") for line in out)}


def cpu_ms(pid: int) -> float | None:
    """User and system time of a process so far."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1000 / TICKS_PER_S


def show(console: Console, content: dict[str, Any]) -> None:
    rows = content["rounds"]
    for row in rows:
        program.say_if_left_out(console, row)
        if row["way"] != ALONE and not row["looks"]:
            raise BedError(f"{row['way']}, round {row['round']}: it saw nothing of the migration")
    console.print(program.table_of_ways(FIGURES, content["ways"], rows))
    for name in content["ways"]:
        if name == ALONE:
            continue
        parts = []
        for figure in FIGURES[:3]:
            mine, alone = (
                spread(figure.of(row) for row in rows if row["way"] == way and not row["error"])
                for way in (name, ALONE)
            )
            if (found := ratio(mine, alone)) is not None:
                parts.append(f"{figure.title} {found:.2f}")
        console.print(f"{name} against {ALONE}, median to median: {', '.join(parts)}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.watch",
        description="Whether a migration is the same when 'pcmig watch' looks on at its source. Needs root.",
        allow_abbrev=False,
    )
    parser.add_argument("--stack", default="forky", help="QEMU and libvirt (default: forky)")
    parser.add_argument(
        "--way",
        default="pcmig-first-pass",
        help="who migrates, as in tests.bench.switchover (default: %(default)s)",
    )
    program.add_options(parser, rounds=8)
    parser.set_defaults(rate=200)
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises BedError."""
    program.check_options(args)
    parse_way(args.way)
    Bed(args.stack, args.rate)


def main(argv: list[str] | None = None) -> int:
    return program.run(make_parser().parse_args(argv), check, Bench, "watched", show)


if __name__ == "__main__":
    sys.exit(main())
