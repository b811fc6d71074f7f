# SPDX-License-Identifier: Apache-2.0
"""One bed, one kind of network, and one guest that goes to and fro over it, each time by another way."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.bed import Bed, BedError, Guest, Host
from tests.bed.guest import crash_told
from tests.bed.layer import Reporter
from tests.bench.ports.figures import bar_ms, meter_lost, over_the_bar, silence_ms
from tests.bench.ports.ways import SetUp
from tests.bench.ports.wired import Wired
from tests.bench.ports.wiring import OVS_FOLDER, Pinger, Wiring

ROOT = pathlib.Path(__file__).parents[3]
SETTLE_S = 4.0
REACHED_S = 2.0  # a guest that was answered for so long without a break is there again
ANSWERED_S = 0.3
PATIENCE_S = 120.0
REPORT = "report.json"

Seen = dict[str, dict[str, list[tuple[int, float]]]]


class Session:
    """`with Session(...) as session: session.measure(way, number)`, as often as wanted."""

    def __init__(self, stack: str, rate_mbit: float, setup: SetUp, reporter: Reporter) -> None:
        self.stack = stack
        self.setup = setup
        self.reporter = reporter
        self.spec = Wired(nics=setup.nics, openvswitch=setup.openvswitch)
        self.bed = Bed(stack, rate_mbit, reporter=reporter)
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.bed)
            self.folder = pathlib.Path(
                exits.enter_context(tempfile.TemporaryDirectory(prefix="pcmig-ports."))
            )
            self.wiring = exits.enter_context(Wiring(self.bed, self.setup))
            for host in self.bed.hosts:
                self.spec.give_image(host, self.reporter)
            self.guest: Guest = self.bed.start_guest(self.spec)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._exits.__exit__(kind, error, trace)

    def measure(self, way: str, number: int) -> dict[str, Any]:
        """Migrate the guest to the other host; raises BedError when it is not fit for another migration."""
        source = self.bed.where(self.guest)
        destination = self.bed.other(source)
        watching = {"client": self.wiring.pinger(None), "neighbour": self.wiring.pinger(source)}
        self.settle(watching)
        start_s = time.monotonic()
        code, said, report = self._migrate(way, source, destination)
        end_s = time.monotonic()
        seen = self._until_reached(watching)
        tail_s = max(2.0, seen["client"][1] - end_s)
        verdict = self.guest.verdict(start_s, end_s, tail_s)
        silences_ms = (verdict.before_silence_ms, verdict.switch_silence_ms, verdict.later_silence_ms)
        guest_ms = max(each or 0.0 for each in silences_ms)
        until_s = end_s + tail_s
        row: dict[str, Any] = {
            "setup": self.setup.name,
            "way": way,
            "round": number,
            "direction": f"{source.name}->{destination.name}",
            "guest_ms": guest_ms,
            "switch_ms": verdict.switch_silence_ms,
            "bar_ms": bar_ms(guest_ms),
            "command_s": round(end_s - start_s, 2),
            "ports": (report or {}).get("ports"),
            "page_errors": verdict.page_errors,
        }
        row["waited_s"] = _waited_s(report)
        row["announced"] = None
        for name, (pings, _) in seen.items():
            each = {address: silence_ms(found["came"], start_s, until_s) for address, found in pings.items()}
            row[f"{name}_each_ms"] = {address: round(value, 1) for address, value in each.items()}
            row[f"{name}_ms"] = max(each.values())
        row["meter_lost"] = max(
            meter_lost(found["sent"], found["came"], start_s, until_s - 1.0)
            for pings, _ in seen.values()
            for found in pings.values()
        )
        row["over_the_bar"] = over_the_bar(row)
        row["error"] = self._error(row, code, said, verdict.host == destination.name)
        return row

    def _error(self, row: dict[str, Any], code: int, said: str, there: bool) -> str | None:
        if code:
            return f"exit status {code}: {(said.strip().splitlines() or ['it said nothing'])[-1]}"
        if words := crash_told(self.guest.said()):
            return words
        if not there:
            return "the guest is not where it was moved to"
        return f"{row['page_errors']} pages are wrong" if row["page_errors"] else None

    def settle(self, watching: dict[str, Pinger]) -> None:
        """Until everybody has been answered without a break."""
        end_s = time.monotonic() + PATIENCE_S
        for pinger in watching.values():
            pinger.take()
        while True:
            time.sleep(SETTLE_S)
            now_s = time.monotonic()
            found = {name: pinger.take() for name, pinger in watching.items()}
            worst_ms = max(
                silence_ms(each["came"], now_s - SETTLE_S + 0.1, now_s)
                for pings in found.values()
                for each in pings.values()
            )
            if worst_ms < ANSWERED_S * 1000:
                return
            if now_s > end_s:
                raise BedError(f"the guest is not reached: {worst_ms:.0f} ms without an answer")

    def _until_reached(self, watching: dict[str, Pinger]) -> dict[str, tuple[Seen, float]]:
        """What everybody saw until the guest answers them all again, and when that was told."""
        end_s = time.monotonic() + PATIENCE_S
        found: dict[str, tuple[Seen, float]] = {name: ({}, 0.0) for name in watching}
        while True:
            time.sleep(REACHED_S)
            now_s = time.monotonic()
            worst_ms = 0.0
            for name, pinger in watching.items():
                new, pings = pinger.take(), found[name][0]
                for address, each in new.items():
                    known = pings.setdefault(address, {"sent": [], "came": []})
                    for key, values in each.items():
                        known[key] += values
                    worst_ms = max(worst_ms, silence_ms(each["came"], now_s - REACHED_S + 0.1, now_s))
                found[name] = (pings, now_s)
            if worst_ms < ANSWERED_S * 1000 or now_s > end_s:
                return found

    def _migrate(self, way: str, source: Host, destination: Host) -> tuple[int, str, dict[str, Any] | None]:
        """Exit status, what it said, and its report."""
        to = [self.spec.name, destination.remote_uri, "--migrateuri", destination.migrate_uri]
        if way == "virsh":
            words = ["virsh", "-c", "qemu:///system", "migrate", "--live", "--p2p", "--postcopy"]
            argv = source.inside([*words, "--postcopy-after-precopy", *to])
            return *_run(argv), None
        ports = [f"--ports=root@{destination.name}", "--ports-wait", "100"] if way == "pcmig-ports" else []
        code, said = _run(self.pcmig(source, destination, ports))
        told = None
        with contextlib.suppress(OSError, ValueError):
            told = json.loads((self.folder / REPORT).read_text())
        return code, said, told

    def pcmig(self, source: Host, destination: Host, options: list[str]) -> list[str]:
        """`pcmig migrate` of the guest."""
        environment = {
            "PYTHONPATH": str(ROOT),
            "PCMIG_JOURNAL_DIR": str(self.folder / "journal"),
            "PCMIG_SSH": str(self._ssh(destination)),
            "OVS_RUNDIR": f"{source.state}{OVS_FOLDER}",
        }
        words = ["migrate", "--policy", "first-pass", "--no-progress", "--json", str(self.folder / REPORT)]
        ends = ["-c", source.uri, "--migrateuri", destination.migrate_uri]
        pairs = [f"{name}={value}" for name, value in environment.items()]
        program = [sys.executable, "-m", "pcmig.cli.main"]
        to = [self.spec.name, destination.remote_uri]
        return source.command(["env", *pairs, *program, *words, *ends, *options, *to])

    def _ssh(self, destination: Host) -> pathlib.Path:
        """In ssh's place: it goes nowhere but to DESTINATION."""
        path = f"PATH={pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        folder = f"OVS_RUNDIR={OVS_FOLDER}"  # as the host sees it, and not as the machine does
        there = destination.inside(["env", f"PYTHONPATH={ROOT}", path, folder, "sh", "-c"])
        program = self.folder / "ssh"
        program.write_text(
            '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n' + f'exec {shlex.join(there)} "$3"\n'
        )
        program.chmod(0o755)
        return program


def _run(argv: list[str]) -> tuple[int, str]:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout


def _waited_s(report: dict[str, Any] | None) -> float | None:
    """From the start of the migration to its switch."""
    for decision in (report or {}).get("decisions", []):
        if decision["action"] == "switch":
            return float(decision["t_us"]) / 1e6
    return None
