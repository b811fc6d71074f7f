"""One row for each name that pcmig._core exports, and for each method of its types: what to call in a loop.

A name without a row fails test_leaks.py, so a new export needs a line here: good use and bad use, both must
leave nothing behind. Calls take no arguments, may return anything; `fails(call)` is for one that must raise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from pcmig import _core

Call = Callable[[], object]


class Row(NamedTuple):
    calls: tuple[Call, ...]
    repeat: int = 200  # calls in one round; less for what is slow


def fails(call: Call, *errors: type[BaseException]) -> Call:
    """CALL has to raise one of ERRORS (default: pcmig's, TypeError, ValueError, OverflowError)."""
    expected = errors or (_core.Error, TypeError, ValueError, OverflowError)

    def checked() -> None:
        try:
            call()
        except expected:
            return
        raise AssertionError("the call was expected to fail and did not")

    return checked


def raised(error: type[Exception]) -> Row:
    """Row of an exception type: it is made, raised, chained and dropped."""

    def chain() -> None:
        with contextlib.suppress(error):
            try:
                raise error("first")
            except error as first:
                raise error("second") from first

    return Row((lambda: error("text"), chain))


ROWS: dict[str, Row] = {
    name: raised(error)
    for name, error in vars(_core).items()
    if isinstance(error, type) and issubclass(error, Exception)
}
