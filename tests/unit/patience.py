# SPDX-License-Identifier: Apache-2.0
"""For tests of what another thread or process does in its own time: the machine may be very busy, and what
runs beside the tests of guests gets only the processor time that they leave. A thread may not run for ten
seconds and more, so no test reads once what another one changes later, and none bounds a time from above."""

from __future__ import annotations

import time
from collections.abc import Callable

# For what takes milliseconds on a quiet machine. Less than pytest's own limit: the test says what lacked.
PATIENCE_S = 180.0
PATIENCE_MS = int(PATIENCE_S * 1000)

# For what a test waits out, if it comes at all, which it is not to: no wait of PATIENCE_S reaches it.
NEVER_S = 10 * PATIENCE_S
NEVER_MS = int(NEVER_S * 1000)


def wait_for(condition: Callable[[], object], what: str = "this", seconds: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.02)
