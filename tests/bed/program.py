# SPDX-License-Identifier: Apache-2.0
"""What `python -m tests.bed` and `python -m tests.cloud` share as programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tests.bed import accel, environment, layer
from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec
from tests.bed.layer import Reporter


class Kept(Protocol):
    """A bed or a cloud that was left up."""

    @property
    def id(self) -> str: ...


KeptT = TypeVar("KeptT", bound=Kept)


def run(name: str, parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Does what the parser's `action` says; NAME begins the lines that complain. Returns the exit status."""
    arguments = parser.parse_args(argv)
    environment.drop_the_callers()
    action: Callable[[argparse.Namespace], int] = arguments.action
    try:
        return action(arguments)
    except BedError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted, everything is taken down", file=sys.stderr)
        return 130


def reporter(name: str) -> Reporter:
    return lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True)


def chosen(name: str, kept: Sequence[KeptT], wanted_id: str | None) -> KeptT:
    """The one that is meant: there is only one, or it was named."""
    found = [one for one in kept if wanted_id in (None, one.id)]
    if not found:
        none = f"there is no {name}"
        raise BedError(f"{none} {wanted_id}" if wanted_id else f"{none}: python -m tests.{name} up")
    if len(found) > 1:
        raise BedError(f"which {name}? --{name} {' or '.join(one.id for one in found)}")
    return found[0]


def add_id(command: argparse.ArgumentParser, name: str) -> None:
    command.add_argument(f"--{name}", metavar="ID", help=f"which {name}, if there are several")


def add_bed(up: argparse.ArgumentParser) -> None:
    """Stack and link."""
    up.add_argument("--stack", default="forky", choices=layer.STACKS)
    up.add_argument("--rate", type=float, default=100, metavar="MBIT", help="0: no limit (default: 100)")


def add_accel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accel",
        choices=accel.WORDS,
        help="of guests: KVM where the machine has it, or else QEMU's emulation (auto), or one of the two "
        f"(default: ${accel.VARIABLE}, or auto)",
    )


def add_guest(up: argparse.ArgumentParser) -> None:
    spec = GuestSpec()
    up.add_argument("--no-guest", action="store_true")
    up.add_argument("--memory", type=int, default=spec.memory_mib, metavar="MIB")
    up.add_argument("--worker", type=int, default=spec.worker_mib, metavar="MIB")
    up.add_argument(
        "--write-pps", type=int, default=spec.write_pps, metavar="N", help="page writes per second"
    )
