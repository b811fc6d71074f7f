# SPDX-License-Identifier: Apache-2.0
"""A guest's ports are bound to the destination when it has left: what Neutron may answer, and when. A real
one is in tests/cloud_cases/test_bindings.py."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig.nova import activation, neutron_ports
from pcmig.nova.activation import Activation
from tests.unit.patience import NEVER_S, PATIENCE_S, wait_for

DEST = "compute-b"


class NeutronError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"Neutron says {status_code}")
        self.status_code = status_code


class NovaError(Exception):
    """Nova's client makes one of its own of some of Neutron's answers."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Nova says {code}")
        self.code = code


class Timeout(Exception):
    """No answer at all."""


class NoThread(threading.Thread):
    """Where the system has no more of them."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


class Neutron:
    """ANSWER is called for each activation with the port and how often it was asked for before."""

    def __init__(self, ports: int, answer: Callable[[str, int], object] = lambda *_: None) -> None:
        self.bound = {f"port-{i}": {"compute-a": "ACTIVE", DEST: "INACTIVE"} for i in range(ports)}
        self.answer = answer
        self.activated: list[str] = []
        self.asked: dict[str, int] = {}
        self.lists = True

    def list_port_bindings(self, port: str) -> dict[str, Any]:
        if not self.lists:
            raise Timeout("nobody there")
        rows = [{"host": host, "status": status} for host, status in self.bound[port].items()]
        return {"bindings": rows}

    def activate_port_binding(self, port: str, host: str) -> None:
        assert host == DEST
        before = self.asked.get(port, 0)
        self.asked[port] = before + 1
        self.answer(port, before)
        self.activated.append(port)


class Instance:
    uuid = "7f3c"

    def __init__(self, neutron: Neutron) -> None:
        self._neutron = neutron

    def get_network_info(self) -> list[dict[str, str]]:
        return [{"id": port} for port in self._neutron.bound]


class Engine:
    """Says when the guest has left."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self.left = False
        self.outcome: str | None = None

    def left_fileno(self) -> int:
        return self._reader

    def status(self) -> dict[str, Any]:
        return {"left": self.left, "outcome": self.outcome}

    def tell(self, left: bool = False, outcome: str | None = None) -> None:
        self.left, self.outcome = left, outcome
        os.write(self._writer, b"x")

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "AGAIN_S", (0.01,))
    monkeypatch.setattr(activation, "LOOK_S", 0.05)


def made(neutron: Neutron) -> Activation:
    return Activation(lambda: neutron, Instance(neutron), DEST)


def run(neutron: Neutron, engine: Engine) -> Activation:
    """To its end."""
    found = made(neutron)
    found.start(engine)
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    return found


def test_all_at_once(engine: Engine) -> None:
    """None gets an answer before the last one has been asked for."""
    all_there = threading.Barrier(16, timeout=PATIENCE_S)
    neutron = Neutron(16, lambda *_: all_there.wait())
    found = run(neutron, engine)
    assert sorted(neutron.activated) == sorted(neutron.bound) and not all_there.broken
    assert found.took_s is not None and found.took_s > 0


def test_not_before_the_guest_has_left(engine: Engine) -> None:
    neutron = Neutron(1)
    found = made(neutron)
    found.start(engine)
    wait_for(lambda: bool(found._bound))
    assert neutron.asked == {} and found.under_way()
    engine.tell(outcome="failed")
    assert found.is_settled(PATIENCE_S)
    assert neutron.asked == {} and not found.under_way()
    assert found.took_s is None


def test_one_that_runs_on_at_the_source_after_all(engine: Engine) -> None:
    """The switch came to nothing before anybody looked; a later one counts."""
    neutron = Neutron(1)
    found = made(neutron)
    engine.tell(left=False)
    found.start(engine)
    time.sleep(0.3)
    assert neutron.asked == {}
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    assert neutron.activated == ["port-0"]


