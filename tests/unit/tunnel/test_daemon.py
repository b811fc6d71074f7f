# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel` as systemd runs it: two daemons in processes of their own, and bytes between them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pcmig.tunnel import keygen
from pcmig.tunnel.client import Client, TunnelError, new_name
from pcmig.tunnel.peer import Peer

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE_S = 20.0
MIB = 1024 * 1024


class Daemon:
    """One host's, in FOLDER."""

    def __init__(self, folder: pathlib.Path, certificates: pathlib.Path) -> None:
        self.folder = folder
        self.certificates = folder / "pki"
        shutil.copytree(certificates, self.certificates)
        self.log = folder / "log"
        self.client = Client(str(folder / "control"))
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def words(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pcmig.cli.main", "tunnel", "--certificates", str(self.certificates)),
            *("--run-dir", str(self.folder / "run"), "--control", self.client.control, "--workers", "1"),
            *("--user", f"+{os.getuid()}", "--group", f"+{os.getgid()}", *options),
        ]

    def start(self, *options: str, env: dict[str, str] | None = None) -> None:
        self.port = self.port or free_port()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.words("--listen", f"127.0.0.1:{self.port}", *options),
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.wait_for(lambda: "listening at port" in self.said())

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process is not None and self.process.poll() is None, self.said()
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("pki")
    keygen.make_ca(folder, 30)
    for name in ("a", "b"):
        keygen.make_host(folder, [name, "127.0.0.1"], 10)
    keygen.make_host(folder, ["c", "10.0.0.9"], 10)
    return folder


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A folder whose path is short enough for the sockets in it; pytest's own need not be."""
    with tempfile.TemporaryDirectory(prefix="pcmig-") as name:
        yield pathlib.Path(name)


@pytest.fixture
def pair(place: pathlib.Path, certificates: pathlib.Path) -> Iterator[tuple[Daemon, Daemon]]:
    with contextlib.ExitStack() as stack:
        found = []
        for name in ("a", "b"):
            (place / name).mkdir()
            daemon = Daemon(place / name, certificates / name)
            stack.callback(daemon.close)
            daemon.start()
            found.append(daemon)
        yield found[0], found[1]


def there(daemon: Daemon) -> Peer:
    return Peer("127.0.0.1", daemon.port)


