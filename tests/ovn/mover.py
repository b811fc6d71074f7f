# SPDX-License-Identifier: Apache-2.0
"""A guest without a QEMU: one station with a device at each of two hosts, that runs at one of them.

It answers pings and sends a datagram to the client each 10 ms, and is switched as QEMU is under libvirt: it
stops at the source, is announced at the destination while it stands still, and runs on there. So the times of
a switch are known to the millisecond, and all else is the network's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.ovn import frames
from tests.ovn.frames import Station
from tests.ovn.pinger import INTERVAL_S, Talker, socket_at

# After the source has stopped, in ms: QEMU's announcements (its defaults: 50 ms, and 100 more each time), the
# first one as it begins to load the guest's state, and libvirt's `cont`.
ANNOUNCED_MS = (20, 70, 220, 470, 820)
SILENT_MS = 60
PORT = 5514


class Mover(Talker):
    """AT: host -> path of its network namespace and device of the guest there. It runs at the first."""

    def __init__(self, me: Station, client: Station, at: dict[str, tuple[str, str]]) -> None:
        super().__init__()
        self.me = me
        self.client = client
        self._at = {host: socket_at(*where) for host, where in at.items()}
        self._sockets += self._at.values()
        self.running: str | None = next(iter(at))
        self.unheard: dict[str, list[float]] = {
            host: [] for host in at
        }  # what came to a copy that stood still
        self._lock = threading.Lock()

    def switch(
        self, host: str, silent_ms: float = SILENT_MS, announced_ms: tuple[int, ...] = ANNOUNCED_MS
    ) -> float:
        """To HOST; returns when the last announcement is out. When it began, by CLOCK_MONOTONIC."""
        start_s = time.monotonic()
        with self._lock:
            self.running = None
        due = sorted([(ms, "announce") for ms in announced_ms] + [(silent_ms, "run")])
        for after_ms, what in due:
            time.sleep(max(0.0, start_s + after_ms / 1000 - time.monotonic()))
            if what == "run":
                with self._lock:
                    self.running = host
            else:
                self._send(host, frames.announcement(self.me.mac))
        return start_s

    def _send(self, host: str, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._at[host].send(frame)

    def _run(self) -> None:
        next_s, number = time.monotonic(), 0
        while not self._end.is_set():
            now_s = time.monotonic()
            with self._lock:
                host = self.running
                if now_s >= next_s:
                    next_s = max(next_s + INTERVAL_S, now_s)
                    if host is not None:
                        self._send(host, frames.datagram(self.me, self.client, PORT, b"%d" % number))
                        number += 1
            for raw, when_s, frame in self._heard(min(next_s - time.monotonic(), 0.01)):
                self._take(raw, when_s, frame)

    def _take(self, raw: socket.socket, when_s: float, frame: bytes) -> None:
        (host,) = (name for name, each in self._at.items() if each is raw)
        heard = frames.hear(frame)
        with self._lock:
            if heard.kind == "request" and self.running != host:
                self.unheard[host].append(when_s)
            elif self.running == host and (reply := frames.answer(self.me, heard)) is not None:
                self._send(host, reply)
