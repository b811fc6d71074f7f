# SPDX-License-Identifier: Apache-2.0
"""A station that pings a guest a hundred times a second: how long the guest is not reached.

It is a raw socket at a device of some network namespace: no address of the kernel's, no offload, no cache of
neighbours. Times are of CLOCK_MONOTONIC; those of arrival are the kernel's own.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import dataclasses
import itertools
import os
import select
import socket
import struct
import threading
import time
import types
from collections.abc import Iterator
from typing import Self

from tests.ovn import frames
from tests.ovn.frames import Station

INTERVAL_S = 0.01
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
OUTGOING = 4  # PACKET_OUTGOING
PACKET_BYTES = 2048

_libc = ctypes.CDLL(None, use_errno=True)


def socket_at(namespace: str, device: str) -> socket.socket:
    """A raw socket at DEVICE of the network namespace with the path NAMESPACE, with times of arrival."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(other, CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(other)
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            raw.bind((device, ETH_P_ALL))
            raw.setblocking(False)
            made.append(raw)
        except OSError as err:
            failed.append(err)

    thread = threading.Thread(target=enter)  # a thread has a namespace of its own, and takes it along
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def receive(raw: socket.socket) -> tuple[float, bytes] | None:
    """The next frame that came in, and when; None when there is none."""
    while True:
        try:
            data, control, _, address = raw.recvmsg(PACKET_BYTES, 64)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:  # the device went down; it comes up again, or the test fails on silence
            return None
        if address[2] == OUTGOING:
            continue
        now_s = time.monotonic()
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value[:16])
                now_s -= max(0.0, time.time() - (seconds + nanoseconds / 1e9))
        return now_s, data


@dataclasses.dataclass(frozen=True)
class Silence:
    """Of a stretch of time."""

    longest_ms: float  # between two answers
    since_s: float  # when that began
    sent: int
    lost: int
    own_ms: float  # longest time in which this station itself sent nothing


def longest(times: list[float], start_s: float, end_s: float) -> tuple[float, float]:
    """The longest time without an event between both, in ms, and when it began."""
    inside = times[bisect.bisect_left(times, start_s) : bisect.bisect_right(times, end_s)]
    edges = [start_s, *inside, end_s]
    gap_s, since_s = max(((after - before), before) for before, after in itertools.pairwise(edges))
    return gap_s * 1000, since_s


class Talker:
    """`with` it, it runs on a thread of its own until the end of the block, or stop()."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        for raw in self._sockets:
            raw.close()

    def _run(self) -> None:
        """Until `_end` is set."""
        raise NotImplementedError

    def _heard(self, wait_s: float) -> Iterator[tuple[socket.socket, float, bytes]]:
        """What comes in the next WAIT_S: where, when, and the frame."""
        ready, _, _ = select.select(list(self._sockets), [], [], max(0.0, wait_s))
        for raw in ready:
            while (came := receive(raw)) is not None:
                yield raw, *came


class Pinger(Talker):
    """`with Pinger(...) as pinger:` pings."""

    def __init__(
        self, namespace: str, device: str, me: Station, guest: Station, interval_s: float = INTERVAL_S
    ) -> None:
        super().__init__()
        self.me = me
        self.guest = guest
        self.interval_s = interval_s
        self.sent: list[float] = []
        self.answered: dict[int, float] = {}  # number of the echo -> when
        self.heard: list[tuple[float, str]] = []  # what else the guest says: when, and of which kind
        self.said: list[bytes] = []  # what was in its datagrams
        self._ident = os.getpid() & 0xFFFF
        self._socket = socket_at(namespace, device)
        self._sockets.append(self._socket)

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._end.is_set():
            now_s = time.monotonic()
            if now_s >= next_s:
                self._ping(now_s)
                next_s = max(next_s + self.interval_s, now_s)
            for _, when_s, frame in self._heard(next_s - time.monotonic()):
                self._take(when_s, frame)

    def _ping(self, now_s: float) -> None:
        number = len(self.sent)
        self.sent.append(now_s)
        self._send(frames.echo(self.me, self.guest, self._ident, number & 0xFFFF))

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # the device is down: it counts as lost
            self._socket.send(frame)

    def _take(self, when_s: float, frame: bytes) -> None:
        heard = frames.hear(frame)
        if heard.source == self.guest.mac:
            if heard.kind == "reply" and heard.ident == self._ident:
                number = self._whole(heard.number)
                self.answered.setdefault(number, when_s)
            else:
                self.heard.append((when_s, heard.kind))
                if heard.kind == "udp":
                    self.said.append(heard.payload)
        if heard.kind != "request" and (reply := frames.answer(self.me, heard)) is not None:
            self._send(reply)

    def _whole(self, number: int) -> int:
        """Of the numbers that were sent, the last one that ends so."""
        last = len(self.sent) - 1
        return last - ((last - number) & 0xFFFF)

    # What it came to

    def silence(self, start_s: float, end_s: float) -> Silence:
        """Of the pings and answers between both times."""
        gap_ms, since_s = longest(sorted(self.answered.values()), start_s, end_s)
        numbers = [number for number, when_s in enumerate(self.sent) if start_s <= when_s <= end_s]
        lost = sum(number not in self.answered for number in numbers)
        return Silence(gap_ms, since_s, len(numbers), lost, longest(self.sent, start_s, end_s)[0])

    def silence_of(self, kind: str, start_s: float, end_s: float) -> float:
        """Longest time, in ms, in which nothing of KIND came from the guest."""
        return longest([when_s for when_s, what in self.heard if what == kind], start_s, end_s)[0]

    def tempest(self, start_s: float, end_s: float) -> int:
        """How many pings a meter would lose that sends one each 0.2 s, as tempest's does."""
        step = max(1, round(0.2 / self.interval_s))
        numbers = [number for number, when_s in enumerate(self.sent) if start_s <= when_s <= end_s]
        return sum(number not in self.answered for number in numbers[::step])


class Listener(Talker):
    """What a guest says at devices, before any switch has it: its own silence."""

    def __init__(self, mac: str) -> None:
        super().__init__()
        self.mac = mac
        self.times: dict[str, list[float]] = {}  # kind -> when

    def add(self, namespace: str, device: str) -> None:
        """From now on DEVICE is listened at as well."""
        self._sockets.append(socket_at(namespace, device))

    def _run(self) -> None:
        while not self._end.is_set():
            for _, when_s, frame in self._heard(0.02):
                heard = frames.hear(frame)
                if heard.source == self.mac:
                    self.times.setdefault(heard.kind, []).append(when_s)

    def silence(self, kind: str, start_s: float, end_s: float) -> float:
        """Longest time, in ms, in which the guest sent nothing of KIND at any of the devices."""
        return longest(sorted(self.times.get(kind, [])), start_s, end_s)[0]
