# SPDX-License-Identifier: Apache-2.0
"""Takes down a guest's console on hosts that are known by their URIs alone, as tests/bed/collector.py does on
those of the bed: each line with CLOCK_MONOTONIC of this machine and the host that it came from.

It asks libvirt for the console: nothing has to be installed on the hosts, and nothing else be reached. What
is written to LOG.say is said to the guest where it was heard last. Ends when its standard input does.

usage: python -m tests.bench.evaluation.console LOG DOMAIN HOST=URI...
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from typing import IO, Any

from tests.bench.switchover.poll_client import CallError, Libvirt

LOOK_S = 0.05  # a guest that comes in has its console long before it runs
FORCE = 1  # VIR_DOMAIN_CONSOLE_FORCE


class Streams(Libvirt):
    """With the calls for a console."""

    def __init__(self) -> None:
        super().__init__()
        handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint
        signatures: dict[str, tuple[Any, ...]] = {  # result, arguments
            "virStreamNew": (handle, handle, number),
            "virDomainOpenConsole": (ctypes.c_int, handle, text, handle, number),
            "virStreamRecv": (ctypes.c_int, handle, handle, ctypes.c_size_t),
            "virStreamSend": (ctypes.c_int, handle, text, ctypes.c_size_t),
            "virStreamFree": (ctypes.c_int, handle),
            "virDomainFree": (ctypes.c_int, handle),
        }
        for name, (result, *arguments) in signatures.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments


class Console:
    """Of one host; a thread's work."""

    def __init__(self, libvirt: Streams, name: str, uri: str, domain: str, log: IO[str]) -> None:
        self.name = name
        self.heard_s = 0.0
        self._libvirt = libvirt
        self._library = libvirt.library
        self._complaint = ""
        self._domain = domain.encode()
        self._log = log
        self._stream: int | None = None
        self._connection = self._library.virConnectOpen(uri.encode())
        if not self._connection:
            raise libvirt.error()

    def follow(self) -> None:
        while True:
            self._read()
            time.sleep(LOOK_S)

    def say(self, words: bytes) -> None:
        if self._stream is not None:
            self._library.virStreamSend(self._stream, words, len(words))

    def _read(self) -> None:
        """Until the guest is gone, or at once if it is not there."""
        library = self._library
        domain = library.virDomainLookupByName(self._connection, self._domain)
        if not domain:
            return
        stream = library.virStreamNew(self._connection, 0)
        if stream and library.virDomainOpenConsole(domain, None, stream, FORCE) == 0:
            self._stream = stream
            self._take_down(stream)
            self._stream = None
        elif (error := str(self._libvirt.error())) != self._complaint:
            self._complaint = error
            self._write(f"no console: {error}")
        if stream:
            library.virStreamFree(stream)
        library.virDomainFree(domain)

    def _take_down(self, stream: int) -> None:
        buffer, rest = ctypes.create_string_buffer(4096), b""
        while (count := self._library.virStreamRecv(stream, buffer, len(buffer))) > 0:
            self.heard_s = time.monotonic()
            *lines, rest = (rest + buffer.raw[:count]).split(b"\n")
            for line in lines:
                self._write(line.decode("latin-1").strip())

    def _write(self, line: str) -> None:
        self._log.write(f"{self.heard_s:.4f} {self.name} {line}\n")


def main() -> int:
    log, domain, *hosts = sys.argv[1:]
    with contextlib.suppress(FileExistsError):
        os.mkfifo(f"{log}.say")
    said = os.open(f"{log}.say", os.O_RDWR)  # for writing as well, so that it has no end when a writer went
    libvirt = Streams()
    with open(log, "a", buffering=1, encoding="latin-1") as out:
        try:
            pairs = (host.partition("=") for host in hosts)
            consoles = [Console(libvirt, name, uri, domain, out) for name, _, uri in pairs]
        except CallError as error:
            print(error, flush=True)
            return 1
        for console in consoles:
            threading.Thread(target=console.follow, daemon=True).start()
        threading.Thread(target=_pass_on, args=(said, consoles), daemon=True).start()
        print("ready", flush=True)
        sys.stdin.buffer.read()
    return 0


def _pass_on(said: int, consoles: list[Console]) -> None:
    while True:
        words = os.read(said, 4096)
        max(consoles, key=lambda each: each.heard_s).say(words)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads that wait in libvirt have no other end
