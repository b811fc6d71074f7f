# SPDX-License-Identifier: Apache-2.0
"""What pcmig's policy makes of a migration that somebody else drives. Nothing here acts on anything: lines of
a trace go in, and an account with a judgement comes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pcmig import _core

if TYPE_CHECKING:
    from pcmig._core import Decision, Judged, Ledger

# What begins the way to a switch, or ends the migration. All that follows in pre-copy is of a migration that
# was not slowed for it, and says nothing.
VERDICTS = {
    "ask": "switched",
    "drain": "switched",
    "switch": "switched",
    "abort": "cancelled",
}

_ORDERS = {"switched": "switch", "cancelled": "abort"}
_BROKEN = {"paused": "src-postcopy-failed", "postcopy": "src-suspended-postcopy"}


class Shadow:
    """The account of one migration, and what POLICY would have decided."""

    def __init__(self, policy: str = "auto", params: dict[str, int] | None = None) -> None:
        """Raises PolicyError."""
        self.policy = policy
        self._judge = _core.Judge(policy=policy, params=params)
        self._judge.feed("0 event migrate-called")
        self.verdict: Decision | None = None  # the first of VERDICTS
        self.switched_us: int | None = None  # it went to post-copy, whoever decided that
        self.ended_us: int | None = None
        self.final: dict[str, int] = {}  # libvirt's final figures; those that are 0 are left out
        self.pace_mib: int | None = None  # that background pages would have had last
        self.decisions: list[Decision] = []  # the verdict, and paces after somebody's switch
        self.t_us = 0  # of the latest line
        self._precopy = False  # it was seen in pre-copy

    def feed(self, lines: Iterable[str]) -> None:
        """What was seen, in the order of time."""
        for line in lines:
            self._take(line)

    def saw(self, state: str) -> None:
        """The state of the job at a look ("postcopy", "paused", ...): of an event that nobody heard."""
        if state in _BROKEN and self._judge.look()["phase"] not in (state, "finished"):
            self._take(f"{self.t_us} event {_BROKEN[state]}")

    def _take(self, line: str) -> None:
        decision = self._judge.feed(line)
        t_us, kind, what = (*line.split(" ", 2), "")[:3]
        if not t_us.isdigit():
            return  # header, params
        self.t_us = max(self.t_us, int(t_us))
        self._precopy = self._precopy or (kind == "sample" and self.switched_us is None)
        if kind == "event" and what.endswith("-postcopy") and self.switched_us is None:
            self.switched_us = self.t_us
        if kind == "final" and self.ended_us is None:
            self.ended_us = self.t_us
            self.final = {
                name: int(value) for name, _, value in (pair.partition("=") for pair in what.split())
            }
        if decision is not None:
            self._decided(decision)

    def _decided(self, decision: Decision) -> None:
        if decision["action"] == "set-pace":
            self.pace_mib = decision["pace_mib"]
            if self.switched_us is not None:
                self.decisions.append(decision)
        elif decision["action"] in VERDICTS and self.verdict is None and self.switched_us is None:
            self.verdict = decision
            self.decisions.append(decision)

    def look(self) -> Judged:
        return self._judge.look()

    def ledger(self) -> Ledger:
        return self._judge.ledger()

    def words(self) -> str:
        """ "pcmig would have switched at 12.4 s: pre-copy does not converge: ...", for people."""
        if self.verdict is not None:
            did = VERDICTS[self.verdict["action"]]
            return f"pcmig would have {did} at {_seconds(self.verdict['t_us'])}: {self.verdict['text']}"
        if self.switched_us is not None and not self._precopy:
            return "it was in post-copy when it was first seen"
        if self.switched_us is not None:
            return f"it was switched at {_seconds(self.switched_us)}, before pcmig would have"
        if self.ended_us is not None:
            return "pcmig would not have switched: pre-copy ended by itself"
        return "pcmig would not have switched so far"

    def told(self) -> dict[str, Any]:
        """The same for programs."""
        verdict = self.verdict
        return {
            "policy": self.policy,
            "would": None if verdict is None else _ORDERS[VERDICTS[verdict["action"]]],
            "at_ms": None if verdict is None else verdict["t_us"] // 1000,
            "reason": None if verdict is None else verdict["reason"],
            "switched_at_ms": None if self.switched_us is None else self.switched_us // 1000,
            "pace_mib": self.pace_mib,
            "text": self.words(),
        }


def _seconds(t_us: int) -> str:
    return f"{t_us / 1e6:.1f} s"


def sample_line(t_us: int, figures: dict[str, Any]) -> str:
    """FIGURES, a sample as the core gives it, as a line of a trace."""
    words = [f"{name}={value}" for name, value in figures.items() if value and name != "queue_bytes"]
    if figures.get("queue_bytes") is not None:
        words.append(f"queue_bytes={figures['queue_bytes']}")
    return " ".join([str(t_us), "sample", *words])
