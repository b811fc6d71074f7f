# SPDX-License-Identifier: Apache-2.0
"""Takes down the guest's console: stamps every line with CLOCK_MONOTONIC and the host that it came from.

What is written to LOG.say is said to the guest that was heard last.

A process, not a thread: a test that is busy in Python must not delay the stamps, and a bed that is kept needs
it too.

usage: python collector.py LOG lifeline|stay HOST=SOCKET...
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time


class Console:
    """One guest's serial line."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.connection = connection
        self.host = host
        self.rest = b""
        self.heard_s = 0.0

    def lines(self) -> list[str] | None:
        """The lines completed by what has just arrived; None at the end."""
        with contextlib.suppress(ConnectionError):
            if data := self.connection.recv(65536):
                self.heard_s = time.monotonic()
                *whole, self.rest = (self.rest + data).split(b"\n")
                return [line.decode("latin-1").strip("\r") for line in whole]
        return None


def collect(log: str, sockets: dict[str, str], lifeline: bool) -> None:
    selector = selectors.DefaultSelector()
    if lifeline:
        selector.register(sys.stdin, selectors.EVENT_READ, "lifeline")
    for host, path in sockets.items():
        listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o777)  # QEMU may run as another user
        listener.listen()
        selector.register(listener, selectors.EVENT_READ, host)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(f"{log}.say")
    # For reading and writing, so that it has no end when a writer has come and gone.
    selector.register(os.open(f"{log}.say", os.O_RDWR | os.O_NONBLOCK), selectors.EVENT_READ, "say")
    consoles: list[Console] = []
    print("ready", flush=True)
    with open(log, "a", buffering=1, encoding="latin-1") as out:
        while True:
            for key, _ in selector.select():
                now_s = time.monotonic()
                if key.data == "lifeline":
                    return
                if key.data == "say":
                    assert isinstance(key.fileobj, int)
                    words = os.read(key.fileobj, 4096)
                    if consoles:
                        max(consoles, key=lambda each: each.heard_s).connection.sendall(words)
                    continue
                if isinstance(key.data, str):
                    assert isinstance(key.fileobj, socket.socket)
                    console = Console(key.fileobj.accept()[0], key.data)
                    selector.register(console.connection, selectors.EVENT_READ, console)
                    consoles.append(console)
                    continue
                lines = key.data.lines()
                if lines is None:
                    selector.unregister(key.data.connection)
                    key.data.connection.close()
                    consoles.remove(key.data)
                    continue
                out.writelines(f"{now_s:.4f} {key.data.host} {line}\n" for line in lines)


if __name__ == "__main__":
    collect(sys.argv[1], dict(word.split("=", 1) for word in sys.argv[3:]), sys.argv[2] == "lifeline")
