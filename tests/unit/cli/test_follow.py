# SPDX-License-Identifier: Apache-2.0
"""Which decisions get a line."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from pcmig.cli.follow import Follower
from pcmig.cli.record import LOOK
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


class Record:
    """Of a migration that somebody paused, or did not."""

    def __init__(self, held: bool = False) -> None:
        self.is_held = held
        self.told: list[Any] = []

    def held(self) -> bool:
        return self.is_held

    def note(self, name: str, value: Any) -> None:
        self.told.append(name if value is True else value)

    def recovering(self, recovery: Any) -> None:
        self.told.append(recovery and recovery["state"])


def test_a_note_is_told_once() -> None:
    migration, display = fake.Migration("g1", "d"), Recorder()
    follower = Follower(migration, display, Signals(), Record())  # type: ignore[arg-type]
    migration._news({"note": "nothing was sent for 60 s"})
    follower._look()
    follower._look()
    migration._news({"outcome": "completed", "note": "not set at the destination:\n  virsh autostart g1"})
    follower._look()
    assert display.lines == [
        "nothing was sent for 60 s",
        "not set at the destination:\n  virsh autostart g1",
    ]


def test_which_host_the_destination_is_goes_on_record_once() -> None:
    migration, display, record = fake.Migration("g1", "d"), Recorder(), Record()
    follower = Follower(migration, display, Signals(), record)  # type: ignore[arg-type]
    follower._look()
    assert record.told == []
    migration._news({"dest_host": "4c4c4544-0051-3510-8058-b4c04f564433"})
    follower._look()
    follower._look()
    assert record.told == ["4c4c4544-0051-3510-8058-b4c04f564433"]


def test_changes_of_the_pace_get_a_line_every_five_seconds() -> None:
    migration, display = fake.Migration("g1", "d"), Recorder()
    follower = Follower(migration, display, Signals(), Record())  # type: ignore[arg-type]
    for second in range(12):
        migration._news({"decision": {**fake.DECISION, "t_us": second * 1_000_000, "action": "set-pace"}})
    migration._news({"decision": {**fake.DECISION, "t_us": 12_000_000, "action": "abort"}})
    follower._look()
    follower._look()
    assert display.lines == ["0 set-pace", "5 set-pace", "10 set-pace", "12 abort"]


BROKEN = {
    "phase": "paused",
    "recovery": {"state": "waiting", "attempts": 0, "permille": 430, "text": "post-copy interrupted at 43 %"},
}


def follower(record: Record, *signals: signal.Signals) -> tuple[fake.Migration, Recorder, Follower]:
    class Given(Signals):
        def __init__(self) -> None:
            self.left: list[Any] = list(signals)

        def take(self) -> list[Any]:
            taken, self.left = self.left, []
            return taken

    migration, display = fake.Migration("g1", "d"), Recorder()
    migration.calls.clear()
    return migration, display, Follower(migration, display, Given(), record)  # type: ignore[arg-type]


def test_what_was_broken_on_purpose_is_held() -> None:
    record = Record(held=True)
    migration, display, one = follower(record)
    migration._news(fake.POSTCOPY)
    one._look()
    assert migration.calls == [] and record.told == []
    migration._news(BROKEN)
    one._look()
    one._look()
    assert migration.calls == ["pause"], "once"
    assert record.told == ["waiting", "held"] and "post-copy interrupted at 43 %" in display.lines


def test_what_broke_by_itself_is_not_held() -> None:
    record = Record()
    migration, _, one = follower(record)
    migration._news(BROKEN)
    one._look()
    migration._news({"phase": "postcopy", "recovery": None})
    one._look()
    assert migration.calls == [] and record.told == ["waiting", None]


@pytest.mark.parametrize(
    ("held", "news", "calls"),
    [
        (True, fake.POSTCOPY, ["pause"]),
        (False, BROKEN, ["resume"]),
        (False, fake.POSTCOPY, ["resume"]),  # of a pause that did not come about
        (False, fake.PRECOPY, []),
        (True, fake.PRECOPY, []),  # nothing can be: it would hold what breaks later
        (True, fake.COMPLETED, []),
    ],
)
def test_a_look_at_the_journal_was_asked_for(held: bool, news: dict[str, Any], calls: list[str]) -> None:
    migration, _, one = follower(Record(held), LOOK)
    migration._news(news)
    one._recovery = "told before"
    one._look()
    assert migration.calls == calls
