# SPDX-License-Identifier: Apache-2.0
"""One daemon of the cloud: started in a host's namespaces, watched until it is ready, its log at hand."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from tests.bed.errors import BedError
from tests.bed.host import Host

SHOWN_LINES = 12
RUN = "/run/cloud"  # as a host or the control node sees it; outside it is below its state folder


def outside(host: Host) -> pathlib.Path:
    """A host's RUN, as the machine sees it."""
    return host.state / RUN.removeprefix("/")


class Service:
    """A process of a host, or of the control node; it ends with them at the latest."""

    def __init__(self, name: str, host: Host, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.host = host
        self.argv = list(argv)
        self.env = dict(env)
        self.log = outside(host) / "log" / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> Service:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                self.host.inside(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )
        return self

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        """Its log since it was started last: without the good-bye of the one before."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def pids(self) -> list[int]:
        """The machine's pids of the service: nsenter's child and what that started."""
        assert self.process is not None
        return descendants(self.process.pid)

    def signal(self, number: int) -> None:
        """To the service itself, not to what it started."""
        for pid in self.pids()[:1]:
            self.host.signal_process(pid, number)

    def stop(self, patience_s: float = 15.0) -> None:
        """SIGTERM, and SIGKILL to all of it when that does not end it in time."""
        if self.process is None:
            return
        pids = self.pids()
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            for pid in pids:
                self.host.signal_process(pid, signal.SIGKILL)
            self.process.wait(patience_s)

    def kill(self) -> None:
        """SIGKILL to the service and what it started: no good-bye."""
        if self.process is None:
            return
        for pid in self.pids():
            self.host.signal_process(pid, signal.SIGKILL)
        self.process.wait(15)

    def wait_ready(self, ready: Callable[[], bool], patience_s: float) -> None:
        """Ask every 0.1 s; BedError with the end of the log when the service ends or takes too long."""
        deadline_s = time.monotonic() + patience_s
        while not ready():
            if not self.running():
                assert self.process is not None
                raise self.failure(f"ended with {self.process.returncode}")
            if time.monotonic() > deadline_s:
                raise self.failure(f"was not ready after {patience_s:.0f} s")
            time.sleep(0.1)

    def failure(self, what: str) -> BedError:
        return BedError(f"{self.name} (host {self.host.name}) {what}; log: {self.log}\n  {self.last_words()}")

    def last_words(self) -> str:
        return tail(self.log)


def tail(log: pathlib.Path, lines: int = SHOWN_LINES) -> str:
    try:
        said = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        said = []
    return "\n  ".join(line[:400] for line in said) or "it said nothing"


def descendants(pid: int) -> list[int]:
    """All below a process, parents before children."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop(0)
        try:
            threads = list(pathlib.Path(f"/proc/{parent}/task").iterdir())
            children = [int(word) for thread in threads for word in (thread / "children").read_text().split()]
        except OSError:
            continue
        found += children
        todo += children
    return found
