# SPDX-License-Identifier: Apache-2.0
"""`pcmig tunnel` as systemd runs it: two daemons in processes of their own, and bytes between them."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import re
import resource
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pcmig.tunnel import keygen
from pcmig.tunnel.client import Client, TunnelError, new_name
from pcmig.tunnel.daemon import Watchdog
from pcmig.tunnel.peer import Peer
from tests.unit.patience import NEVER_MS, NEVER_S, PATIENCE_S
from tests.unit.tunnels import quiet_port

ROOT = pathlib.Path(__file__).parents[3]
MIB = 1024 * 1024

# The command, with those of the daemon's times that have no option as long as a busy machine needs.
PATIENT = f"""
import sys
from pcmig.cli.main import main
from pcmig.tunnel.settings import Settings
given = Settings.arguments
Settings.arguments = lambda self: given(self) | dict(handshake_ms={NEVER_MS}, dial_ms={NEVER_MS})
sys.exit(main())
"""


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
            *(sys.executable, "-c", PATIENT, "tunnel", "--certificates", str(self.certificates)),
            *("--run-dir", str(self.folder / "run"), "--control", self.client.control, "--workers", "1"),
            *("--user", f"+{os.getuid()}", "--group", f"+{os.getgid()}"),
            *("--dead-after", str(NEVER_S), "--connect-wait", str(NEVER_S), *options),
        ]

    def start(self, *options: str, env: dict[str, str] | None = None) -> None:
        self.port = self.port or quiet_port()
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


def arrives(listener: socket.socket, qemu: socket.socket, path: str) -> socket.socket:
    """QEMU's connection to PATH, as LISTENER at the other host gets it, after its first byte."""
    qemu.connect(path)
    qemu.sendall(b"x")
    arrived, _ = listener.accept()
    arrived.settimeout(PATIENCE_S)
    assert arrived.recv(1) == b"x"
    return arrived


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
        arrives(listener, qemu, path).close()


def test_it_may_have_many_connections(pair: tuple[Daemon, Daemon]) -> None:
    assert pair[0].process is not None
    soft, hard = resource.prlimit(pair[0].process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


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
    b.wait_for(lambda: "the reload is refused, everything stays as it was: " in b.said())
    assert a.client.probe(there(b))["subject"] == "CN=b", "the old ones go on"
    for path in (certificates / "c").glob("host*.pem"):
        shutil.copy(path, b.certificates)
    b.process.send_signal(signal.SIGHUP)
    b.wait_for(lambda: "reloaded: " in b.said())
    with pytest.raises(TunnelError, match="IP address mismatch"):
        a.client.probe(there(b))
    assert good != (b.certificates / "host.pem").read_bytes()


def revoked(certificates: pathlib.Path, *hosts: str, days: float = 1) -> bytes:
    """A list with the certificates of HOSTS, good for DAYS more."""
    ca = x509.load_pem_x509_certificate((certificates / keygen.CA).read_bytes())
    key = serialization.load_pem_private_key((certificates / keygen.CA_KEY).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - 2 * day)
        .next_update(now + days * day)
    )
    for host in hosts:
        found = x509.load_pem_x509_certificate((certificates / host / "host.pem").read_bytes())
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(found.serial_number)
            .revocation_date(now - day)
            .build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_first_list_locks_a_host_out(pair: tuple[Daemon, Daemon], certificates: pathlib.Path) -> None:
    """Nobody has a list before the first host is lost."""
    a, b = pair
    name = new_name()
    path = a.client.open(name, there(b))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as qemu:
        listener.settimeout(PATIENCE_S)
        listener.bind(str(b.folder / "run" / name))
        listener.listen()
        qemu.settimeout(PATIENCE_S)
        with arrives(listener, qemu, path) as arrived:
            (b.certificates / "crl.pem").write_bytes(revoked(certificates, "a"))
            assert b.client.reload() == []
            assert arrived.recv(1) == b"" and qemu.recv(1) == b""
    with pytest.raises(TunnelError, match="revoked"):
        a.client.probe(there(b))
    (b.certificates / "crl.pem").write_bytes(revoked(certificates))
    b.client.reload()
    assert a.client.probe(there(b))["subject"] == "CN=b"


