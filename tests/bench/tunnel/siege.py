# SPDX-License-Identifier: Apache-2.0
"""python -m tests.bench.tunnel.siege: how much of its rate an honest stream keeps, and how soon a resume gets
through, while other hosts take what they can get of the same daemon. See tests/bench/README.rst."""

from __future__ import annotations

import argparse
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

from tests.unit.certificates import Authority
from tests.unit.test_tunnel_siege import daemons_cpu_s
from tests.unit.tunnels import DaemonAsInstalled as Daemon
from tests.unit.tunnels import new_name

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


def verified(place: Place) -> Iterator[object]:
    return handshakes(place, with_certificate=True)


def strangers(place: Place) -> Iterator[object]:
    return handshakes(place, with_certificate=False)


ATTACKS = (
    Attack("hellos for streams that never come", hellos, 10_000, 10_000),
    Attack("1,000 idle connections, renewed as they are closed", idle, 1_000, 1_000),
    Attack("handshakes with a certificate", verified, 1, 1_000),
    Attack("handshakes without one", strangers, 1, 1_000),
)


def attack(name: str, place: Place, tried: multiprocessing.sharedctypes.Synchronized[int]) -> None:
    """In a process of its own, until it is ended. It is another host, and so takes none of the processors of
    those who are measured: with the least priority alone it does, for a while each time they are woken."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    chosen = next(row for row in ATTACKS if row.name == name)
    held: list[object] = []
    for connection in chosen.make(place):
        tried.value += 1
        if connection is not None:
            held.append(connection)
            del held[: -chosen.held]


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
        before, begin_s, begin_cpu_s = self.bytes, time.monotonic(), daemons_cpu_s()
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


def measure(
    row: Attack, place: Place, daemons: tuple[Daemon, Daemon], flow: Flow, seconds: float, rounds: int
) -> bool:
    source, destination = daemons
    kept: list[float] = []
    costs: list[float] = []
    resumes_s: list[float] = []
    tries = 0
    while len(kept) < rounds or (tries < row.least and len(kept) < ROUNDS_MAX):
        quiet = flow.look(seconds)
        tried = multiprocessing.get_context("spawn").Value("i", 0)
        attacker = multiprocessing.get_context("spawn").Process(
            target=attack, args=(row.name, place, tried), daemon=True
        )
        attacker.start()
        while tried.value == 0:
            time.sleep(0.01)
        time.sleep(1)
        under = flow.look(seconds)
        begin_s = time.monotonic()
        for end in begin_stream(source, destination):
            end.close()
        resumes_s.append(time.monotonic() - begin_s)
        tries += tried.value
        attacker.kill()
        attacker.join()
        kept.append(under.rate / quiet.rate)
        costs.append((under.cost_s - quiet.cost_s) * under.rate / 1e9)
    middle = statistics.median(kept)
    good = middle >= KEPT and max(resumes_s) <= SOON_S and tries >= row.least
    print(
        f"{row.name}: {tries} tried in {len(kept)} rounds; the stream kept {middle:.2f} of its rate "
        f"({min(kept):.2f}-{max(kept):.2f}), daemons needed {statistics.median(costs):.2f} of a core more, "
        f"a new stream got through after {max(resumes_s):.2f} s: {'reached' if good else 'MISSED'}",
        flush=True,
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tunnel.siege", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of quiet and attack in turn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pcmig-") as name:
        folder = pathlib.Path(name)
        authority = Authority(folder)
        honest, host, greedy = (authority.issue(who, "localhost") for who in ("a", "b", "greedy"))
        with Daemon(folder / "a", authority, honest) as a, Daemon(folder / "b", authority, host) as b:
            place = Place(b.port, *map(str, (authority.certificate, greedy.certificate, greedy.key)))
            flow = Flow(*begin_stream(a, b))
            flow.look(1)
            results = [measure(row, place, (a, b), flow, args.seconds, args.rounds) for row in ATTACKS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
