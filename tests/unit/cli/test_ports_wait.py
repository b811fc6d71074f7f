# SPDX-License-Identifier: Apache-2.0
"""`pcmig migrate --ports`: what is typed, and what is done with the gate. A real guest and a real bridge are
in tests/functional/test_ports_gate.py."""

from __future__ import annotations

import argparse
import select
from typing import Any, cast

import pytest

from pcmig import _core
from pcmig.cli import options, ports_wait
from pcmig.cli.base import UsageError
from pcmig.cli.ports_wait import Leaving, PortsWait
from pcmig.ports.asking import Asker, Said
from tests.unit.cli.conftest import pcmig

BLOCKED = Said("blocked", "vnet0: br0 listens")
READY = Said("ready", "all ports forward")
UNKNOWN = Said("unknown", "Permission denied")


def plan(*words: str) -> options.Plan:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    return options.make_plan(parser.parse_args(options.arrange([*words])), _core.params())


@pytest.mark.parametrize(
    ("uri", "words", "target", "port"),
    [
        ("qemu+tls://b/system", ("--ports",), "b", None),
        ("qemu+ssh://root@b:2222/system", ("--ports",), "root@b", 2222),
        ("qemu+tcp://[fd00::2]:16509/system", ("--ports",), "fd00::2", None),
        ("qemu+tls://b/system", ("--ports=root@b2.example",), "root@b2.example", None),
    ],
)
def test_whom_to_ask(uri: str, words: tuple[str, ...], target: str, port: int | None) -> None:
    asked = plan(*words, "g1", uri)
    assert asked.ports == options.Ports(target, port, 60_000, "stay")
    assert asked.params["gate_wait_ms"] == 61_000
    assert asked.params["downtime_limit_ms"] == 1


def test_how_long() -> None:
    asked = plan("--ports", "--ports-wait", "2.5", "--ports-then", "abort", "g1", "qemu+tls://b/system")
    assert asked.ports == options.Ports("b", None, 2500, "abort")
    kept = plan("--ports", "--ports-wait", "86400", "--set", "gate_wait_ms=700", "g1", "qemu+tls://b/system")
    assert kept.params["gate_wait_ms"] == 700
    own = plan("--ports", "--set", "downtime_limit_ms=50", "g1", "qemu+tls://b/system")
    assert own.params["downtime_limit_ms"] == 50
    assert (
        plan("--ports", "--ports-wait", "86400", "g1", "qemu://b/system").params["gate_wait_ms"] == 3_600_000
    )
    assert plan("g1", "qemu+tls://b/system").ports is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ports-wait", "5"), "--ports-wait needs --ports"),
        (("--ports-then", "stay"), "--ports-then needs --ports"),
        (("--ports", "--policy", "never"), "there is no switch that could wait"),
        (("--ports", "--ports-wait", "86401"), "more than a day"),
        (("--ports", "--dname", "x"), "names no host: write --ports=[USER@]HOST"),
    ],
)
def test_what_makes_no_sense(words: tuple[str, ...], message: str) -> None:
    uri = "qemu:///system" if "--dname" in words else "qemu+tls://b/system"
    with pytest.raises(UsageError) as error:
        plan(*words, "g1", uri)
    assert message in str(error.value)


