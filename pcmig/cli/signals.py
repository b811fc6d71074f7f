# SPDX-License-Identifier: Apache-2.0
"""Signals as bytes on a file descriptor, so that one poll waits for them and for the migration."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

# What somebody asks for by one of these may come too late to be done; it is not to be our end then: our exit
# status still has to tell where the guest is.
REQUESTS = frozenset({signal.SIGUSR1, signal.SIGUSR2})


class SignalPipe:
    """Context manager: while it is open, SIGNALS interrupt nothing and are read with `take()`.

    Only for the main thread, as Python's signal module asks.
    """

    def __init__(self, signals: Iterable[signal.Signals], orders: Iterable[signal.Signals] = ()) -> None:
        """ORDERS are taken even when whoever started us had them ignored."""
        self._orders = frozenset(orders)
        self._signals = (*signals, *self._orders)
        self._saved: dict[signal.Signals, Any] = {}
        self._saved_fd = -1
        self._read_fd = self._write_fd = -1

    def __enter__(self) -> SignalPipe:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._saved_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self._signals:
            # Who started us with SIGHUP ignored (nohup) keeps it ignored. Requests we ignored ourselves.
            if number in self._orders | REQUESTS or signal.getsignal(number) is not signal.SIG_IGN:
                self._saved[number] = signal.signal(number, _do_nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, signal.SIG_IGN if number in REQUESTS else handler)
        signal.set_wakeup_fd(self._saved_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        """Readable when `take()` has something."""
        return self._read_fd

    def take(self) -> list[signal.Signals]:
        """The signals that came since the last call, in order."""
        taken: list[signal.Signals] = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._read_fd, 256):
                taken += [signal.Signals(number) for number in data if number in self._saved]
        return taken


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The byte in the pipe is the message; a Python handler must be there for it to be written."""
