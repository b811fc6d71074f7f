# SPDX-License-Identifier: Apache-2.0
"""What can carry a migration stream from one unix socket to another: a pair of processes for each way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from pcmig.tunnel.client import Client, new_name
from pcmig.tunnel.peer import Peer
from tests.bed import BedError

START_PATIENCE_S = 10.0
HOSTS = ("a", "b")  # source, destination
SOCAT_BUFFER = 65536  # the best of 8 (its default), 16, 64 and 256 KiB

PCMIG = "pcmig"
PLAIN = "pcmig-plain"
STUNNEL = "stunnel"
PARALLEL, ONE_CORE, APART = "pcmig+2", "pcmig@1", "pcmig@1+1"
DEFAULT_WAYS = f"direct,{PLAIN},{PCMIG},{PARALLEL},{ONE_CORE},{APART},{STUNNEL},socat,socat-plain"
GRAMMAR = (
    "direct, pcmig, pcmig*CONNECTIONS, pcmig+2, pcmig@1, pcmig@1+1, pcmig-plain, stunnel, socat, "
    "socat-plain, between commas"
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a round runs: a folder of its own, and the certificates (FOLDER/a/host.pem, ...)."""

    folder: pathlib.Path
    certificates: pathlib.Path


@dataclasses.dataclass
class Carrier:
    """The sockets' paths, and the processes in between."""

    source: pathlib.Path
    destination: pathlib.Path
    processes: list[subprocess.Popen[bytes]]
    more: list[tuple[pathlib.Path, pathlib.Path]] = dataclasses.field(
        default_factory=list
    )  # of other streams
    cpus: list[int] = dataclasses.field(default_factory=list)  # of each stream, where it has one to itself

    def pairs(self) -> list[tuple[pathlib.Path, pathlib.Path]]:
        return [(self.source, self.destination), *self.more]

    def cpus_of(self, number: int) -> frozenset[int]:
        """On which the ends of that stream run."""
        return frozenset(self.cpus[number : number + 1] or os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Way:
    name: str
    meaning: str
    start: Callable[[Place], Carrier]
    cpus: frozenset[int] | None = None  # on which all of it runs, both ends of the streams too


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spawn(argv: list[str], log: pathlib.Path) -> subprocess.Popen[bytes]:
    try:
        with log.open("wb") as output:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    except FileNotFoundError as error:
        raise BedError(f"{argv[0]} is not installed: apt-get install stunnel4 socat") from error


def _wait(what: str, ready: Callable[[], bool], processes: list[subprocess.Popen[bytes]]) -> None:
    deadline_s = time.monotonic() + START_PATIENCE_S
    while not ready():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > deadline_s:
            for process in processes:
                process.kill()
                process.wait()
            raise BedError(f"{what} did not start ({'ended' if ended else 'not ready'}); see its log")
        time.sleep(0.02)


def _direct(place: Place) -> Carrier:
    path = place.folder / "stream"
    return Carrier(path, path, [])


def _pcmig(place: Place, streams: int, encrypted: bool, parallel: int = 1) -> Carrier:
    ports = {host: _free_port() for host in HOSTS}
    carrier = Carrier(place.folder / "a", place.folder / "b", [])
    for host in HOSTS:
        argv = [sys.executable, "-m", "pcmig.cli.main", "tunnel", "--user", "root", "--group", "root"]
        argv += ["--listen", f"127.0.0.1:{ports[host]}", "--run-dir", str(place.folder / host)]
        argv += ["--control", str(place.folder / f"{host}.control")]
        if encrypted:
            argv += ["--certificates", str(place.certificates / host)]
        else:
            argv += ["--plaintext", "--memory-in-clear"]
        carrier.processes.append(_spawn(argv, place.folder / f"{host}.log"))
    controls = [place.folder / f"{host}.control" for host in HOSTS]
    _wait("pcmig tunnel", lambda: all(path.is_socket() for path in controls), carrier.processes)
    ends = []
    for _ in range(parallel):
        name = new_name()
        source = Client(str(controls[0])).open(name, Peer("127.0.0.1", ports["b"]), streams=streams)
        ends.append((pathlib.Path(source), place.folder / "b" / name))
    (carrier.source, carrier.destination), *carrier.more = ends
    return carrier


def _apart(place: Place) -> Carrier:
    """Two streams that share nothing but the machine: daemons of their own, and a core."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        raise BedError(f"{APART} needs two cores")
    found: list[Carrier] = []
    try:
        for cpu in sorted(before)[:2]:
            os.sched_setaffinity(0, [cpu])  # children have it from here
            folder = place.folder / str(cpu)
            folder.mkdir()
            found.append(_pcmig(Place(folder, place.certificates), streams=1, encrypted=True))
            found[0].cpus.append(cpu)
    except BaseException:
        for process in (process for carrier in found for process in carrier.processes):
            process.kill()
            process.wait()
        raise
    finally:
        os.sched_setaffinity(0, before)
    first, second = found
    first.processes += second.processes
    first.more += second.pairs()
    return first


def _stunnel(place: Place) -> Carrier:
    port = _free_port()
    source, destination = place.folder / "a.socket", place.folder / "b.socket"
    ends = {
        "a": f"client = yes\naccept = {source}\nconnect = 127.0.0.1:{port}\ncheckIP = 127.0.0.1\n",
        "b": f"accept = 127.0.0.1:{port}\nconnect = {destination}\n",
    }
    carrier = Carrier(source, destination, [])
    for host in reversed(HOSTS):
        pki = place.certificates / host
        configuration = place.folder / f"{host}.conf"
        configuration.write_text(
            f"foreground = yes\npid =\n[relay]\n{ends[host]}cert = {pki / 'host.pem'}\n"
            f"key = {pki / 'host-key.pem'}\nCAfile = {pki / 'ca.pem'}\nverifyChain = yes\n"
            "sslVersionMin = TLSv1.3\n"
        )
        carrier.processes.append(_spawn(["stunnel4", str(configuration)], place.folder / f"{host}.log"))
    _wait(STUNNEL, lambda: source.is_socket() and _bound(port), carrier.processes)
    return carrier


def _bound(port: int) -> bool:
    """Whether somebody listens there, without a connection that would be taken for the stream."""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(re.match(rf"\s*\d+: [0-9A-F]{{8}}:{port:04X} \S+ 0A ", line) for line in lines)


def _socat(place: Place, encrypted: bool) -> Carrier:
    port = _free_port()
    source, destination = place.folder / "a.socket", place.folder / "b.socket"
    addresses = {"a": f"TCP:127.0.0.1:{port},nodelay", "b": f"TCP-LISTEN:{port},bind=127.0.0.1,nodelay"}
    if encrypted:
        for host, kind in (
            ("a", f"OPENSSL:127.0.0.1:{port}"),
            ("b", f"OPENSSL-LISTEN:{port},bind=127.0.0.1"),
        ):
            pki = place.certificates / host
            addresses[host] = (
                f"{kind},nodelay,verify=1,cafile={pki / 'ca.pem'},cert={pki / 'host.pem'},"
                f"key={pki / 'host-key.pem'},openssl-min-proto-version=TLS1.3"
            )
    ends = {
        "a": [f"UNIX-LISTEN:{source}", addresses["a"]],
        "b": [addresses["b"], f"UNIX-CONNECT:{destination}"],
    }
    carrier = Carrier(source, destination, [])
    for host in reversed(HOSTS):
        argv = ["socat", "-b", str(SOCAT_BUFFER), *ends[host]]
        carrier.processes.append(_spawn(argv, place.folder / f"{host}.log"))
    _wait("socat", lambda: source.is_socket() and _bound(port), carrier.processes)
    return carrier


_FIXED = {
    way.name: way
    for way in (
        Way("direct", "one unix socket, nothing in between", _direct),
        Way(PCMIG, "pcmig tunnel", functools.partial(_pcmig, streams=1, encrypted=True)),
        Way(PLAIN, "pcmig tunnel with encryption off", functools.partial(_pcmig, streams=1, encrypted=False)),
        Way(
            PARALLEL,
            "pcmig tunnel, two streams at once",
            functools.partial(_pcmig, streams=1, encrypted=True, parallel=2),
        ),
        Way(
            ONE_CORE,
            "pcmig tunnel, all of it on one core",
            functools.partial(_pcmig, streams=1, encrypted=True),
            frozenset([min(os.sched_getaffinity(0))]),
        ),
        Way(APART, "two streams with daemons of their own, each pair on one core", _apart),
        Way(STUNNEL, "stunnel, mutual TLS 1.3", _stunnel),
        Way("socat", "socat with OpenSSL, mutual TLS 1.3", functools.partial(_socat, encrypted=True)),
        Way("socat-plain", "socat without encryption", functools.partial(_socat, encrypted=False)),
    )
}


def parse_ways(text: str) -> list[Way]:
    """Raises BedError."""
    found = []
    for name in text.split(","):
        if match := re.fullmatch(rf"{PCMIG}\*([2-9]|1[0-6])", name):
            streams = int(match[1])
            meaning = f"pcmig tunnel, {streams} TCP connections for the stream"
            found.append(Way(name, meaning, functools.partial(_pcmig, streams=streams, encrypted=True)))
        elif name in _FIXED:
            found.append(_FIXED[name])
        else:
            raise BedError(f"--ways: {name!r} is none of {GRAMMAR}")
    if len({way.name for way in found}) < len(found):
        raise BedError(f"--ways {text}: a way is named twice")
    return found


@contextlib.contextmanager
def running(way: Way, place: Place) -> Iterator[Carrier]:
    """Starts what WAY needs and ends it again."""
    before = os.sched_getaffinity(0)
    carrier = None
    try:
        if way.cpus is not None:  # children have it from here
            os.sched_setaffinity(0, way.cpus)
        carrier = way.start(place)
        yield carrier
    finally:
        os.sched_setaffinity(0, before)
        processes = carrier.processes if carrier is not None else []
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(START_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
