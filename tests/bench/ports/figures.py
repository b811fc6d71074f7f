# SPDX-License-Identifier: Apache-2.0
"""From pings to silences: values in, values out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.bench.figures import Figure, Row

Ping = tuple[int, float]  # its number, and when

BAR_RATIO, BAR_MORE_MS = 1.5, 50.0  # of the guest's own silence
METER_EVERY = 20  # tempest's: a ping each 0.2 s
METER_PATIENCE_S = 1.0
METER_MAY_LOSE = 1  # tempest itself takes up to 5 s, which is 25
EARLY_S = 0.001  # that one clock may seem to be before the other

FIGURES = (
    Figure("guest_ms", "guest", "ms"),
    Figure("switch_ms", "switch", "ms"),
    Figure("client_ms", "client", "ms"),
    Figure("neighbour_ms", "neighbour", "ms"),
    Figure("bar_ms", "bar", "ms"),
    Figure("meter_lost", "lost at 5/s", "pings"),
    Figure("waited_s", "until the switch", "s", 1),
    Figure("announced", "announced", "times"),
)


def silence_ms(came: Sequence[Ping], start_s: float, end_s: float) -> float:
    """The longest time without a reply between two moments."""
    times = sorted(time_s for _, time_s in came if start_s <= time_s <= end_s)
    return max(b - a for a, b in itertools.pairwise([start_s, *times, end_s])) * 1000


def meter_lost(sent: Sequence[Ping], came: Sequence[Ping], start_s: float, end_s: float) -> int:
    """Of the pings that a slower meter would have sent, how many were not answered in time; whenever it had
    begun."""
    arrived = dict(reversed([(number, time_s) for number, time_s in came]))
    inside = [(number, time_s) for number, time_s in sent if start_s <= time_s <= end_s]
    lost = [
        number not in arrived or not -EARLY_S <= arrived[number] - time_s <= METER_PATIENCE_S
        for number, time_s in inside
    ]
    return max((sum(lost[phase::METER_EVERY]) for phase in range(METER_EVERY)), default=0)


def bar_ms(guest_ms: float) -> float:
    return guest_ms * BAR_RATIO + BAR_MORE_MS


def over_the_bar(row: Row) -> bool:
    return bool(max(row["client_ms"], row["neighbour_ms"]) > row["bar_ms"])


def complaint(row: Row) -> str | None:
    """What a round of pcmig's with --ports did not come up to; None: nothing."""
    if row["over_the_bar"]:
        return "over the bar"
    lost = row["meter_lost"]
    return f"{lost} pings of five a second were lost" if lost > METER_MAY_LOSE else None
