# SPDX-License-Identifier: Apache-2.0
"""A guest without a QEMU: one station with a device at each of two hosts, that runs at one of them.

It answers pings and sends a datagram to the client each 10 ms, and is switched as QEMU is under libvirt: it
stops at the source, is announced at the destination while it stands still, and runs on there. So the times of
a switch are known to the millisecond, and all else is the network's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
import types
from typing import Self

from tests.ovn import frames
from tests.ovn.frames import Station
from tests.ovn.pinger import INTERVAL_S, receive, socket_at

# After the source has stopped, in ms: QEMU's announcements (its defaults: 50 ms, and 100 more each time), the
# first one as it begins to load the guest's state, and libvirt's `cont`.
ANNOUNCED_MS = (20, 70, 220, 470, 820)
SILENT_MS = 60
PORT = 5514


class Mover:
    """AT: host -> path of its network namespace and device of the guest there. It runs at the first."""

    def __init__(self, me: Station, client: Station, at: dict[str, tuple[str, str]]) -> None:
        self.me = me
        self.client = client
        self._sockets = {host: socket_at(*where) for host, where in at.items()}
        self.running: str | None = next(iter(at))
        self.unheard: dict[str, list[float]] = {
            host: [] for host in at
        }  # what came to a copy that stood still
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        for raw in self._sockets.values():
            raw.close()

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
            self._sockets[host].send(frame)

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
            ready, _, _ = select.select(
                list(self._sockets.values()), [], [], max(0.0, min(next_s - time.monotonic(), 0.01))
            )
            for raw in ready:
                self._take(raw)

    def _take(self, raw: socket.socket) -> None:
        (host,) = (name for name, each in self._sockets.items() if each is raw)
        while (came := receive(raw)) is not None:
            heard = frames.hear(came[1])
            with self._lock:
                if heard.kind == "request" and self.running != host:
                    self.unheard[host].append(came[0])
                elif self.running == host and (reply := frames.answer(self.me, heard)) is not None:
                    self._send(host, reply)
