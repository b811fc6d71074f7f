# SPDX-License-Identifier: Apache-2.0
"""Work beside a migration: in order, one piece at a time, and nobody waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pcmig.nova import work_queue
from pcmig.nova.work_queue import WorkQueue
from tests.unit.patience import PATIENCE_S, wait_for

NAME = "pcmig-test-queue"


class Blocked:
    """The first piece of work, which is being done until the test lets it end."""

    def __init__(self, of: WorkQueue, key: str | None = None) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()
        of.do(self._work, key)
        assert self.begun.wait(PATIENCE_S)

    def _work(self) -> None:
        self.begun.set()
        assert self.end.wait(PATIENCE_S)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """The next test counts threads."""
    yield
    wait_for(lambda: not threads(), "the end of the thread")


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == NAME]


def test_in_order_on_one_thread_which_ends_with_the_work() -> None:
    one, done = WorkQueue(NAME, "Tests", 10), list[int]()
    for burst in range(2):
        first = Blocked(one)
        for number in range(3):
            one.do(lambda n=number: done.append(n))  # type: ignore[misc]
        [thread] = threads()
        assert thread.daemon and done == [0, 1, 2] * burst
        first.end.set()
        wait_for(lambda: not threads(), "the end of the thread")
        assert done == [0, 1, 2] * (burst + 1)


def test_too_much_is_dropped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    one, done = WorkQueue(NAME, "Tests", 2), list[int]()
    for burst in range(2):
        first = Blocked(one)
        for number in range(5):
            one.do(lambda n=number: done.append(n))  # type: ignore[misc]
        first.end.set()
        wait_for(lambda: not threads(), "the end of the thread")
        assert done == [0, 1] * (burst + 1)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == burst + 1 and said[-1].startswith("Tests are dropped: 2 wait already")


def test_once_for_each_key_until_it_is_done() -> None:
    one, done = WorkQueue(NAME, "Tests", 10), list[str]()
    first = Blocked(one, "a")
    for key in ("a", "b", "b", "a"):
        one.do(lambda k=key: done.append(k), key)  # type: ignore[misc]
    first.end.set()
    wait_for(lambda: not threads(), "the end of the thread")
    assert done == ["b"]
    for key in ("a", "b"):
        one.do(lambda k=key: done.append(k), key)  # type: ignore[misc]
    wait_for(lambda: len(done) == 3)
    assert sorted(done[1:]) == ["a", "b"]


def test_what_goes_wrong_is_told_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    one, done = WorkQueue(NAME, "Tests", 10), threading.Event()
    one.do(lambda: 1 / 0)
    one.do(done.set)
    assert done.wait(PATIENCE_S)
    assert "Tests: one was not done" in caplog.text and "ZeroDivisionError" in caplog.text


def test_without_a_thread_it_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one, done = WorkQueue(NAME, "Tests", 10), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(work_queue.threading.Thread, "start", none_left)  # type: ignore[attr-defined]
        one.do(lambda: pytest.fail("it was dropped"), "a")
    assert "Tests are dropped: can't start new thread" in caplog.text
    one.do(done.set, "a")
    assert done.wait(PATIENCE_S)
