# SPDX-License-Identifier: Apache-2.0
"""A demo goes on with the other stack where the newest cannot be had, and says so."""

from __future__ import annotations

import types
from typing import Any, Self, cast

import pytest

from tests.bed.errors import BedError, StackError
from tests.bed.fallback import on_a_stack


class FakeBed:
    def __init__(self, stack: str, error: BedError | None) -> None:
        self.stack = stack
        self.error = error
        self.down = False

    def __enter__(self) -> Self:
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: types.TracebackType | BaseException | type | None) -> None:
        self.down = True


def run(stack: str | None, **errors: BedError) -> tuple[FakeBed, list[str]]:
    said: list[str] = []
    make: Any = lambda name: FakeBed(name, errors.get(name))  # noqa: E731
    with on_a_stack(stack, make, said.append) as entered:
        bed = cast(FakeBed, entered)
        assert not bed.down
    assert bed.down
    return bed, said


def test_the_newest_where_it_works() -> None:
    assert run(None)[0].stack == "forky"
    assert run(None)[1] == []


def test_the_other_where_it_does_not() -> None:
    bed, said = run(None, forky=StackError("no such suite"))
    assert bed.stack == "backports"
    assert said == ["no such suite", "so this goes on with the backports stack"]


def test_the_last_ones_words_when_none_works() -> None:
    with pytest.raises(StackError, match="nor that"):
        run(None, forky=StackError("not this"), backports=StackError("nor that"))


def test_one_that_was_asked_for_is_not_replaced() -> None:
    with pytest.raises(StackError, match="no such suite"):
        run("forky", forky=StackError("no such suite"))


def test_what_is_wrong_with_the_machine_ends_it() -> None:
    with pytest.raises(BedError, match="root"):
        run(None, forky=BedError("needs root"))
