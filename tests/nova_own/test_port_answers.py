# SPDX-License-Identifier: Apache-2.0
"""What nova-compute tells of the ports of guests that come here: how often it looks, and for whom."""

from __future__ import annotations

import itertools
import time
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from pcmig.nova import port_answers
from pcmig.ports.model import Nic
from tests.unit.patience import PATIENCE_S, wait_for


class Host:
    """In place of pcmig.ports.host.Host."""

    looks_s: ClassVar[list[float]] = []

    def __init__(self, ovsdb: str) -> None: ...

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None: ...

    def look(self, nics: list[Nic]) -> list[Any]:
        Host.looks_s.append(time.monotonic())
        return []


def nics(noted: Any) -> list[Nic]:
    if noted == "broken":
        raise ValueError("no such object")
    return []


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[port_answers.PortAnswers]:
    """Of any guest there is a record, whose name is what it has noted."""
    Host.looks_s.clear()
    monkeypatch.setattr(port_answers, "FRESH_S", PATIENCE_S)
    monkeypatch.setattr(port_answers, "PATIENCE_S", PATIENCE_S)
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


def pauses_s() -> list[float]:
    """Between looks."""
    return [after - before for before, after in itertools.pairwise(Host.looks_s)]


def test_it_looks_often_only_while_a_switch_waits(answers: port_answers.PortAnswers) -> None:
    for _ in range(2):
        assert answers.answer("one")["ready"] is True
        time.sleep(1.0)
    assert all(pause_s >= port_answers.CALM_S for pause_s in pauses_s())

    def is_often() -> bool:
        answers.answer("one")
        time.sleep(0.15)
        return any(pause_s < port_answers.HURRY_S for pause_s in pauses_s())

    wait_for(is_often)


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
