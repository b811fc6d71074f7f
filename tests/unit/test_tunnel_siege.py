# SPDX-License-Identifier: Apache-2.0
"""Nobody is in another's way: hosts with and without a certificate, and a local QEMU, that take what they
can get, and an honest stream that gets through meanwhile. tests/bench/tunnel/siege.py measures its rate."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.unit.certificates import Authority, Pair
from tests.unit.patience import PATIENCE_S
from tests.unit.test_tunnel_refusals import ACCEPTED, as_client, hello, logged
from tests.unit.tunnels import Daemon, authority, folder, new_name

__all__ = ["authority", "folder"]  # fixtures

PER_S = 1  # handshakes from one address: fewer than the busiest machine can begin
TOO_MANY = 6  # PCMIG_TUNNEL_REFUSED_LIMIT
OTHER_VERSION = 1  # PCMIG_TUNNEL_REFUSED_VERSION


@pytest.fixture
def honest(authority: Authority) -> Pair:
    return authority.issue("honest", "localhost", "127.0.0.1")


@pytest.fixture
def host(folder: pathlib.Path, authority: Authority) -> Iterator[Daemon]:
    pair = authority.issue("host-b", "localhost", "127.0.0.1")
    with Daemon(
        folder / "b",
        authority,
        pair,
        max_half_open=32,
        max_half_open_of_one=8,
        max_connections=256,
        max_of_one_peer=16,
        max_handshakes_per_s=PER_S,
    ) as daemon:
        yield daemon


def from_address(daemon: Daemon, address: str) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", daemon.port), timeout=PATIENCE_S, source_address=(address, 0)
    )


def gets_through(source: Daemon, destination: Daemon) -> None:
    """A stream that begins now, as that of a resume. Who is in the way would stay there for longer than it is
    waited for."""
    name = new_name()
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    with destination.listen(name) as listening, source.connect(name) as here:
        here.sendall(b"a page is asked for")
        there, _ = listening.accept()
        with there:
            there.settimeout(PATIENCE_S)
            assert there.recv(19) == b"a page is asked for"


def test_a_host_that_asks_for_streams_without_end(
    host: Daemon, folder: pathlib.Path, authority: Authority, honest: Pair
) -> None:
    """Each waits for a first connection that never comes. Others are served, and this host still dials."""
    context = as_client(authority, authority.issue("greedy", "greedy"))
    with contextlib.ExitStack() as held, Daemon(folder / "a", authority, honest) as other:
        asked = []
        for _ in range(40):
            asked.append(held.enter_context(context.wrap_socket(from_address(host, "127.0.0.9"))))
            asked[-1].sendall(hello(new_name().encode(), index=1, count=2))
        logged(host, "refused", "CN=greedy", "too many connections with its certificate")
        assert asked[-1].recv(16)[5] == TOO_MANY
        shown = host.ask("peers")
        assert re.search(r"subject=CN=greedy .*?accepted=16 ", shown), shown
        gets_through(other, host)
        gets_through(host, other)


def test_idle_connections_from_everywhere(
    host: Daemon, folder: pathlib.Path, authority: Authority, honest: Pair
) -> None:
    """They need no certificate, and take all places of those who have not shown who they are."""
    with contextlib.ExitStack() as held, Daemon(folder / "a", authority, honest) as other:
        for address in range(20, 28):
            for _ in range(10):
                held.enter_context(from_address(host, f"127.0.0.{address}"))
        for _ in range(3):
            gets_through(other, host)
        logged(host, "refused a connection from 127.0.0.2", "makes room for another")


def test_a_local_qemu_that_connects_without_end(
    folder: pathlib.Path, authority: Authority, honest: Pair, host: Daemon
) -> None:
    """To its own socket; other guests' sockets are served, and its first streams go on."""
    with Daemon(folder / "a", authority, honest) as source, contextlib.ExitStack() as held:
        greedy = new_name()
        assert source.ask(f"open {greedy} localhost {host.port}").startswith("ok ")
        for _ in range(100):
            s = held.enter_context(socket.socket(socket.AF_UNIX))
            while True:
                try:
                    s.connect(source.path(greedy))
                    break
                except BlockingIOError:
                    time.sleep(0.01)
        logged(source, f"stream of {greedy}", "cannot begin", "too many streams already")
        assert int(source.show(greedy)["streams"]) == 64
        gets_through(source, host)


