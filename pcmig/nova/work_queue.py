# SPDX-License-Identifier: Apache-2.0
"""Work that nobody is to wait for, and that may block for as long as a bus or a disk is away."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class WorkQueue:
    """Does one piece of work after the other, in order, on a daemon thread named NAME, which is there as long
    as there is work: an idle process has none more, and one that forks leaves none behind. While MOST pieces
    wait, further ones are dropped, with one warning until all is done. WHAT they are is for that warning."""

    def __init__(self, name: str, what: str, most: int) -> None:
        self._name = name
        self._what = what
        self._most = most
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[str | None, Callable[[], object]]] = collections.deque()
        self._keys: set[str] = set()  # of what waits, and of what is being done
        self._works = False  # the thread is there, or about to be
        self._told = False  # that one was dropped

    def do(self, work: Callable[[], object], key: str | None = None) -> None:
        """Soon. One with a KEY is left out while another with the same waits or is being done."""
        with self._lock:
            if key is not None and key in self._keys:
                return
            full = len(self._waiting) >= self._most
            news, self._told = full and not self._told, full or self._told
            if not full:
                self._waiting.append((key, work))
                if key is not None:
                    self._keys.add(key)
            begins, self._works = not full and not self._works, True
        # Nothing that might let another green thread run is done with the lock.
        if news:
            LOG.warning(
                "%(what)s are dropped: %(most)d wait already, as the first of them cannot be done yet",
                {"what": self._what, "most": self._most},
            )
        if begins:
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError as err:  # no thread is to be had; the next time
                with self._lock:
                    self._waiting.clear()
                    self._keys.clear()
                    self._works = False
                LOG.warning("%(what)s are dropped: %(err)s", {"what": self._what, "err": err})

    def _work(self) -> None:
        done: str | None = None
        while True:
            with self._lock:
                if done is not None:
                    self._keys.discard(done)
                if not self._waiting:
                    self._works = self._told = False
                    return
                done, work = self._waiting.popleft()
            try:
                work()
            except Exception:  # what comes after has nothing to do with it
                LOG.exception("%s: one was not done", self._what)
