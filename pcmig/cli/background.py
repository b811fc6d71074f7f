# SPDX-License-Identifier: Apache-2.0
"""Work that may hang, as a file system does whose server is away: done on a thread of its own, and waited
for no longer than is good for who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundTask:
    """One piece of work at a time. Its thread, a daemon, keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Not the thread's own end: Ctrl-C while join() waits for it leaves a broken lock (Python 3.11).
        self._idle = threading.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        return not self._idle.is_set()

    def begin(self, work: Callable[[], object]) -> bool:
        """Whether it was begun: not where the one before is still at it, or no thread is to be had."""
        if self.busy:
            return False

        def run() -> None:
            try:
                work()
            finally:
                self._idle.set()

        self._idle.clear()
        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._idle.set()
            return False
        return True

    def wait(self, seconds: float | None) -> bool:
        """Whether nothing is being done any more; None: however long that takes."""
        return self._idle.wait(seconds)


def within(seconds: float | None, work: Callable[[], None]) -> bool:
    """Whether WORK was done in time (None: whenever it is); otherwise it goes on, and nobody hears of it.
    Raises what WORK does."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:
            raised.append(err)

    task = BackgroundTask("pcmig-background")
    if not task.begin(run):
        work()  # without a thread it is done here
    elif not task.wait(seconds):
        return False
    if raised:
        raise raised[0]
    return True
