# SPDX-License-Identifier: Apache-2.0
"""Two hosts that there are, instead of the bed's: what is known of them is what libvirt says at their URIs.

A guest of our own goes there by libvirt's storage (kernel and initramfs, in a pool of their own), is heard by
libvirt's console, and is taken away again with its pool. Nothing else on the hosts is touched. Their link
is measured, not limited.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable
from typing import IO, Any, Self
from urllib.parse import urlsplit

from tests.bed import Bed, BedError, Guest, GuestSpec, Host, layer
from tests.bed.accel import Accel
from tests.bed.bed import need_root
from tests.bed.guest import GUEST_FOLDER
from tests.bed.layer import Reporter
from tests.bed.network import Network
from tests.bed.procs import run
from tests.bench.evaluation.session import LoadSession
from tests.bench.figures import Row, spread
from tests.bench.switchover import poll_client
from tests.bench.switchover.commands import Place, migrate
from tests.bench.switchover.ways import Kind, Way

ROOT = pathlib.Path(__file__).resolve().parents[3]
NAME = "pcmig-evaluation"
POOLS = "/var/lib/libvirt/images"
LOOK_S = 0.02
SPAN_S = 0.2
EVENT_PATIENCE_S = 10.0
BOOT_PATIENCE_S = 120.0
_SERIAL = re.compile(r"<serial type='unix'>.*?</serial>", re.S)
_EMULATOR = re.compile(r"\n *<emulator>.*?</emulator>")


def check_uri(option: str, uri: str) -> str:
    """The address of a host's URI. Raises BedError where the other host could not use it."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if driver != "qemu" or parts.path != "/system":
        raise BedError(
            f"{option} {uri}: use a URI of QEMU's system driver, such as qemu+ssh://root@HOST/system"
        )
    if not parts.hostname or transport not in ("ssh", "tcp", "tls", "libssh", "libssh2", ""):
        raise BedError(
            f"{option} {uri}: the other host's libvirtd uses it as well, so it has to name this host: "
            "qemu+ssh://root@HOST/system"
        )
    return parts.hostname


class RemoteHost(Host):
    def __init__(self, name: str, state: pathlib.Path, uri: str, address: str) -> None:
        super().__init__(NAME, name, state)
        self.uri = self.remote_uri = self.inner_uri = uri
        self.migrate_uri = f"tcp://[{address}]" if ":" in address else f"tcp://{address}"
        self._layer = pathlib.Path()

    def use(self, folder: pathlib.Path) -> None:
        self._layer = folder

    def command(self, argv: Any) -> list[str]:
        return list(argv)

    def inside(self, argv: Any) -> list[str]:
        """On this machine, with the stack's virsh; ours need not have one."""
        script = 'mount -t overlay pcmig -o "ro,lowerdir=$0/usr:/usr" /usr && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self._layer), *argv]

    def virsh(self, *words: str, timeout_s: float | None = 60.0) -> str:
        argv = self.inside(["virsh", "--quiet", "--connect", self.uri, *words])
        return run(argv, f"{self.uri}: virsh {' '.join(words)}", timeout_s)

    def fact(self, pattern: str, *words: str) -> str:
        """The group of PATTERN in what virsh says."""
        match = re.search(pattern, self.virsh(*words), re.M)
        return match[1].strip() if match else ""


class _NoLimit(Network):
    """What is not ours is not limited."""

    def limit(self, rate_mbit: float | None) -> None: ...


