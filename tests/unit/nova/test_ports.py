# SPDX-License-Identifier: Apache-2.0
"""nova-compute asks the destination's whether a guest's ports forward there: before the switch, and after.
The rules of waiting are in tests/unit/cli/test_ports_wait.py, a real destination is in tests/cloud_cases."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from pcmig.nova import port_asking, ports
from pcmig.nova.activation import Activation
from tests.unit.patience import NEVER_MS, NEVER_S, PATIENCE_S, wait_for


def answer(ready: bool | None, error: str | None = None) -> dict[str, Any]:
    rows = []
    if ready is False:
        verdict = {"readiness": "waiting", "why": "neutron's agent has not wired the port: it has no VLAN"}
        rows = [{"device": "tap1", "mac": "52:54:00:00:00:01", "verdict": verdict}]
    return {"ready": ready, "absent": False, "error": error, "ports": rows}


class Destination:
    """Says what it is told to."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.questions = 0
        self.answers = threading.Event()
        self.answers.set()

    def ask(self) -> dict[str, Any]:
        self.questions += 1
        self.answers.wait(NEVER_S)
        return self.said


class Activated:
    """In place of an Activation."""

    def __init__(self) -> None:
        self.fetched = 0
        self.ended = False
        self.took_s: float | None = None
        self.then: Callable[[], None] | None = None

    def start(self, engine: Any, then: Callable[[], None]) -> None:
        self.then = then

    def fetch(self) -> None:
        self.fetched += 1

    def end(self) -> None:
        self.ended = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_asking, "LOOK_S", 0.01)
    monkeypatch.setattr(port_asking, "UNKNOWN_S", 0.01)
    monkeypatch.setattr(port_asking, "HURRY_S", 0.01)
    monkeypatch.setattr(ports, "HURRY_S", 0.01)
    monkeypatch.setattr(ports, "AFTER_S", NEVER_S)


def made(
    destination: Destination, wait_ms: int = NEVER_MS, then: str = "switch"
) -> tuple[ports.Ports, Activated]:
    found = ports.made(None, "b", connect=lambda: None, ask=destination.ask, wait_ms=wait_ms, then=then)
    activated = Activated()
    found.activation = cast(Activation, activated)
    return found, activated


def status(gate: str = "closed", phase: str = "precopy") -> dict[str, Any]:
    return {"outcome": None, "phase": phase, "gate": gate}


def until(found: ports.Ports, gate: str, wanted: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (said := found.answer(status(gate))) != wanted:
        assert said == "none" and time.monotonic() < deadline_s, said
        time.sleep(0.005)


def test_the_gate_opens_when_they_forward(caplog: pytest.LogCaptureFixture) -> None:
    destination = Destination(answer(False))
    found, activated = made(destination)
    with caplog.at_level(logging.INFO):
        assert found.answer(status()) == "none" and activated.fetched == 0
        for _ in range(20):
            assert found.answer(status("wanted")) == "none"
            time.sleep(0.005)
        assert activated.fetched > 0, "the switch is near"
        destination.said = answer(True)
        until(found, "wanted", "open")
        destination.said = answer(False)
        until(found, "open", "close")
        destination.said = answer(True)
        until(found, "refused", "again")
    found.end()
    assert activated.ended
    said = [record.getMessage() for record in caplog.records]
    assert [text.rpartition("; ")[2] for text in said if "ports at b" in text][-4:] == [
        "the switch waits",
        "the switch may come",
        "the switch waits",
        "the switch may come",
    ]


@pytest.mark.parametrize(
    "said", [answer(None, "nova-compute on b did not answer within 3 s"), {}, cast("dict[str, Any]", None)]
)
def test_a_destination_that_cannot_tell_is_not_waited_for(
    said: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = made(Destination(said))
    with caplog.at_level(logging.INFO):
        until(found, "wanted", "open")
        for _ in range(5):
            found.answer(status("wanted"))
    texts = [record.getMessage() for record in caplog.records if "nobody can tell" in record.getMessage()]
    assert len(texts) == 1, "told once"
    found.end()


def test_a_bus_that_fails_ends_nothing() -> None:
    def ask() -> dict[str, Any]:
        raise OSError("no bus")

    asker = port_asking.Asker("b", ask)
    assert asker.ask().level == "unknown" and "no bus" in asker.ask().text


def test_without_a_thread_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    destination = Destination(answer(False))
    found, _ = made(destination)
    with monkeypatch.context() as none:
        none.setattr(threading.Thread, "start", start)
        assert found.answer(status("wanted")) == "open"
    found.answer(status("wanted"))
    until(found, "open", "close")  # it is asked as soon as there is one
    found.end()


def test_who_looks_never_waits_for_the_bus() -> None:
    destination = Destination(answer(True))
    destination.answers.clear()
    found, _ = made(destination)
    for _ in range(100):
        assert found.answer(status("wanted")) == "none", "not answered yet"
    assert destination.questions <= 1, "whoever looked would have waited for the first"
    destination.answers.set()
    until(found, "wanted", "open")
    found.end()


@pytest.mark.parametrize(("then", "wanted"), [("switch", "open"), ("abort", "abort")])
def test_waited_for_too_long(then: str, wanted: str) -> None:
    destination = Destination(answer(False))
    found, _ = made(destination, 1, then)
    until(found, "wanted", wanted)
    found.end()


def test_somebody_who_forces_it_waits_for_no_port() -> None:
    found, _ = made(Destination(answer(False)), then="stay")
    assert found.answer(status("wanted")) == "none"
    found.force()
    assert found.answer(status("wanted")) == "open"
    found.end()


def test_nobody_is_asked() -> None:
    destination = Destination(answer(False))
    found, activated = made(destination, wait_ms=0)
    assert found.answer(status()) == "none" and found.answer(status("wanted")) == "open"
    assert found.patience_s(status("wanted"), 0.5) == 0.5
    found.start(None)
    assert activated.then is not None
    took: list[float] = []
    found.activated = took.append
    activated.then()
    assert took == [], "not all are bound"
    activated.took_s = 0.25
    activated.then()
    found.force()
    found.end()
    assert destination.questions == 0
    assert took == [0.25]


def test_after_the_switch_it_stops_asking_for_the_gate() -> None:
    destination = Destination(answer(True))
    found, _ = made(destination)
    until(found, "wanted", "open")
    assert found.answer(status("open", "switchover")) == "none"
    assert found._asker is not None and found._asker._thread is not None
    found._asker._thread.join(PATIENCE_S)
    assert not found._asker._thread.is_alive()


def test_a_port_that_does_not_forward_when_the_guest_runs_there(caplog: pytest.LogCaptureFixture) -> None:
    destination = Destination(answer(False))
    found, activated = made(destination)
    found.start(None)
    assert activated.then is not None
    thread = threading.Thread(target=activated.then)
    with caplog.at_level(logging.INFO):
        thread.start()
        wait_for(lambda: destination.questions > 1)
        destination.said = answer(True)
        thread.join(PATIENCE_S)
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "does not forward" in text] == [
        "The guest runs at b, and a port of it does not forward there yet: "
        "tap1: neutron's agent has not wired the port: it has no VLAN"
    ]
    assert "all ports at b forward" in said[-1]
