# SPDX-License-Identifier: Apache-2.0
"""Where a cell plays: a bed with one guest, a driver that migrates it, and what is asked afterwards."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.bed import Bed, BedError, Guest, GuestSpec, Host
from tests.bed.layer import Reporter
from tests.bed.procs import ProcessId, run
from tests.bench.switchover import events
from tests.bench.switchover.events import Listeners
from tests.cloud import network as cloud_network
from tests.cloud.cloud import MIGRATION_ENDED, PCMIG_DRIVER, STOCK_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.controlplane import in_parallel
from tests.cloud.server import Server
from tests.cloud.service import RUN, Service, descendants
from tests.faults.judge import Claim, Half
from tests.faults.wire import Wire
from tests.functional.scene import Command
from tests.functional.tunnel_scene import TunnelScene

PCMIG, STOCK = "pcmig", "stock"
DRIVERS = (PCMIG, STOCK)
# Slow enough for post-copy of several seconds, and for QEMU 11 under emulation (doc/operate/check.rst).
RATE_MBIT = 60
HURRY_MBIT = 200
GUEST = GuestSpec(name="g1", memory_mib=112, worker_mib=32, panic=True)
DISK_FILE = "/run/libvirt/qemu/pcmig-g1.raw"  # where fill() leaves no room
GUEST_WITH_DISK = dataclasses.replace(GUEST, ide_disk=DISK_FILE)
KEEPALIVE_S = 2  # libvirt's; it gives up after six of them
DISK = "4g"  # of memory, were it ever used
PRECOPY_MIB = 4
PATIENCE_S = 30.0
START_PATIENCE_S = 90.0  # from the word to the first bytes, on a machine that does other work
UP_PATIENCE_S = 90.0
CALL_PATIENCE_S = 10
LOG_CHARS = 2000


class Stage(abc.ABC):
    """`with` it; then, cell by cell: prepare, start, switch, look, restore."""

    bed: Bed
    wire: Wire
    guest: Guest
    source: Host
    destination: Host

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self.tunnel = self.disk = self.spent = False
        self._exits = contextlib.ExitStack()
        self._listening = contextlib.ExitStack()
        self._listeners: Listeners | None = None
        self._typed: list[subprocess.Popen[bytes]] = []
        self._disks: dict[str, str] = {}  # by host, the folder that is a file system of its own

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as exits:
            self._up(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self._exits.close()

    # A cell

    def prepare(self, tunnel: bool = False, disk: bool = False) -> None:
        """A sound guest on `source`, and nothing broken. TUNNEL: the migration is to go through it. DISK: the
        guest has one."""
        self.tunnel = tunnel
        self.disk = disk
        self.restore()
        self._prepare()
        self.bed.network.limit(RATE_MBIT)
        self._listeners = self._listening.enter_context(Listeners(self.bed.hosts, self.domain))
        time.sleep(0.3)  # until they listen

    @abc.abstractmethod
    def start(self) -> None:
        """Start the migration; returns once pre-copy has put something on the wire."""

    @abc.abstractmethod
    def switch(self) -> None:
        """Ask for post-copy now. Never raises for a refusal."""

    @abc.abstractmethod
    def start_again(self) -> None:
        """Somebody asks for the same migration once more. Returns at once, whatever comes of it."""

    def type_at(self, host: Host, words: Sequence[str]) -> None:
        """Somebody types WORDS on HOST. Returns at once, whatever comes of it."""
        self._typed.append(
            subprocess.Popen(
                host.inside(list(words)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    @abc.abstractmethod
    def over(self) -> bool:
        """The operator's side has come to an end, whichever."""

    def follow_advice(self) -> bool:
        """An operator types what was printed for a guest that the source alone has; whether there was
        anything that lets it go on."""
        return False

    def end_what_hangs(self) -> bool:
        """An operator ends the destination's half, if it was said that its QEMU hangs and that nothing else
        helps."""
        return False

    @abc.abstractmethod
    def claim(self) -> tuple[Claim, tuple[str, ...], str]:
        """What the operator is told, contradictions in it, and the words."""

    def facts(self) -> dict[str, Any]:
        """More for the record of a cell."""
        return {}

    def logs(self) -> dict[str, str]:
        """What the guest's QEMUs said last, and the tunnels: for who looks into a round that went wrong."""
        files = {host.name: host.state / f"log/qemu/{self.domain}.log" for host in self.bed.hosts}
        return {name: tail(path) for name, path in files.items()}

    def replace_guest(self) -> None:
        """The next cell begins with another guest: this one cannot be migrated again."""
        self.spent = True

    def restore(self) -> None:
        """Mend whatever is broken; at any time."""
        self._listening.close()
        self.wire.mend()
        self.wire.restore()
        for host in self.bed.hosts:
            self.unfill(host)
            daemon = host.libvirtd()
            if daemon is None:
                host.start_libvirtd()
            else:
                daemon.signal(signal.SIGCONT)
            # What only looked on, or was abandoned by its parent.
            for pid, (_, command) in host.processes().items():
                if command == "virsh":
                    host.signal_process(pid, signal.SIGKILL)
        for process in self._typed:
            process.kill()
            process.wait()
        self._typed.clear()

    # What there is to see

    @property
    @abc.abstractmethod
    def domain(self) -> str: ...

    def switched_s(self, since_s: float) -> float | None:
        """When the source stopped for the switch, by its own event."""
        assert self._listeners is not None
        return self._listeners.wait(self.source.name, events.SWITCHED, since_s, 0.0)

    def hurry(self) -> None:
        """The rest of the memory has a faster link."""
        self.bed.network.limit(HURRY_MBIT)

    def halves(self) -> dict[str, Half]:
        return {host.name: look(host, self.domain) for host in self.bed.hosts}

    # What faults need

    def management(self, host: Host) -> dict[str, str]:
        """Interfaces of the host beside the migration link that belong to the control network."""
        return {}

    def fill(self, host: Host) -> None:
        """Not a page is left on the disk that the host writes the guest's files to."""
        folder = self._disks[host.name]
        used = f"$(df -k --output=used {folder} | tail -1)"
        _inside(host, ["sh", "-c", f"mount -o remount,size=$(({used} + 4))k {folder}"])

    def unfill(self, host: Host) -> None:
        if host.name in self._disks:
            _inside(host, ["mount", "-o", f"remount,size={DISK}", self._disks[host.name]])

    # Parts

    @abc.abstractmethod
    def _up(self, exits: contextlib.ExitStack) -> None: ...

    @abc.abstractmethod
    def _prepare(self) -> None: ...

    def _give_disk(self, host: Host, folder: str) -> None:
        """A file system of its own for a folder of the host, whose size is a matter of a moment."""
        _inside(host, ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "pcmig", folder])
        self._disks[host.name] = folder

    def _wait_precopy(self) -> None:
        deadline_s = time.monotonic() + START_PATIENCE_S
        while self.source.processed_bytes(self.domain) < PRECOPY_MIB << 20:
            if time.monotonic() > deadline_s:
                raise BedError(f"no migration of {self.domain} got under way: {self.claim()[2][-600:]}")
            time.sleep(0.1)


