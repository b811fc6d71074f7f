# SPDX-License-Identifier: Apache-2.0
"""The network of one guest that migrates: its ports at the destination forward before it is switched, are
bound there the moment it stops here, and are looked at once more when it runs there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from pcmig.nova.activation import Activation
from pcmig.nova.port_asking import HURRY_S, Asker
from pcmig.ports import waiting

LOG = logging.getLogger(__name__)

AFTER_S = 30.0  # so long they are looked at when the guest runs at the destination
WANTED = ("wanted", "open")


class Ports:
    """ASKER and WAIT are None where the switch waits for no port."""

    def __init__(
        self, instance: Any, activation: Activation, asker: Asker | None, wait: waiting.PortsWait | None
    ) -> None:
        self.activation = activation
        self._instance = instance
        self._asker = asker
        self._wait = wait
        self.activated: Callable[[float], None] = lambda _: None  # is told how many seconds that took

    def start(self, engine: Any) -> None:
        self.activation.start(engine, self._look_after)

    def answer(self, status: Any) -> str:
        """What to answer the gate: "none", "open", "close", "again", "abort"."""
        wanted = status["gate"] in WANTED
        if wanted:
            self.activation.fetch()
        if self._wait is None:
            return "open" if status["gate"] == "wanted" else "none"
        if self._asker is not None:
            self._asker.hurry = wanted
        if not waiting.before_switch(status):
            self._wait.asker.stop()
        return self._wait.answer(status, self._tell)

    def patience_s(self, status: Any, otherwise_s: float) -> float:
        """How soon to look again, as the destination's word comes without news of the engine's."""
        return HURRY_S if self._wait is not None and status["gate"] in WANTED else otherwise_s

    def force(self) -> None:
        """Somebody asked for the switch: it waits for no port."""
        if self._wait is not None:
            self._wait.force()

    def end(self) -> None:
        """The migration is over, as far as this process looks after it."""
        if self._wait is not None:
            self._wait.asker.stop()
        self.activation.end()

    def _tell(self, text: str) -> None:
        LOG.info("Live migration: %s", text, instance=self._instance)

    def _look_after(self) -> None:
        """The guest runs at the destination: what it has there now."""
        if self.activation.took_s is not None:
            self.activated(self.activation.took_s)
        if self._asker is None:
            return
        begun_s, told = time.monotonic(), ""
        while True:
            said = self._asker.ask()
            after_ms = (time.monotonic() - begun_s) * 1000
            if said.level == "ready":
                self._tell(
                    f"all ports at {self._asker.target} forward, {after_ms:.0f} ms after they were bound"
                )
            elif said.level == "blocked" and said.text != told:
                told = said.text
                LOG.warning(
                    "The guest runs at %(dest)s, and a port of it does not forward there yet: %(why)s",
                    {"dest": self._asker.target, "why": said.text},
                    instance=self._instance,
                )
            if said.level != "blocked" or after_ms >= AFTER_S * 1000:
                return
            time.sleep(HURRY_S)


def made(
    instance: Any,
    dest: str,
    *,
    connect: Callable[[], Any],
    ask: Callable[[], dict[str, Any]],
    wait_ms: int,
    then: str,
) -> Ports:
    """For a migration to DEST, a host's name. CONNECT makes a client of Neutron's, ASK asks the destination
    (messages.Client.ports)."""
    activation = Activation(connect, instance, dest)
    if wait_ms == 0:
        return Ports(instance, activation, None, None)
    asker = Asker(dest, ask)
    return Ports(instance, activation, asker, waiting.PortsWait(asker, wait_ms, then))
