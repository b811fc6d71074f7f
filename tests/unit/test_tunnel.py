# SPDX-License-Identifier: Apache-2.0
"""Two tunnel daemons in one process: bytes go through in both directions, whole and in order."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import random
import socket
import stat
import threading
import time
from collections.abc import Iterator

import pytest

from pcmig import _tunnel
from tests.unit.certificates import Authority
from tests.unit.patience import NEVER_MS, PATIENCE_S, wait_for
from tests.unit.tunnels import Cut, Daemon, authority, folder, new_name

__all__ = ["authority", "folder"]  # fixtures


@pytest.fixture
def hosts(folder: pathlib.Path, authority: Authority) -> Iterator[tuple[Daemon, Daemon]]:
    a = authority.issue("host-a", "localhost", "127.0.0.1")
    b = authority.issue("host-b", "localhost", "127.0.0.1")
    with Daemon(folder / "a", authority, a) as source, Daemon(folder / "b", authority, b) as destination:
        yield source, destination


def stream(source: Daemon, destination: Daemon, more: str = "") -> tuple[str, socket.socket, socket.socket]:
    """A fresh name, and both ends of one connection through it."""
    name = new_name()
    assert source.ask(f"open {name} localhost {destination.port}{more}") == f"ok {source.path(name)}"
    with destination.listen(name) as listening:
        here = source.connect(name)
        there, _ = listening.accept()
    there.settimeout(PATIENCE_S)
    return name, here, there


def pump(data: bytes, to: socket.socket, chunk: int = 1 << 20) -> None:
    for at in range(0, len(data), chunk):
        to.sendall(data[at : at + chunk])
    to.shutdown(socket.SHUT_WR)


def drain(s: socket.socket, out: list[str]) -> None:
    digest = hashlib.sha256()
    while piece := s.recv(1 << 18):
        digest.update(piece)
    out.append(digest.hexdigest())


def kernels(name: str) -> str:
    return (pathlib.Path("/proc/sys/net/ipv4") / name).read_text().strip()


@pytest.mark.parametrize(
    ("given", "used"),
    [(None, "cubic"), ("reno", "reno"), ("host", kernels("tcp_congestion_control"))],
)
def test_congestion_control(folder: pathlib.Path, authority: Authority, given: str | None, used: str) -> None:
    """At both ends: of a connection that was dialled, and of one that was accepted."""
    assert used in kernels("tcp_available_congestion_control").split()
    pair = authority.issue("host", "localhost", "127.0.0.1")
    with (
        Daemon(folder / "a", authority, pair, congestion=given) as source,
        Daemon(folder / "b", authority, pair, congestion=given) as destination,
    ):
        name, here, there = stream(source, destination)
        here.sendall(b"x")
        assert there.recv(1) == b"x"
        assert [daemon.show(name)["congestion"] for daemon in (source, destination)] == [used, used]
        here.close()
        there.close()


@pytest.mark.parametrize("more", ["", " streams=3"])
def test_both_directions_at_once(hosts: tuple[Daemon, Daemon], more: str) -> None:
    source, destination = hosts
    name, here, there = stream(source, destination, more)
    forth, back = random.randbytes(40 << 20), random.randbytes(8 << 20)
    at_there: list[str] = []
    at_here: list[str] = []
    threads = [
        threading.Thread(target=pump, args=(forth, here)),
        threading.Thread(target=pump, args=(back, there, 4096)),
        threading.Thread(target=drain, args=(there, at_there)),
        threading.Thread(target=drain, args=(here, at_here)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert at_there == [hashlib.sha256(forth).hexdigest()]
    assert at_here == [hashlib.sha256(back).hexdigest()]
    # Bytes are counted right after they were given away.
    wait_for(lambda: all(daemon.show(name)["connections"] == "0" for daemon in hosts))
    shown = source.show(name)
    assert shown["bytes_out"] == str(len(forth)) and shown["bytes_in"] == str(len(back))
    assert shown["role"] == "source" and shown["peer"] == "localhost" and shown["error"] == ""
    assert int(shown["records_out"]) >= len(forth) // 16384
    assert int(shown["crypto_out_us"]) > 0
    assert destination.show(name)["bytes_in"] == str(len(forth))
    assert destination.show(name)["role"] == "destination"
    here.close()
    there.close()


def test_half_close_leaves_the_other_direction_open(hosts: tuple[Daemon, Daemon]) -> None:
    _, here, there = stream(*hosts)
    here.sendall(b"all there is")
    here.shutdown(socket.SHUT_WR)
    assert there.recv(100) == b"all there is"
    assert there.recv(100) == b""
    there.sendall(b"and back")
    assert here.recv(100) == b"and back"
    there.close()
    assert here.recv(100) == b""


def test_what_was_sent_before_a_close_arrives(hosts: tuple[Daemon, Daemon]) -> None:
    """QEMU closes its socket as soon as the last page is written."""
    _, here, there = stream(*hosts)
    there.sendall(b"x" * 100_000)  # never read at the other end
    out: list[str] = []
    reader = threading.Thread(target=drain, args=(there, out))
    reader.start()
    here.sendall(b"y" * 3_000_000)
    here.close()
    reader.join()
    assert out == [hashlib.sha256(b"y" * 3_000_000).hexdigest()]


def test_several_streams_under_one_name(hosts: tuple[Daemon, Daemon]) -> None:
    source, destination = hosts
    name = new_name()
    assert source.ask(f"open {name} 127.0.0.1 {destination.port}").startswith("ok ")
    with destination.listen(name) as listening:
        for i in range(5):
            here = source.connect(name)
            there, _ = listening.accept()
            here.sendall(bytes([i]))
            assert there.recv(10) == bytes([i])
            here.close()
            assert there.recv(10) == b""
            there.close()
    assert source.show(name)["streams_ever"] == "5"


def whole(end: socket.socket, size: int) -> bytes:
    """So many bytes, or what there was before the end: with a timeout MSG_WAITALL waits for nothing."""
    out = b""
    while len(out) < size and (more := end.recv(size - len(out))):
        out += more
    return out


def test_several_streams_at_once(hosts: tuple[Daemon, Daemon]) -> None:
    """As QEMU makes them (multifd): the first one says nothing before the others are there, each of which
    says at once which one it is; then all of them carry memory, and the first one has its turn again."""
    source, destination = hosts
    name, size = new_name(), 4 << 20
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    with destination.listen(name) as listening:
        here = [source.connect(name) for _ in range(5)]
        for i, end in enumerate(here[1:], 1):
            end.sendall(bytes([i]) * 64)
        there = [listening.accept()[0] for _ in here]
    for i, end in enumerate(there[1:], 1):
        end.settimeout(PATIENCE_S)
        assert whole(end, 64) == bytes([i]) * 64, "in their order"
    digests: list[list[str]] = [[] for _ in here]
    data = [random.Random(i).randbytes(size) for i in range(5)]
    threads = [threading.Thread(target=drain, args=(there[i], digests[i])) for i in range(1, 5)]
    threads += [threading.Thread(target=pump, args=(data[i], here[i])) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there[0].settimeout(PATIENCE_S)
    here[0].sendall(data[0][:100_000])
    assert whole(there[0], 100_000) == data[0][:100_000]
    assert [found for (found,) in digests[1:]] == [hashlib.sha256(one).hexdigest() for one in data[1:]]
    for end in (*here, *there):
        end.close()
    assert source.show(name)["streams_ever"] == "5"


def test_the_socket_may_appear_late(hosts: tuple[Daemon, Daemon]) -> None:
    source, destination = hosts
    name = new_name()
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    with source.connect(name) as here:
        here.sendall(b"early")
        time.sleep(0.3)
        with destination.listen(name) as listening:
            there, _ = listening.accept()
            with there:
                assert there.recv(10) == b"early"


def test_a_mute_stream_that_leaves_is_not_waited_for(hosts: tuple[Daemon, Daemon]) -> None:
    """Its QEMU closes it while the peer looks for a socket: one that listens there by then, for the next
    attempt to resume, would take it for a failed one, for good."""
    source, destination = hosts
    name = new_name()
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    with source.connect(name):
        wait_for(lambda: destination.figures()["handshakes_accepted"] > 0)
        time.sleep(0.5)  # it has said hello by then, unless the machine is slow
    wait_for(lambda: any("QEMU closed its socket before the peer" in text for text in source.messages()))
    wait_for(lambda: source.show(name)["connections"] == "0")


def test_close_ends_streams_and_forgets_the_name(hosts: tuple[Daemon, Daemon]) -> None:
    source, destination = hosts
    name, here, there = stream(source, destination)
    here.sendall(b"1")
    assert there.recv(1) == b"1"
    assert source.ask("list") == f"ok {name}"
    assert source.ask(f"close {name}") == "ok"
    assert here.recv(1) == b"" and there.recv(1) == b""
    assert source.ask("list") == "ok"
    assert source.ask(f"show {name}") == f"error unknown name {name}"
    assert not pathlib.Path(source.path(name)).exists()
    assert source.ask(f"close {name}").startswith("error ")
    wait_for(lambda: destination.show(name)["connections"] == "0")


def test_probe_tells_about_the_peer(hosts: tuple[Daemon, Daemon]) -> None:
    def ask() -> dict[str, str]:
        answer = hosts[0].ask(f"probe 127.0.0.1 {hosts[1].port}")
        assert answer.startswith("ok subject=CN=host-b not_after=")
        return dict(word.split("=", 1) for word in answer.split()[1:])

    told = ask()
    assert told["own_subject"] == "CN=host-a" and int(told["not_after"]) > time.time()
    # It cannot tell a busy machine, which holds the answer up, from another clock.
    wait_for(lambda: abs(int(ask()["clock_skew_ms"])) < 1000, "one clock")


def test_opened_twice(hosts: tuple[Daemon, Daemon]) -> None:
    """The resume of an adopted migration asks again for what is there."""
    source, destination = hosts
    name = new_name()
    for _ in range(2):
        assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    assert "another peer" in source.ask(f"open {name} 127.0.0.1 {destination.port}")


def test_a_peer_that_falls_silent(folder: pathlib.Path, authority: Authority) -> None:
    """The network is cut: nobody says that the connection has ended. QEMU's sockets are closed soon."""
    pair = authority.issue("host", "localhost")
    with (
        Daemon(folder / "a", authority, pair, dead_after_ms=2500) as source,
        Daemon(folder / "b", authority, pair, dead_after_ms=2500) as destination,
        Cut(destination.port) as between,
    ):
        name = new_name()
        hosts = (source, destination)
        assert source.ask(f"open {name} localhost {between.port}").startswith("ok ")
        with destination.listen(name) as listening:

            def begin() -> tuple[socket.socket, socket.socket]:
                here = source.connect(name)
                with contextlib.suppress(OSError):
                    here.sendall(b"1")
                there, _ = listening.accept()
                there.settimeout(PATIENCE_S)
                return here, there

            # Peers that a busy machine holds up for so long are silent, too: until one stream has begun.
            here, there = begin()
            while there.recv(1) != b"1":
                here.close()
                there.close()
                here, there = begin()
            between.cut()
            assert here.recv(1) == b"" and there.recv(1) == b""
            said = "nothing was heard"  # by who has looked first
            wait_for(lambda: any(name in line and said in line for d in hosts for line in d.messages()))
            lost = source.show(name)["lost"]
            assert int(lost) >= 1
            # The next connection of QEMU is the resume: it goes through as soon as the network is back.
            for daemon in hosts:
                daemon.reload(dead_after_ms=NEVER_MS)
            here.close()
            here = source.connect(name)
            time.sleep(0.5)
            between.mend()
            there.close()
            there, _ = listening.accept()
            there.settimeout(PATIENCE_S)
            there.sendall(b"3")
            assert here.recv(1) == b"3"
            assert source.show(name)["reconnects"] == lost
            here.close()
            there.close()


