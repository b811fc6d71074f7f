# SPDX-License-Identifier: Apache-2.0
"""No switch before the guest's ports forward at the destination: joins who asks there with the engine's gate.
The core decides what to answer (core/ports_gate.h)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pcmig import _core
from pcmig.ports.asking import Said

if TYPE_CHECKING:
    from pcmig._core import Status

GATE_WAIT_MAX_MS = 3_600_000  # the parameter's own bound (csrc/core/params.c)
BEFORE_SWITCH = ("setup", "precopy", "drain")

WORDS = {
    "untold": "the switch waits for an answer",
    "unknown": "nobody can tell, and the switch does not wait",
    "blocked": "the switch waits",
    "ready": "the switch may come",
}
THEN = {
    "open": "switching anyway",
    "again": "switching anyway",
    "abort": "cancelling",
}


def before_switch(status: Status) -> bool:
    return status["outcome"] is None and status["phase"] in BEFORE_SWITCH


def gate_wait_ms(wait_ms: int) -> int:
    """How long the engine has to wait for the gate's answer where ports are waited for so long."""
    return min(wait_ms + 1000, GATE_WAIT_MAX_MS)


class Asks(Protocol):
    """Somebody at TARGET is kept asked about a guest's ports."""

    @property
    def target(self) -> str: ...

    def take(self) -> Said:
        """What is said by now. Never blocks."""

    def stop(self) -> None: ...


class PortsWait:
    """Asks, answers the gate, and tells what it was about."""

    def __init__(self, asker: Asks, wait_ms: int, then: str) -> None:
        self.asker = asker
        self.wait_ms = wait_ms
        self.then = then
        self.told: Said | None = None
        self.waited_ms = 0
        self._gate = _core.PortsGate(wait_ms, then)

    def answer(self, status: Status, tell: Callable[[str], None]) -> str:
        """Takes what is new; what to answer the gate: "none", "open", "close", "again", "abort"."""
        said = self.asker.take()
        if not before_switch(status):
            return "none"
        now_ms = time.monotonic_ns() // 1_000_000
        if said != self.told:
            self.told = said
            tell(f"ports at {self.asker.target}: {said.text}; {WORDS[said.level]}")
        answer = self._gate.feed(now_ms, ports=said.level, gate=status["gate"], before_switch=True)
        if answer == "none":
            return "none"
        self.waited_ms = self._gate.waited_ms(now_ms)
        if said.level in ("blocked", "untold") and answer in THEN:
            tell(f"ports: waited {self.waited_ms / 1000:.1f} s: {THEN[answer]}")
        return answer

    def force(self) -> None:
        """The operator asked for the switch."""
        self._gate.force()
