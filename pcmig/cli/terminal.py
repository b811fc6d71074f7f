# SPDX-License-Identifier: Apache-2.0
"""The terminal as a whole screen, and its keys: left as it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pcmig.cli.base import make_console

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAVE = frozenset("qQ\x03\x04\x1b")  # q, Ctrl-C and Ctrl-D where they are no signals, Escape


class Keys:
    """Keys of standard input, one by one, where that is a terminal."""

    def __init__(self) -> None:
        self._fd = -1
        self._saved: list[Any] | None = None

    def __enter__(self) -> Keys:
        try:
            fd = sys.stdin.fileno()
            if os.isatty(fd):
                self._saved = termios.tcgetattr(fd)
                tty.setcbreak(fd)
                self._fd = fd
        except (OSError, ValueError, AttributeError, termios.error):
            pass  # closed, or none of ours: a signal leaves
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0 and self._saved is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        self._fd = -1

    def watch(self, poller: select.poll) -> None:
        if self._fd >= 0:
            poller.register(self._fd, select.POLLIN)

    def leave(self) -> bool:
        """Whether somebody has asked to leave since the last call."""
        asked = False
        while self._fd >= 0 and select.select([self._fd], [], [], 0)[0]:
            try:
                data = os.read(self._fd, 256)
            except OSError:
                data = b""
            if not data:  # the terminal is gone; a signal says so, too
                self._fd = -1
                break
            text = data.decode(errors="replace")
            # An arrow key begins with an escape, too.
            asked = asked or any(key in LEAVE for key in text if key != "\x1b") or text == "\x1b"
        return asked


class Screen:
    """The alternate screen of standard output."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console = make_console(sys.stdout)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,  # no thread: whoever has something new draws it
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        return self._console.width, self._console.height

    def draw(self, picture: RenderableType) -> None:
        self._live.update(picture, refresh=True)