def test_a_peer_that_cannot_be_reached(folder: pathlib.Path, authority: Authority) -> None:
    pair = authority.issue("host", "localhost")
    with Daemon(folder / "a", authority, pair) as source:
        with Daemon(folder / "b", authority, pair) as destination:
            name = new_name()
            assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
        source.reload(dial_ms=300)
        with source.connect(name) as here:
            assert here.recv(1) == b""
        assert "cannot%20be%20reached" in source.show(name)["error"]
        wait_for(lambda: any("cannot be reached" in line for line in source.messages()))


def test_a_name_that_is_not_used_is_dropped(folder: pathlib.Path, authority: Authority) -> None:
    pair = authority.issue("host", "localhost")
    with (
        Daemon(folder / "a", authority, pair) as source,
        Daemon(folder / "b", authority, pair) as destination,
    ):
        name, here, there = stream(source, destination)
        source.reload(idle_name_ms=500)  # from here on, so that it is in use by then
        time.sleep(2)
        assert source.ask("list") == f"ok {name}", "a name with a stream is in use"
        here.close()
        there.close()
        wait_for(lambda: source.ask("list") == "ok")
        assert not pathlib.Path(source.path(name)).exists()


def test_queue_of_a_reader_that_does_not_read(hosts: tuple[Daemon, Daemon]) -> None:
    source, destination = hosts
    name, here, there = stream(source, destination)
    here.setblocking(False)
    sent, idle = 0, 0
    while idle < 20:
        try:
            sent += here.send(bytes(65536))
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.01)
    wait_for(lambda: 0 < int(source.show(name)["queue_bytes"]) <= sent)
    shown = source.show(name)
    assert int(shown["queue_max_bytes"]) >= int(shown["queue_bytes"])
    assert sent < 64 << 20, "memory is bounded"
    here.close()
    there.close()


