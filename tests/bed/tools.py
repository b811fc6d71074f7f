# SPDX-License-Identifier: Apache-2.0
"""What carries out a migration in the demo and in benchmarks: pcmig, or plain virsh to compare with."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from tests.bed.errors import BedError
from tests.bed.host import Host

END_PATIENCE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a migration command went; times are of CLOCK_MONOTONIC."""

    code: int
    start_s: float
    end_s: float
    figures: dict[str, Any] | None = None  # what `pcmig migrate --json` wrote

    @property
    def elapsed_s(self) -> float:
        return self.end_s - self.start_s


class Tool(abc.ABC):
    """One way to migrate."""

    name: str

    @abc.abstractmethod
    def precopy(self, source: Host, destination: Host, domain: str, limit_s: int) -> Outcome:
        """Plain pre-copy, aborted after limit_s."""

    @abc.abstractmethod
    def postcopy(self, source: Host, destination: Host, domain: str, policy: str) -> Outcome: ...

    @abc.abstractmethod
    def shown(self, source: Host, destination: Host, domain: str, policy: str) -> str:
        """The post-copy command as one would type it."""


class Pcmig(Tool):
    """The `pcmig` command beside this Python, with the terminal as its own."""

    name = "pcmig"

    def precopy(self, source: Host, destination: Host, domain: str, limit_s: int) -> Outcome:
        options = ["--policy", "never", "--abort-after", str(limit_s)]
        return self._migrate(source, destination, domain, options)

    def postcopy(self, source: Host, destination: Host, domain: str, policy: str) -> Outcome:
        return self._migrate(source, destination, domain, ["--policy", policy])

    def shown(self, source: Host, destination: Host, domain: str, policy: str) -> str:
        return " ".join(["pcmig", *self._words(source, destination, domain, ["--policy", policy])])

    def _migrate(self, source: Host, destination: Host, domain: str, options: Sequence[str]) -> Outcome:
        program = pathlib.Path(sys.executable).with_name("pcmig")
        if not program.exists():
            raise BedError(f"{program} is not there: run tools/bootstrap demo")
        with tempfile.TemporaryDirectory(prefix="pcmig-demo.") as folder:
            figures = pathlib.Path(folder) / "figures.json"
            words = self._words(source, destination, domain, [*options, "--json", str(figures)])
            outcome = run_on_terminal(source.command([str(program), *words]))
            with contextlib.suppress(OSError, ValueError):
                outcome = dataclasses.replace(outcome, figures=json.loads(figures.read_text()))
        return outcome

    @staticmethod
    def _words(source: Host, destination: Host, domain: str, options: Sequence[str]) -> list[str]:
        ends = ["--connect", source.uri, "--migrateuri", destination.migrate_uri]
        return ["migrate", domain, destination.remote_uri, *ends, *options]


class Virsh(Tool):
    """What an administrator types without pcmig."""

    name = "virsh"

    def precopy(self, source: Host, destination: Host, domain: str, limit_s: int) -> Outcome:
        words = self._words(destination, domain, ())
        start_s = time.monotonic()
        with subprocess.Popen(source.inside(["virsh", *words]), stdin=subprocess.DEVNULL) as process:
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                source.virsh("domjobabort", domain)
            process.wait()
        return Outcome(process.returncode, start_s, time.monotonic())

    def postcopy(self, source: Host, destination: Host, domain: str, policy: str) -> Outcome:
        return run_on_terminal(source.inside(["virsh", *self._words(destination, domain, self._POSTCOPY)]))

    def shown(self, source: Host, destination: Host, domain: str, policy: str) -> str:
        return " ".join(["virsh", *self._words(destination, domain, self._POSTCOPY)])

    _POSTCOPY = ("--postcopy", "--postcopy-after-precopy")

    @staticmethod
    def _words(destination: Host, domain: str, options: Sequence[str]) -> list[str]:
        flags = ["--live", "--p2p", *options]
        return ["migrate", *flags, domain, destination.remote_uri, "--migrateuri", destination.migrate_uri]


TOOLS: dict[str, Tool] = {tool.name: tool for tool in (Pcmig(), Virsh())}


def run_on_terminal(argv: Sequence[str]) -> Outcome:
    """Run a command that shares our terminal; it ends before we go on, whatever ends us."""
    start_s = time.monotonic()
    process = subprocess.Popen(argv)
    try:
        process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_PATIENCE_S)
            process.kill()
            process.wait()
    return Outcome(process.returncode, start_s, time.monotonic())
