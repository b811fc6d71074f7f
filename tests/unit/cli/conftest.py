# SPDX-License-Identifier: Apache-2.0
"""Runs the command as operators do, in a process of its own, on pipes or on a terminal; or in this one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pcmig.cli import evidence, main, metering, status
from pcmig.journal import ENVIRONMENT, Journal
from tests.unit.patience import PATIENCE_S

ROOT = pathlib.Path(__file__).parents[3]
RUN_FAKE = [sys.executable, "-m", "tests.unit.cli.run_fake"]
MIGRATE = ("migrate", "g1", "qemu+tcp://b/system")


def pcmig(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """In this process: its exit code, and all that it printed."""
    try:
        code = main.main([*words])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


class Running:
    """A `pcmig` on the scripted core. Reads what it prints as it comes."""

    def __init__(self, arguments: tuple[str, ...], terminal: bool, env: dict[str, str]) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LIBVIRT_DEFAULT_URI")}
        environment |= {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **env}
        if terminal:
            self._fd, child = pty.openpty()
        else:
            self._fd, child = os.pipe()
        self.process = subprocess.Popen(
            [*RUN_FAKE, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self.text = ""

    def read_until(self, words: str) -> str:
        """What was printed so far, as soon as WORDS are in it."""
        end_s = time.monotonic() + PATIENCE_S
        while words not in self.text:
            if not self._read(end_s):
                raise AssertionError(f"{words!r} was not printed, but:\n{self.text}")
        return self.text

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop_reading(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def finish(self) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        end_s = time.monotonic() + PATIENCE_S
        while self._fd >= 0 and self._read(end_s):
            pass
        return self.process.wait(PATIENCE_S), self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._fd >= 0:
            os.close(self._fd)

    def _read(self, end_s: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, end_s - time.monotonic()))
        data = b""
        if ready:
            with contextlib.suppress(OSError):  # EIO: the terminal's other end is closed
                data = os.read(self._fd, 65536)
        self.text += data.decode()
        return bool(data)


Start = Callable[..., Running]


@pytest.fixture(autouse=True)
def book(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """The journal of every command that the test runs."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "journal"))
    monkeypatch.setattr(metering, "HUNG_S", PATIENCE_S)
    monkeypatch.setenv(metering.ENVIRONMENT, "")  # nor is a file for this machine's node_exporter written
    return Journal()


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted host is late for no command, however late the machine lets it answer."""
    monkeypatch.setattr(evidence, "PROMPT_S", PATIENCE_S)
    monkeypatch.setattr(status, "PATIENCE_S", PATIENCE_S)


@pytest.fixture
def start() -> Iterator[Start]:
    """start("quick", "migrate", ..., terminal=False, env={})"""
    running: list[Running] = []

    def run(*arguments: str, terminal: bool = False, env: dict[str, str] | None = None) -> Running:
        running.append(Running(arguments, terminal, env or {}))
        return running[-1]

    yield run
    for one in running:
        one.close()
