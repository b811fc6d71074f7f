# SPDX-License-Identifier: Apache-2.0
"""`pcmig ports`: whether the ports of a guest forward on this host."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import select
import time
from typing import Any

from pcmig import _core, guest
from pcmig.cli.base import Command, CommandError, ExitCode, UsageError, add_guest, given
from pcmig.ports import announcing
from pcmig.ports.host import OVSDB, Host, HostError
from pcmig.ports.model import Nic, Port, held_up
from pcmig.ports.nics import nics
from pcmig.tunnel import peer

SCHEMA = 1
WITH_DEVICE = ("bridge", "network", "ethernet")  # of libvirt's interfaces: for these it makes one, or is told
ASK_S = 1.0  # whether the guest that is announced still runs here
ASK_MS = 1000  # how long a host has to take the connection

# --follow: how often the host is asked, which costs it next to nothing, and the longest silence: who reads
# along knows by it that somebody is still there.
LOOK_S = 0.1
SAY_S = 1.0


class Ports(Command):
    """show whether the ports of a guest forward on this host

    For each interface of the guest: the device and the bridge or switch it is on, whether frames come in and
    go out there, and if not, why and for how long. At the destination of a migration the guest has its ports
    already while it still runs at the source. Nothing is changed.
    """

    epilog = (
        "exit codes: 0 all ports forward, as far as this host can tell, or with --announce the guest was "
        "announced at each; 1 not so, or the guest or the host cannot be asked; 2 usage"
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_guest(parser)
        parser.add_argument(
            "--ovsdb",
            metavar="TARGET",
            type=given,
            default=OVSDB,
            help=f"where Open vSwitch's database listens, as ovs-vsctl --db takes it (default: {OVSDB})",
        )
        parser.add_argument(
            "--follow",
            action="store_true",
            help="go on, and tell what changes, until somebody ends it; a guest that is not there is awaited",
        )
        parser.add_argument(
            "--announce",
            action="store_true",
            help="with --follow: once the guest begins to run here, announce it to the network until it has "
            "been learned, and end; needs root",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object; with --follow one a line, each second"
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> int:
        if (there := peer.of_uri(args.connect)) is not None:
            raise UsageError(
                f"ports are asked about on the host that has them, and {args.connect} is another machine: "
                f"type this command on {there.host}"
            )
        if args.announce and not args.follow:
            raise UsageError("--announce needs --follow: a guest is announced when it begins to run")
        try:
            with Host(args.ovsdb) as host:
                if args.announce:
                    return follow_and_announce(args, host)
                return self._follow(args, host) if args.follow else self._once(args, host)
        except HostError as err:
            raise CommandError(str(err)) from err

    def _once(self, args: argparse.Namespace, host: Host) -> int:
        seen = look(args.connect, args.domain, host)
        print(json.dumps(as_json(seen), indent=2) if args.json else as_text(seen))
        return ExitCode.FAILED if held_up(seen.ports) else ExitCode.DONE

    def _follow(self, args: argparse.Namespace, host: Host) -> int:
        voice = Voice(in_json=args.json)
        while True:
            try:
                voice.say(tell(look(args.connect, args.domain, host), in_json=args.json))
            except (_core.LibvirtError, guest.GuestXmlError) as err:
                absent = isinstance(err, _core.NoDomainError)
                voice.say(tell_failure(str(err), absent=absent, in_json=args.json))
            time.sleep(LOOK_S)


class Voice:
    """Says what has changed, and to programs, each second, that somebody is still there."""

    def __init__(self, *, in_json: bool) -> None:
        self._in_json = in_json
        self._told, self._told_s = "", 0.0

    def say(self, text: str) -> None:
        now_s = time.monotonic()
        if without_times(text) != self._told or (self._in_json and now_s - self._told_s >= SAY_S):
            print(text, flush=True)
            self._told, self._told_s = without_times(text), now_s


def follow_and_announce(args: argparse.Namespace, host: Host) -> int:
    """Until the guest runs here and was announced."""
    voice = Voice(in_json=args.json)
    incoming = Incoming(args.connect, args.domain)
    ports: list[Port] | None = None
    while not incoming.runs:
        ports = None
        try:
            incoming.look()
            ports = host.look(incoming.nics)
            voice.say(tell(Seen(incoming.uuid, incoming.name, ports), in_json=args.json))
        except (_core.LibvirtError, guest.GuestXmlError) as err:
            absent = isinstance(err, _core.NoDomainError)
            voice.say(tell_failure(str(err), absent=absent, in_json=args.json))
        incoming.wait(LOOK_S)

    # Who asked may be gone by then: the guest is announced nevertheless.
    def told(ports: list[Port]) -> None:
        with contextlib.suppress(BrokenPipeError):
            voice.say(tell(Seen(incoming.uuid, incoming.name, ports), in_json=args.json))

    rows = announcing.announce_until_learned(
        incoming.nics, host, ports=ports, stop=incoming.has_gone, told=told
    )
    with contextlib.suppress(BrokenPipeError):
        print(tell_announced(rows, in_json=args.json), flush=True)
    done = all(row.sent and row.problem is None for row in rows)
    return ExitCode.DONE if done else ExitCode.FAILED


class Incoming:
    """A guest that comes to this host. libvirt is asked for its XML no more than it takes: while its memory
    arrives QEMU may not answer, and the moment at which it begins to run must not be missed meanwhile."""

    def __init__(self, uri: str, domain: str) -> None:
        self.uri, self.domain = uri, domain
        self.uuid, self.name = "", ""
        self.nics: list[Nic] = []
        self.runs = False
        self._events: _core.GuestEvents | None = None
        self._asked_s: float | None = None

    def look(self) -> None:
        """Raises _core.LibvirtError, guest.GuestXmlError."""
        if self._events is not None:
            return
        xml = _core.domain_xml(self.uri, self.domain)
        self.uuid, self.name = guest.identity(xml)
        if guest.parse(xml).get("id") is None:  # its definition is not what comes
            raise _core.NoDomainError(f"{self.name} is off here")
        self.nics = nics(xml)
        if any(nic.device is None and nic.kind in WITH_DEVICE for nic in self.nics):
            return  # libvirt is about to make it
        self._events = _core.GuestEvents(self.uri, self.uuid)
        # It may have begun before we listened. A half in post-copy may be the source's, which does not run.
        self.runs = _core.half(self.uri, self.uuid)["running"]

    def wait(self, timeout_s: float) -> None:
        """For so long at the most, or until something happens."""
        if self._events is None:
            time.sleep(timeout_s)
            return
        select.select([self._events], [], [], timeout_s)
        news = self._events.take()
        self.runs = self.runs or ("runs" in news and "stopped" not in news)
        if not self.runs and news:  # it is gone, or libvirt is: ask anew
            self._events.close()
            self._events = None

    def has_gone(self) -> bool:
        """Whether it does not run here any more: it may have moved on. Where libvirt does not answer nobody
        moves it. The first announcements, within a second, are not held up by asking."""
        if self._events is not None and "stopped" in self._events.take():
            return True
        now_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = now_s
        if now_s - self._asked_s < ASK_S:
            return False
        self._asked_s = now_s
        try:
            return not _core.half(self.uri, self.uuid, ASK_MS)["running"]
        except _core.LibvirtError:
            return False


@dataclasses.dataclass(frozen=True)
class Seen:
    uuid: str
    name: str
    ports: list[Port]


def look(uri: str, domain: str, host: Host) -> Seen:
    """Raises _core.LibvirtError, guest.GuestXmlError, HostError."""
    xml = _core.domain_xml(uri, domain)
    uuid, name = guest.identity(xml)
    return Seen(uuid, name, host.look(nics(xml)))


def as_json(seen: Seen) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "command": "ports",
        "name": seen.name,
        "uuid": seen.uuid,
        "ready": not held_up(seen.ports),
        "absent": False,
        "error": None,
        "announced": None,
        "ports": [dataclasses.asdict(port) for port in seen.ports],
    }


def tell(seen: Seen, *, in_json: bool) -> str:
    return json.dumps(as_json(seen)) if in_json else as_text(seen)


def tell_failure(error: str, *, absent: bool, in_json: bool) -> str:
    """Of a guest that is not there, or not yet (ABSENT), or of which the host cannot be asked."""
    if not in_json:
        return error
    answer = {"schema": SCHEMA, "command": "ports", "name": None, "uuid": None, "ready": None}
    return json.dumps({**answer, "absent": absent, "error": error, "announced": None, "ports": []})


def tell_announced(rows: list[announcing.Announced], *, in_json: bool) -> str:
    """The last word."""
    text = announcing.in_words(rows)
    if not in_json:
        return text
    answer = {"schema": SCHEMA, "command": "ports", "announced": announcing.as_json(rows), "text": text}
    return json.dumps(answer)


def without_times(text: str) -> str:
    """TEXT without what changes by itself from look to look."""
    try:
        answer = json.loads(text)
    except ValueError:
        return "\n".join(line.partition(IN)[0] for line in text.splitlines())
    for port in answer["ports"]:
        port["verdict"]["ready_in_ms"] = None
    return json.dumps(answer)


IN = "; forwards in "


def as_text(seen: Seen) -> str:
    """A line for each port, and indented ones for what to do about it."""
    if not seen.ports:
        return f"{seen.name} has no network interface"
    columns = [
        [
            port.verdict.readiness,
            port.mac or "-",
            port.device or "-",
            port.bridge or "-",
            port.switch or port.kind,
        ]
        for port in seen.ports
    ]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = []
    for port, row in zip(seen.ports, columns, strict=True):
        words = "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True))
        left_ms = port.verdict.ready_in_ms
        later = f"{IN}{left_ms / 1000:.1f} s at the earliest" if left_ms else ""
        lines.append(f"{words}  {port.verdict.why}{later}")
        lines += [f"         note: {note}" for note in port.verdict.notes]
        lines += [f"         fix: {port.verdict.fix}"] if port.verdict.fix else []
    return "\n".join(lines)
