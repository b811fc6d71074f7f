# SPDX-License-Identifier: Apache-2.0
"""Whom the tunnel refuses: each with an answer that says why, and a line in the log of who refused."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
import socket
import ssl
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from pcmig import _tunnel
from tests.unit.certificates import Authority, Pair
from tests.unit.patience import PATIENCE_S, wait_for
from tests.unit.tunnels import Daemon, authority, folder, new_name, quiet_port

__all__ = ["authority", "folder"]  # fixtures

T = TypeVar("T")

ACCEPTED, BAD_HELLO, BAD_PEER, NO_NAME, BAD_SOCKET = 0, 2, 3, 4, 5


@pytest.fixture
def good(authority: Authority) -> Pair:
    return authority.issue("host-a", "localhost", "127.0.0.1")


@pytest.fixture
def destination(folder: pathlib.Path, authority: Authority) -> Iterator[Daemon]:
    pair = authority.issue("host-b", "localhost", "127.0.0.1")
    with Daemon(folder / "b", authority, pair, socket_wait_ms=100) as daemon:
        yield daemon


def impatient(daemon: Daemon) -> None:
    """Whoever comes from here on has a second to say what it wants."""
    daemon.reload(handshake_ms=1000)


def in_time(do: Callable[[], T]) -> T:
    """What DO returns, of an impatient daemon: on a busy machine an honest peer may be too late itself."""
    found: list[T] = []

    def is_done() -> bool:
        with contextlib.suppress(OSError):
            found.append(do())
        return bool(found)

    wait_for(is_done, "being in time")
    return found[0]


def logged(daemon: Daemon, *words: str) -> str:
    """The first line of DAEMON's log that has all WORDS."""
    end = time.monotonic() + PATIENCE_S
    while True:
        for line in daemon.messages():
            if all(word in line for word in words):
                return line
        assert time.monotonic() < end, f"no line with {words} in {daemon.messages()}"
        time.sleep(0.02)


def as_client(
    authority: Authority | None,
    pair: Pair | None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: Sequence[str] = ("pcmig/1",),
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if authority else ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    if authority:
        context.load_verify_locations(authority.certificate)
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@contextlib.contextmanager
def dialled(daemon: Daemon, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S) as plain,
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
    if not answer:
        raise ConnectionResetError("the daemon has not answered")
    assert answer[:4] == b"PCMT" and len(answer) == 16
    return answer[5]


def is_taken(connection: socket.socket, port: int) -> bool:
    """Whether the other end, at PORT of this host, has read all that was sent on CONNECTION; see proc(5)."""
    mine, queues = connection.getsockname()[1], {}
    for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, near, far, _, queued, *_ = row.split()
        ports = tuple(int(end.rpartition(":")[2], 16) for end in (near, far))
        queues[ports] = tuple(int(bytes_, 16) for bytes_ in queued.split(":"))
    sending, _ = queues[mine, port]
    _, unread = queues[port, mine]
    return sending == unread == 0


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
        daemon.reload()
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
            authority.issue("n3", "host-c", file="n3"),
        ):
            assert verdict(daemon, as_client(authority, pair), hello(b"", kind=0)) == ACCEPTED
        # A common name never counts, whatever else the certificate has.
        for san in ((), ("elsewhere.net",)):
            pair = authority.issue("host-c", *san, file="n4")
            assert verdict(daemon, as_client(authority, pair), hello(b"", kind=0)) == BAD_PEER


@pytest.mark.parametrize("san", [(), ("10.9.9.9",), ("elsewhere.net",)])
def test_a_common_name_is_no_name_of_a_peer(
    folder: pathlib.Path, authority: Authority, good: Pair, san: tuple[str, ...]
) -> None:
    """The dialling side: a company's CA gives anybody a certificate with any common name."""
    pair = authority.issue("localhost", *san)
    with Daemon(folder / "a", authority, good) as source, Daemon(folder / "c", authority, pair) as wrong:
        answer = source.ask(f"probe localhost {wrong.port}")
        assert answer.startswith("error ") and "mismatch" in answer and "CN=localhost" in answer


