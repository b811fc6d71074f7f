# SPDX-License-Identifier: Apache-2.0
"""Whom the tunnel refuses: each with an answer that says why, and a line in the log of who refused."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from pcmig import _tunnel
from tests.unit.certificates import Authority, Pair
from tests.unit.tunnels import Daemon, authority, folder, new_name

__all__ = ["authority", "folder"]  # fixtures

T = TypeVar("T")

ACCEPTED, BAD_HELLO, BAD_PEER, NO_NAME, BAD_SOCKET = 0, 2, 3, 4, 5


@pytest.fixture
def good(authority: Authority) -> Pair:
    return authority.issue("host-a", "localhost", "127.0.0.1")


@pytest.fixture
def destination(folder: pathlib.Path, authority: Authority) -> Iterator[Daemon]:
    pair = authority.issue("host-b", "localhost", "127.0.0.1")
    with Daemon(folder / "b", authority, pair, socket_wait_ms=100, handshake_ms=1000) as daemon:
        yield daemon


def logged(daemon: Daemon, *words: str, seconds: float = 5) -> str:
    """The first line of DAEMON's log that has all WORDS."""
    end = time.monotonic() + seconds
    while True:
        for line in daemon.messages():
            if all(word in line for word in words):
                return line
        assert time.monotonic() < end, f"no line with {words} in {daemon.messages()}"
        time.sleep(0.02)


