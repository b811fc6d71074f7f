# SPDX-License-Identifier: Apache-2.0
"""Runs one way to migrate as a process of its own, and takes down its time, its CPU and what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests.bed import Host
from tests.bench.switchover.ways import Kind, Way

NOVA_PERIOD_MS = 500
WATCH_PERIOD_MS = 100  # for the moment of one pass; a statistics call takes about 1 ms
START_UP_S = 2.0  # what a process takes for its own start is over by then
PATIENCE_S = 300.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
POLL_CLIENT = pathlib.Path(__file__).with_name("poll_client.py")


@dataclasses.dataclass(frozen=True)
class Ran:
    """A command that has ended; times are of CLOCK_MONOTONIC."""

    code: int
    start_s: float
    end_s: float
    cpu_s: float  # user and system, all of its life
    cpu_after_start_s: float | None  # the same from START_UP_S on; None when it did not live that long
    said: str  # both outputs
    report: dict[str, Any] | None = None  # what it told for programs

    @property
    def error(self) -> str | None:
        if not self.code:
            return None
        return f"exit status {self.code}: " + (self.said.strip().splitlines() or ["it said nothing"])[-1]


@dataclasses.dataclass(frozen=True)
class Place:
    source: Host
    destination: Host
    domain: str
    tunnel: str = ""  # control socket of the source's tunnel daemon, if pcmig is to take the tunnel
    give_up_s: float | None = None  # a guest that is still at the source by then stays there


def migrate(way: Way, place: Place, trace: pathlib.Path) -> Ran:
    """Carry one migration out. Of pcmig, TRACE is recorded."""
    match way.kind:
        case Kind.VIRSH:
            return run(_virsh(place, "--postcopy", "--postcopy-after-precopy"), follow_cpu=False)
        case Kind.VIRSH_PRECOPY:
            with _given_up(place):
                return run(_virsh(place), follow_cpu=False)
        case Kind.VIRSH_PASS:
            return _virsh_switched(place, "pass")
        case Kind.VIRSH_ITERATIONS:
            with _given_up(place):
                return _virsh_switched(place, str(way.iterations))
        case Kind.POLL:
            ran = run(_poll(place, "iteration", NOVA_PERIOD_MS, migrate=True))
            return dataclasses.replace(ran, report=_json_line(ran.said))
        case Kind.PCMIG:
            return _pcmig(way, place, trace)


def _virsh(place: Place, *options: str) -> list[str]:
    to = [place.domain, place.destination.remote_uri, "--migrateuri", place.destination.migrate_uri]
    words = ["virsh", "--connect", place.source.inner_uri, "migrate", "--live", "--p2p", *options, *to]
    return place.source.inside(words)


def _poll(place: Place, when: str, period_ms: int, migrate: bool) -> list[str]:
    words = [
        sys.executable,
        "-I",
        "-S",
        str(POLL_CLIENT),
        "--connect",
        place.source.uri,
        "--domain",
        place.domain,
    ]
    words += ["--when", when, "--period-ms", str(period_ms)]
    if migrate:
        words += ["--to", place.destination.remote_uri, "--migrate-uri", place.destination.migrate_uri]
    return place.source.command(words)


def _virsh_switched(place: Place, when: str) -> Ran:
    """virsh migrates; beside it a client watches, and says migrate-postcopy WHEN it is time."""
    watcher = subprocess.Popen(
        _poll(place, when, WATCH_PERIOD_MS, migrate=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        ran = run(_virsh(place, "--postcopy"), follow_cpu=False)
    finally:
        watcher.terminate()  # it has ended long ago, unless no pass was ever done
        said = watcher.communicate()[0]
    return dataclasses.replace(ran, said=ran.said + said, report=_json_line(said))


def _pcmig(way: Way, place: Place, trace: pathlib.Path) -> Ran:
    with tempfile.TemporaryDirectory(prefix="pcmig-bench.") as folder:
        report = pathlib.Path(folder) / "report.json"
        # -m, not the command beside this Python: the checkout that the bench is run from is what is measured.
        # The bed's own journal: what a run that was broken off has left there goes with its bed.
        words = ["env", f"PCMIG_JOURNAL_DIR={place.source.state.parent / 'journal'}"]
        words += [f"PCMIG_TUNNEL_CONTROL={place.tunnel}"] if place.tunnel else []
        words += [sys.executable, "-m", "pcmig.cli.main", "migrate"]
        words += [place.domain, place.destination.remote_uri]
        words += ["--connect", place.source.uri, "--quiet"]
        words += ["--tunnel"] if place.tunnel else ["--migrateuri", place.destination.migrate_uri]
        words += ["--policy", way.policy, "--json", str(report), "--trace", str(trace)]
        words += ["--abort-after", f"{place.give_up_s:g}"] if place.give_up_s is not None else []
        for setting in way.settings:
            words += ["--set", setting]
        ran = run(place.source.command(words))
        with contextlib.suppress(OSError, ValueError):
            ran = dataclasses.replace(ran, report=json.loads(report.read_text()))
    return ran


@contextlib.contextmanager
def _given_up(place: Place) -> Iterator[None]:
    """virsh has no option for it: `domjobabort`, which libvirt refuses once the guest has been switched."""
    abort = place.source.inside(["virsh", "--connect", place.source.inner_uri, "domjobabort", place.domain])
    timer = threading.Timer(
        place.give_up_s or 0.0, lambda: subprocess.run(abort, stdin=subprocess.DEVNULL, capture_output=True)
    )
    if place.give_up_s is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _json_line(said: str) -> dict[str, Any] | None:
    for line in said.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                return found
    return None


def run(argv: Sequence[str], follow_cpu: bool = True) -> Ran:
    """Run a command to its end, or to PATIENCE_S; it also ends when we are interrupted. FOLLOW_CPU is for one
    that does its work itself: CPU of children is known at their end only."""
    with tempfile.TemporaryFile("w+") as output:
        start_s = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        early_s: list[float] = []
        timers = [threading.Timer(PATIENCE_S, lambda: process.send_signal(signal.SIGKILL))]
        if follow_cpu:
            timers.append(threading.Timer(START_UP_S, lambda: early_s.extend(_cpu_s(process.pid))))
        try:
            for timer in timers:
                timer.start()
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            end_s = time.monotonic()
            for timer in timers:
                timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        cpu_s = usage.ru_utime + usage.ru_stime
        return Ran(
            code=process.returncode,
            start_s=start_s,
            end_s=end_s,
            cpu_s=cpu_s,
            cpu_after_start_s=max(0.0, cpu_s - early_s[0]) if early_s else None,
            said=output.read(),
        )


def _cpu_s(pid: int) -> list[float]:
    """User and system time of a process so far, in steps of 10 ms; nothing when it has ended."""
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [(int(fields[11]) + int(fields[12])) / TICKS_PER_S]
    return []
