# SPDX-License-Identifier: Apache-2.0
"""Runs `pcmig` in a process of its own on the scripted core: run_fake.py SCRIPT ARGUMENT..."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

from pcmig._core import ledger_from_trace
from tests.unit import traces
from tests.unit.cli import fake_core as fake
from tests.unit.patience import NEVER_S, PATIENCE_S

LATER_S = 3600.0  # than any test
SLOW = [(0.0, fake.PRECOPY), (LATER_S, fake.COMPLETED)]

SCRIPTS: dict[str, fake.Script] = {
    "quick": [(0.0, fake.PRECOPY), (0.2, fake.POSTCOPY), (0.2, fake.COMPLETED)],
    "arrived": [(0.0, fake.PRECOPY), (0.1, fake.POSTCOPY), (0.1, fake.COMPLETED)],
    "failed": [(0.0, fake.PRECOPY), (0.1, fake.FAILED)],
    "operator": [(0.0, fake.PRECOPY), (0.1, fake.POSTCOPY), (0.1, fake.NEEDS_OPERATOR)],
    "precopy": SLOW,
    "stubborn": SLOW,
    "watched": SLOW,
    "postcopy": [(0.0, fake.PRECOPY), (0.05, fake.POSTCOPY), (LATER_S, fake.COMPLETED)],
    "broken-io": [(0.0, fake.PRECOPY), (0.05, fake.POSTCOPY), (LATER_S, fake.COMPLETED)],
    "broken": [(0.0, fake.PRECOPY), (0.05, fake.POSTCOPY), (LATER_S, fake.COMPLETED)],
    "late": [(0.0, fake.PRECOPY), (fake.GO, fake.POSTCOPY), (LATER_S, fake.COMPLETED)],
    "interrupted": [(0.0, fake.PRECOPY), (0.05, fake.POSTCOPY), (0.3, fake.BROKEN)],
    "long": [(0.0, fake.PRECOPY), (fake.GO, fake.POSTCOPY), (0.2, fake.COMPLETED)],
}

if __name__ == "__main__":
    name = sys.argv[1]
    fake.install(SCRIPTS[name])
    fake.Migration.abort_works = name not in ("stubborn", "late")
    fake.jobs[:] = [fake.job("precopy")]
    if name.startswith("broken"):
        from pcmig.cli.follow import Follower

        def fail(self: Follower, decision: object) -> bool:
            raise OSError(errno.EIO, "Input/output error") if name == "broken-io" else ZeroDivisionError

        Follower._is_news = fail  # type: ignore[method-assign]
    if name == "arrived":  # by post-copy, as its ledger says, too
        found = dict(ledger_from_trace(traces.recorded()))
        fake.Migration.ledger = lambda self: found  # type: ignore[method-assign]
    from pcmig.cli import huge_pages, metering
    from pcmig.cli.main import main
    from pcmig.huge_pages import HugePages

    metering.HUNG_S = PATIENCE_S  # a machine may leave this no processor for long
    huge_pages.PATIENCE_S = PATIENCE_S

    class Unhurried(HugePages):
        """It has looked at the source before the migration begins, and the next look at the destination is
        as far away as it takes somebody to leave."""

        def begin(self) -> None:
            self._look_before()

        def follow(self, changed: Callable[[dict[str, Any]], None], wait: Callable[[float], object]) -> None:
            super().follow(changed, lambda _: wait(NEVER_S))

    huge_pages.HugePages = Unhurried  # type: ignore[attr-defined]

    sys.exit(main(sys.argv[2:]))
