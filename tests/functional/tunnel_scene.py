# SPDX-License-Identifier: Apache-2.0
"""A bed on which migrations go through pcmig's tunnel: a daemon on each host, certificates, the wire on
record."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from pcmig.tunnel import keygen
from tests.bed import Bed, BedError, Host
from tests.bed.network import LINK
from tests.bed.procs import ProcessId
from tests.functional.scene import ROOT, Scene, SceneError

START_S = 20.0
MASK = (1 << 64) - 1
OWN_USER = 61616  # nobody else's
WITHOUT_RIGHTS = [
    "setpriv",
    f"--reuid={OWN_USER}",
    f"--regid={OWN_USER}",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--no-new-privs",
]


class Daemon:
    """`pcmig tunnel` of one host, seen by it: with its /run and its network."""

    def __init__(self, host: Host, pki: pathlib.Path, control_group: str | None = None) -> None:
        self.host = host
        self._users = ["--user", host.qemu_user, "--group", host.qemu_user]
        self._users += ["--control-group", control_group] if control_group is not None else []
        self.log = pki / f"tunnel-{host.name}.log"
        self._certificates = pki / host.name
        self._without_rights = False
        self.process: ProcessId | None = None
        self._outer: subprocess.Popen[bytes] | None = None

    @property
    def control(self) -> pathlib.Path:
        """Its control socket, as the machine sees it."""
        return self.host.state / "run/pcmig/tunnel.control"

    @contextlib.contextmanager
    def without_rights(self) -> Iterator[int]:
        """Runs as a user of its own, without root's rights, on folders and a key as the unit has them made
        (etc/tmpfiles.d/pcmig-tunnel.conf). Gives the user's number."""
        run, with_rights = self.host.state / "run/pcmig", self._certificates
        own = self.host.state / "run/pki-of-pcmig"
        self._end()
        shutil.rmtree(run / "tunnel", ignore_errors=True)
        (self.host.state / "run/pcmig/tunnel.control").unlink(missing_ok=True)
        run.mkdir(exist_ok=True)
        mode = run.stat().st_mode
        _give(run, 0o1775, 0, OWN_USER)
        (run / "tunnel").mkdir()
        _give(run / "tunnel", 0o3733, OWN_USER, OWN_USER)
        shutil.copytree(with_rights, own)
        _give(own, 0o750, 0, OWN_USER)
        for file in own.iterdir():
            _give(file, 0o640, 0, OWN_USER)
        self._certificates = pathlib.Path("/run") / own.name  # as the host sees it
        self._without_rights = True
        try:
            self.start()
            yield OWN_USER
        finally:
            self._end()
            self._certificates, self._without_rights = with_rights, False
            shutil.rmtree(own)
            shutil.rmtree(run / "tunnel")
            _give(run, mode & 0o7777, 0, 0)

    def _end(self) -> None:
        if self.process is not None and self.process.alive():
            self.kill(signal.SIGTERM)

    def start(self, *options: str) -> None:
        words = [sys.executable, "-m", "pcmig.cli.main", "tunnel", "--certificates", str(self._certificates)]
        words += [*self._users, *options]
        if self._without_rights:
            words = [*WITHOUT_RIGHTS, *words]
        before = set(self.host.processes())
        with self.log.open("ab") as log:
            start = log.tell()
            self._outer = subprocess.Popen(
                self.host.inside(["env", f"PYTHONPATH={ROOT}", "PYTHONUNBUFFERED=1", *words]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_S
        while b"listening at port" not in self.log.read_bytes()[start:]:
            if self._outer.poll() is not None or time.monotonic() > deadline_s:
                raise SceneError(f"the tunnel of host {self.host.name} does not start:\n{self.said()}")
            time.sleep(0.05)
        (pid,) = (pid for pid in set(self.host.processes()) - before if _runs_tunnel(pid))
        self.process = ProcessId.of(pid)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.signal(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Until it is gone; QEMU's connections to it go with it."""
        assert self.process is not None and self._outer is not None
        self.process.signal(number)
        self._outer.wait(START_S)
        self.process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _give(path: pathlib.Path, mode: int, user: int, group: int) -> None:
    os.chown(path, user, group)
    path.chmod(mode)


def _runs_tunnel(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"pcmig.cli.main\0tunnel" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def make_daemons(bed: Bed, pki: pathlib.Path, control_group: str | None = None) -> dict[str, Daemon]:
    """One for each host, by its name, with certificates in PKI; none is started."""
    keygen.make_ca(pki, 30)
    for host in bed.hosts:
        keygen.make_host(pki, [host.name, host.address], 10)
    return {host.name: Daemon(host, pki, control_group) for host in bed.hosts}


def start_daemons(daemons: dict[str, Daemon]) -> None:
    """Those that do not run."""
    for daemon in daemons.values():
        if daemon.process is None or not daemon.process.alive():
            daemon.start()


@contextlib.contextmanager
def running_daemons(
    bed: Bed, pki: pathlib.Path, control_group: str | None = None
) -> Iterator[dict[str, Daemon]]:
    """make_daemons(), which run meanwhile; in the end it is printed what they said."""
    daemons = make_daemons(bed, pki, control_group)
    start_daemons(daemons)
    try:
        yield daemons
    finally:
        for daemon in daemons.values():
            print(f"--- tunnel of host {daemon.host.name}\n{daemon.said()}")
            daemon.kill()


class TunnelScene(Scene):
    """Every migration takes the tunnel, unless `clear` is set."""

    def __init__(self, bed: Bed, folder: pathlib.Path) -> None:
        super().__init__(bed, folder)
        self.clear = False
        self.daemons = make_daemons(bed, folder / "pki")

    def way(self, destination: Host) -> list[str]:
        return super().way(destination) if self.clear else ["--tunnel"]

    def environment(self, host: Host) -> dict[str, str]:
        return {"PCMIG_TUNNEL_CONTROL": str(self.daemons[host.name].control)}

    def daemon(self, host: Host) -> Daemon:
        return self.daemons[host.name]

    def start_daemons(self) -> None:
        """Those that a test has ended run again."""
        start_daemons(self.daemons)


@contextlib.contextmanager
def wire(host: Host, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """What passes HOST's link meanwhile, as a file."""
    path = folder / f"wire-{time.monotonic_ns()}.pcap"
    # A big buffer, as a busy machine looks late; bytes of the payload are what matters, all of them.
    words = ["tcpdump", "-i", LINK, "-w", str(path), "-s", "0", "-B", "65536", "-U", "-Z", "root", "tcp"]
    process = subprocess.Popen(host.command(words), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:  # "listening on mig0, ..."
        if "listening" in line:
            break
    else:
        raise BedError("tcpdump did not start (Debian: apt-get install tcpdump)")
    try:
        yield path
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        process.wait(30)
        print(rest)


def page_start(page: int, generation: int = 1, words: int = 8) -> bytes:
    """The first words of a page of the guest's worker (tests/bed/guest/worker.c)."""
    seed = _scramble(page << 32 | generation)
    return struct.pack(f"<{words}Q", *((seed + i * 0xD6E8FEB86659FD93) & MASK for i in range(words)))


def _scramble(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def seen(path: pathlib.Path, markers: list[bytes]) -> int:
    """How many of MARKERS are in the file."""
    data = path.read_bytes()
    return sum(marker in data for marker in markers)


def size_mib(path: pathlib.Path) -> float:
    return os.path.getsize(path) / (1 << 20)


# Pages all over the worker's memory, as it filled them; nearly all of an idle guest's are still so.
MARKERS = [page_start(page) for page in range(5, 8192, 401)]
