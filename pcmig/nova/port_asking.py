# SPDX-License-Identifier: Apache-2.0
"""Asks nova-compute at the destination whether a guest's ports forward there, on a thread that waits for the
bus so that nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pcmig.ports.asking import UNTOLD, Said, understood

LOOK_S = 1.0  # between questions, while nobody waits for the answer,
HURRY_S = 0.2  # while the switch does,
UNKNOWN_S = 15.0  # and after nobody could tell


class Asker:
    """ASK answers as `pcmig ports --json` does (messages.Client.ports). Is a pcmig.ports.waiting.Asks."""

    def __init__(self, target: str, ask: Callable[[], dict[str, Any]]) -> None:
        self.target = target
        self.hurry = False
        self._ask = ask
        self._said = UNTOLD
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> Said:
        if self._thread is None and not self._over.is_set():
            thread = threading.Thread(target=self._work, name="pcmig-ports", daemon=True)
            try:
                thread.start()
            except RuntimeError as err:  # no thread is to be had; the next time
                return Said("unknown", str(err))
            self._thread = thread
        return self._said

    def stop(self) -> None:
        self._over.set()

    def ask(self) -> Said:
        """Once more, on the caller's thread."""
        try:
            return understood(self._ask())
        except Exception as err:  # the bus in whatever form: it is told, and no migration ends by it
            return Said("unknown", f"{type(err).__name__}: {err}")

    def _work(self) -> None:
        while not self._over.is_set():
            self._said = said = self.ask()
            pause_s = UNKNOWN_S if said.level == "unknown" else HURRY_S if self.hurry else LOOK_S
            self._over.wait(pause_s)
