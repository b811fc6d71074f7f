# SPDX-License-Identifier: Apache-2.0
"""Host checks: facts in, rows out. Pure but for gather.py, which collects the facts.

Each row is one small function that returns a Row, or None where it does not apply. doc/operate/check.rst
explains each of them.
"""

from __future__ import annotations

from pcmig.check.hosts import HOST
from pcmig.check.local import LOCAL
from pcmig.check.model import Facts, Row, Side, Status
from pcmig.check.network import NETWORK
from pcmig.check.pair import GUEST, PAIR
from pcmig.check.tunnel import TUNNEL

__all__ = ["Facts", "Row", "Side", "Status", "failed", "run"]


def run(facts: Facts) -> list[Row]:
    """All rows that apply to FACTS, this host's first."""
    rows = [row for check in LOCAL + NETWORK if (row := check(facts))]
    for subject, side in ((facts.subject, facts.here), ("peer", facts.peer)):
        if side is not None:
            rows += [row for host_check in HOST if (row := host_check(subject, side))]
    rows += [row for check in PAIR + TUNNEL + GUEST if (row := check(facts))]
    return rows


def failed(rows: list[Row]) -> bool:
    """Whether any of ROWS fails; warnings and unknowns do not count."""
    return any(row.status == "fail" for row in rows)
