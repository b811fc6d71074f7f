# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel.siege: how much of its rate an honest stream keeps, and how soon a resume gets
through, while other hosts take what they can get of the same daemon. See tests/bench/README.rst.

Who attacks is on the same machine as who is attacked, so three looks at the stream make a round: undisturbed,
under the siege, and while the same attack, at the same pace, goes to another program (the control). What is
lost in the third is the machine's; what is lost beyond that is the daemon's. The CPU that the attack takes
the daemons, of all that the machine has, tells the same where other programs run beside it (--busy).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import Synchronized
from typing import TypeAlias

from tests.unit.certificates import Authority
from tests.unit.test_tunnel_siege import daemons_cpu_s
from tests.unit.tunnels import DaemonAsInstalled as Daemon
from tests.unit.tunnels import new_name

Count: TypeAlias = "Synchronized[int]"

KEPT, SOON_S = 0.9, 5.0  # what has to hold
PATIENCE_S = 30.0
ROUNDS_MAX = 30  # until an attack was tried as often as it has to be


@dataclasses.dataclass(frozen=True)
class Place:
    """What an attacker knows."""

    port: int
    ca: str
    certificate: str
    key: str

    def context(self, *, with_certificate: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.ca)
        context.set_alpn_protocols(["pcmig/1"])
        if with_certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def connect(self, number: int) -> socket.socket:
        """From one of 64 addresses."""
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=5, source_address=(f"127.0.1.{1 + number % 64}", 0)
        )


def hellos(place: Place) -> Iterator[object]:
    """Asks for further connections of streams whose first one never comes, and holds what it gets."""
    context = place.context(with_certificate=True)
    while True:
        with contextlib.suppress(OSError):
            connection = context.wrap_socket(place.connect(0))
            connection.sendall(
                b"PCMT" + bytes([1, 1, 1, 2]) + new_name().encode() + os.urandom(16) + bytes(8)
            )
            yield connection
            continue
        yield None


def idle(place: Place) -> Iterator[object]:
    """Connections from many addresses that never say anything."""
    number = 0
    while True:
        number += 1
        with contextlib.suppress(OSError):
            yield place.connect(number)
            continue
        yield None


def handshakes(place: Place, *, with_certificate: bool) -> Iterator[object]:
    """As many as one host can begin."""
    context = place.context(with_certificate=with_certificate)
    while True:
        with contextlib.suppress(OSError), context.wrap_socket(place.connect(0)):
            pass
        yield None


@dataclasses.dataclass(frozen=True)
class Attack:
    name: str
    make: Callable[[Place], Iterator[object]]
    held: int  # connections that an attacker holds, the oldest go first
    least: int  # tries, in all rounds together
    taken_per_s: int  # connections that a daemon lets into the handshake: see doc/operate/tunnel.rst


def verified(place: Place) -> Iterator[object]:
    return handshakes(place, with_certificate=True)


def strangers(place: Place) -> Iterator[object]:
    return handshakes(place, with_certificate=False)


ATTACKS = (
    Attack("hellos for streams that never come", hellos, 10_000, 10_000, 50),
    Attack("1,000 idle connections, renewed as they are closed", idle, 1_000, 1_000, 100),
    Attack("handshakes with a certificate", verified, 1, 1_000, 50),
    Attack("handshakes without one", strangers, 1, 1_000, 10),
)


