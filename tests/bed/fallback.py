# SPDX-License-Identifier: Apache-2.0
"""Which stack a demo runs on: the newest, and the other where that cannot be had or does not work here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.bed.bed import Bed
from tests.bed.errors import StackError
from tests.bed.layer import Reporter

IN_TURN = ("forky", "backports")
BedT = TypeVar("BedT", bound=Bed)


@contextlib.contextmanager
def on_a_stack(stack: str | None, make: Callable[[str], BedT], reporter: Reporter) -> Iterator[BedT]:
    """MAKE's bed, up, on STACK, or if that is None on the first of IN_TURN that comes up."""
    candidates = IN_TURN if stack is None else (stack,)
    with contextlib.ExitStack() as entered:
        for name, other in zip(candidates, (*candidates[1:], None), strict=True):
            bed = make(name)
            try:
                entered.enter_context(bed)
            except StackError as error:
                if other is None:
                    raise
                reporter(str(error))
                reporter(f"so this goes on with the {other} stack")
            else:
                break
        yield bed