def test_another_protocol(destination: Daemon, authority: Authority, good: Pair) -> None:
    """A good certificate, and no word of the tunnel: some other client that was led here."""
    refused_in_handshake(destination, as_client(authority, good, protocols=["http/1.1"]))
    logged(destination, "refused", "wants another protocol than pcmig/1")
    refused_in_handshake(destination, as_client(authority, good, protocols=[]))
    logged(destination, "refused", "the peer speaks TLS, but not pcmig/1 in it")


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_another_service_is_dialled(
    folder: pathlib.Path, authority: Authority, good: Pair, protocols: list[str]
) -> None:
    """It has a certificate of the same CA for the same host, and is no tunnel: nothing is said to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(good.certificate, good.key)
    if protocols:
        context.set_alpn_protocols(protocols)
    heard = []

    def serve(listening: socket.socket) -> None:
        with (
            listening.accept()[0] as plain,
            contextlib.suppress(OSError),
            context.wrap_socket(plain, server_side=True) as connection,
        ):
            heard.append(connection.recv(100))

    with Daemon(folder / "a", authority, good) as source, socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        answer = source.ask(f"probe localhost {listening.getsockname()[1]}")
        thread.join()
    assert answer.startswith("error ") and "pcmig/1" in answer and heard in ([], [b""])


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
        assert sorted(os.listdir(folder / "a" / "run")) == ["known", "source"]
        assert os.listdir(folder / "a" / "run/source") == []


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
        ({"listen": ["[fe80::1]:1"]}, "cannot listen on .fe80::1.:1"),
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
    with pytest.raises(_tunnel.TunnelError, match=r"private key.*host-b\.key"):
        destination.reload()
    with pytest.raises(_tunnel.TunnelError, match="cannot listen on"):
        destination.reload(key=str(good.key), certificate=str(good.certificate), listen=["[fe80::1]:1"])
    with pytest.raises(_tunnel.TunnelError, match="decided at the start"):
        destination.reload(plaintext=True)
    assert verdict(destination, as_client(authority, good), hello(b"", kind=0)) == ACCEPTED
    key.write_bytes(content)
    destination.reload()


def test_other_addresses_to_listen_on(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    """[::] and one address have the same port, and a connection that waits for its hello goes on."""
    context = as_client(authority, good)
    with (
        Daemon(folder / "b", authority, good, listen=[f"127.0.0.1:{quiet_port()}"]) as destination,
        dialled(destination, context) as early,
    ):
        for listen, answers in (
            (["[::]", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]),
            (["127.0.0.1"], ["127.0.0.1"]),
            (["[::]"], ["127.0.0.1", "127.0.0.2"]),
            (["127.0.0.2"], ["127.0.0.2"]),
        ):
            destination.reload(listen=[f"{address}:{destination.port}" for address in listen])
            assert destination.tunnel.ports() == [destination.port] * len(listen)
            for address in ("127.0.0.1", "127.0.0.2"):
                try:
                    socket.create_connection((address, destination.port), timeout=PATIENCE_S).close()
                    answered = True
                except ConnectionRefusedError:
                    answered = False
                assert answered == (address in answers), (listen, address)
        early.sendall(hello(b"", kind=0))
        assert early.recv(16)[5] == ACCEPTED
        with (
            Daemon(folder / "c", None, None, listen=["127.0.0.2:0"]) as other,
            pytest.raises(_tunnel.TunnelError, match="in use"),
        ):
            destination.reload(listen=[f"127.0.0.2:{other.port}"])


def test_streams_of_whom_is_no_longer_welcome(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    """Ended at once; those of others go on. On both sides: of who has dialled, and of who was dialled."""
    other = authority.issue("other", "localhost", "10.0.0.7")
    at_b = authority.issue("host-b", "localhost")
    with (
        contextlib.ExitStack() as stack,
        Daemon(folder / "a", authority, good) as a,
        Daemon(folder / "o", authority, other) as o,
        Daemon(folder / "b", authority, at_b) as b,
    ):
        streams = {}

        def begin(daemon: Daemon, within_s: float = PATIENCE_S) -> None:
            name = new_name()
            answer = daemon.ask(f"open {name} localhost {b.port} streams=2")
            if not answer.startswith("ok "):
                raise OSError(answer)
            with b.listen(name) as listening:
                listening.settimeout(within_s)
                here = daemon.connect(name)
                there, _ = listening.accept()
            there.settimeout(PATIENCE_S)
            here.sendall(b"1")
            assert there.recv(1) == b"1"
            streams[daemon] = here, there

        begin(a)
        begin(o)
        for good_for_s in (5, 20, 60, 180):  # as long as a busy machine takes for it
            old = authority.issue("old", "localhost", "10.0.0.8", days=good_for_s / 24 / 3600)
            expiry_s = time.time() + good_for_s + 0.1
            with contextlib.suppress(OSError):
                e = stack.enter_context(Daemon(folder / f"e{good_for_s}", authority, old))
                begin(e, good_for_s)
                break
        else:
            pytest.fail("no stream with a certificate that is about to end")

        def goes_on(daemon: Daemon) -> bool:
            here, there = streams[daemon]
            try:
                here.sendall(b"2")
                return there.recv(1) == b"2"
            except OSError:
                return False

        b.reload()
        assert goes_on(a) and goes_on(o) and goes_on(e)
        b.reload(allow=["10.0.0.*", "localhost"])
        assert goes_on(a) and goes_on(o)
        b.reload(allow=["10.0.0.*"])
        assert streams[a][1].recv(1) == b"" and streams[a][0].recv(1) == b""
        assert not goes_on(a) and goes_on(o)
        logged(b, "stream of", "CN=host-a", "ended", "not on the list of allowed hosts")
        b.reload()
        # An expiry alone cuts nothing off: what runs may be the only way to a guest's newest memory.
        time.sleep(max(0.0, expiry_s - time.time()))
        b.reload(crl=str(authority.revoke(file="empty.pem")))
        assert goes_on(o) and goes_on(e)
        o.reload(crl=str(authority.revoke(at_b)))
        assert streams[o][0].recv(1) == b"" and streams[o][1].recv(1) == b""
        logged(o, "stream of", "CN=host-b", "ended", "no longer accepted: certificate revoked")
        for here, there in streams.values():
            here.close()
            there.close()


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
    with socket.create_connection(("127.0.0.1", destination.port), timeout=PATIENCE_S) as connection:
        connection.sendall(text)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(100):
                pass
    logged(destination, "refused", "127.0.0.1:")


def test_a_stalled_handshake(destination: Daemon, authority: Authority, good: Pair) -> None:
    impatient(destination)
    context = as_client(authority, good)
    with (
        socket.create_connection(("127.0.0.1", destination.port), timeout=PATIENCE_S) as silent,
        socket.create_connection(("127.0.0.1", destination.port), timeout=PATIENCE_S) as begun,
    ):
        begun.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert in_time(lambda: verdict(destination, context, hello(b"", kind=0))) == ACCEPTED
        assert silent.recv(1) == b"" and begun.recv(1) == b""
    logged(destination, "refused", "took too long")


def test_a_hello_that_does_not_come(destination: Daemon, authority: Authority, good: Pair) -> None:
    context = as_client(authority, good)
    impatient(destination)

    def is_told() -> bool:
        with contextlib.suppress(OSError), dialled(destination, context) as connection:
            connection.sendall(hello(new_name().encode())[:40])
            assert connection.recv(1) == b""
        return any("CN=host-a" in line and "took too long" in line for line in destination.messages())

    wait_for(is_told)


def test_names_and_hellos(destination: Daemon, authority: Authority, good: Pair) -> None:
    context = as_client(authority, good)
    impatient(destination)  # the last one waits for the first connection of its stream
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
        assert in_time(functools.partial(verdict, destination, context, text)) == expected
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
        plain = socket.create_connection(("127.0.0.1", destination.port), timeout=PATIENCE_S)
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
        there.settimeout(PATIENCE_S)
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


def test_qemu_does_not_hear_of_a_peer_that_has_gone(
    folder: pathlib.Path, authority: Authority, good: Pair
) -> None:
    """With its first bytes sent, before there was a socket."""
    name = new_name()
    pair = authority.issue("host-b", "localhost")
    with Daemon(folder / "b", authority, pair) as daemon:
        with dialled(daemon, as_client(authority, good)) as connection:
            connection.sendall(
                hello(name.encode(), kind=2) + struct.pack(">BBHIQ", 1, 0, 0, 8, 0) + b"QEVM1234"
            )
            wait_for(lambda: is_taken(connection, daemon.port))  # and the daemon waits for its QEMU
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        logged(daemon, "CN=host-a", "the peer closed it before its stream could begin")
        with daemon.listen(name) as listening:
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()


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
            there.settimeout(PATIENCE_S)
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
        impatient(destination)
        second = hello(name.encode(), index=1, count=2)
        assert in_time(lambda: verdict(destination, context, second)) == NO_NAME
        destination.reload()
        for place in (bytes([1, 3]), bytes([0, 2])):
            other = first[:6] + place + first[8:]
            assert verdict(destination, context, other) == BAD_HELLO, place
        connection.sendall(struct.pack(">BBHIQ", 1, 0, 0, 5, 0) + b"still")
        there.settimeout(PATIENCE_S)
        assert there.recv(10) == b"still", "the stream does not suffer from it"
        there.close()


# --- many ---


def test_thousands_of_connections(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    """Most are turned away at once; whoever comes from elsewhere is served; the log has a few lines."""
    pair = authority.issue("host-b", "localhost", "127.0.0.2")
    with Daemon(folder / "b", authority, pair, listen=["127.0.0.1:0"], max_half_open_of_one=20) as daemon:
        began_s = time.monotonic()
        held = []

        def refused() -> int:
            return sum(value for key, value in daemon.figures().items() if key.startswith("refused_"))

        def thousand() -> None:
            for _ in range(1000):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", daemon.port))
                held.append(s)
                if len(held) > 200:
                    held.pop(0).close()

        rounds = 0
        # Of those that closed before the daemon came to them, on a busy machine, it has nothing to refuse.
        while rounds < 10 or (refused() <= 1_000 and time.monotonic() - began_s < PATIENCE_S):
            rounds += 1
            thousand()
        with socket.socket() as elsewhere:
            elsewhere.bind(("127.0.0.9", 0))
            elsewhere.settimeout(PATIENCE_S)
            elsewhere.connect(("127.0.0.1", daemon.port))
            with as_client(authority, good).wrap_socket(elsewhere) as connection:
                connection.sendall(hello(b"", kind=0))
                assert connection.recv(16)[5] == ACCEPTED
        for s in held:
            s.close()
        logged(daemon, "too many from there")
        # Of each of three kinds a few lines in ten seconds, and then their number; a busy machine takes many.
        periods = 2 + (time.monotonic() - began_s) / 10
        assert len(daemon.messages()) < 30 * periods
        assert 1_000 < refused() <= rounds * 1_000 and daemon.figures()["handshakes_accepted"] == 1


def test_a_folder_that_was_there(folder: pathlib.Path, authority: Authority, good: Pair) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "run").mkdir()
    (folder / "a" / "run").chmod(0o777)
    with Daemon(folder / "a", authority, good):
        for inside, mode in (("run", 0o3733), ("run/source", 0o711), ("run/known", 0o700)):
            assert stat.S_IMODE((folder / "a" / inside).stat().st_mode) == mode
    if os.getuid() == 0:
        os.chown(folder / "a/run/source", 1, 1)
        with pytest.raises(_tunnel.TunnelError, match=r"run/source: .* belongs to user 1,"):
            Daemon(folder / "a", authority, good)
    shutil.rmtree(folder / "a" / "run")
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