def as_client(
    authority: Authority | None, pair: Pair | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if authority else ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if authority:
        context.load_verify_locations(authority.certificate)
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@contextlib.contextmanager
def dialled(daemon: Daemon, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as plain,
        context.wrap_socket(plain) as connection,
    ):
        yield connection


def hello(name: bytes, kind: int = 1, index: int = 0, count: int = 1, version: int = 1) -> bytes:
    return (
        b"PCMT"
        + bytes([version, kind, index, count])
        + name.ljust(32, b"\0")
        + os.urandom(16)
        + struct.pack(">Q", 0)
    )


def verdict(daemon: Daemon, context: ssl.SSLContext, text: bytes) -> int:
    with dialled(daemon, context) as connection:
        connection.sendall(text)
        answer = connection.recv(16)
    assert answer[:4] == b"PCMT" and len(answer) == 16
    return answer[5]


def refused_in_handshake(daemon: Daemon, context: ssl.SSLContext) -> None:
    """In TLS 1.3 a client hears of it with its first read."""
    with pytest.raises(OSError), dialled(daemon, context) as connection:
        connection.sendall(hello(new_name().encode()))
        assert connection.recv(16) == b"", "the daemon has answered"
        raise ConnectionResetError


# --- certificates ---


def test_a_good_one_is_let_in(destination: Daemon, authority: Authority, good: Pair) -> None:
    assert verdict(destination, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED


def test_no_certificate(destination: Daemon, authority: Authority) -> None:
    refused_in_handshake(destination, as_client(authority, None))
    assert "127.0.0.1:" in logged(destination, "refused", "shows no certificate")


def test_another_authority(destination: Daemon, authority: Authority, folder: pathlib.Path) -> None:
    stranger = Authority(folder, "another-ca").issue("host-a", "localhost")
    refused_in_handshake(destination, as_client(authority, stranger))
    logged(destination, "refused", "127.0.0.1:", "not accepted", "CN=host-a")


def test_expired(destination: Daemon, authority: Authority) -> None:
    refused_in_handshake(destination, as_client(authority, authority.issue("old", "localhost", days=-0.5)))
    logged(destination, "refused", "has expired", "CN=old")


def test_revoked(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    stolen = authority.issue("stolen", "localhost")
    crl = authority.revoke(stolen)
    with Daemon(folder / "b", authority, authority.issue("host-b", "localhost"), crl=str(crl)) as daemon:
        refused_in_handshake(daemon, as_client(authority, stolen))
        logged(daemon, "refused", "revoked", "CN=stolen")
        assert verdict(daemon, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED


def test_a_list_that_was_read_again(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    """Revoked while the daemon runs: from the next connection on."""
    crl = authority.revoke()
    with Daemon(folder / "b", authority, authority.issue("host-b", "localhost"), crl=str(crl)) as daemon:
        assert verdict(daemon, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED
        authority.revoke(good)
        assert daemon.ask("reload") == "ok"
        refused_in_handshake(daemon, as_client(authority, good))
        logged(daemon, "refused", "revoked", "CN=host-a")


def test_a_host_that_is_not_on_the_list(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    with Daemon(
        folder / "b",
        authority,
        authority.issue("host-b", "localhost"),
        allow=["*.example.org", "10.0.0.*", "HOST-C"],
    ) as daemon:
        assert verdict(daemon, as_client(authority, good), hello(b"", kind=0)) == BAD_PEER
        logged(daemon, "refused", "CN=host-a", "not on the list of allowed hosts")
        for pair in (
            authority.issue("n1", "compute7.example.org", file="n1"),
            authority.issue("n2", "10.0.0.7", file="n2"),
            authority.issue("host-c", file="n3"),
        ):
            assert verdict(daemon, as_client(authority, pair), hello(b"", kind=0)) == ACCEPTED
        # A common name counts only where there is no other.
        pair = authority.issue("host-c", "elsewhere.net", file="n4")
        assert verdict(daemon, as_client(authority, pair), hello(b"", kind=0)) == BAD_PEER


def test_a_peer_with_another_name(
    folder: pathlib.Path, authority: Authority, good: Pair, destination: Daemon
) -> None:
    """The dialling side: the certificate is the CA's, but of another host than the one that was named."""
    other = authority.issue("other", "other.example.org", "10.1.2.3")
    with (
        Daemon(folder / "a", authority, good) as source,
        Daemon(folder / "c", authority, other) as wrong,
    ):
        for peer in ("localhost", "127.0.0.1"):
            for request in (f"probe {peer} {wrong.port}", f"open {new_name()} {peer} {wrong.port}"):
                answer = source.ask(request)
                assert answer.startswith("error ") and "mismatch" in answer and "CN=other" in answer
        assert source.ask("list") == "ok"
        assert os.listdir(folder / "a" / "run") == []


def test_a_peer_of_another_authority(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    stranger = Authority(folder, "another-ca")
    with (
        Daemon(folder / "a", authority, good) as source,
        Daemon(folder / "c", stranger, stranger.issue("c", "localhost")) as wrong,
    ):
        answer = source.ask(f"probe localhost {wrong.port}")
        assert answer.startswith("error ") and "not accepted" in answer


def test_own_certificate_that_the_peer_refuses(
    folder: pathlib.Path, authority: Authority, destination: Daemon
) -> None:
    stranger = Authority(folder, "another-ca").issue("host-a", "localhost")
    with Daemon(
        folder / "a",
        authority,
        authority.issue("host-a2", "localhost"),
        client_certificate=str(stranger.certificate),
        client_key=str(stranger.key),
    ) as source:
        answer = source.ask(f"probe localhost {destination.port}")
        assert answer.startswith("error ") and "this host's certificate" in answer


def test_files_that_cannot_be_used(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    missing = str(folder / "missing.pem")
    settings = {
        "run_dir": str(folder / "run"),
        "control": str(folder / "control"),
        "ca": str(authority.certificate),
        "certificate": str(good.certificate),
        "key": str(good.key),
    }
    other = authority.issue("other", "localhost")
    old = authority.issue("old", "localhost", days=-0.5)
    for change, words in (
        ({"ca": missing}, "missing.pem"),
        ({"certificate": missing}, "missing.pem"),
        ({"key": missing}, "missing.pem"),
        ({"key": str(other.key)}, "not the certificate's"),
        ({"crl": missing}, "missing.pem"),
        ({"certificate": str(old.certificate), "key": str(old.key)}, "has expired"),
        ({"client_certificate": str(good.certificate)}, "needs its key"),
        ({"ca": None}, "have to be given"),
        ({"listen": ["127.0.0.1"]}, "ADDRESS:PORT"),
        ({"listen": ["host:5"]}, "no address to listen on"),
        ({"listen": ["192.0.2.1:1"]}, "cannot listen on 192.0.2.1:1"),
        ({"dead_after_ms": 100}, "at least 500"),
        ({"workers": 9}, "at most 8"),
        ({"listen": ["127.0.0.1:0"], "congestion": "vagas"}, "congestion control 'vagas' cannot be used"),
        ({"plaintext": True, "allow": ["x"]}, "allow list"),
        ({"run_dir": "/" + "x" * 80}, "too long"),
    ):
        with pytest.raises(_tunnel.TunnelError, match=words):
            _tunnel.Tunnel(**(settings | change))


def test_reload_keeps_what_works(destination: Daemon, authority: Authority, good: Pair) -> None:
    key = destination.folder.parent / "host-b.key"
    content = key.read_bytes()
    key.write_bytes(b"nothing of the kind\n")
    with pytest.raises(_tunnel.TunnelError, match=r"stay as they were.*host-b\.key"):
        destination.tunnel.reload()
    assert destination.ask("reload").startswith("error the certificates stay as they were")
    assert verdict(destination, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED
    key.write_bytes(content)
    destination.tunnel.reload()


# --- what is not the protocol ---


def test_tls_1_2(destination: Daemon, authority: Authority, good: Pair) -> None:
    with (
        pytest.raises(ssl.SSLError),
        dialled(destination, as_client(authority, good, ssl.TLSVersion.TLSv1_2)),
    ):
        pass
    logged(destination, "refused", "does not speak TLS 1.3")


@pytest.mark.parametrize("text", [b"GET / HTTP/1.0\r\n\r\n", b"QEVM" + bytes(100), b"\xff" * 64])
def test_plain_bytes(destination: Daemon, text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", destination.port), timeout=10) as connection:
        connection.sendall(text)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(100):
                pass
    logged(destination, "refused", "127.0.0.1:")


def test_a_stalled_handshake(destination: Daemon, authority: Authority, good: Pair) -> None:
    with (
        socket.create_connection(("127.0.0.1", destination.port), timeout=10) as silent,
        socket.create_connection(("127.0.0.1", destination.port), timeout=10) as begun,
    ):
        begun.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert verdict(destination, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED
        begin = time.monotonic()
        assert silent.recv(1) == b"" and begun.recv(1) == b""
        assert time.monotonic() - begin < 3
    logged(destination, "refused", "took too long")


def test_a_hello_that_does_not_come(destination: Daemon, authority: Authority, good: Pair) -> None:
    with dialled(destination, as_client(authority, good)) as connection:
        connection.sendall(hello(new_name().encode())[:40])
        with contextlib.suppress(ssl.SSLError, ConnectionResetError):
            assert connection.recv(1) == b""
    logged(destination, "refused", "CN=host-a", "took too long")


def test_names_and_hellos(destination: Daemon, authority: Authority, good: Pair) -> None:
    context = as_client(authority, good)
    (destination.folder / "secret").write_text("no socket")
    for text, expected in (
        (hello(new_name().encode()), NO_NAME),
        (hello(b"../secret"), BAD_HELLO),
        (hello(b"../../../../../run/libvirt/libvi"), BAD_HELLO),
        (hello(b"A" * 32), BAD_HELLO),
        (hello(new_name().encode(), index=1, count=1), BAD_HELLO),
        (hello(new_name().encode(), count=9), BAD_HELLO),
        (hello(new_name().encode(), kind=7), BAD_HELLO),
        (hello(new_name().encode(), version=2), 1),
        (hello(new_name().encode(), index=1, count=2), NO_NAME),
    ):
        assert verdict(destination, context, text) == expected
    logged(destination, "refused a stream", "CN=host-a", "nobody listens under this name")


def test_what_is_no_socket_of_qemu(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    pair = authority.issue("host-b", "localhost")
    with Daemon(folder / "b", authority, pair, socket_uid=os.getuid() + 1, socket_wait_ms=100) as daemon:
        context = as_client(authority, good)
        file, link, other = new_name(), new_name(), new_name()
        pathlib.Path(daemon.path(file)).write_text("a file")
        with socket.socket(socket.AF_UNIX) as outside, daemon.listen(other):
            outside.bind(str(folder / "outside"))
            outside.listen()
            os.symlink(folder / "outside", daemon.path(link))
            for name in (file, link, other):
                assert verdict(daemon, context, hello(name.encode())) == BAD_SOCKET
            outside.settimeout(0.1)
            with pytest.raises(TimeoutError):
                outside.accept()
        logged(daemon, "refused a stream", f"not to QEMU's user {os.getuid() + 1}")
        logged(daemon, "refused a stream", "not a socket")


def test_half_a_record(destination: Daemon, authority: Authority, good: Pair) -> None:
    """A connection that breaks within a record: QEMU's socket is closed at once."""
    name = new_name()
    with destination.listen(name) as listening:
        plain = socket.create_connection(("127.0.0.1", destination.port), timeout=10)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = as_client(authority, good).wrap_bio(incoming, outgoing)

        def exchange(do: Callable[[], T]) -> T:
            while True:
                try:
                    result = do()
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(1 << 16))
                else:
                    plain.sendall(outgoing.read())
                    return result

        exchange(tls.do_handshake)
        exchange(lambda: tls.write(hello(name.encode())))
        assert exchange(lambda: tls.read(16))[5] == ACCEPTED
        there, _ = listening.accept()
        there.settimeout(10)
        tls.write(struct.pack(">BBHIQ", 1, 0, 0, 5, 0) + b"whole" + struct.pack(">BBHIQ", 1, 0, 0, 9, 1))
        plain.sendall(outgoing.read())
        assert there.recv(10) == b"whole"
        tls.write(b"not whole")
        plain.sendall(outgoing.read()[:10])
        plain.close()
        assert there.recv(10) == b""
        there.close()
    logged(destination, name, "closed the connection in the middle")


def test_first_bytes_that_were_announced_and_do_not_come(
    destination: Daemon, authority: Authority, good: Pair
) -> None:
    """QEMU hears nothing of it: an empty connection would end its wait to be resumed."""
    name = new_name()
    with destination.listen(name) as listening:
        with dialled(destination, as_client(authority, good)) as connection:
            connection.sendall(hello(name.encode(), kind=2) + struct.pack(">BBHIQ", 1, 0, 0, 100, 0) + b"QEV")
        logged(destination, "refused", "before the stream's first bytes had come")
        listening.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_first_bytes_reach_qemu_when_their_peer_has_gone(
    folder: pathlib.Path, authority: Authority, good: Pair
) -> None:
    name = new_name()
    pair = authority.issue("host-b", "localhost")
    with Daemon(folder / "b", authority, pair, socket_wait_ms=10000) as daemon:
        with dialled(daemon, as_client(authority, good)) as connection:
            connection.sendall(
                hello(name.encode(), kind=2) + struct.pack(">BBHIQ", 1, 0, 0, 8, 0) + b"QEVM1234"
            )
            time.sleep(0.2)  # it has them, and waits for its QEMU
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with daemon.listen(name) as listening:
            there, _ = listening.accept()
            with there:
                there.settimeout(5)
                assert there.makefile("rb").read() == b"QEVM1234"


def test_what_is_no_frame(destination: Daemon, authority: Authority, good: Pair) -> None:
    for text in (b"\x09" + bytes(15), struct.pack(">BBHIQ", 1, 0, 0, 1 << 30, 0), b"\xff" * 100):
        name = new_name()
        with (
            destination.listen(name) as listening,
            dialled(destination, as_client(authority, good)) as connection,
        ):
            connection.sendall(hello(name.encode()))
            assert connection.recv(16)[5] == ACCEPTED
            there, _ = listening.accept()
            there.settimeout(10)
            connection.sendall(text)
            assert there.recv(10) == b""
            there.close()
        logged(destination, name, "no frame")


def test_another_connection_of_a_stream_cannot_be_made_up(
    destination: Daemon, authority: Authority, good: Pair
) -> None:
    name = new_name()
    context = as_client(authority, good)
    with destination.listen(name) as listening, dialled(destination, context) as connection:
        connection.sendall(first := hello(name.encode(), index=0, count=2))
        assert connection.recv(16)[5] == ACCEPTED
        there, _ = listening.accept()
        assert verdict(destination, context, hello(name.encode(), index=1, count=2)) == NO_NAME
        for place in (bytes([1, 3]), bytes([0, 2])):
            other = first[:6] + place + first[8:]
            assert verdict(destination, context, other) == BAD_HELLO
        connection.sendall(struct.pack(">BBHIQ", 1, 0, 0, 5, 0) + b"still")
        there.settimeout(10)
        assert there.recv(10) == b"still", "the stream does not suffer from it"
        there.close()


# --- many ---


def test_thousands_of_connections(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    """Most are turned away at once; whoever comes from elsewhere is served; the log has a few lines."""
    pair = authority.issue("host-b", "localhost", "127.0.0.2")
    with Daemon(
        folder / "b", authority, pair, listen=["127.0.0.1:0"], max_half_open_of_one=20, handshake_ms=2000
    ) as daemon:
        held = []
        for _ in range(10_000):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", daemon.port))
            held.append(s)
            if len(held) > 200:
                held.pop(0).close()
        with socket.socket() as elsewhere:
            elsewhere.bind(("127.0.0.9", 0))
            elsewhere.settimeout(10)
            elsewhere.connect(("127.0.0.1", daemon.port))
            with as_client(authority, good).wrap_socket(elsewhere) as connection:
                connection.sendall(hello(b"", kind=0))
                assert connection.recv(16)[5] == ACCEPTED
        for s in held:
            s.close()
        logged(daemon, "too many from there")
        assert len(daemon.messages()) < 60


def test_a_folder_that_others_can_enter(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "run").mkdir()
    (folder / "a" / "run").chmod(0o777)
    with pytest.raises(_tunnel.TunnelError, match="others can enter"):
        Daemon(folder / "a", authority, good)
    (folder / "a" / "run").rmdir()
    (folder / "a" / "run").symlink_to("/tmp")
    with pytest.raises(_tunnel.TunnelError, match="not a folder"):
        Daemon(folder / "a", authority, good)


def test_requests_that_are_refused(destination: Daemon) -> None:
    name = new_name()
    for line, words in (
        ("open ../../etc/shadow b", "'../../etc/shadow'"),
        ("open " + name, "a peer is missing"),
        ("nonsense", "'nonsense'"),
        (f"show {name}", "unknown name"),
        (f"close {name}", "unknown name"),
        ("probe 127.0.0.1 1", "Connection refused"),
        ("probe no-such-host.invalid", "no-such-host.invalid"),
        ("x" * 2000, "at most 1023"),
    ):
        answer = destination.ask(line)
        assert answer.startswith("error ") and words in answer