def test_addresses_to_listen_on(folder: pathlib.Path, authority: Authority) -> None:
    pair = authority.issue("host", "localhost", "127.0.0.1", "::1")
    with Daemon(folder / "b", authority, pair, listen=["*:0", "127.0.0.1:0", "[::1]:0"]) as daemon:
        both, four, six = daemon.tunnel.ports()
        for peer in (f"127.0.0.1 {both}", f"::1 {both}", f"[::1] {six}", f"127.0.0.1 {four}"):
            assert daemon.ask(f"probe {peer}").startswith("ok subject=CN=host "), peer
        assert daemon.ask(f"probe 127.0.0.1 {six}") == (
            f"error 127.0.0.1:{six}: Connection refused: 'pcmig tunnel' has to run there, and its TCP port "
            "to be open for this host"
        )


def test_modes_and_leftovers(folder: pathlib.Path, authority: Authority) -> None:
    """Sockets that an earlier daemon left behind are replaced; what is in use, or no socket, is not."""
    pair = authority.issue("host", "localhost")
    (folder / "a").mkdir()
    control = folder / "a" / "control"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(control))
    with Daemon(folder / "a", authority, pair) as daemon:
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "a" / "run").stat().st_mode) == 0o3733
        with pytest.raises(_tunnel.TunnelError, match="uses this socket already"):
            Daemon(folder / "a", authority, pair)
        assert daemon.ask("list") == "ok"
    assert not control.exists()
    control.write_text("precious")
    with pytest.raises(_tunnel.TunnelError, match="control"):
        Daemon(folder / "a", authority, pair)
    assert control.read_text() == "precious"
    control.unlink()
    with Daemon(folder / "a", authority, pair, control_gid=os.getgid(), owner_gid=os.getgid()) as daemon:
        assert stat.S_IMODE(control.stat().st_mode) == 0o660
        name = new_name()
        assert daemon.ask(f"open {name} localhost {daemon.port}").startswith("ok ")
        assert stat.S_IMODE(os.stat(daemon.path(name)).st_mode) == 0o660


