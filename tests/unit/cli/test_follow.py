"""Which decisions get a line."""

from __future__ import annotations

from typing import Any

from pcmig.cli.follow import Follower
from tests.unit.cli import fake_core as fake


class Recorder:
    interval_ms = 10

    def __init__(self) -> None:
        self.lines: list[str] = []

    def decision(self, decision: dict[str, Any]) -> None:
        self.lines.append(f"{decision['t_us'] // 1_000_000} {decision['action']}")

    def update(self, status: Any) -> None: ...
    def note(self, text: str) -> None:
        self.lines.append(text)


class Signals:
    def take(self) -> list[Any]:
        return []


def test_changes_of_the_pace_get_a_line_every_five_seconds() -> None:
    migration, display = fake.Migration("g1", "d"), Recorder()
    follower = Follower(migration, display, Signals())  # type: ignore[arg-type]
    for second in range(12):
        migration._news({"decision": {**fake.DECISION, "t_us": second * 1_000_000, "action": "set-pace"}})
    migration._news({"decision": {**fake.DECISION, "t_us": 12_000_000, "action": "abort"}})
    follower._look()
    follower._look()
    assert display.lines == ["0 set-pace", "5 set-pace", "10 set-pace", "12 abort"]