class HostsStage(Stage):
    """The two-host bed; `pcmig migrate`, or virsh as the control."""

    def __init__(self, driver: str, stack: str, folder: pathlib.Path, reporter: Reporter) -> None:
        super().__init__(driver)
        self.bed = Bed(stack, RATE_MBIT, keepalive_s=KEEPALIVE_S, reporter=reporter)
        self.folder = folder
        self.scene = TunnelScene(self.bed, folder)
        self.command: Command | None = None
        self.second: Command | None = None
        self._said_before = ""

    def _up(self, exits: contextlib.ExitStack) -> None:
        exits.enter_context(self.bed)
        self.wire = Wire(self.bed.network, self.folder)
        for host in self.bed.hosts:
            # Where libvirt writes the state of guests: all that this one, without disks, needs a disk for.
            host.kill_libvirtd()
            self._give_disk(host, "/run/libvirt/qemu")
            host.start_libvirtd()

    def _prepare(self) -> None:
        if self.command is not None:
            self.command.end()
            self.command = None
        for host in self.bed.hosts:
            # A guest without a definition that libvirt has left shut off: only a new daemon forgets it.
            if (host.domain_state(self.domain) or "").startswith("shut off"):
                host.kill_libvirtd()
                host.start_libvirtd()
        # What was killed with its cell is nobody's business any more.
        shutil.rmtree(self.scene.journal, ignore_errors=True)
        self.scene.clear = not self.tunnel
        if self.tunnel:
            self.scene.start_daemons()
        if self.disk:
            for host in self.bed.hosts:
                _inside(host, ["truncate", "-s", "1M", DISK_FILE])
        if self.spent:
            self.scene.remove()
        self.spent = False
        self.guest = self.scene.prepare(GUEST_WITH_DISK if self.disk else GUEST)
        self.source = self.scene.source
        self.destination = self.bed.other(self.source)

    @property
    def domain(self) -> str:
        return self.scene.name

    def start(self) -> None:
        self._said_before = ""
        if self.driver == PCMIG:
            options = ["--unsafe"] if self.disk else []  # each host has a file of its own, by intention
            self.command = self.scene.migration(
                "--policy", "manual", "--no-progress", *options, source=self.source
            )
        else:
            words = self._virsh_migrate()
            self.command = Command(words, self.source.inside(words), None)
        self._wait_precopy()

    def switch(self) -> None:
        assert self.command is not None
        if self.driver == PCMIG:
            # To any other process, and to one that has just begun, the signal would be the end.
            if self.command.words[0] in ("migrate", "resume") and self.command.said():
                self.command.process.send_signal(signal.SIGUSR1)
            return
        with contextlib.suppress(BedError):
            self.source.virsh("migrate-postcopy", self.domain, timeout_s=CALL_PATIENCE_S)

    def start_again(self) -> None:
        if self.driver == PCMIG:
            self.second = self.scene.migration("--no-progress", source=self.source)
        else:
            self.type_at(self.source, self._virsh_migrate())

    def _virsh_migrate(self) -> list[str]:
        ends = [self.domain, self.destination.remote_uri, "--migrateuri", self.destination.migrate_uri]
        return [
            "virsh",
            "migrate",
            "--live",
            "--p2p",
            "--postcopy",
            *(["--unsafe"] if self.disk else []),
            *ends,
        ]

    def resume_paused(self, host: Host) -> None:
        """Somebody types virsh resume, until libvirt takes it; not for a guest that runs."""
        deadline_s = time.monotonic() + PATIENCE_S
        while "I/O error" in (host.domain_state(self.domain) or "") and time.monotonic() < deadline_s:
            with contextlib.suppress(BedError):
                host.virsh("resume", self.domain, timeout_s=PATIENCE_S)

    def all_processes(self, host: Host) -> list[ProcessId]:
        """All that run on HOST, and not what keeps it as a host of the bed."""
        found = (ProcessId.of(pid) for pid, (inside, _) in host.processes().items() if inside != 1)
        return [process for process in found if process is not None]

    def follow_advice(self) -> bool:
        assert self.command is not None
        found = re.search(r"^\s*(pcmig turn-back [^#;\n]*)", self._all_said(), re.MULTILINE)
        if self.driver != PCMIG or found is None:
            return False
        words = shlex.split(found[1])[2:]
        if "--destination-is-dead" not in words:  # asked for: the process that steered did not see the end
            words.insert(0, "--destination-is-dead")
        self._turn_back(*words)
        return True

    def end_what_hangs(self) -> bool:
        found = re.search(r"it hangs \(.*\n\s*(virsh -c .* destroy .*)", self._all_said())
        if found is None:
            return False
        self.type_at(self.source, shlex.split(found[1]))
        return True

    def _turn_back(self, *words: str) -> None:
        assert self.command is not None
        self._said_before = self._all_said()
        self.command.end()
        self.command = self.scene.start("turn-back", *words, host=self.source)

    def _all_said(self) -> str:
        """By the commands that one operator typed, one after the other."""
        assert self.command is not None
        return self._said_before + self.command.said()

    def destination_is_dead(self) -> None:
        """Somebody who knows it gives his word, and has the guest go on at the source."""
        assert self.command is not None
        self.command.interrupt()
        with contextlib.suppress(AssertionError):  # it may have ended by itself
            self.command.wait(PATIENCE_S)
        self._turn_back("--destination-is-dead", "-c", self.source.uri, self.domain)

    def boot(self, host: Host) -> None:
        """HOST after its power was gone: what is kept in memory is not there any more."""
        _inside(host, ["sh", "-c", "rm -rf /run/libvirt/qemu/*.xml /run/libvirt/qemu/*.pid"])
        self.bed.network.link_up()
        self.bed.network.limit(RATE_MBIT)
        host.start_libvirtd()

    def restore(self) -> None:
        super().restore()
        self.bed.network.link_up()
        if self.second is not None:
            self.second.end()
            self.second = None

    def command_processes(self) -> list[ProcessId]:
        """Of the command that migrates."""
        assert self.command is not None
        pid = self.command.process.pid
        found = (ProcessId.of(each) for each in [pid, *descendants(pid)])
        return [process for process in found if process is not None]

    def bring_back_command(self) -> None:
        """What an operator types whose command was killed; nobody has anything to type for virsh."""
        assert self.command is not None
        if self.driver == PCMIG:
            self.command.end()
            self.command = self.scene.start("resume", "-c", self.source.uri, self.domain, host=self.source)

    def over(self) -> bool:
        assert self.command is not None
        return self.command.process.poll() is not None

    def claim(self) -> tuple[Claim, tuple[str, ...], str]:
        assert self.command is not None
        said = self._all_said()
        return command_claim(self.driver, self.command.process.poll(), said), (), said

    def facts(self) -> dict[str, Any]:
        assert self.command is not None
        return {"exit": self.command.process.poll()}

    def logs(self) -> dict[str, str]:
        tunnels = self.scene.daemons.values() if self.tunnel else ()
        return super().logs() | {f"tunnel {each.host.name}": tail(each.log) for each in tunnels}

    def __exit__(self, *exception: object) -> None:
        if self.command is not None:
            self.command.end()
        super().__exit__(*exception)


