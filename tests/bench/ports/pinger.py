# SPDX-License-Identifier: Apache-2.0
"""Pings addresses a hundred times a second each, and tells when requests went and replies came.

Started in a network namespace with the standard library alone. A line on its standard input has it tell what
there is since the last one, as one line of JSON: address -> {"sent": [[number, time]], "came": ...}. Times
are of CLOCK_MONOTONIC, those of replies as the kernel took them. It ends with its standard input.

usage: pinger.py ADDRESS...
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

PERIOD_S = 0.01
SO_TIMESTAMPNS = 35
ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
IDENT = os.getpid() & 0xFFFF


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def monotonic_ahead_s() -> float:
    """Of the kernel's time stamps. Who is interrupted between two looks at clocks gets another answer: that
    of the quickest look is taken."""

    def look() -> tuple[float, float]:
        before_s, real_s, after_s = time.monotonic(), time.time(), time.monotonic()
        return after_s - before_s, (before_s + after_s) / 2 - real_s

    return min(look() for _ in range(100))[1]


class Pinger:
    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.family = {each: socket.AF_INET6 if ":" in each else socket.AF_INET for each in addresses}
        self.sockets = {}
        for family in set(self.family.values()):
            protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
            opened = socket.socket(family, socket.SOCK_RAW, protocol)
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.sockets[opened] = family
        self.number = 0
        self.ahead_s = monotonic_ahead_s()
        self.forget()

    def forget(self) -> None:
        self.seen: dict[str, dict[str, list[list[float]]]] = {
            each: {"sent": [], "came": []} for each in self.addresses
        }

    def send(self) -> None:
        self.number = (self.number + 1) & 0xFFFF
        for opened, family in self.sockets.items():
            head = struct.pack("!BBHHH", ECHO[family][0], 0, 0, IDENT, self.number)
            message = head[:2] + struct.pack("!H", checksum(head)) + head[4:]  # of ICMPv6 by the kernel
            for address in self.addresses:
                if self.family[address] != family:
                    continue
                # Before it is: the answer may be there when sendto() returns.
                self.seen[address]["sent"].append([self.number, time.monotonic()])
                with contextlib.suppress(OSError):  # nobody answers for it: it is not sent
                    opened.sendto(message, (address, 0))

    def receive(self, opened: socket.socket) -> None:
        family = self.sockets[opened]
        while True:
            try:
                data, extra, _, sender = opened.recvmsg(2048, 128)
            except OSError:
                return
            if family == socket.AF_INET:
                data = data[(data[0] & 15) * 4 :]
            if len(data) < 8 or sender[0] not in self.seen:
                continue
            kind, _, _, ident, number = struct.unpack_from("!BBHHH", data)
            if kind != ECHO[family][1] or ident != IDENT:
                continue
            came_s = time.monotonic()
            for _, kind, stamp in extra:
                if kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", stamp)
                    came_s = seconds + nanoseconds / 1e9 + self.ahead_s
            self.seen[sender[0]]["came"].append([number, came_s])

    def run(self) -> None:
        due_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s >= due_s:
                self.send()
                due_s = max(due_s + PERIOD_S, now_s - PERIOD_S)
            waiting = [sys.stdin, *self.sockets]
            ready, _, _ = select.select(waiting, [], [], max(0, due_s - now_s))
            for each in ready:
                if isinstance(each, socket.socket):
                    self.receive(each)
                    continue
                if not sys.stdin.readline():
                    return
                print(json.dumps(self.seen), flush=True)
                self.forget()


Pinger(sys.argv[1:]).run()