@pytest.mark.parametrize("error", [NeutronError(503), NeutronError(500), Timeout("no answer")])
def test_until_neutron_is_there_again(
    engine: Engine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(port: str, before: int) -> None:
        if port == "port-1" and before < 3:
            raise error

    neutron = Neutron(3, answer)
    with caplog.at_level(logging.INFO):
        run(neutron, engine)
    assert sorted(neutron.activated) == sorted(neutron.bound)
    assert neutron.asked == {"port-0": 1, "port-1": 4, "port-2": 1}
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "cannot be bound" in text] == [
        f"Port port-1 cannot be bound to {DEST} yet: {error}"
    ], "once"
    assert any(text.startswith("3 of 3 ports are bound") for text in said)


def test_until_there_is_a_client_of_neutron(engine: Engine) -> None:
    """Keystone may be away at the moment of the switch."""
    neutron, tries = Neutron(3), []

    def connect() -> Neutron:
        tries.append(1)
        if len(tries) < 5:
            raise Timeout("keystone does not answer")
        return neutron

    found = Activation(connect, Instance(neutron), DEST)
    found.start(engine)
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    assert sorted(neutron.activated) == sorted(neutron.bound) and found.took_s is not None


def test_what_neutron_refuses_is_left_to_nova(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    answers = {"port-0": 409, "port-1": 404, "port-2": 403}

    def answer(port: str, before: int) -> None:
        raise NeutronError(answers[port])

    neutron = Neutron(3, answer)
    neutron.lists = False  # where a binding was never seen, 404 is an answer
    with caplog.at_level(logging.INFO):
        run(neutron, engine)
    assert neutron.asked == dict.fromkeys(neutron.bound, 1), "nobody is asked again"
    said = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("1 of 3 ports are bound") for text in said), "that of 409 was active already"
    assert [text for text in said if "left for Nova" in text] == [
        f"Port port-2 is left for Nova to bind to {DEST}: Neutron says 403"
    ]


def test_a_neutron_that_has_just_been_started_knows_of_no_binding(engine: Engine) -> None:
    def answer(port: str, before: int) -> None:
        if before < 2:
            raise NeutronError(404)

    neutron = Neutron(2, answer)
    found = made(neutron)
    found.start(engine)
    wait_for(lambda: len(found._bound) == 2)
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    assert sorted(neutron.activated) == ["port-0", "port-1"]
    assert neutron.asked == {"port-0": 3, "port-1": 3}


@pytest.mark.parametrize("error", [Timeout("nobody there"), NeutronError(404)])
def test_a_look_that_fails_forgets_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Neutron is restarted as the switch is near: what it said of the bindings before still counts."""
    monkeypatch.setattr(activation, "FRESH_S", 0.0)
    monkeypatch.setattr(activation, "FETCH_AGAIN_S", 0.0)
    looks: list[str] = []

    def answer(port: str, before: int) -> None:
        if before < 2:
            raise NeutronError(404)

    def gone(port: str) -> Any:
        looks.append(port)
        raise error

    neutron = Neutron(2, answer)
    found = made(neutron)
    found.start(engine)
    wait_for(lambda: len(found._bound) == 2)
    monkeypatch.setattr(neutron, "list_port_bindings", gone)

    def has_looked_again() -> bool:
        found.fetch()
        return len(looks) >= 4 and not found._fetching.locked()

    wait_for(has_looked_again)
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    assert neutron.asked == {"port-0": 3, "port-1": 3}, "404 was no answer"
    assert sorted(neutron.activated) == ["port-0", "port-1"]


def test_nobody_looks_once_the_guest_has_left(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever still asks for it: a Neutron that comes back has enough to do."""
    monkeypatch.setattr(activation, "FRESH_S", 0.0)
    monkeypatch.setattr(activation, "FETCH_AGAIN_S", 0.0)
    go_on = threading.Event()
    neutron = Neutron(1, lambda *_: go_on.wait(NEVER_S))
    found = made(neutron)
    found.start(engine)
    wait_for(lambda: bool(found._bound) and not found._fetching.locked())
    engine.tell(left=True)
    wait_for(lambda: len(neutron.asked) == 1)
    looked_s = found._tried_s
    found.fetch()
    assert found._tried_s == looked_s
    go_on.set()
    assert found.is_settled(PATIENCE_S)