class CloudStage(Stage):
    """The cloud bed; pcmig's driver in both nova-computes, or Nova's own as the control."""

    CONF: Mapping[str, Sections] = {
        PCMIG: {"libvirt": {"live_migration_permit_post_copy": True}, "pcmig": {"policy": "manual"}},
        STOCK: {"libvirt": {"live_migration_permit_post_copy": True}},
    }

    def __init__(self, driver: str, stack: str, folder: pathlib.Path, reporter: Reporter) -> None:
        super().__init__(driver)
        self.cloud = Cloud(
            stack,
            RATE_MBIT,
            driver=PCMIG_DRIVER if driver == PCMIG else STOCK_DRIVER,
            nova_conf=self.CONF[driver],
            reporter=reporter,
        )
        for host in self.cloud.hosts:
            host.keepalive_s = KEEPALIVE_S
        self.bed = self.cloud
        self.folder = folder
        self.server: Server | None = None
        self._domain = ""
        self._guests = 0
        self._before = 0
        self._turning = False  # the latest migration's server was to turn back

    def _up(self, exits: contextlib.ExitStack) -> None:
        exits.enter_context(self.cloud)
        self.wire = Wire(self.cloud.network, self.folder)
        for host in self.cloud.hosts:
            self._give_disk(host, f"{RUN}/instances")

    def _prepare(self) -> None:
        for name, compute in self.cloud.computes.items():
            if not compute.nova.running():
                self.bring_back_compute(name)
        deadline_s = time.monotonic() + UP_PATIENCE_S  # Nova takes one for dead after its bus was down
        while not self.cloud.computes_up() and time.monotonic() < deadline_s:
            time.sleep(1)
        if self.server is None or self.spent or not self._sound(self.server):
            self._replace()
        self.spent = False
        assert self.server is not None
        self.source = getattr(self.cloud, str(self.server.nova_host))
        self.destination = self.cloud.other(self.source)
        self._before = len(self.cloud.migrations(self.server))
        self._turning = False

    def _sound(self, server: Server) -> bool:
        """Nova has it right, and so has the guest."""
        try:
            record = server.show()
            host = str(record["OS-EXT-SRV-ATTR:host"]).removeprefix("pcmig-")
            halves = self.halves()
            beats = server.heartbeats(time.monotonic() - 2)
            return (
                record["status"] == "ACTIVE"
                and record["OS-EXT-STS:task_state"] is None
                and halves[host].runs
                and sum(half.qemus for half in halves.values()) == 1
                and bool(beats)
                and beats[-1].bad == 0
                and list(self.cloud.placement_allocations(server)) == [host]
                and not self._turned_back()  # libvirt migrates it no more
            )
        except BedError:
            return False

    def _replace(self) -> None:
        """A new guest. What is left of the old one goes by force: it belongs to the tests."""
        if self.server is not None:
            for host in self.cloud.hosts:
                for words in (("destroy", self._domain), ("undefine", self._domain)):
                    with contextlib.suppress(BedError):
                        host.virsh(*words, timeout_s=CALL_PATIENCE_S)
                for pid in host.qemu_pids():
                    host.signal_process(pid, signal.SIGKILL)
            with contextlib.suppress(BedError):
                action = {"os-resetState": {"state": "error"}}
                self.cloud.api.post("compute", f"/servers/{self.server.id}/action", action)
            # Nova forgets a migration of a dead server only with its nova-compute.
            in_parallel([functools.partial(self.cloud.restart_compute, name) for name in self.cloud.computes])
            with contextlib.suppress(BedError):
                self.cloud.delete(self.server)
        self._guests += 1
        name = f"{GUEST.name}-{self._guests}"
        spec = GuestSpec(name, GUEST.memory_mib, GUEST.worker_mib)
        self.cloud.network.limit(None)
        self.server = self.guest = self.cloud.boot(spec)
        self._domain = self.server.domain

    @property
    def domain(self) -> str:
        return self._domain

    def start(self) -> None:
        assert self.server is not None
        self.cloud.live_migrate(self.server, self.destination.name)
        self._wait_precopy()

    def start_again(self) -> None:
        assert self.server is not None
        with contextlib.suppress(BedError):  # Nova refuses
            self.cloud.live_migrate(self.server, self.destination.name)

    def switch(self) -> None:
        assert self.server is not None
        with contextlib.suppress(BedError):
            self.cloud.force_complete(self.server)

    def over(self) -> bool:
        try:
            record = self.record()
        except BedError:
            return False
        if self._turning and record["status"] == "ERROR":
            return False  # it was asked for, and Nova has not begun
        return record["migration"] in MIGRATION_ENDED and record["task"] is None

    def record(self) -> dict[str, Any]:
        """Everything that Nova, neutron and placement say of the server."""
        server = self.server
        assert server is not None
        shown = server.show()
        records = self.cloud.migrations(server)
        latest = records[0] if len(records) > self._before else None
        return {
            "status": shown["status"],
            "task": shown["OS-EXT-STS:task_state"],
            "host": str(shown["OS-EXT-SRV-ATTR:host"]).removeprefix("pcmig-"),
            "fault": shown.get("fault", {}).get("message", ""),
            "migration": latest["status"] if latest else None,
            "bindings": self.cloud.port_bindings(server),
            "allocations": sorted(self.cloud.placement_allocations(server)),
            "migration_allocations": sorted(self.cloud.placement_allocations(latest["uuid"]))
            if latest
            else [],
        }

    def end_what_hangs(self) -> bool:
        if "waiting for an operator" not in str(self.record()["migration"]):
            return False
        self.type_at(self.destination, ["virsh", "destroy", self.domain])
        return True

    def follow_advice(self) -> bool:
        """Of a server in ERROR, whose migration ended with its destination's half."""
        assert self.server is not None
        if self.driver != PCMIG or self.record()["status"] != "ERROR":
            return False
        with contextlib.suppress(BedError):
            self.cloud.api.post("compute", f"/servers/{self.server.id}/action", {"os-pcmigTurnBack": {}})
            self._turning = True
            return True
        return False

    def _turned_back(self) -> bool:
        """As the API shows it."""
        assert self.server is not None
        if self.driver != PCMIG:
            return False
        shown = self.cloud.api.get("compute", f"/servers/{self.server.id}/os-pcmig")
        return bool(shown["pcmig"]["way_back"]["turned_back"])

    def claim(self) -> tuple[Claim, tuple[str, ...], str]:
        try:
            record = self.record()
            told, contradictions = record_claim(record, self.source.name, self.destination.name)
            if told is Claim.STAYED and self._turned_back():
                told = Claim.TURNED_BACK
        except BedError as error:
            return Claim.SILENT, (), str(error)
        return told, contradictions, f"{record['status']} on {record['host']}: {record['fault']}"

    def facts(self) -> dict[str, Any]:
        with contextlib.suppress(BedError):
            return {"record": self.record()}
        return {}

    def management(self, host: Host) -> dict[str, str]:
        return {host.name: cloud_network.MANAGEMENT}

    def bring_back_compute(self, name: str) -> None:
        self.cloud.restart_compute(name)

    def control_service(self, name: str) -> Service:
        assert self.cloud._plane is not None
        return self.cloud._plane.services[name]

    def bring_back_service(self, name: str) -> None:
        plane = self.cloud._plane
        assert plane is not None
        service = plane.services[name]
        service.stop()  # it has been told to end, and may not be done yet
        service.start()
        service.wait_ready(getattr(plane, f"_{name}_listens"), PATIENCE_S)

    def restore(self) -> None:
        super().restore()
        for name in ("mariadb", "rabbitmq"):
            if not self.control_service(name).running():
                self.bring_back_service(name)


