# SPDX-License-Identifier: Apache-2.0
"""Follows one migration to its end: waits for its news and for signals, shows the one and acts on the
other."""

from __future__ import annotations

import contextlib
import re
import select
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pcmig import _core
from pcmig.cli import metering
from pcmig.cli.ports_wait import LOOK_MS
from pcmig.cli.record import KEPT, LOOK
from pcmig.cli.signals import SignalPipe
from pcmig_common import phases

if TYPE_CHECKING:
    from pcmig._core import Decision, Migration, Status
    from pcmig.cli.ports_wait import PortsWait
    from pcmig.cli.progress import Display
    from pcmig.cli.record import Record
    from pcmig.tunnel.passage import Passage

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, LOOK, signal.SIGHUP)
INTERRUPTS = {signal.SIGINT, signal.SIGTERM}

# At most one line in this time for changes of the pace.
PACE_LINE_US = 5_000_000

# What changes in a sentence by itself: seconds until the next attempt, permille that have crossed.
NUMBER = re.compile(r"\d+")

# How many times Ctrl-C while a cancellation is under way, until we stop waiting for it.
LEAVE_AFTER = 3


class Follower:
    """The main loop of `pcmig migrate` and `resume`. It sleeps in poll(): whatever happens makes a descriptor
    readable. RECORD tells whether the guest is to wait in an interrupted post-copy; it is asked when the
    stream breaks, and when somebody says that there is news (LOOK)."""

    def __init__(
        self,
        migration: Migration,
        display: Display,
        signals: SignalPipe,
        record: Record,
        passage: Passage | None = None,
        ports: PortsWait | None = None,
        *,
        figures: metering.Metering | None = None,
        adopts: bool = False,
        look: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        self.migration = migration
        self.display = display
        self.signals = signals
        self.record = record
        self.passage = passage  # through the tunnel; opened again should its daemon be restarted
        self.ports = ports  # which the switch waits for
        self.figures = figures  # for Prometheus
        self.adopts = adopts  # somebody else began it
        self.look = look  # is shown each status
        self.interrupts = 0
        self.left_unseen = False  # nobody could say how the migration stands
        self.cancelling = False
        self.detaching = False
        self._decisions_shown = 0
        self._kept: set[str] = set()  # of KEPT, what is on record
        self._recovery: str | None = None  # as it was told last
        self._note: str | None = None  # likewise
        self._pace_shown_us: int | None = None

    def run(self) -> Status:
        """Returns the last status; its outcome is not None."""
        poller = select.poll()
        poller.register(self.migration.fileno(), select.POLLIN)
        poller.register(self.signals.fileno(), select.POLLIN)
        while True:
            status = self._look()
            if status["outcome"] is not None:
                return status
            poller.poll(self._patience_ms(poller))

    def _patience_ms(self, poller: select.poll) -> int | None:
        """How long to sleep without news."""
        waits = [] if self.display.interval_ms is None else [self.display.interval_ms]
        if self.ports is not None:
            self.ports.watch(poller)
            waits.append(LOOK_MS)
        if self.figures is not None:
            waits.append(metering.LOOK_MS)
        return min(waits, default=None)

    def _look(self) -> Status:
        """Takes what is new, and reacts to it."""
        self.migration.clear()  # before status(): news that come in between make it readable again
        status = self.migration.status()
        said: Mapping[str, Any] = status
        self.look(said)
        for name in KEPT:
            if said[name] and name not in self._kept:
                self._kept.add(name)
                self.record.note(name, said[name])
        decisions = self.migration.decisions(first=self._decisions_shown)
        for decision in decisions:
            if self._is_news(decision):
                self.display.decision(decision)
        self._decisions_shown += len(decisions)
        if self.ports is not None:
            with contextlib.suppress(_core.Error):  # it is just over; the next look shows that
                self.ports.look(self.migration, status, self.display.note)
        self._tell_recovery(status)
        if status["note"] is not None and status["note"] != self._note:
            self._note = status["note"]
            self.display.note(status["note"])
        # The way is needed again, or not yet: the tunnel's daemon may have been restarted meanwhile.
        idle = status["recovery"] or status["turn"] == "waiting"
        if self.passage is not None and idle and status["outcome"] is None:
            self.passage.keep()
        if status["outcome"] is None and status["phase"] != "finished":
            self.display.update(status)
            if self.figures is not None:
                self.figures.look(status)
        for number in self.signals.take():
            self._signalled(number, status)
        if self.cancelling and not self.detaching and status["phase"] in phases.POSTCOPY:
            self._detach(
                "the guest moved before the cancellation reached it: leaving the migration to itself"
            )
        return status

    def _tell_recovery(self, status: Status) -> None:
        """A line when post-copy breaks, for each attempt to resume it, whenever it is something else that is
        waited for, and when it flows again."""
        recovery = status["recovery"]
        told = recovery and f"{recovery['state']}{recovery['attempts']}{NUMBER.sub('', recovery['text'])}"
        if told == self._recovery or status["outcome"] is not None:
            return
        if recovery and self._recovery is None and self.record.held():
            self._request(self.migration.pause)  # somebody broke it on purpose
        self._recovery = told
        self.record.recovering(recovery)
        self.display.note(recovery["text"] if recovery else "post-copy goes on")

    def _is_news(self, decision: Decision) -> bool:
        """Whether DECISION gets a line: the pace changes every second, and the figures show it anyway."""
        if decision["action"] == "set-pace":
            if self._pace_shown_us is not None and decision["t_us"] - self._pace_shown_us < PACE_LINE_US:
                return False
            self._pace_shown_us = decision["t_us"]
        return True

    def _signalled(self, number: signal.Signals, status: Status) -> None:
        if number == signal.SIGHUP:
            self.display.drop()  # the terminal is gone, the guest is not: go on without a word
        elif number == signal.SIGUSR1:
            self.display.note("post-copy was asked for (SIGUSR1)")
            if self.ports is not None:
                self.ports.force()
            self._request(self.migration.switch)
        elif number == LOOK:
            self._asked(status)
        elif status["outcome"] is None:
            self.interrupts += 1
            self._interrupted(status)

    def _asked(self, status: Status) -> None:
        """`pcmig pause` or `pcmig resume` in another terminal."""
        if status["outcome"] is not None or status["phase"] not in phases.POSTCOPY:
            return
        if self.record.held():
            self.display.note("a pause was asked for")
            self._request(self.migration.pause)
        else:
            if status["recovery"]:
                self.display.note("resuming was asked for")
            self._request(self.migration.resume)  # also takes back a pause that libvirt refused

    def _interrupted(self, status: Status) -> None:
        """Ctrl-C or SIGTERM: cancels where that is possible, detaches where it is not."""
        if self.detaching:
            return
        if status["recovery"]:
            self._detach("leaving the guest as it is: both halves are kept")
        elif status["phase"] in phases.POSTCOPY:
            self._detach("the guest runs at the destination already: leaving the migration to itself")
        elif self.adopts and status["phase"] == "setup":
            # What is not seen is not cancelled: the guest may have moved long ago.
            self.left_unseen = True
            self._detach("no host has said how the migration stands: leaving it as it is")
        elif not self.cancelling:
            self.cancelling = True
            self.display.note("cancelling: waiting for libvirt to confirm that the guest stays at the source")
            self._request(self.migration.abort)
        elif self.interrupts > LEAVE_AFTER:
            self._detach("leaving without the confirmation that the migration is cancelled")
        else:
            left = LEAVE_AFTER + 1 - self.interrupts
            times = "once more" if left == 1 else f"{left} times more"
            self.display.note(f"still cancelling: libvirt has not confirmed it (Ctrl-C {times} to leave)")

    def _detach(self, why: str) -> None:
        self.detaching = True
        self.display.note(why)
        self._request(self.migration.detach)

    def _request(self, request: Callable[[], None]) -> None:
        """A request that comes when the migration is just over is refused; the next look shows that."""
        with contextlib.suppress(_core.Error):
            request()
