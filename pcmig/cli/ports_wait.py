# SPDX-License-Identifier: Apache-2.0
"""What `pcmig migrate --ports` does about the network: no switch before the guest's ports forward at the
destination, by the engine's gate (ports/waiting.py); and once the guest has gone, the switches of this host
forget it, while the destination announces it."""

from __future__ import annotations

import dataclasses
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pcmig.ports import waiting
from pcmig.ports.asking import Asker
from pcmig.ports.forgetting import forget
from pcmig.ports.host import Host, HostError
from pcmig.ports.nics import nics
from pcmig_common import phases

if TYPE_CHECKING:
    from pcmig._core import Migration, Status

LOOK_MS = 500  # at the longest: time passes without news
LAST_WORDS_S = 1.5  # the destination has to tell how it announced the guest, when the migration is over


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Leaving:
    """Has this host's switches forget the guest with this XML, once, when it has stopped here."""

    def __init__(self, xml: str) -> None:
        self._nics = nics(xml)
        self._host: Host | None = None
        self.problem: str | None = None
        try:
            self._host = Host()
        except HostError as err:
            self.problem = str(err)

    def __call__(self) -> list[dict[str, Any]]:
        host, self._host = self._host, None
        if host is None:
            return []
        with host:
            try:
                return [dataclasses.asdict(row) for row in forget(self._nics, host)]
            except HostError as err:
                self.problem = str(err)
                return []


class PortsWait:
    """Asks, answers the gate, and tells what it was about. LEAVING: None where the guest is not on this
    machine."""

    def __init__(self, asker: Asker, wait_ms: int, then: str, leaving: Leaving | None = None) -> None:
        self.leaving = leaving
        self.asker = asker
        self._wait = waiting.PortsWait(asker, wait_ms, then)
        self._watched: int | None = None
        self._begun_ms = _now_ms()
        self._said: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        self._gone = False  # the guest has left this host
        self._forgotten: list[dict[str, Any]] = []
        self._forgotten_ms: int | None = None
        self._announced: str | None = None
        self._over = False

    def watch(self, poller: select.poll) -> None:
        """Has POLLER wake up for what the destination says."""
        number = self.asker.fileno()
        if number == self._watched:
            return
        if self._watched is not None:
            poller.unregister(self._watched)
        if number is not None:
            poller.register(number, select.POLLIN)
        self._watched = number

    def look(self, migration: Migration, status: Status, tell: Callable[[str], None]) -> None:
        """Takes what is new and answers the gate. Raises _core.Error when the migration is just over."""
        if self._over:
            return
        if status["phase"] in phases.POSTCOPY or status["outcome"] == "completed":
            self._leave(tell)
        told = self._wait.told
        answer = self._wait.answer(status, tell)
        after_ms = _now_ms() - self._begun_ms
        if (said := self._wait.told) is not None and said is not told:
            self._said.append({"t_ms": after_ms, "level": said.level, "text": said.text})
        if text := self._news_of_announcing():
            tell(text)
        if answer == "none":
            return
        self._answers.append({"t_ms": after_ms, "answer": answer})
        # "again": it was refused, which holds until the switch is asked for.
        ask = {
            "open": migration.open_gate,
            "close": migration.refuse_gate,
            "again": migration.switch,
            "abort": migration.abort,
        }
        ask[answer]()

    def _leave(self, tell: Callable[[str], None]) -> None:
        """The guest has just stopped at this host."""
        if self._gone:
            return
        self._gone = True
        if self.leaving is None:
            return
        self._forgotten_ms = _now_ms() - self._begun_ms
        self._forgotten = self.leaving()
        problems = [row["problem"] for row in self._forgotten if row["problem"]]
        if problem := next(iter(problems), self.leaving.problem):
            tell(f"ports: this host may take the guest to be here for a while yet: {problem}")

    def _news_of_announcing(self) -> str | None:
        """The destination's last word, once."""
        if self._announced is not None or self.asker.announced is None:
            return None
        self._announced = self.asker.announced
        return f"ports at {self.asker.target}: {self._announced}"

    def force(self) -> None:
        """The operator asked for the switch."""
        self._wait.force()

    def end(self) -> str | None:
        """The migration is over. The destination goes on announcing, if it has to; returns what came of it if
        that was not told and comes soon."""
        until_s = time.monotonic() + LAST_WORDS_S
        while self._gone and self.asker.announced is None and (left_s := until_s - time.monotonic()) > 0:
            number = self.asker.fileno()
            if number is None:
                break
            select.select([number], [], [], left_s)
            self.asker.take()
        self._over = True
        self.asker.stop()
        return self._news_of_announcing()

    def account(self) -> dict[str, Any]:
        """For the report."""
        return {
            "asked": self.asker.target,
            "wait_ms": self._wait.wait_ms,
            "then": self._wait.then,
            "waited_ms": self._wait.waited_ms,
            "said": self._said,
            "answers": self._answers,
            "announced": self._announced,
            "forgotten_ms": self._forgotten_ms,
            "forgotten": self._forgotten,
        }
