# SPDX-License-Identifier: Apache-2.0
"""What ends one day: certificates, the CA, the list of those that were revoked. Values in, values out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

WARN_DAYS = (30, 7, 1)
DAY_S = 86400

# What the engine calls them; what to do.
ADVICE = {
    "certificate": "renew it: pcmig tunnel keygen --renew",
    "client_certificate": "renew it, with the tools that made it",
    "ca": "no certificate of it is good any longer then: pcmig tunnel keygen --new-ca",
    "crl": "every host is refused then: make a new one, pcmig tunnel keygen --revoke",
}
NAMES = {
    "certificate": "this host's certificate",
    "client_certificate": "the certificate to dial with",
    "ca": "the CA",
    "crl": "the list of revoked certificates",
}


class Watch:
    """Warns 30, 7 and 1 days before something ends, and once it has: of each once, and of a new end anew."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], int] = {}

    def due(self, ends: Mapping[str, int], paths: Mapping[str, str | None], now_s: float) -> list[str]:
        """Lines to be logged. ENDS are seconds since 1970, 0: there is none."""
        lines = []
        for what, end_s in ends.items():
            left_s = end_s - now_s
            reached = [days for days in (*WARN_DAYS, 0) if left_s <= days * DAY_S]
            if not end_s or not reached:
                continue
            if reached[-1] < self._told.get((what, end_s), WARN_DAYS[0] + 1):
                self._told[what, end_s] = reached[-1]
                lines.append(_line(what, paths.get(what), end_s, left_s))
        return lines


def _line(what: str, path: str | None, end_s: int, left_s: float) -> str:
    day = datetime.datetime.fromtimestamp(end_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if left_s <= 0:
        when = f"has expired ({day})"
    elif left_s < DAY_S:
        when = f"expires within a day ({day})"
    else:
        when = f"expires in {left_s / DAY_S:.0f} days ({day})"
    return f"{NAMES[what]}{f', {path},' if path else ''} {when}: {ADVICE[what]}"
