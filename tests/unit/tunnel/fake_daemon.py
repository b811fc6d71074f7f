# SPDX-License-Identifier: Apache-2.0
"""A control socket that answers as it is told, where a test is about who asks. The daemon itself is tested
for real."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

FIGURES = (
    "role=source peer=b port=16516 per_stream=1 queue_bytes=4096 bytes_out=3145728 bytes_in=2048 "
    "records_out=192 records_in=3 crypto_out_us=250000 crypto_in_us=1000 streams=1 streams_ever=2 "
    "connections=1 connections_ever=2 lost=1 reconnects=1 queue_max_bytes=65536 rtt_us=340 since_ms=1200 "
    "cipher=TLS_AES_128_GCM_SHA256 error=the%20peer%20went%20away"
)


class FakeDaemon:
    """Knows names as the real one does."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.control = str(folder / "control")
        self.folder = folder
        self.asked: list[str] = []
        self.names: dict[str, str] = {}
        self.refusal = ""  # what open and probe say, instead of doing it
        self.answer: Callable[[str], bytes] | None = None  # in place of all of it
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.control)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
                    line = file.readline().decode().rstrip("\n")
                    self.asked.append(line)
                    if self.answer is not None:
                        connection.sendall(self.answer(line))
                    else:
                        connection.sendall(self._reply(line.split()).encode() + b"\n")

    def _reply(self, words: list[str]) -> str:
        match words:
            case ["open" | "probe", *_] if self.refusal:
                return f"error {self.refusal}"
            case ["open", name, *peer]:
                self.names[name] = " ".join(peer)
                return f"ok {self.folder}/{name}"
            case ["close" | "show", name] if name not in self.names:
                return f"error unknown name {name}"
            case ["close", name]:
                del self.names[name]
                return "ok"
            case ["show", _]:
                return f"ok {FIGURES}"
            case ["list"]:
                return " ".join(["ok", *self.names])
            case ["metrics"]:
                return "ok handshakes_accepted=3 ends_ca=2000000000 ends_crl=0"
            case ["probe", *_]:
                return "ok subject=CN=b,%20O=acme not_after=1856000000 clock_skew_ms=-90000"
        return "error unknown request"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def fake_daemon(folder: pathlib.Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(folder)
    try:
        yield daemon
    finally:
        daemon.close()