def on_another_host() -> None:
    """As far as that goes on one machine: takes none of the processors of those who are measured. With the
    least priority alone it does, for a while each time they are woken."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def attack(name: str, place: Place, tried: Count, per_s: float | None, busy: bool) -> None:
    """In a process of its own, until it is ended. PER_S: no faster than that."""
    if not busy:
        on_another_host()
    chosen = next(row for row in ATTACKS if row.name == name)
    held: list[object] = []
    begin_s = time.monotonic()
    for connection in chosen.make(place):
        tried.value += 1
        if connection is not None:
            held.append(connection)
            del held[: -chosen.held]
        if per_s is not None:
            time.sleep(max(0.0, begin_s + tried.value / per_s - time.monotonic()))


def sink(pair: tuple[str, str, str], port: Count, per_s: int, busy: bool) -> None:
    """In a process of its own: takes as many connections as a daemon does, shakes hands, and turns away the
    rest."""
    if not busy:
        on_another_host()
    ca, certificate, key = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["pcmig/1"])
    asyncio.run(_serve(context, port, per_s))


async def _serve(context: ssl.SSLContext, port: Count, per_s: int) -> None:
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    port.value = listening.getsockname()[1]
    tasks: set[asyncio.Task[None]] = set()
    begin_s, taken = time.monotonic(), 0
    while True:
        connection, _ = await loop.sock_accept(listening)
        if taken >= per_s * (1 + time.monotonic() - begin_s):
            connection.close()
            continue
        taken += 1
        tasks.add(task := asyncio.create_task(_hold(context, connection)))
        task.add_done_callback(tasks.discard)


async def _hold(context: ssl.SSLContext, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        await loop.connect_accepted_socket(
            asyncio.Protocol, connection, ssl=context, ssl_handshake_timeout=10.0
        )


@contextlib.contextmanager
def process(does: Callable[..., None], *args: object) -> Iterator[None]:
    """DOES runs meanwhile."""
    made = multiprocessing.get_context("spawn").Process(target=does, args=args, daemon=True)
    made.start()
    try:
        yield
    finally:
        made.kill()
        made.join()


def number() -> Count:
    return multiprocessing.get_context("spawn").Value("i", 0)


def until_set(value: Count) -> int:
    end_s = time.monotonic() + PATIENCE_S
    while value.value == 0:
        if time.monotonic() > end_s:
            raise SystemExit("an attacker, or the program of the control, did not start")
        time.sleep(0.01)
    return value.value


class Flow:
    """An honest stream that never ends, and how many bytes of it have arrived."""

    def __init__(self, here: socket.socket, there: socket.socket) -> None:
        self.bytes = 0
        self._ends = here, there
        self._block = bytes(1 << 20)
        for run in (self._send, self._receive):
            threading.Thread(target=run, daemon=True).start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._ends[0].sendall(self._block)

    def _receive(self) -> None:
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            while count := self._ends[1].recv_into(buffer):
                self.bytes += count

    def look(self, seconds: float) -> Look:
        """From now on."""
        before, begin_s = self.bytes, time.monotonic()
        begin_cpu_s = daemons_cpu_s()
        time.sleep(seconds)
        arrived = max(1, self.bytes - before)
        return Look(arrived / (time.monotonic() - begin_s), (daemons_cpu_s() - begin_cpu_s) / arrived * 1e9)


@dataclasses.dataclass(frozen=True)
class Look:
    """Bytes a second, and what both daemons' threads needed for a GB of them, in seconds of CPU."""

    rate: float
    cost_s: float


def begin_stream(source: Daemon, destination: Daemon) -> tuple[socket.socket, socket.socket]:
    name = new_name()
    answer = source.ask(f"open {name} localhost {destination.port}")
    if not answer.startswith("ok "):
        raise SystemExit(f"an honest host was refused: {answer}")
    with destination.listen(name) as listening:
        here = source.connect(name)
        here.sendall(b"resume")
        there, _ = listening.accept()
    there.settimeout(PATIENCE_S)
    there.recv(6, socket.MSG_WAITALL)
    return here, there