def test_a_neutron_that_hangs_holds_nothing(engine: Engine) -> None:
    """Nova's handler waits for a while, the end of the migration for nothing."""
    go_on = threading.Event()
    neutron = Neutron(2, lambda *_: go_on.wait(NEVER_S))
    found = made(neutron)
    found.start(engine)
    engine.tell(left=True)
    wait_for(lambda: len(neutron.asked) == 2)
    found.wait(0.05)
    found.end()
    assert not found.is_settled(0.05), "whoever brings the ports back waits for it"
    assert neutron.activated == []
    go_on.set()
    assert found.is_settled(PATIENCE_S)


def test_the_end_of_the_migration_ends_it(engine: Engine) -> None:
    def answer(port: str, before: int) -> None:
        raise NeutronError(503)

    neutron = Neutron(2, answer)
    found = made(neutron)
    found.start(engine)
    engine.tell(left=True)
    found.wait(PATIENCE_S)
    assert set(neutron.asked) == set(neutron.bound), "all were tried"
    found.end()
    assert found.is_settled(PATIENCE_S)
    asked = dict(neutron.asked)
    time.sleep(0.05)
    assert neutron.asked == asked


def test_ports_that_are_not_bound_there_are_not_asked_for(engine: Engine) -> None:
    neutron = Neutron(2)
    del neutron.bound["port-1"][DEST]
    found = made(neutron)
    found.start(engine)
    wait_for(lambda: len(found._bound) == 2)
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S)
    assert neutron.asked == {"port-0": 1}


def test_what_was_not_known_before_is_tried(engine: Engine) -> None:
    neutron = Neutron(2)
    neutron.lists = False
    run(neutron, engine)
    assert sorted(neutron.activated) == ["port-0", "port-1"]


def test_a_neutron_that_fails_is_not_asked_at_each_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that waits has this asked for five times a second."""
    connects: list[None] = []

    def connect() -> Any:
        connects.append(None)
        raise Timeout("nobody there")

    found = Activation(connect, Instance(Neutron(1)), DEST)
    monkeypatch.setattr(activation, "FETCH_AGAIN_S", NEVER_S)
    for _ in range(20):
        found.fetch()
        time.sleep(0.005)
    wait_for(lambda: len(connects) == 1)
    monkeypatch.setattr(activation, "FETCH_AGAIN_S", 0.0)

    def is_asked_again() -> bool:
        found.fetch()  # where the first look has not ended yet, that leaves it at that
        return len(connects) >= 2

    wait_for(is_asked_again)


def test_whether_a_port_may_have_moved(engine: Engine) -> None:
    neutron = Neutron(1)
    found = made(neutron)
    found.start(engine)
    assert not found.begun
    engine.tell(left=True)
    assert found.is_settled(PATIENCE_S) and found.begun


def test_one_that_stays_has_moved_no_port(engine: Engine) -> None:
    found = made(Neutron(1))
    found.start(engine)
    engine.tell(outcome="failed")
    assert found.is_settled(PATIENCE_S) and not found.begun


def test_without_a_thread_nova_binds_them(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(Neutron(1))
    monkeypatch.setattr(activation.threading, "Thread", NoThread)  # type: ignore[attr-defined]
    found.start(engine)
    found.fetch()
    assert not found.under_way() and found.is_settled(0) and not found.begun


def test_without_more_threads_one_port_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neutron_ports.threading, "Thread", NoThread)  # type: ignore[attr-defined]
    assert neutron_ports.each(["a", "b"], str.upper) == {"a": "A", "b": "B"}


def test_what_is_done_when_they_are_bound(engine: Engine) -> None:
    neutron, done = Neutron(1), threading.Event()
    found = made(neutron)
    found.start(engine, done.set)
    engine.tell(left=True)
    assert done.wait(PATIENCE_S) and neutron.activated == ["port-0"]


def test_each_at_once_in_bounds() -> None:
    found = neutron_ports.each(map(str, range(100)), lambda port: int(port) // (int(port) - 7))
    assert len(found) == 100 and found["14"] == 2
    assert list(neutron_ports.errors(found)) == ["7"]


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (NeutronError(400), True),
        (NeutronError(408), False),
        (NeutronError(503), False),
        (Timeout(), False),
        (NovaError(403), True),
        (NovaError(500), False),
    ],
)
def test_what_is_final(error: Exception, final: bool) -> None:
    assert neutron_ports.is_final(error) is final