def test_several_requests_on_one_connection(hosts: tuple[Daemon, Daemon]) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(PATIENCE_S)
        s.connect(hosts[0].control)
        s.sendall(f"list\nprobe localhost {hosts[1].port}\nnonsense\nli".encode())
        answers = s.makefile("rb")
        assert answers.readline() == b"ok\n"
        assert answers.readline().startswith(b"ok subject=CN=host-b")
        assert answers.readline().startswith(b"error ")
        s.sendall(b"st\n")
        assert answers.readline() == b"ok\n"


def test_stop_waits_for_streams(hosts: tuple[Daemon, Daemon]) -> None:
    _, here, there = stream(*hosts)
    here.sendall(b"1")
    assert there.recv(1) == b"1"  # the peer counts it as a stream from here on
    stopper = threading.Thread(target=hosts[1].tunnel.stop, kwargs={"grace_ms": NEVER_MS})
    stopper.start()
    wait_for(lambda: "about to end" in hosts[0].ask(f"probe localhost {hosts[1].port}"))
    here.sendall(b"goes on")
    assert there.recv(10) == b"goes on"
    here.close()
    there.close()
    stopper.join(PATIENCE_S)
    assert not stopper.is_alive()


def test_hundreds_of_names(hosts: tuple[Daemon, Daemon]) -> None:
    source, destination = hosts
    names = {new_name() for _ in range(200)}
    for name in names:
        assert source.ask(f"open {name} 127.0.0.1 {destination.port}").startswith("ok ")
    word, *listed = source.ask("list").split()
    assert word == "ok" and set(listed) == names and len(listed) == len(names)
