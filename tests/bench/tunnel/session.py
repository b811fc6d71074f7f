# SPDX-License-Identifier: Apache-2.0
"""One round of one way: starts the ends of a stream (load.c) around what carries it, and measures."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from tests.bed import BedError
from tests.bed.procs import run
from tests.bench.figures import Row
from tests.bench.switchover.machine import CpuTimes
from tests.bench.tunnel.ways import HOSTS, Place, Way, running

LOAD = pathlib.Path(__file__).with_name("load.c")
END_PATIENCE_S = 10.0


class Session:
    """A folder with the compiled load and certificates, for as many rounds as wanted."""

    def __init__(self, seconds: float) -> None:
        self.ms = round(seconds * 1000)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pcmig-bench-"))
        self.load = self.folder / "load"
        self.rounds = 0

    def __enter__(self) -> Session:
        try:
            run(
                ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", str(self.load), str(LOAD)],
                "compiling load.c",
            )
            certificates = self.folder / "pki"
            names = [f"{host},127.0.0.1" for host in HOSTS]
            pcmig = [sys.executable, "-m", "pcmig.cli.main"]
            run([*pcmig, "tunnel", "keygen", "--out", str(certificates), *names], "making certificates")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def measure(self, way: Way, number: int) -> Row:
        """A row of figures; `error` says why there are none."""
        self.rounds += 1
        place = Place(self.folder / str(self.rounds), self.folder / "pki")
        place.folder.mkdir()
        row: Row = {"way": way.name, "round": number, "error": None}
        try:
            with running(way, place) as carrier:
                pids = [process.pid for process in carrier.processes]
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    running_now = [
                        pool.submit(self.stream, *ends, pids, carrier.cpus_of(number))
                        for number, ends in enumerate(carrier.pairs())
                    ]
                row |= together([stream.result() for stream in running_now])
        except BedError as error:
            row["error"] = f"{error}{_last_words(place.folder)}"
        return row

    def stream(
        self,
        source: pathlib.Path,
        destination: pathlib.Path,
        pids: list[int],
        cpus: frozenset[int] | None = None,
    ) -> Row:
        """CPUS: with them, on a thread of its own, whose children run where it does."""
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        argv = [str(self.load), "destination", str(destination), str(self.ms), str(self.ms)]
        receiver = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        sender = None
        try:
            assert receiver.stdout is not None
            if receiver.stdout.readline() != "ready\n":
                raise BedError("the stream's destination did not start")
            sender = subprocess.Popen(
                [str(self.load), "source", str(source)], stderr=subprocess.PIPE, text=True
            )
            row = self._phases(receiver, pids, [receiver.pid, sender.pid])
            if receiver.wait(END_PATIENCE_S):
                raise BedError(f"the stream failed: {_words(receiver)} {_words(sender)}")
            return row
        except subprocess.TimeoutExpired as error:
            raise BedError("the stream did not end") from error
        finally:
            for process in (receiver, sender):
                if process is not None:
                    process.kill()
                    process.wait()

    def _phases(self, receiver: subprocess.Popen[str], pids: list[int], ends: list[int]) -> Row:
        """Follows the destination's lines; processor time is looked at as each phase begins and ends."""
        row: Row = {}
        before_s, ends_before_s, machine = 0.0, 0.0, CpuTimes.now()
        assert receiver.stdout is not None
        for line in receiver.stdout:
            phase, what, *numbers = line.split()
            if what == "begin":
                before_s, ends_before_s, machine = _cpu_s(pids), _cpu_s(ends), CpuTimes.now()
            elif what == "end":
                row |= _rates(phase, int(numbers[0]), int(numbers[1]), _cpu_s(pids) - before_s)
                shares = CpuTimes.now().shares_since(machine)
                if phase == "bulk":
                    row |= shares
                    row["bulk_ends_s_gb"] = (_cpu_s(ends) - ends_before_s) / (int(numbers[0]) / 1e9)
                elif phase == "busy":
                    row["steal_percent"] = max(row["steal_percent"], shares["steal_percent"])
            else:
                row |= _delays(phase, [int(number) for number in numbers])
        if "idle_rtt_us" in row and "busy_rtt_us" in row:
            row["added_rtt_us"] = row["busy_rtt_us"] - row["idle_rtt_us"]
        return row


def together(rows: list[Row]) -> Row:
    """Of streams that ran at once: bytes of all, processor time (each has counted that of all) for all of
    them, and the slowest of their requests."""
    row = max(rows, key=lambda one: one.get("busy_rtt_us", 0)).copy()
    for key in [key for key in row if key.endswith(("_bytes", "_mb_s"))]:
        row[key] = sum(one[key] for one in rows)
    for key in [key for key in row if key.endswith("_cpu_s_gb")]:
        shares = [1 / one[key] for one in rows if one[key]]
        row[key] = 1 / sum(shares) if shares else None
    if "bulk_ends_s_gb" in row:
        taken_s = sum(one["bulk_ends_s_gb"] * one["bulk_bytes"] for one in rows)
        row["bulk_ends_s_gb"] = taken_s / row["bulk_bytes"]
    return row


def _rates(phase: str, count: int, us: int, cpu_s: float) -> dict[str, Any]:
    return {
        f"{phase}_bytes": count,
        f"{phase}_mb_s": count / us,
        f"{phase}_cpu_s_gb": cpu_s / (count / 1e9) if count else None,
    }


def _delays(phase: str, rtts_us: list[int]) -> dict[str, Any]:
    if len(rtts_us) < 2:
        raise BedError(f"only {len(rtts_us)} requests were answered")
    return {
        f"{phase}_requests": len(rtts_us),
        f"{phase}_rtt_us": statistics.median(rtts_us),
        f"{phase}_rtt_p99_us": statistics.quantiles(rtts_us, n=100)[98],
    }


def _cpu_s(pids: list[int]) -> float:
    """User and system time of these processes, all threads (proc(5), fields utime and stime)."""
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise BedError("what carries the stream has ended") from error
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _words(process: subprocess.Popen[str] | None) -> str:
    return process.stderr.read().strip() if process is not None and process.stderr is not None else ""


def _last_words(folder: pathlib.Path) -> str:
    lines = [
        f"{log.stem}: {text[-1]}"
        for log in sorted(folder.glob("*.log"))
        if (text := log.read_text(errors="replace").splitlines())
    ]
    return "".join(f"\n  {line}" for line in lines)