@pytest.mark.parametrize("target", ["-oProxyCommand=id", "ro ot@b", "b:22", "@b", "root@"])
def test_no_host(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, said = pcmig(capsys, "migrate", f"--ports={target}", "g1", "qemu+tls://b/system")
    assert code == 2 and "--ports" in said


class Played:
    """A migration, and somebody who is asked, in one."""

    target = "b"
    problem: str | None = None

    def __init__(self) -> None:
        self.said = BLOCKED
        self.gate = "closed"
        self.requests: list[str] = []
        self.told: list[str] = []
        self.stopped = False
        self.announced: str | None = None
        self.left = 0

    def take(self) -> Said:
        return self.said

    def stop(self) -> None:
        self.stopped = True

    def fileno(self) -> int | None:
        return None

    def __getattr__(self, name: str) -> Any:
        assert name in ("open_gate", "refuse_gate", "switch", "abort")
        return lambda: self.requests.append(name)

    def look(self, wait: PortsWait, phase: str = "precopy", outcome: str | None = None) -> list[str]:
        """What is done."""
        self.requests.clear()
        status = {"outcome": outcome, "phase": phase, "gate": self.gate}
        wait.look(cast("_core.Migration", self), cast("_core.Status", status), self.told.append)
        return list(self.requests)


class PlayedLeaving:
    """In place of the switches of the source."""

    problem = None

    def __init__(self, played: Played) -> None:
        self.played = played

    def __call__(self) -> list[dict[str, Any]]:
        self.played.left += 1
        problem = self.played.problem
        return [{"mac": "52:54:00:00:00:01", "device": "vnet0", "known": True, "problem": problem}]


def made(wait_ms: int = 60_000, then: str = "stay") -> tuple[Played, PortsWait]:
    played = Played()
    return played, PortsWait(cast(Asker, played), wait_ms, then, cast(Leaving, PlayedLeaving(played)))


def test_until_they_forward() -> None:
    played, wait = made()
    wait.watch(select.poll())
    assert played.look(wait) == []
    played.gate = "wanted"
    assert played.look(wait) == []
    played.said = READY
    assert played.look(wait) == ["open_gate"]
    played.gate, played.said = "open", BLOCKED
    assert played.look(wait, "drain") == ["refuse_gate"]
    played.gate, played.said = "refused", READY
    assert played.look(wait) == ["switch"]
    played.gate = "open"
    assert played.look(wait, "switchover") == [] and not played.stopped
    assert [text.rpartition("; ")[2] for text in played.told] == [
        "the switch waits",
        "the switch may come",
        "the switch waits",
        "the switch may come",
    ]
    account = wait.account()
    assert [each["answer"] for each in account["answers"]] == ["open", "close", "again"]
    assert [each["level"] for each in account["said"]] == ["blocked", "ready", "blocked", "ready"]


@pytest.mark.parametrize(
    ("then", "done", "told"),
    [("stay", [], None), ("switch", ["open_gate"], "switching anyway"), ("abort", ["abort"], "cancelling")],
)
def test_waited_for_too_long(then: str, done: list[str], told: str | None) -> None:
    played, wait = made(0, then)
    played.gate = "wanted"
    assert played.look(wait) == done
    assert told is None or told in played.told[-1]


def test_nobody_can_tell() -> None:
    played, wait = made(then="abort")
    played.gate, played.said = "wanted", UNKNOWN
    assert played.look(wait) == ["open_gate"]
    assert played.told == ["ports at b: Permission denied; nobody can tell, and the switch does not wait"]


def test_once_it_has_gone() -> None:
    """This host forgets it, once, and the destination may go on to say how it announced it."""
    played, wait = made()
    played.look(wait, "switchover")
    assert played.left == 0
    for _ in range(2):
        assert played.look(wait, "postcopy") == [] and not played.stopped
    assert played.left == 1 and played.told == []
    played.announced = "vnet0: announced 4 times"
    played.look(wait, "postcopy")
    played.look(wait, "finished", "completed")
    assert played.told == ["ports at b: vnet0: announced 4 times"]
    assert wait.end() is None
    assert played.stopped and played.left == 1
    account = wait.account()
    assert account["announced"] == "vnet0: announced 4 times"
    assert [row["known"] for row in account["forgotten"]] == [True]


def test_it_went_at_the_end_of_pre_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_wait, "LAST_WORDS_S", 0.0)
    played, wait = made()
    played.problem = "Operation not permitted"
    played.look(wait, "finished", "completed")
    wait.end()
    assert played.left == 1 and "take the guest to be here for a while yet: Operation not" in played.told[-1]
    assert wait.account()["announced"] is None


def test_the_last_word_comes_late() -> None:
    played, wait = made()
    played.look(wait, "finished", "completed")
    played.announced = "vnet0: announced 4 times"
    assert wait.end() == "ports at b: vnet0: announced 4 times"


def test_it_stayed() -> None:
    played, wait = made()
    played.look(wait, "finished", "failed")
    wait.end()
    assert played.left == 0 and played.stopped


def test_the_operator_waits_for_nobody() -> None:
    played, wait = made()
    played.gate = "wanted"
    wait.force()
    assert played.look(wait) == ["open_gate"]