def test_bytes_go_both_ways(pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    name = new_name()
    path = a.client.open(name, there(b))
    assert path == str(a.folder / "run" / name)
    sent = os.urandom(3 * MIB)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as qemu:
        listener.settimeout(PATIENCE_S)
        qemu.settimeout(PATIENCE_S)
        listener.bind(str(b.folder / "run" / name))
        listener.listen()
        qemu.connect(path)
        arrived, _ = listener.accept()
        with arrived:
            arrived.settimeout(PATIENCE_S)

            def send() -> None:
                qemu.sendall(sent)
                qemu.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = b"".join(iter(lambda: arrived.recv(65536), b""))
            sender.join()
            assert received == sent
            # The other direction is open yet.
            arrived.sendall(b"page 4711 has arrived")
            assert qemu.recv(64) == b"page 4711 has arrived"
            figures = a.client.show(name)
            assert figures["bytes_out"] == len(sent) and figures["streams"] == 1
            assert "queue_bytes" in figures and figures["peer"] == "127.0.0.1"
    a.client.close(name)
    assert a.client.names() == [] and not os.path.exists(path)


def test_connections_arrive_in_their_order(pair: tuple[Daemon, Daemon]) -> None:
    """QEMU takes the first for the stream, and the second for urgent pages."""
    a, b = pair
    for streams in (1, 3):
        name = new_name()
        path = a.client.open(name, there(b), streams)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.settimeout(PATIENCE_S)
            listener.bind(str(b.folder / "run" / name))
            listener.listen(64)
            for number in range(32):
                qemu = stack.enter_context(socket.socket(socket.AF_UNIX))
                qemu.connect(path)
                qemu.sendall(bytes([number]))
            for number in range(32):
                arrived = stack.enter_context(listener.accept()[0])
                arrived.settimeout(PATIENCE_S)
                assert arrived.recv(1) == bytes([number])
        a.client.close(name)


def test_a_connection_that_is_closed_at_once_never_arrives(pair: tuple[Daemon, Daemon]) -> None:
    """A QEMU that waits to be resumed takes one that says nothing for the end."""
    a, b = pair
    name = new_name()
    path = a.client.open(name, there(b))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as qemu:
        listener.settimeout(PATIENCE_S)
        listener.bind(str(b.folder / "run" / name))
        listener.listen(64)
        for _ in range(8):
            with socket.socket(socket.AF_UNIX) as brief:
                brief.connect(path)
        qemu.connect(path)
        qemu.sendall(b"x")
        arrived, _ = listener.accept()
        with arrived:
            arrived.settimeout(PATIENCE_S)
            assert arrived.recv(1) == b"x"


def test_signals(pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    for number in (signal.SIGTERM, signal.SIGINT):
        assert a.end(number) == 0
        assert f"ending ({number.name})" in a.said() and a.said().rstrip().endswith("ended")
        assert not os.path.exists(a.client.control)
        with pytest.raises(TunnelError, match="is not running"):
            a.client.names()
        a.start()
    assert a.client.probe(there(b))["subject"] == "CN=b"


def test_certificates_are_read_again(pair: tuple[Daemon, Daemon], certificates: pathlib.Path) -> None:
    a, b = pair
    assert a.client.probe(there(b))["subject"] == "CN=b"
    good = (b.certificates / "host.pem").read_bytes()
    (b.certificates / "host.pem").write_text("rubbish")
    assert b.process is not None
    b.process.send_signal(signal.SIGHUP)
    b.wait_for(lambda: "the certificates stay as they were: " in b.said())
    assert a.client.probe(there(b))["subject"] == "CN=b", "the old ones go on"
    for path in (certificates / "c").glob("host*.pem"):
        shutil.copy(path, b.certificates)
    b.process.send_signal(signal.SIGHUP)
    b.wait_for(lambda: "reloaded: " in b.said())
    with pytest.raises(TunnelError, match="IP address mismatch"):
        a.client.probe(there(b))
    assert good != (b.certificates / "host.pem").read_bytes()


def test_nohup_leaves_sighup_an_order(place: pathlib.Path, certificates: pathlib.Path) -> None:
    (place / "a").mkdir()
    daemon = Daemon(place / "a", certificates / "a")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the child inherits it
    try:
        daemon.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: "reloaded: " in daemon.said())
    finally:
        daemon.close()


def test_refusals_at_the_start(place: pathlib.Path, certificates: pathlib.Path) -> None:
    (place / "a").mkdir()
    daemon = Daemon(place / "a", certificates / "a")

    def says(*options: str) -> tuple[int, str]:
        done = subprocess.run(daemon.words(*options), cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    listen = ("--listen", f"127.0.0.1:{free_port()}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = says("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert code == 1 and "cannot be started" in text and "in use" in text
    (place / "a/run").chmod(0o777)
    code, text = says(*listen)
    assert code == 1 and str(place / "a/run") in text
    (place / "a/run").rmdir()
    (place / "file").touch()
    code, text = says(*listen, "--control", str(place / "file/control"))
    assert code == 1 and f"{place}/file cannot be made" in text
    (daemon.certificates / "host-key.pem").unlink()
    code, text = says(*listen)
    assert code == 1 and "host-key.pem: No such file or directory; 'pcmig tunnel keygen' makes" in text


def test_systemd_is_told(place: pathlib.Path, certificates: pathlib.Path) -> None:
    (place / "a").mkdir()
    daemon = Daemon(place / "a", certificates / "a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(place / "notify"))
        notified.settimeout(PATIENCE_S)
        try:
            daemon.start(env={"NOTIFY_SOCKET": str(place / "notify")})
            assert notified.recv(4096).decode().splitlines() == [
                "READY=1",
                f"STATUS=listening at port {daemon.port}",
            ]
            daemon.end()
            assert notified.recv(4096) == b"STOPPING=1"
        finally:
            daemon.close()


def test_lines_for_the_journal(place: pathlib.Path, certificates: pathlib.Path) -> None:
    """A priority and no time, as the journal has its own."""
    (place / "a").mkdir()
    daemon = Daemon(place / "a", certificates / "a")
    daemon.log.touch()
    found = daemon.log.stat()
    try:
        daemon.start(env={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        daemon.end()
    finally:
        daemon.close()
    assert all(re.match("<[3467]>[a-z]", line) for line in daemon.said().splitlines()), daemon.said()


def test_in_clear_only_if_said_twice(place: pathlib.Path, certificates: pathlib.Path) -> None:
    (place / "a").mkdir()
    daemon = Daemon(place / "a", certificates / "a")
    try:
        daemon.start("--plaintext", "--memory-in-clear")
        assert "WARNING NOT ENCRYPTED" in daemon.said()
    finally:
        daemon.close()
