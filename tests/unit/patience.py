# SPDX-License-Identifier: Apache-2.0
"""For tests of what another thread or process does in its own time: the machine may be very busy, and what
runs beside the tests of guests gets only the processor time that they leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# For what takes milliseconds on a quiet machine. Less than pytest's own limit: the test says what lacked.
PATIENCE_S = 60.0
PATIENCE_MS = int(PATIENCE_S * 1000)


def wait_for(condition: Callable[[], object], what: str = "this", seconds: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.02)


def takes_less(seconds: float, do: Callable[[], T], attempts: int = 5) -> T:
    """What DO returns, once it took less than SECONDS. A busy machine holds up a call now and then; a wait
    that is in the code comes each time."""
    took_s = []
    for _ in range(attempts):
        begun_s = time.monotonic()
        result = do()
        took_s.append(time.monotonic() - begun_s)
        if took_s[-1] < seconds:
            return result
    raise AssertionError(f"each of {attempts} took {seconds:g} s or more: {took_s}")
