# SPDX-License-Identifier: Apache-2.0
"""What the functional tests share: a bed with one guest that moves back and forth, and the pcmig command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.bed import Bed, BedError, Guest, GuestSpec, Host, Verdict
from tests.bed.guest import LostWrite, lost_writes

ROOT = pathlib.Path(__file__).parents[2]

# It dirties 32 MiB within a second, over and over: at 200 Mb/s pre-copy cannot end within 300 ms.
BUSY = GuestSpec(memory_mib=112, worker_mib=32)
# It changes next to nothing, and still verifies all of its pages within two seconds.
IDLE = GuestSpec(memory_mib=112, worker_mib=32, write_pps=20, verify_pps=5000)

RATE_MBIT = 200  # a pass over the busy guest takes two to three seconds
# Post-copy from the start takes eight seconds or more: time to do things to it. And pre-copy of the busy
# guest does not converge either where others slow the guest down to half its speed.
SLOW_MBIT = 100
PATIENCE_S = 60.0
LIBVIRT_PATIENCE_S = 30.0  # libvirt's own clean-up after a migration


class SceneError(AssertionError):
    """Something is not as the test wants it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One command of pcmig, ended. Times are of CLOCK_MONOTONIC."""

    words: list[str]
    code: int
    out: str
    err: str
    start_s: float
    end_s: float
    report: dict[str, Any] | None  # --json

    @property
    def elapsed_s(self) -> float:
        return self.end_s - self.start_s

    def expect(self, code: int, *texts: str) -> Run:
        """The exit code is CODE, and each of TEXTS is in what was printed; a traceback never is."""
        told = f"pcmig {' '.join(self.words)}\nended with {self.code} after {self.elapsed_s:.1f} s\n"
        told += f"--- stdout\n{self.out}--- stderr\n{self.err}"
        print(told)  # pytest shows it with a failure, and with -rP
        assert self.code == code, f"expected exit code {code}: {told}"
        assert "Traceback" not in self.out + self.err, told
        for text in texts:
            assert re.search(text, self.out + self.err), f"expected {text!r}: {told}"
        return self

    @property
    def decisions(self) -> list[dict[str, Any]]:
        assert self.report is not None
        decisions: list[dict[str, Any]] = self.report["decisions"]
        return decisions

    @property
    def actions(self) -> list[str]:
        return [decision["action"] for decision in self.decisions]


class Command:
    """A pcmig command under way."""

    def __init__(
        self,
        words: list[str],
        argv: list[str],
        report: pathlib.Path | None,
        journal: pathlib.Path | None = None,
    ) -> None:
        self.words = words
        self._report = report
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the command
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.start_s = time.monotonic()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "COLUMNS": "200",
                "PCMIG_METRICS_DIR": "",  # not for this machine's node_exporter
                **({"PCMIG_JOURNAL_DIR": str(journal)} if journal else {}),
            },
        )

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL: it can tell nobody."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """What it printed so far. (Read by position: the child shares the offset of the file.)"""
        return "".join(
            os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (self._out, self._err)
        )

    def wait(self, timeout_s: float = PATIENCE_S) -> Run:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise SceneError(f"pcmig {' '.join(self.words)}: no end; it said\n{self.said()}") from None
        end_s = time.monotonic()
        out, err = (
            os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (self._out, self._err)
        )
        report = None
        if self._report is not None:
            with contextlib.suppress(OSError):
                report = json.loads(self._report.read_text())
                self._report.unlink()
        return Run(self.words, code, out, err, self.start_s, end_s, report)

    def end(self) -> None:
        """For a test that failed: nothing of it goes on."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Scene:
    """A bed, its guest, and where it is."""

    def __init__(self, bed: Bed, folder: pathlib.Path) -> None:
        self.bed = bed
        self.folder = folder
        self.journal = folder / "journal"
        self.guest: Guest | None = None
        self.spec = BUSY
        self._commands: list[Command] = []

    # The guest

    @property
    def source(self) -> Host:
        """The host with the guest."""
        for host in self.bed.hosts:
            if "running" in (self._state(host) or "").split():
                return host
        raise SceneError(f"guest {self.name} runs on neither host: {self.states()}")

    @property
    def name(self) -> str:
        return self.spec.name

    def states(self) -> dict[str, str | None]:
        return {host.name: self._state(host) for host in self.bed.hosts}

    def _state(self, host: Host) -> str | None:
        return host.domain_state(self.name)

    def prepare(self, spec: GuestSpec = BUSY, on: Host | None = None) -> Guest:
        """The guest of SPEC, whole and undisturbed on one host (ON, if given); boots it where it is not."""
        self.bed.network.link_up()
        self.bed.network.limit(RATE_MBIT)
        for host in self.bed.hosts:
            if host.libvirtd() is None:
                host.start_libvirtd()
        if self.guest is None or self.spec != spec or not self._sound(on):
            self.remove()
            self.spec = spec
            self.guest = self.bed.start_guest(spec, on or self.bed.a)
        return self.guest

    def _sound(self, on: Host | None) -> bool:
        try:
            host = self.source
            return (on is None or on is host) and not self._leftovers(host) and not self._bad_pages()
        except SceneError:
            return False

    def _bad_pages(self) -> int:
        """A bad page fails the test that it came up in, and no test after it."""
        assert self.guest is not None
        now_s = time.monotonic()
        return self.guest.verdict(now_s - 1, now_s, 0).page_errors

    def remove(self) -> None:
        """Ends what there is of the guest on both hosts: it belongs to the tests, nobody needs its memory."""
        for command in self._commands:
            command.end()
        self._commands.clear()
        for host in self.bed.hosts:
            if self._state(host) is None and not host.qemu_pids():
                continue
            for words in (("destroy", self.name), ("undefine", self.name)):
                with contextlib.suppress(BedError):
                    host.virsh(*words, timeout_s=15)
            for pid in host.qemu_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: not any(host.qemu_pids() for host in self.bed.hosts), "all QEMUs are gone")
        shutil.rmtree(self.journal, ignore_errors=True)
        self.guest = None

    # pcmig

    def start(self, *words: str, host: Host | None = None, report: bool = False) -> Command:
        """Starts pcmig in the network of HOST (default: the source)."""
        host = host or self.source
        program = pathlib.Path(sys.executable).with_name("pcmig")
        path = self.folder / f"report-{time.monotonic_ns()}.json" if report else None
        typed = [*words, *(["--json", str(path)] if path else [])]
        # Tests that run in the background were started with SIGINT ignored, which pcmig would respect.
        environment = [f"{name}={value}" for name, value in self.environment(host).items()]
        argv = host.command(["env", "--default-signal=INT", *environment, str(program), *typed])
        command = Command(typed, argv, path, self.journal)
        self._commands.append(command)
        return command

    def run(self, *words: str, host: Host | None = None, timeout_s: float = PATIENCE_S) -> Run:
        return self.start(*words, host=host).wait(timeout_s)

    def migration(self, *options: str, source: Host | None = None, domain: str | None = None) -> Command:
        """Starts `pcmig migrate` of the guest to the other host."""
        source = source or self.source
        destination = self.bed.other(source)
        ends = ["--connect", source.uri, *self.way(destination)]
        words = ["migrate", domain or self.name, destination.remote_uri, *ends, *options]
        return self.start(*words, host=source, report="--json" not in options)

    def way(self, destination: Host) -> list[str]:
        """Options that say how the guest's memory gets to DESTINATION."""
        return ["--migrateuri", destination.migrate_uri]

    def environment(self, host: Host) -> dict[str, str]:
        """What pcmig finds in its environment on HOST, besides what is the same everywhere."""
        return {}

    def migrate(self, *options: str, timeout_s: float = PATIENCE_S) -> Run:
        return self.migration(*options).wait(timeout_s)

    def in_precopy(self, source: Host) -> Command:
        """Starts a migration that stays in pre-copy; it is there."""
        command = self.migration("--policy", "manual")
        self.wait_precopy(source)
        return command

    def in_postcopy(self, destination: Host, *options: str) -> Command:
        """Starts a migration whose post-copy takes its time; it is there, and says so."""
        self.bed.network.limit(SLOW_MBIT)
        command = self.migration("--policy", "immediate", *options)
        self.wait_postcopy(destination)
        self.wait_for(lambda: "post-copy" in command.said(), "pcmig says so")
        return command

    def ask(self, command: str, host: Host, *options: str, domain: str | None = None) -> Run:
        """`pcmig watch|abort|switch|pause|resume` of the guest at HOST."""
        return self.run(command, "--connect", host.uri, domain or self.name, *options, host=host)

    # What the tests want

    def wait_for(
        self, condition: Callable[[], object], what: str, patience_s: float = LIBVIRT_PATIENCE_S
    ) -> None:
        deadline_s = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise SceneError(f"waited {patience_s:.0f} s in vain until {what}; guest: {self.states()}")
            time.sleep(0.05)

    def wait_precopy(self, source: Host, mib: int = 4) -> None:
        """Until pre-copy has put so much on the wire."""

        said = "nothing"

        def sent() -> bool:
            nonlocal said
            try:
                said = source.virsh("domjobinfo", self.name, "--rawstats", timeout_s=10)
            except BedError as err:
                said = str(err)
                return False
            match = re.search(r"memory_processed:\s*(\d+)", said)
            return match is not None and int(match[1]) >= mib * 1024 * 1024

        try:
            self.wait_for(sent, f"{mib} MiB are sent")
        except SceneError as err:
            told = "\n".join(command.said() for command in self._commands)
            raise SceneError(f"{err}; domjobinfo said last:\n{said}\npcmig said:\n{told}") from None

    def wait_postcopy(self, destination: Host) -> None:
        """Until the guest runs at the destination with pages missing."""
        self.wait_for(lambda: "post-copy" in (self._state(destination) or ""), "the guest is in post-copy")

    def expect_at(self, host: Host, run: Run | None = None) -> Verdict:
        """The guest is at HOST alone, whole by its own word, and nothing of a migration is left anywhere."""
        guest = self.guest
        assert guest is not None
        self.wait_for(lambda: not self._leftovers(host), f"only host {host.name} has the guest")
        now_s = time.monotonic()
        start_s, end_s = (run.start_s, run.end_s) if run is not None else (now_s, now_s)
        # Every page twice since: nothing that was lost on the way can hide.
        assert guest.wait_verified(end_s), f"guest {self.name} does not verify its pages any more"
        verdict = guest.verdict(start_s, end_s, max(0.3, time.monotonic() - end_s))
        if verdict.page_errors and lost_writes(guest.log.read_text(errors="replace")):
            raise LostWrite(f"QEMU lost {verdict.page_errors} page writes of guest {self.name}: {verdict}")
        assert verdict.page_errors == 0, verdict
        assert verdict.host == host.name, verdict
        assert verdict.alive, verdict
        assert verdict.pages_checked > 0, verdict
        return verdict

    def _leftovers(self, host: Host) -> list[str]:
        """What is not as it is with a guest that simply runs on HOST."""
        found = []
        other = self.bed.other(host)
        for each, wanted in ((host, 1), (other, 0)):
            if len(each.qemu_pids()) != wanted:
                found.append(f"host {each.name} has {len(each.qemu_pids())} QEMU processes")
        if (self._state(host) or "").split()[:1] != ["running"] or "copy" in (self._state(host) or ""):
            found.append(f"state at host {host.name}: {self._state(host)}")
        if (state := self._state(other)) is not None:
            found.append(f"host {other.name} knows the guest: {state}")
        try:
            if "None" not in host.virsh("domjobinfo", self.name, timeout_s=10):
                found.append("a job is still there")
        except BedError as error:
            found.append(str(error))
        return found


S = TypeVar("S", bound=Scene)


def scene_on(bed: Bed, folder: pathlib.Path) -> contextlib.AbstractContextManager[Scene]:
    """A scene on a bed that comes up for it."""
    return played(Scene(bed, folder))


@contextlib.contextmanager
def played(scene: S) -> Iterator[S]:
    """SCENE, with its bed up meanwhile."""
    with scene.bed:
        try:
            yield scene
        finally:
            for command in scene._commands:
                command.end()
