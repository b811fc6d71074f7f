# SPDX-License-Identifier: Apache-2.0
"""When the destination's nova-compute is asked to have QEMU there notice that its stream is dead."""

from __future__ import annotations

import itertools
import sys
import threading
import types
from typing import Any

import pytest

from pcmig.nova import waking as module
from pcmig.nova.waking import AGAIN_S, Waking
from tests.unit.patience import PATIENCE_S, wait_for


def status(broken: bool, outcome: str | None = None) -> dict[str, Any]:
    return {"recovery": {"state": "waiting"} if broken else None, "outcome": outcome}


def asked_at(until_s: int, *, broken_from_s: int = 0, broken_to_s: int = 10**9) -> list[int]:
    """Looks each second."""
    asked: list[int] = []
    now_s = 0
    waking = Waking(lambda: asked.append(now_s), lambda: float(now_s))
    for second in range(until_s):
        now_s = second
        waking.look(status(broken_from_s <= second < broken_to_s))
    return asked


def test_not_before_a_stream_counts_as_silent_and_then_ever_more_seldom() -> None:
    asked = asked_at(300)
    assert asked[:3] == [AGAIN_S, 2 * AGAIN_S, 3 * AGAIN_S]
    pauses = [b - a for a, b in itertools.pairwise(asked)]
    assert pauses == sorted(pauses) and pauses[-1] > 4 * AGAIN_S


def test_never_while_post_copy_flows_and_anew_for_the_next_interruption() -> None:
    assert asked_at(100, broken_from_s=100) == []
    assert asked_at(100, broken_from_s=50, broken_to_s=55) == []
    assert asked_at(100, broken_from_s=80) == [90]


def test_not_of_one_that_is_over() -> None:
    asked: list[int] = []
    now_s = 0
    waking = Waking(lambda: asked.append(now_s), lambda: float(now_s))
    for second in range(60):
        now_s = second
        waking.look(status(True, "needs operator"))
    assert asked == []


class Daemon:
    """In place of Nova's privileged daemon: who looks does so until the test lets it end."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.begun: list[str] = []
        self.now = self.most = 0

    def wake(self, uri: str, uuid: str) -> str:
        assert uri == "qemu:///system"
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.append(uuid)
        assert self.end.wait(PATIENCE_S)
        self.now -= 1
        if uuid == "broken":
            raise RuntimeError("it does not start")
        return "nothing was reset"


def test_one_at_a_time_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    daemon = Daemon()
    monkeypatch.setitem(sys.modules, "nova.virt.pcmig", types.SimpleNamespace(privileged=daemon))

    def ask(*uuids: str) -> None:
        for uuid in uuids:
            module.reset("qemu:///system", uuid)

    ask("a")
    wait_for(lambda: daemon.begun, "the first one")
    ask("a", "broken", "c", "broken", "a", "c")
    assert daemon.begun == ["a"]
    daemon.end.set()
    wait_for(lambda: caplog.text.count("The stream of guest") == 3, "all that was asked for")
    assert daemon.begun == ["a", "broken", "c"] and daemon.most == 1
    for uuid, said in (
        ("a", "nothing was reset"),
        ("broken", "Nova's privileged daemon did not look (RuntimeError: it does not start)"),
    ):
        assert f"The stream of guest {uuid}: {said}" in caplog.text
    wait_for(lambda: not module._WAKER._keys, "the end of the last one")
    ask("a")
    wait_for(lambda: daemon.begun[3:] == ["a"], "one that is asked for later")