@dataclasses.dataclass(frozen=True)
class Round:
    """Three looks, and what was between them."""

    quiet: Look
    siege: Look
    control: Look
    resume_s: float
    tried: tuple[int, int]  # in the siege and in the control

    @property
    def kept(self) -> float:
        """Of what the control left: the daemon's part."""
        return self.siege.rate / self.control.rate

    @property
    def more_cores(self) -> float:
        """What the attack takes the daemons."""
        return (self.siege.cost_s - self.quiet.cost_s) * self.siege.rate / 1e9

    @property
    def left(self) -> float:
        """Of the machine, by that: what a stream keeps that needs all of it, without who attacks on it."""
        return 1 - self.more_cores / (os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two daemons, a stream between them, and what there is for attackers and the control."""

    source: Daemon
    destination: Daemon
    flow: Flow
    place: Place
    pair: tuple[str, str, str]
    busy: bool

    def one_round(self, row: Attack, seconds: float) -> Round:
        quiet = self.flow.look(seconds)
        tried = number()
        with process(attack, row.name, self.place, tried, None, self.busy):
            siege, per_s = self._under(tried, seconds)
            begin_s = time.monotonic()
            for end in begin_stream(self.source, self.destination):
                end.close()
            resume_s = time.monotonic() - begin_s
        port, tried_there = number(), number()
        with process(sink, self.pair, port, row.taken_per_s, self.busy):
            elsewhere = dataclasses.replace(self.place, port=until_set(port))
            with process(attack, row.name, elsewhere, tried_there, per_s, self.busy):
                control, _ = self._under(tried_there, seconds)
        return Round(quiet, siege, control, resume_s, (tried.value, tried_there.value))

    def _under(self, tried: Count, seconds: float) -> tuple[Look, float]:
        """What is seen of the stream, and tries a second, once the attack is under way."""
        until_set(tried)
        time.sleep(1)
        before, begin_s = tried.value, time.monotonic()
        look = self.flow.look(seconds)
        return look, max(1.0, tried.value - before) / (time.monotonic() - begin_s)


def measure(scene: Scene, row: Attack, seconds: float, least: int) -> bool:
    rounds: list[Round] = []
    tries = 0
    while len(rounds) < least or (tries < row.least and len(rounds) < ROUNDS_MAX):
        rounds.append(scene.one_round(row, seconds))
        tries += rounds[-1].tried[0]
    resume_s = max(each.resume_s for each in rounds)
    kept, left = [each.kept for each in rounds], [each.left for each in rounds]
    good = (
        statistics.median(left if scene.busy else kept) >= KEPT and resume_s <= SOON_S and tries >= row.least
    )
    print(
        f"{row.name}: {tries} tried in {len(rounds)} rounds, {sum(each.tried[1] for each in rounds)} in the "
        f"control: {'reached' if good else 'MISSED'}"
    )
    for what, values in (
        ("of its rate the stream kept", [each.siege.rate / each.quiet.rate for each in rounds]),
        ("in the control", [each.control.rate / each.quiet.rate for each in rounds]),
        ("of what it had in the control", kept),
        ("of the machine, which the daemons leave", left),
        ("cores that the daemons need more", [each.more_cores for each in rounds]),
        ("seconds until a new stream gets through", [each.resume_s for each in rounds]),
    ):
        print(
            f"  {what:<40} {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})", flush=True
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tunnel.siege", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="of quiet, siege and control in turn"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="attacks that have this in their names")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="other programs run beside it: attackers take their share, and what counts is the daemons' CPU",
    )
    args = parser.parse_args()
    rows = [row for row in ATTACKS if args.only in row.name]
    if not args.seconds > 0:
        parser.error(f"--seconds {args.seconds:g}: use more than 0")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: use 1 or more")
    if not rows:
        parser.error(f"--only {args.only}: there are {', '.join(row.name for row in ATTACKS)}")
    with tempfile.TemporaryDirectory(prefix="pcmig-") as name:
        folder = pathlib.Path(name)
        authority = Authority(folder)
        honest, host, greedy = (authority.issue(who, "localhost") for who in ("a", "b", "greedy"))
        with Daemon(folder / "a", authority, honest) as a, Daemon(folder / "b", authority, host) as b:
            place = Place(b.port, *map(str, (authority.certificate, greedy.certificate, greedy.key)))
            pair = (str(authority.certificate), str(host.certificate), str(host.key))
            scene = Scene(a, b, Flow(*begin_stream(a, b)), place, pair, args.busy)
            scene.flow.look(1)
            results = [measure(scene, row, args.seconds, args.rounds) for row in rows]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
