# SPDX-License-Identifier: Apache-2.0
"""`pcmig wake`: at the destination, has QEMU notice that the stream of its post-copy is dead."""

from __future__ import annotations

import argparse
import time

from pcmig import _core
from pcmig.cli.base import CommandError, ExitCode, Leavable, add_guest

SILENT_S = 10.0  # as long as the source waits (stall_ms)
LOOK_S = 1.0
# libvirt's hook runs before the host knows the guest.
COMES_S = 60.0
# Halves of a guest that is still to come, or whose memory is.
COMING = ("migrating", "postcopy", "postcopy-failed", "unknown")
RESETTABLE = ("postcopy", "postcopy-failed")


class Wake(Leavable):
    """at the destination: have QEMU notice that the stream of a post-copy is dead

    A destination that waits for a page sends nothing, so it does not notice that its source cannot be
    reached, and refuses the resume over another network. To be run on the destination host, as root:
    connections that have brought nothing for a while are reset there, QEMU pauses post-copy, keeps what it
    has, and the source can resume. A stream that flows is left alone, and so is a guest that is not in
    post-copy.
    """

    epilog = (
        "exit codes: 0 the stream was reset, or with --follow the migration is over; 1 there is none, it "
        "flows, or it could not be reset; 2 usage; 130 left by Ctrl-C: what was reset by then was told"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        parser.add_argument(
            "--silent",
            metavar="SECONDS",
            type=seconds,
            default=SILENT_S,
            help=f"how long a stream that is reset has brought nothing (default: {SILENT_S:g})",
        )
        parser.add_argument(
            "--follow", action="store_true", help="look every second, until the migration is over"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        if not args.follow:
            look(args, _core.job_status(args.connect, args.domain)["uuid"])
            return ExitCode.DONE
        uuid = wait_for_guest(args.connect, args.domain)
        while (half := half_of(args.connect, uuid)) in COMING:
            if half in RESETTABLE:
                follow(args, uuid)
            time.sleep(LOOK_S)
        print(f"{args.domain}: nothing comes in any more ({half})")
        return ExitCode.DONE


def wait_for_guest(uri: str, domain: str) -> str:
    """Its UUID, once the host knows it: QEMU may be about to be started."""
    end_s = time.monotonic() + COMES_S
    while True:
        try:
            return _core.job_status(uri, domain)["uuid"]
        except _core.NoDomainError:
            if time.monotonic() > end_s:
                raise
        time.sleep(LOOK_S)


def half_of(uri: str, uuid: str) -> str:
    try:
        return _core.half(uri, uuid)["half"]
    except _core.LibvirtError:
        return "unknown"


def look(args: argparse.Namespace, uuid: str) -> None:
    """Resets the stream if it is silent. Raises CommandError that says why not."""
    half = half_of(args.connect, uuid)
    if half not in RESETTABLE:
        raise CommandError(
            f"{args.domain} does not come in by post-copy at {args.connect}: its half is {half}"
        )
    arrival = seen(args.domain, uuid)
    if arrival["silent_ms"] is None:
        raise CommandError(
            f"{args.domain}: QEMU has no connection at libvirt's migration ports (49152 to 49215): it knows "
            "that its stream is gone, or the migration has another way"
        )
    if arrival["silent_ms"] < args.silent * 1000:
        raise CommandError(
            f"{args.domain}: the stream brought something {arrival['silent_ms'] / 1000:.1f} s ago; only one "
            f"that has been silent for {args.silent:g} s is reset (--silent)"
        )
    reset(args.domain, uuid)


def follow(args: argparse.Namespace, uuid: str) -> None:
    """The same, for whom will look again."""
    silent_ms = seen(args.domain, uuid)["silent_ms"]
    if silent_ms is not None and silent_ms >= args.silent * 1000:
        reset(args.domain, uuid)


def seen(domain: str, uuid: str) -> _core.Arrival:
    try:
        return _core.arrival(uuid)
    except ProcessLookupError:
        raise CommandError(
            f"no QEMU of {domain} runs on this machine: run it on the destination host"
        ) from None
    except OSError as err:
        raise CommandError(
            f"the connections of {domain} cannot be seen ({err.strerror}): run it as root"
        ) from None


def reset(domain: str, uuid: str) -> None:
    try:
        count = _core.arrival_reset(uuid)
    except OSError as err:
        raise CommandError(
            f"the kernel does not reset the stream of {domain} ({err.strerror}): that takes CAP_NET_ADMIN "
            "and a kernel with CONFIG_INET_DIAG_DESTROY; QEMU notices when its TCP gives up "
            "(net.ipv4.tcp_retries2)"
        ) from None
    print(
        f"{domain}: {count} silent connections were reset; post-copy is paused, and the source can resume it"
    )


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 1.0 <= value <= 86400.0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 1 to 86400")
    return value