STAGES: Mapping[str, Callable[[str, str, pathlib.Path, Reporter], Stage]] = {
    "hosts": HostsStage,
    "cloud": CloudStage,
}


def command_claim(driver: str, code: int | None, said: str) -> Claim:
    """What a command told by its exit status and its words; CODE None: it has not ended."""
    if code == 0 and re.search("goes on at .* from the moment of the switch", said):
        return Claim.TURNED_BACK
    if code is None:
        return Claim.RECOVERING if re.search("interrupted|resum", said) else Claim.SILENT
    if driver == STOCK:
        return Claim.FAILED if code else Claim.MOVED
    if code in (0, 1) and re.search(r"it is off\b", said):
        return Claim.OFF
    if code == 1:
        for words, claim in (("at the source, paused", Claim.PAUSED), ("at the source", Claim.STAYED)):
            if words in said:
                return claim
    return {0: Claim.MOVED, 1: Claim.FAILED, 3: Claim.OPERATOR}.get(code, Claim.WRONG)


def record_claim(record: Mapping[str, Any], source: str, destination: str) -> tuple[Claim, tuple[str, ...]]:
    """What Nova's record tells an operator, and where its parts contradict each other."""
    if record["status"] == "ERROR":
        return Claim.OPERATOR, ()
    if record["status"] == "MIGRATING" or record["task"] is not None:
        interrupted = re.search("interrupted|resum", f"{record['fault']} {record['migration']}")
        return (Claim.RECOVERING if interrupted else Claim.SILENT), ()
    if record["status"] != "ACTIVE" or record["host"] not in (source, destination):
        return Claim.WRONG, (f"status {record['status']}, host {record['host']}",)
    moved = record["host"] == destination
    wanted = ("completed",) if moved else ("error", "failed", "cancelled")
    here = record["host"]
    contradictions = []
    if record["migration"] not in wanted:
        contradictions.append(f"ACTIVE on {here}, migration {record['migration']}")
    if record["bindings"].get(here) != "ACTIVE" or len(record["bindings"]) != 1:
        contradictions.append(f"ACTIVE on {here}, port bindings {record['bindings']}")
    if record["allocations"] != [here] or record["migration_allocations"]:
        held = [
            *record["allocations"],
            *(f"{name} by the migration" for name in record["migration_allocations"]),
        ]
        contradictions.append(f"ACTIVE on {here}, resources held on {', '.join(held) or 'none'}")
    return (Claim.MOVED if moved else Claim.STAYED), tuple(contradictions)


def look(host: Host, domain: str) -> Half:
    state: str | None
    try:
        state = host.virsh("domstate", domain, "--reason", timeout_s=CALL_PATIENCE_S).strip()
    except BedError as error:
        state = "" if re.search("failed to get domain|[Dd]omain not found", str(error)) else None
    return Half(state, len(host.qemu_pids()))


def tail(path: pathlib.Path) -> str:
    """The end of a log; "" where there is none."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")[-LOG_CHARS:]
    return ""


def _inside(host: Host, argv: list[str]) -> None:
    run(host.inside(argv), f"host {host.name}: {argv[0]}")
