# SPDX-License-Identifier: Apache-2.0
"""Two libvirt hosts on one machine, a limited link between them, and sure clean-up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Self

from tests.bed import environment, layer, network
from tests.bed.accel import choose as accel_of
from tests.bed.errors import BedError
from tests.bed.guest import Guest, GuestSpec, ensure_images
from tests.bed.host import Host
from tests.bed.layer import Reporter
from tests.bed.network import Network
from tests.bed.procs import ProcessId

BEDS = pathlib.Path("/run/pcmig-bed")


class Bed:
    """`with Bed() as bed:` has hosts bed.a and bed.b up, and takes everything down at its end.

    stack:      which QEMU and libvirt (layer.STACKS)
    rate_mbit:  limit of the migration link in each direction; None for none
    qemu_user:  "root", or e.g. "nobody", whom the kernel denies userfaultfd and with it post-copy
    keepalive_s: libvirt's keepalive interval, of which it waits five
    qemu_conf:  more lines for the hosts' qemu.conf
    keep:       leave the bed up at the end; `python -m tests.bed down` takes it down
    accel:      of its guests: "auto", "kvm" or "tcg"; None: what the environment says (accel.py)
    images:     makes the folder with the kernel and the initramfs of its guests
    """

    def __init__(
        self,
        stack: str = "forky",
        rate_mbit: float | None = 100,
        *,
        qemu_user: str = "root",
        keepalive_s: int = 5,
        qemu_conf: str = "",
        keep: bool = False,
        accel: str | None = None,
        images: Callable[[Reporter], pathlib.Path] = ensure_images,
        reporter: Reporter = lambda _: None,
    ) -> None:
        if stack not in layer.STACKS:
            raise BedError(f"unknown stack {stack!r}: use one of {', '.join(layer.STACKS)}")
        if rate_mbit is not None and not 1 <= rate_mbit <= 100_000:
            raise BedError(f"a link rate of {rate_mbit} Mb/s is out of range: use 1 to 100000")
        self.id = secrets.token_hex(3)
        self.stack = stack
        self.rate_mbit = rate_mbit
        self.keep = keep
        self.accel = accel_of(accel)
        self.images = images
        self.reporter = reporter
        self.state = BEDS / self.id
        self.network = Network(self.id)
        self.a, self.b = (
            Host(self.id, name, self.state / name, qemu_user, keepalive_s, qemu_conf) for name in "ab"
        )
        self._collector: subprocess.Popen[str] | None = None
        self._terminated = _TerminateAsException()

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.a, self.b

    def other(self, host: Host) -> Host:
        return self.b if host is self.a else self.a

    def where(self, guest: Guest) -> Host:
        """The host that was heard from last; there must have been one."""
        name = guest.host()
        return next(host for host in self.hosts if host.name == name)

    @property
    def log(self) -> pathlib.Path:
        """The guests' consoles, as the collector stamped them."""
        return self.state / "console.log"

    def start_guest(self, spec: GuestSpec | None = None, host: Host | None = None) -> Guest:
        """Boot a guest, on host a unless told, and wait for its heartbeats. One guest at a time."""
        guest = Guest(dataclasses.replace(spec or GuestSpec(), accel=self.accel), self.log)
        guest.start(host or self.a)
        return guest

    # Life

    def __enter__(self) -> Self:
        need_root()
        environment.drop_the_callers()
        self._terminated.install()
        try:
            self.up()
        except BaseException:
            self.down()
            self._terminated.restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        try:
            if not self.keep:
                self.down()
        finally:
            self._terminated.restore()

    def up(self) -> None:
        clean()  # what crashed beds left: their processes are gone already
        folder = layer.ensure(self.stack, self.reporter)
        images = self.images(self.reporter)
        self._make_state()
        self.network.up()
        self.network.limit(self.rate_mbit)
        for host in self.hosts:
            host.up(folder, images, stay=self.keep)
            self._save()
        self._start_collector()
        self._save()

    def down(self) -> None:
        """Take everything down; at any time, also twice. A second Ctrl-C does not stop it half-way."""
        with _undisturbed():
            for host in self.hosts:
                host.down()
            if self._collector is not None:
                self._collector.kill()
                self._collector.wait()
                self._collector = None
            self.network.down()
            shutil.rmtree(self.state, ignore_errors=True)
            with contextlib.suppress(OSError):
                BEDS.rmdir()  # only when no other bed is there

    def _make_state(self) -> None:
        """The state folder appears with its owner in it: `clean` elsewhere would take it away without one."""
        hidden = BEDS / f".{self.id}"
        try:
            hidden.mkdir(parents=True, mode=0o755)
            self._save(hidden)
            hidden.rename(self.state)
        except OSError as error:
            raise BedError(f"state folder {self.state}: {error.strerror}") from error

    def _start_collector(self) -> None:
        sockets = [f"{host.name}={host.state}/run/pcmig/console.sock" for host in self.hosts]
        program = str(pathlib.Path(__file__).with_name("collector.py"))
        self._collector = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                program,
                str(self.log),
                "stay" if self.keep else "lifeline",
                *sockets,
            ],
            stdin=subprocess.DEVNULL if self.keep else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # one that is kept must not hold the end of somebody's pipe open
            text=True,
            start_new_session=True,
        )
        assert self._collector.stdout is not None
        if self._collector.stdout.readline().strip() != "ready":
            raise BedError("the collector of the guest's heartbeats did not start")

    def _save(self, folder: pathlib.Path | None = None) -> None:
        """What `down` and `clean` of another process need to know."""
        folder = folder or self.state
        processes = self._processes()
        owner = ProcessId.of(os.getpid())
        assert owner is not None
        state: dict[str, object] = {
            "stack": self.stack,
            "rate_mbit": self.rate_mbit,
            "accel": self.accel.meaning,
            "keep": self.keep,
            "owner": [owner.pid, owner.start_ticks],
            "processes": [[process.pid, process.start_ticks] for process in processes],
            "hosts": {host.name: {"uri": host.uri, "remote_uri": host.remote_uri} for host in self.hosts},
            **self._more_state(),
        }
        temporary = folder / "bed.json.new"
        temporary.write_text(json.dumps(state, indent=1))
        temporary.rename(folder / "bed.json")

    def _processes(self) -> list[ProcessId]:
        """Those that take the bed with them when they end; the hosts' come first."""
        collector = ProcessId.of(self._collector.pid) if self._collector else None
        return [process for process in (self.a.holder, self.b.holder, collector) if process]

    def _more_state(self) -> dict[str, object]:
        """What a larger bed that is built on this one adds to bed.json."""
        return {}


