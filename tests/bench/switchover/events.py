# SPDX-License-Identifier: Apache-2.0
"""Lifecycle events of both hosts, the same for every way: `virsh event` on each host, stamped on arrival."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any

from tests.bed import Host

_LINE = re.compile(r"event 'lifecycle' for domain '?([^':]+)'?: (\w+) ?(.*)")

COMPLETE = "Resumed Migrated"  # destination: the guest runs there, and nothing of it is missing
SOURCE_GONE = "Stopped Migrated"
SWITCHED = "Suspended Post-copy"  # source


@dataclasses.dataclass(frozen=True)
class Event:
    time_s: float  # CLOCK_MONOTONIC
    host: str
    text: str  # e.g. "Resumed Post-copy"
    domain: str = ""


def parse_line(line: str) -> tuple[str, str] | None:
    """(domain, event) of a line of `virsh event`; None for any other line."""
    match = _LINE.search(line.strip())
    return (match[1], f"{match[2]} {match[3]}".strip()) if match else None


def first(events: Iterable[Event], host: str, text: str, since_s: float) -> float | None:
    return next((e.time_s for e in events if e.time_s >= since_s and (e.host, e.text) == (host, text)), None)


class Listeners:
    """`with Listeners(hosts, domain) as listeners:` takes events down until the end of the block; those of
    all guests without a domain."""

    def __init__(self, hosts: Sequence[Host], domain: str | None = None) -> None:
        self.hosts = hosts
        self.domain = domain
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Listeners:
        for host in self.hosts:
            words = ["virsh", "--connect", host.inner_uri, "event", "--event", "lifecycle", "--loop"]
            process = subprocess.Popen(
                host.inside(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            thread = threading.Thread(target=self._read, args=(host.name, process.stdout), daemon=True)
            thread.start()
            self._processes.append(process)
            self._threads.append(thread)
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.terminate()  # nsenter; what it started goes with its host at the latest
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    def _read(self, host: str, lines: IO[str]) -> None:
        for line in lines:
            now_s = time.monotonic()
            parsed = parse_line(line)
            if parsed and self.domain in (None, parsed[0]):
                with self._news:
                    self._events.append(Event(now_s, host, parsed[1], parsed[0]))
                    self._news.notify_all()

    def since(self, since_s: float) -> list[Event]:
        with self._news:
            return [event for event in self._events if event.time_s >= since_s]

    def wait(self, host: str, text: str, since_s: float, patience_s: float) -> float | None:
        """When the first such event came; None when none comes within patience_s."""
        with self._news:
            self._news.wait_for(lambda: first(self._events, host, text, since_s) is not None, patience_s)
            return first(self._events, host, text, since_s)
