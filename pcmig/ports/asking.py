# SPDX-License-Identifier: Apache-2.0
"""Asks the destination whether a guest's ports forward there, and has it announce the guest once it runs
there: `pcmig ports --follow --announce`, over ssh, which knows who is who at both ends. What comes back is
another machine's word, and is read as such."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

ENVIRONMENT = "PCMIG_SSH"  # another command in place of "ssh"; it gets the same words

SILENT_S = 5.0  # it says something each second
FIRST_S = 20.0  # until it does, with ssh's and Python's start
AGAIN_S = 5.0  # after one that ended
MAX_LINE = 1 << 20
MAX_TEXT = 300


class Said(NamedTuple):
    """LEVEL as core/ports_gate.h has it: "untold", "unknown", "blocked", "ready"; TEXT for people."""

    level: str
    text: str


UNTOLD = Said("untold", "nothing said yet")


def understand(line: str) -> Said:
    """One line of `pcmig ports --follow --json`."""
    try:
        return understood(json.loads(line))
    except (ValueError, RecursionError):
        return Said("unknown", f"its answer makes no sense: {_text(line[:MAX_TEXT])}")


def understood(answer: Any) -> Said:
    """The same, as an object."""
    try:
        ready, absent, error = answer["ready"], answer["absent"], answer["error"]
        if ready is True:
            return Said("ready", "all ports forward")
        if ready is False:
            return Said("blocked", _why(answer["ports"]))
        if absent is True:
            return Said("untold", "the guest is not there yet")
        return Said("unknown", _text(error))
    except (ValueError, KeyError, TypeError):
        return Said("unknown", f"its answer makes no sense: {_text(answer)}")


def understand_last(line: str) -> str | None:
    """What the guest's announcing came to, which is the last thing that is said; None for another line."""
    try:
        answer = json.loads(line)
        return None if answer["announced"] is None else _text(answer["text"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _why(ports: list[dict[str, Any]]) -> str:
    """Of the first port that does not forward."""
    for port in ports:
        verdict = port["verdict"]
        if verdict["readiness"] in ("waiting", "stuck"):
            return f"{_text(port['device'] or port['mac'])}: {_text(verdict['why'])}"
    raise ValueError("no port is the reason")


def _text(value: object) -> str:
    """Nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in str(value)[:MAX_TEXT])


class Asker:
    """Keeps somebody at TARGET ([USER@]HOST) asked about the guest with this UUID. Never blocks."""

    def __init__(self, target: str, uuid: str, port: int | None = None) -> None:
        self.target = target
        self._argv = [
            *shlex.split(os.environ.get(ENVIRONMENT, "ssh")),
            *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
            *(("-p", str(port)) if port else ()),
            *("--", target, f"exec pcmig ports --follow --announce --json {shlex.quote(uuid)}"),
        ]
        self.said = UNTOLD
        self.announced: str | None = None  # how, once that is over: the destination has no more to say
        self._child: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the asker
        self._buffer = b""
        self._since_s = -AGAIN_S  # of the last line, or of the start or end of the child
        self._silence_s = FIRST_S

    def fileno(self) -> int | None:
        """Readable when there is something to take(); None while nobody is asked."""
        if self._child is None or self._child.stdout is None:
            return None
        return self._child.stdout.fileno()

    def take(self) -> Said:
        """What is said by now. To be called when fileno() is readable, and once a second."""
        now_s = time.monotonic()
        if self._child is None:
            if now_s - self._since_s >= AGAIN_S and self.announced is None:
                self._start(now_s)
            return self.said
        assert self._child.stdout is not None
        try:
            data = os.read(self._child.stdout.fileno(), 65536)
        except BlockingIOError:
            if now_s - self._since_s >= self._silence_s:
                self._drop(f"{self.target} says nothing any more", now_s)
            return self.said
        if not data:
            self._drop(self._last_words(), now_s)
            return self.said
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        if lines:
            self._since_s, self._silence_s = now_s, SILENT_S
            last = lines[-1].decode(errors="replace")
            self.announced = understand_last(last)
            if self.announced is not None:
                self.stop()
                return self.said
            self.said = understand(last)
        if len(self._buffer) > MAX_LINE:
            self._drop("its answer has no end", now_s)
        return self.said

    def stop(self) -> None:
        """Asks no more."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def _start(self, now_s: float) -> None:
        self._errors.seek(0)
        self._errors.truncate()
        self._buffer = b""
        self._since_s, self._silence_s = now_s, FIRST_S
        try:
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # what the terminal says (SIGINT, SIGHUP) is for us alone
            )
        except OSError as err:
            self.said = Said("unknown", f"{self._argv[0]}: {err.strerror}")
            return
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)

    def _drop(self, why: str, now_s: float) -> None:
        self.stop()
        self.said = Said("unknown", why)
        self._since_s = now_s

    def _last_words(self) -> str:
        """Of ssh, or of the shell at the other end."""
        self._errors.seek(0)
        lines = self._errors.read(65536).decode(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return _text(words) if words else f"the connection to {self.target} ended"