class KeptBed:
    """A bed as another process left it: what its state folder tells."""

    def __init__(self, state: pathlib.Path) -> None:
        self.id = state.name
        self.state = state
        content: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((state / "bed.json").read_text())
        self.content = content
        self.processes = [ProcessId(*pair) for pair in content.get("processes", [])]  # type: ignore[attr-defined]
        owner = content.get("owner")
        self.owner = ProcessId(*owner) if isinstance(owner, list) else None
        self.kept = bool(content.get("keep"))

    @property
    def in_use(self) -> bool:
        return self.owner is not None and self.owner.alive()

    @property
    def running(self) -> bool:
        return any(process.alive() for process in self.processes)

    def host(self, name: str) -> Host:
        """A host of the bed to run commands on."""
        host = Host(self.id, name, self.state / name)
        host.holder = self.processes["ab".index(name)] if len(self.processes) > 1 else None
        return host

    def down(self) -> None:
        with _undisturbed():
            for process in self.processes:
                process.end()
            Network(self.id).down()
            shutil.rmtree(self.state, ignore_errors=True)
            with contextlib.suppress(OSError):
                BEDS.rmdir()


def kept_beds() -> list[KeptBed]:
    """All beds on this machine: kept, in use, and crashed."""
    with contextlib.suppress(OSError):
        return [KeptBed(path) for path in sorted(BEDS.iterdir()) if path.name[0] != "."]
    return []


def clean() -> list[str]:
    """Take away what crashed beds left, and return their ids. Beds in use and beds kept and alive stay."""
    gone: list[str] = []
    # Namespaces first: a bed that comes up meanwhile makes its folder before them.
    present = network.namespaces_present()
    for bed in kept_beds():
        if not bed.in_use and not (bed.kept and bed.running):
            bed.down()
            gone.append(bed.id)
    known = {namespace for bed in kept_beds() for namespace in Network(bed.id).namespaces.values()}
    for namespace in present:
        if namespace not in known and namespace in network.namespaces_present():
            network.remove_namespace(namespace)
            gone.append(namespace)
    return gone


def need_root() -> None:
    if os.geteuid() != 0:
        raise BedError("this needs root for network and mount namespaces: use sudo")


class _TerminateAsException:
    """SIGTERM and SIGHUP end the `with` block in order, as Ctrl-C does."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._raise)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @staticmethod
    def _raise(number: int, _frame: types.FrameType | None) -> None:
        raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals back until the block is over."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