class Pair(Bed):
    """As a bed, of the two hosts at these URIs."""

    def __init__(
        self,
        stack: str,
        uris: tuple[str, str],
        addresses: tuple[str, str],
        *,
        accelerator: str | None,
        images: Callable[[Reporter], pathlib.Path],
        reporter: Reporter,
    ) -> None:
        super().__init__(stack, None, accel="tcg", images=images, reporter=reporter)
        self.wanted = accelerator
        self.state = pathlib.Path(tempfile.gettempdir()) / f"{NAME}.{self.id}"
        self.network = _NoLimit(self.id)
        # One name for all runs: libvirt defines it once, so of two that begin together one is refused.
        self.pool = NAME
        self.remote = [
            RemoteHost(name, self.state / name, uri, address)
            for name, uri, address in zip("ab", uris, addresses, strict=True)
        ]
        self.a, self.b = self.remote
        self._console: subprocess.Popen[str] | None = None
        self._touched: list[Host] = []

    def __enter__(self) -> Self:
        need_root()  # for a mount namespace with virsh
        # Not the bed's clean environment: ssh may need the caller's agent. Words of virsh are read, though.
        os.environ["LC_ALL"] = "C.UTF-8"
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        folder = layer.ensure(self.stack, self.reporter)
        images = self.images(self.reporter)
        self.state.mkdir(mode=0o700)
        for host in self.remote:
            host.state.mkdir()
            host.use(folder)
        self._look()
        for host in self.remote:
            self._furnish(host, images)
        self._start_console()

    def _look(self) -> None:
        """What would fail later, and worse."""
        found = [host.fact(r"<uuid>(.*?)</uuid>", "capabilities") for host in self.remote]
        if found[0] == found[1]:
            raise BedError(f"{self.a.uri} and {self.b.uri} are the same host ({found[0]}): name two")
        for host in self.remote:
            if re.search(rf"^\s*{NAME}\s*$", host.virsh("list", "--all", "--name"), re.M):
                raise BedError(
                    f"{host.uri} has a guest {NAME}, of a run that goes on or was killed: if nobody measures "
                    f"now, virsh --connect '{host.uri}' destroy {NAME}"
                )
        self.accel = self._accel()

    def _accel(self) -> Accel:
        if self.wanted == "tcg":
            return Accel.TCG
        for host in self.remote:
            try:
                host.virsh("domcapabilities", "--virttype", "kvm")
            except BedError as error:
                if self.wanted == "kvm":
                    raise BedError(f"--accel kvm: {error}") from error
                self.reporter(f"{host.uri} has no KVM: guests under QEMU's emulation")
                return Accel.TCG
        return Accel.KVM

    def _furnish(self, host: Host, images: pathlib.Path) -> None:
        folder = f"{POOLS}/{self.pool}"
        self._lock(host, folder)
        self.reporter(f"copying the guest to {host.uri}, {folder}")
        host.virsh("pool-build", self.pool)
        host.virsh("pool-start", self.pool)
        for name in ("vmlinuz", "initramfs"):
            size = str((images / name).stat().st_size)
            host.virsh("vol-create-as", self.pool, name, size, "--format", "raw")
            host.virsh("vol-upload", "--pool", self.pool, name, str(images / name), timeout_s=600)

    def _lock(self, host: Host, folder: str) -> None:
        """Defines the pool. Raises BedError where another run has: its guest has the same name, and each
        would measure the other."""
        try:
            host.virsh("pool-define-as", self.pool, "dir", "--target", folder)
        except BedError as error:
            if self.pool not in host.virsh("pool-list", "--all", "--name").split():
                raise
            virsh = f"virsh --connect '{host.uri}'"
            raise BedError(
                f"{host.uri} has a pool {self.pool}, of a run that goes on or was killed: if nobody measures "
                f"now, {virsh} pool-destroy {self.pool}; {virsh} pool-undefine {self.pool}; and remove "
                f"{folder} there"
            ) from error
        self._touched.append(host)

    def _start_console(self) -> None:
        words = [sys.executable, "-m", "tests.bench.evaluation.console", str(self.log), NAME]
        self._console = subprocess.Popen(
            [*words, *(f"{host.name}={host.uri}" for host in self.hosts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._console.stdout is not None
        if (said := self._console.stdout.readline().strip()) != "ready":
            raise BedError(f"the guest's console: {said or 'it ended'}")

    def start_guest(self, spec: GuestSpec | None = None, host: Host | None = None) -> Guest:
        wanted = dataclasses.replace(spec or GuestSpec(), name=NAME, accel=self.accel, machine="q35")
        host, guest = host or self.a, Guest(wanted, self.log)
        wanted.check()
        xml = wanted.xml().replace(f"{GUEST_FOLDER}/", f"{POOLS}/{self.pool}/")
        xml = _EMULATOR.sub("", _SERIAL.sub("<serial type='pty'/>", xml))  # the host's own QEMU
        file = self.state / "guest.xml"
        file.write_text(xml)
        started_s = time.monotonic()
        host.virsh("create", str(file))
        try:
            guest.wait_heartbeats(5, since_s=started_s, patience_s=BOOT_PATIENCE_S)
        except BedError as error:
            hint = " (KVM is there; --accel tcg does without)" if self.accel is Accel.KVM else ""
            raise BedError(f"{host.uri}: {error}{hint}") from error
        return guest

    def down(self) -> None:
        """Also of what did not come up: each step is tried, and what stays is told."""
        if self._console is not None:
            assert self._console.stdin is not None
            self._console.stdin.close()
            self._console.wait()
            self._console = None
        for host in self._touched:
            with contextlib.suppress(BedError):
                host.virsh("destroy", NAME)
            steps: list[tuple[str, ...]] = [
                ("vol-delete", "--pool", self.pool, name) for name in ("vmlinuz", "initramfs")
            ]
            steps += [(word, self.pool) for word in ("pool-destroy", "pool-delete", "pool-undefine")]
            for step in steps:
                with contextlib.suppress(BedError):
                    host.virsh(*step)
            try:
                left = self.pool in host.virsh("pool-list", "--all", "--name").split()
                left = left or NAME in host.virsh("list", "--all", "--name").split()
            except BedError as error:
                self.reporter(f"clean-up of {host.uri} failed: {error}")
            else:
                if left:
                    self.reporter(f"left at {host.uri}: guest {NAME} or pool {self.pool}; virsh removes them")
        self._touched = []
        shutil.rmtree(self.state, ignore_errors=True)

    # What the page says of them

    def machine(self) -> dict[str, Any]:
        host = self.remote[0]
        memory = host.fact(r"^Memory size:\s+(\d+)", "nodeinfo")
        return {
            "cores": host.fact(r"^CPU\(s\):\s+(.*)", "nodeinfo"),
            "cpu": host.fact(r"^CPU model:\s+(.*)", "nodeinfo"),
            "memory_mib": int(memory or 0) >> 10,
            "kernel": "not known",
            "stacks": {
                each.uri: {
                    "qemu": each.fact(r"^Running hypervisor: QEMU (.*)", "version"),
                    "libvirt": each.fact(r"^Running against daemon: (.*)", "version", "--daemon"),
                }
                for each in self.remote
            },
        }


class RemoteSession(LoadSession):
    """Meters are libvirt's, too."""

    def __init__(self, pair: Pair, load: str, after_s: float, give_up_s: float, reporter: Reporter) -> None:
        super().__init__(pair, load, after_s, give_up_s, reporter)
        self.spec = dataclasses.replace(self.spec, name=NAME)
        self.pair = pair

    def __enter__(self) -> Self:
        super().__enter__()
        self._jobs = self._exits.enter_context(Jobs(self.pair.hosts))
        return self

    def measure_link(self) -> float:
        """In Mb/s: what one plain migration sends. Raises BedError where none is possible."""
        source = self.bed.where(self.guest)
        samples: list[tuple[float, int]] = []
        over = threading.Event()
        thread = threading.Thread(target=_watch, args=(source.uri, self.guest.name, samples, over))
        thread.start()
        try:
            with tempfile.TemporaryDirectory() as folder:
                place = Place(source, self.bed.other(source), self.guest.name, "", self.give_up_s)
                ran = migrate(Way("link", Kind.VIRSH_PRECOPY), place, pathlib.Path(folder) / "trace")
        finally:
            over.set()
            thread.join()
        if ran.error and not samples:
            raise BedError(
                f"no migration from {source.uri} to {place.destination.uri}: {ran.error}; each host's "
                "libvirtd has to reach the other by the URI given here, and its QEMU by the address in it"
            )
        rate_mbit = usual_mbit(samples)
        if rate_mbit is None:
            raise BedError(
                "the first migration was over before its rate was seen: take a bigger guest's load"
            )
        return rate_mbit

    def _meters(self, source: Host) -> Callable[[], dict[str, Any]]:
        start_s, before = time.monotonic(), [_cpu(host) for host in self.bed.hosts]

        def read() -> dict[str, Any]:
            busy = max(_busy(a, _cpu(host)) for a, host in zip(before, self.bed.hosts, strict=True))
            return {
                "bytes": self._jobs.sent(source.name, start_s),
                "busy_percent": busy,
                "steal_percent": 0.0,
            }

        return read

    def _huge_of(self, host: Host) -> float | None:
        return None  # libvirt does not tell


def _watch(uri: str, name: str, samples: list[tuple[float, int]], over: threading.Event) -> None:
    """What a migration has sent, again and again."""
    with contextlib.suppress(poll_client.CallError):
        domain = poll_client.Libvirt().domain(uri, name)
        while not over.wait(LOOK_S):
            with contextlib.suppress(poll_client.CallError):
                if stats := domain.job_stats():
                    samples.append((time.monotonic(), stats["memory_normal"] * stats["memory_page_size"]))


def usual_mbit(samples: list[tuple[float, int]]) -> float | None:
    """The median of the rates over SPAN_S or a little more in which anything was sent; None where there is no
    such span. The fastest one would be of what went into buffers at the beginning."""
    rates: list[float] = []
    for i, (start_s, start_bytes) in enumerate(samples):
        for end_s, end_bytes in samples[i + 1 :]:
            if end_s - start_s >= SPAN_S:
                rates.append((end_bytes - start_bytes) * 8e-6 / (end_s - start_s))
                break
    found = spread(rate for rate in rates if rate > 0)
    return round(found.median, 1) if found else None


def _cpu(host: Host) -> dict[str, int]:
    """Nanoseconds of all cores so far, by what they were used for."""
    said = host.virsh("nodecpustats")
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)$", said, re.M)}


def _busy(before: dict[str, int], after: dict[str, int]) -> float:
    spent = {
        name: after[name] - before.get(name, 0)
        for name in ("user", "system", "idle", "iowait")
        if name in after
    }
    total = sum(spent.values())
    return round(100 * (spent.get("user", 0) + spent.get("system", 0)) / total, 1) if total else 0.0


class Jobs:
    """What libvirt says of jobs that have ended: a guest that has gone leaves figures nowhere else."""

    def __init__(self, hosts: tuple[Host, ...]) -> None:
        self._hosts = hosts
        self._ended: list[tuple[float, str, Row]] = []
        self._news = threading.Condition()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for host in self._hosts:
            words = ["virsh", "--connect", host.inner_uri, "event", "--event", "job-completed", "--loop"]
            process = subprocess.Popen(
                host.inside(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            threading.Thread(target=self._read, args=(host.name, process.stdout), daemon=True).start()
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    def _read(self, host: str, lines: IO[str]) -> None:
        figures: Row = {}
        for line in lines:
            if "'job-completed'" in line:
                figures = {}
                with self._news:
                    self._ended.append((time.monotonic(), host, figures))
            elif match := re.match(r"\s+(\w+): (\d+)\s*$", line):
                with self._news:
                    figures[match[1]] = int(match[2])
                    self._news.notify_all()

    def sent(self, host: str, since_s: float) -> int | None:
        """Bytes of memory and disks of the job that has ended at HOST since; None: libvirt does not say."""

        def found() -> int | None:
            for time_s, where, figures in self._ended:
                if where == host and time_s >= since_s and "memory_processed" in figures:
                    return int(figures["memory_processed"] + figures.get("disk_processed", 0))
            return None

        with self._news:
            self._news.wait_for(lambda: found() is not None, EVENT_PATIENCE_S)
            return found()