def test_a_reload_that_could_not_work(
    pair: tuple[Daemon, Daemon], certificates: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    a, b = pair
    keygen.make_ca(tmp_path, 30)
    keygen.make_host(tmp_path, ["b", "127.0.0.1"], 10)
    before = {path.name: path.read_bytes() for path in b.certificates.iterdir()}
    host = tmp_path / "b"
    for files, reason in (
        ({"crl.pem": revoked(certificates, days=-1)}, "CRL has expired"),
        ({"crl.pem": revoked(certificates, "b")}, "certificate revoked"),
        ({"crl.pem": b"rubbish"}, "no revocation list"),
        (
            {name: (host / name).read_bytes() for name in ("host.pem", "host-key.pem")},
            "unable to get local issuer certificate",
        ),
        ({"host-key.pem": (host / "host-key.pem").read_bytes()}, "no pair"),
        ({"ca.pem": (host / "ca.pem").read_bytes()}, "unable to get local issuer certificate"),
    ):
        for name, content in files.items():
            (b.certificates / name).write_bytes(content)
        with pytest.raises(TunnelError, match=reason):
            b.client.reload()
        assert a.client.probe(there(b))["subject"] == "CN=b", "the old ones go on"
        for name in files:
            (b.certificates / name).unlink()
        for name, content in before.items():
            (b.certificates / name).write_bytes(content)
    assert b.said().count("ERROR the reload is refused") == 6
    assert b.client.reload() == []


def test_settings_are_read_again(place: pathlib.Path, certificates: pathlib.Path) -> None:
    for name in ("a", "b"):
        (place / name).mkdir()
    a, b = (Daemon(place / name, certificates / name) for name in ("a", "b"))
    settings = place / "tunnel.conf"
    settings.write_text("[tunnel]\n")
    try:
        a.start()
        b.start("--config", str(settings))
        settings.write_text("[tunnel]\nallow = *.example.org\ndead_after = 3\nrun_dir = /run/elsewhere\n")
        assert b.client.reload() == [], "the option --run-dir counts more"
        with pytest.raises(TunnelError, match="not on the peer's list"):
            a.client.probe(there(b))
        settings.write_text("[tunnel]\nallow = a\ncontrol_group = +4711\nidle_drop = 60\n")
        assert b.client.reload() == ["control_group"]
        assert "take effect when the daemon is started again: control_group" in b.said()
        assert a.client.probe(there(b))["subject"] == "CN=b"
        settings.write_text("[tunnel]\nallow = nobody\ncongestion = vagas\n")
        with pytest.raises(TunnelError, match="congestion control 'vagas' cannot be used"):
            b.client.reload()
        settings.write_text("[tunnel]\nalow = nobody\n")
        with pytest.raises(TunnelError, match="did you mean allow"):
            b.client.reload()
        assert a.client.probe(there(b))["subject"] == "CN=b"
    finally:
        a.close()
        b.close()


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
        done = subprocess.run(daemon.words(*options), cwd=ROOT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    listen = ("--listen", f"127.0.0.1:{quiet_port()}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = says("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert code == 1 and "cannot be started" in text and "in use" in text
    (place / "a/run/known").rmdir()
    (place / "a/run/known").touch()
    code, text = says(*listen)
    assert code == 1 and f"{place}/a/run/known: this is not a folder" in text
    (place / "a/run/known").unlink()
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
            daemon.start(env={"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "400000"})
            assert notified.recv(4096).decode().splitlines() == [
                "READY=1",
                f"STATUS=listening at port {daemon.port}",
            ]
            for _ in range(3):
                assert notified.recv(4096) == b"WATCHDOG=1"
            daemon.end()
            while (said := notified.recv(4096)) == b"WATCHDOG=1":
                pass
            assert said == b"STOPPING=1"
        finally:
            daemon.close()


def test_a_watchdog_is_fed_only_while_all_threads_run(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(place / "notify"))
        notified.settimeout(0.05)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))

        def fed(silent_ms: int, **environment: str) -> bool:
            Watchdog(environment).feed(silent_ms)
            try:
                return notified.recv(100) == b"WATCHDOG=1"
            except TimeoutError:
                return False

        assert fed(1500, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
        assert not fed(30001, WATCHDOG_USEC="30000000")
        assert not fed(0, WATCHDOG_USEC="30000000", WATCHDOG_PID="1")
        assert not fed(0)
        assert Watchdog({"WATCHDOG_USEC": "2000000"}).look_ms == 500


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
