# SPDX-License-Identifier: Apache-2.0
"""Work that may hang, as a file system does whose server is away: done on a thread of its own, and waited
for no longer than is good for who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Aside:
    """One piece of work at a time. Its thread, a daemon, keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[], object]) -> bool:
        """Whether it was begun: not where the one before is still at it, or no thread is to be had."""
        if self.busy:
            return False
        thread = threading.Thread(target=work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def wait(self, seconds: float) -> bool:
        """Whether nothing is being done any more."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy


def within(seconds: float, work: Callable[[], None]) -> bool:
    """Whether WORK was done in time; otherwise it goes on, and nobody hears of it. Raises what WORK does."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:
            raised.append(err)

    aside = Aside("pcmig-aside")
    if not aside.begin(run):
        work()  # without a thread it is done here
    elif not aside.wait(seconds):
        return False
    if raised:
        raise raised[0]
    return True
