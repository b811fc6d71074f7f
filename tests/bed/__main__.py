# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bed up|status|virsh|run|down|clean: keep a bed around while developing."""

from __future__ import annotations

import argparse
import os
import sys

from tests.bed import program
from tests.bed.bed import Bed, KeptBed, clean, kept_beds
from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec, read_log


def main(argv: list[str] | None = None) -> int:
    return program.run("bed", _parser(), argv)


def _up(arguments: argparse.Namespace) -> int:
    rate_mbit = arguments.rate or None
    with Bed(
        arguments.stack,
        rate_mbit,
        qemu_user=arguments.qemu_user,
        keep=True,
        accel=arguments.accel,
        reporter=program.reporter("bed"),
    ) as bed:
        try:
            if not arguments.no_guest:
                bed.start_guest(_guest_spec(arguments))
        except BaseException:
            bed.keep = False  # a bed that did not come up is of no use to anybody
            raise
        _describe(KeptBed(bed.state))
    return 0


def _guest_spec(arguments: argparse.Namespace) -> GuestSpec:
    return GuestSpec(
        memory_mib=arguments.memory,
        worker_mib=arguments.worker,
        write_pps=arguments.write_pps,
        verify_pps=arguments.verify_pps,
    )


def _status(_: argparse.Namespace) -> int:
    beds = kept_beds()
    for bed in beds:
        _describe(bed)
    if not beds:
        print("no beds")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    # One at a time and never all: others may keep beds on the same machine.
    bed = _chosen(arguments.bed)
    if bed.in_use:
        raise BedError(
            f"bed {bed.id} is in use by process {bed.owner.pid if bed.owner else '?'}: end that one"
        )
    bed.down()
    print(f"bed {bed.id} is down")
    return 0


def _clean(_: argparse.Namespace) -> int:
    gone = clean()
    print(f"taken away: {', '.join(gone)}" if gone else "nothing to take away")
    return 0


def _virsh(arguments: argparse.Namespace) -> int:
    host = _chosen(arguments.bed).host(arguments.host)
    os.execvp("nsenter", host.inside(["virsh", "--connect", "qemu:///system", *arguments.words]))


def _run(arguments: argparse.Namespace) -> int:
    host = _chosen(arguments.bed).host(arguments.host)
    if not arguments.words:
        raise BedError("which program? e.g. python -m tests.bed run a ping -c1 10.77.0.2")
    os.execvp("nsenter", host.command(arguments.words))


def _chosen(bed_id: str | None) -> KeptBed:
    return program.chosen("bed", kept_beds(), bed_id)


def _describe(bed: KeptBed) -> None:
    condition = "up" if bed.running else "crashed (python -m tests.bed clean)"
    rate = bed.content.get("rate_mbit")
    limit = f"{rate:g} Mb/s" if rate else "no rate limit"
    guests = f", guests under {accel}" if (accel := bed.content.get("accel")) else ""
    print(f"bed {bed.id}: {condition}, stack {bed.content.get('stack')}, {limit}{guests}")
    for name in "ab":
        host = bed.host(name)
        print(f"  host {name}: --connect {host.uri}")
        print(f"          from the other host: {host.remote_uri}")
    beats = read_log(bed.state / "console.log")
    if beats:
        print(f"  guest: last heartbeat from host {beats[-1].host}, {beats[-1].bad} bad pages")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bed", description="A two-host test bed to develop with."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    spec = GuestSpec()

    up = commands.add_parser("up", help="bring a bed up and leave it up")
    program.add_bed(up)
    program.add_accel(up)
    up.add_argument("--qemu-user", default="root", metavar="USER")
    program.add_guest(up)
    up.add_argument(
        "--verify-pps", type=int, default=spec.verify_pps, metavar="N", help="page checks per second"
    )
    up.set_defaults(action=_up)

    status = commands.add_parser("status", help="list beds, and how to reach them")
    status.set_defaults(action=_status)

    for name, action, what in (
        ("virsh", _virsh, "run virsh on a host: virsh a list"),
        ("run", _run, "run a program of the machine in a host's network: run a pcmig migrate ..."),
    ):
        command = commands.add_parser(name, help=what)
        program.add_id(command, "bed")
        command.add_argument("host", choices=("a", "b"))
        command.add_argument("words", nargs=argparse.REMAINDER)
        command.set_defaults(action=action)

    down = commands.add_parser("down", help="take a kept bed down")
    program.add_id(down, "bed")
    down.set_defaults(action=_down)

    leftovers = commands.add_parser("clean", help="take away what crashed beds left")
    leftovers.set_defaults(action=_clean)
    return parser


if __name__ == "__main__":
    sys.exit(main())
