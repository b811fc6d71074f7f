# SPDX-License-Identifier: Apache-2.0
"""What nova-compute tells of the ports of guests that come here: how often it looks, and for whom."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig.nova import port_answers
from pcmig.ports.model import Nic

PATIENCE_S = 10.0


class Host:
    """In place of pcmig.ports.host.Host."""

    looks = 0

    def __init__(self, ovsdb: str) -> None: ...

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None: ...

    def look(self, nics: list[Nic]) -> list[Any]:
        Host.looks += 1
        return []


def nics(noted: Any) -> list[Nic]:
    if noted == "broken":
        raise ValueError("no such object")
    return []


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[port_answers.PortAnswers]:
    """Of any guest there is a record, whose name is what it has noted."""
    Host.looks = 0
    monkeypatch.setattr(port_answers, "Host", Host)
    monkeypatch.setattr(port_answers, "nics", nics)
    monkeypatch.setattr(port_answers, "KEPT_S", 2.0)
    records: dict[str, Any] = {}

    def record(uuid: str) -> Any:
        made = types.SimpleNamespace(side="destination", nova={"migrate_data": uuid})
        return records.setdefault(uuid, made)

    found = port_answers.PortAnswers(record)
    yield found
    wait_for(lambda: not found._looks)


def wait_for(reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_it_looks_often_only_while_a_switch_waits(answers: port_answers.PortAnswers) -> None:
    for _ in range(2):
        assert answers.answer("one")["ready"] is True
        time.sleep(1.0)
    calm = Host.looks
    assert calm <= 4
    for _ in range(6):
        answers.answer("one")
        time.sleep(0.15)
    assert Host.looks - calm >= 5


def test_a_record_that_makes_no_sense_hides_no_other(
    answers: port_answers.PortAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    assert answers.answer("one")["ready"] is True
    for _ in range(3):
        assert answers.answer("broken")["ready"] is None
        assert answers.answer("one")["ready"] is True
        time.sleep(0.3)
    said = [record.getMessage() for record in caplog.records if "broken" in record.getMessage()]
    assert said == ["Cannot read which ports guest broken is to have: no such object"], "once"