@pytest.mark.parametrize(("has_certificate", "burst", "per_s"), [(True, 128, PER_S), (False, 32, 1)])
def test_handshakes_without_end(
    host: Daemon,
    folder: pathlib.Path,
    authority: Authority,
    honest: Pair,
    has_certificate: bool,
    burst: int,
    per_s: int,
) -> None:
    """Most are turned away before they cost anything."""
    context = as_client(authority, authority.issue("busy", "busy") if has_certificate else None)
    with Daemon(folder / "a", authority, honest) as other:
        done = tried = 0
        begin_s = time.monotonic()
        while tried == done or time.monotonic() - begin_s < 1.5:
            tried += 1
            with contextlib.suppress(OSError), context.wrap_socket(from_address(host, "127.0.0.9")):
                done += 1
        assert 0 < done <= burst + 32 + per_s * (time.monotonic() - begin_s + 1)
        logged(host, "refused a connection from 127.0.0.9", "too many from there in the last seconds")
        gets_through(other, host)


def test_handshakes_from_all_addresses_of_one_host(
    host: Daemon, folder: pathlib.Path, authority: Authority, honest: Pair
) -> None:
    """Each address may come oftener once somebody was verified from it; all of one host's may not do so all
    together."""
    context = as_client(authority, authority.issue("busy", "busy"))
    with Daemon(folder / "a", authority, honest) as other:
        done = tried = 0
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < 4 and done < 1600:
            tried += 1
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(from_address(host, f"127.0.7.{1 + tried % 200}")),
            ):
                done += 1
        passed_s = time.monotonic() - begin_s
        assert done <= 128 + 2 * PER_S * (passed_s + 1) + 2 * (256 + 2 * PER_S * (passed_s + 1))
        gets_through(other, host)


def daemons_cpu_s() -> float:
    """CPU time of all threads that are named as the tunnel's are (proc(5), stat)."""
    ticks = 0
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # it has just ended
            continue
        if name.startswith("pcmig-tunnel"):
            ticks += sum(int(word) for word in rest.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_who_is_refused_and_stays(host: Daemon, authority: Authority, honest: Pair) -> None:
    """It is given time to read why, and costs nothing meanwhile."""
    context = as_client(authority, honest)
    with contextlib.ExitStack() as held:
        for number in range(8):
            address = f"127.0.0.{20 + number}"
            held.enter_context(stays := context.wrap_socket(from_address(host, address)))
            stays.sendall(hello(new_name().encode(), version=9))
            assert stays.recv(16)[5] == OTHER_VERSION
        before_s = daemons_cpu_s()
        time.sleep(1)
        assert daemons_cpu_s() - before_s < 0.15


def test_who_a_stream_is_from(host: Daemon, folder: pathlib.Path, authority: Authority, honest: Pair) -> None:
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(honest.certificate.read_text())).hexdigest()
    with Daemon(folder / "a", authority, honest) as source:
        name = new_name()
        assert source.ask(f"open {name} localhost {host.port}").startswith("ok ")
        with host.listen(name) as listening, source.connect(name) as here:
            there, _ = listening.accept()
            here.sendall(b"x")
            assert there.recv(1) == b"x"
            said = logged(host, f"stream of {name} has come from 127.0.0.1:")
            serial = honest.serial.to_bytes((honest.serial.bit_length() + 7) // 8).hex().upper()
            assert f"serial {serial}, SHA-256 {digest}, CN=honest" in said
            assert "CN=host-b" in logged(source, f"stream of {name} goes to 127.0.0.1:{host.port}")
            shown = host.show(name)
            assert shown["peer_subject"] == "CN=honest" and shown["peer_fingerprint"] == digest
            assert shown["peer_serial"] == serial
            assert shown["peer_address"].startswith("127.0.0.1:")
            assert source.show(name)["peer_subject"] == "CN=host-b"
            assert f"fingerprint={digest}" in host.ask("peers") and "accepted=1 " in host.ask("peers")
            assert "subject=CN=host-b" in source.ask("peers") and "dialled=1 " in source.ask("peers")
            there.close()


def test_verified_addresses_are_preferred(host: Daemon, authority: Authority, honest: Pair) -> None:
    """A host that was verified before may come oftener than a stranger's burst."""
    context = as_client(authority, honest)
    for _ in range(60):
        with context.wrap_socket(from_address(host, "127.0.0.1")) as connection:
            connection.sendall(hello(b"", kind=0))
            assert connection.recv(16)[5] == ACCEPTED
