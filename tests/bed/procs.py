# SPDX-License-Identifier: Apache-2.0
"""Processes and commands: run, identify, end. The bed ends only processes it can prove to be its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

from tests.bed.errors import BedError


@dataclasses.dataclass(frozen=True)
class ProcessId:
    """A pid with its start time, so that a number that now belongs to somebody else is never signalled."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a process that lives now, or None.

        A zombie does not live once its last thread is gone. Until then the others still hold its files: a
        daemon killed a moment ago still has its port (proc(5): fields state, num_threads, starttime).
        """
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The command in parentheses may hold spaces and parentheses itself: split after the last one.
        fields = stat.rpartition(")")[2].split()
        state, threads, start_ticks = fields[0], int(fields[17]), int(fields[19])
        dead = state == "X" or (state == "Z" and threads <= 1)
        return None if dead else cls(pid, start_ticks)

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def signal(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, patience_s: float = 5.0) -> None:
        """SIGKILL, then wait until it is gone."""
        self.signal(signal.SIGKILL)
        deadline_s = time.monotonic() + patience_s
        while self.alive() and time.monotonic() < deadline_s:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            time.sleep(0.01)


def run(argv: Sequence[str], what: str, timeout_s: float | None = 60.0) -> str:
    """Run a command to its end and return its output; BedError tells what was being done and what it said."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise BedError(
            f"{what}: the program {argv[0]!r} is not installed (run: tools/bootstrap bed)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BedError(f"{what}: no end after {timeout_s:.0f} s: {' '.join(argv)}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise BedError(f"{what}: {argv[0]} ended with {done.returncode}: " + "\n  ".join(said[-6:]))
    return done.stdout
