# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel: see tests/bench/README.rst."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import functools
import pathlib
import socket
import ssl
import struct
import sys
from typing import Any

from rich.console import Console

from tests.bed import BedError
from tests.bench import program
from tests.bench.switchover import machine
from tests.bench.tunnel.figures import FIGURES, Results
from tests.bench.tunnel.session import Session
from tests.bench.tunnel.ways import DEFAULT_WAYS, GRAMMAR, PARALLEL, Way, parse_ways

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # <linux/sockios.h>, <net/if.h>
NETWORK = pathlib.Path("/proc/self/ns/net")
CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


def have_own_network(congestion: str) -> None:
    """A loopback of its own, where all ways have CONGESTION: pcmig's connections have cubic wherever
    they are, others what the host has. bbr's timers cost over loopback as much as moving the bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = CONGESTION.read_text()
    with NETWORK.open() as host:
        try:
            CONGESTION.write_text(
                congestion
            )  # a new network begins with its maker's, and may choose few others
            made = libc.unshare(CLONE_NEWNET) == 0
        except OSError as error:
            raise BedError(f"--congestion {congestion}: {error.strerror}") from error
        with NETWORK.open() as own:
            libc.setns(host.fileno(), CLONE_NEWNET)
            CONGESTION.write_text(before)
            libc.setns(own.fileno(), CLONE_NEWNET)
    if not made:
        raise BedError("a network of its own cannot be had: run it as root")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


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
    parser.add_argument(
        "--congestion",
        default="cubic",
        metavar="NAME",
        help="TCP's, of all ways but pcmig's, which has cubic (default: cubic)",
    )
    program.add_options(parser, rounds=5, rate=False, steal=True)
    return parser


def measure(args: argparse.Namespace, ways: list[Way], content: dict[str, Any], console: Console) -> None:
    have_own_network(args.congestion)
    content |= {
        **program.head(),
        "machine": machine.facts([]) | {"openssl": ssl.OPENSSL_VERSION},
        "steal_percent": args.steal,
        "seconds": args.seconds,
        "ways": {way.name: way.meaning for way in ways},
    }
    with Session(args.seconds) as session:
        for number, way in program.in_turn(ways, args.rounds):
            row = program.undisturbed(functools.partial(session.measure, way, number), args.steal)
            program.take(args, content, console, row, FIGURES.values())


def say_bound(console: Console, results: Results, cores: int) -> None:
    """Why two streams do not get more, where it is the machine."""
    bound, two = results.bound_mb_s(cores), results.spread(PARALLEL, "bulk_mb_s")
    if bound is not None and two is not None:
        console.print(
            f"pcmig: {cores} cores move {bound:.0f} MB/s at the CPU that one stream and its load take; two "
            f"streams {two.median:.0f}"
        )


def show(console: Console, content: dict[str, Any]) -> None:
    facts = content["machine"]
    console.print(
        f"\n{facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, {facts['openssl']}, "
        f"congestion control {facts['congestion']}"
    )
    results = Results(content["rounds"])
    console.print(program.table_of_ways(FIGURES.values(), results.ways, results.rows))
    for goal, value in results.goals():
        console.print(f"pcmig: {value:.2f} {goal.text}{goal.verdict(value)}")
    say_bound(console, results, facts["cores"])
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
