# SPDX-License-Identifier: Apache-2.0
"""What all guests of a round come to, and the goals: values in, values out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.bench.figures import Figure, Row, ratio, spread

FIGURES = {
    figure.key: figure
    for figure in (
        Figure("worst_silence_ms", "worst silence at switch", "ms"),
        Figure("worst_later_ms", "worst later silence", "ms"),
        Figure("worst_before_ms", "worst before", "ms"),
        Figure("all_s", "total time", "s", 1),
        Figure("mean_arrival_s", "mean time until arrived", "s", 1),
        Figure("bytes", "sent", "MB", 0, 1e6),
        Figure("cpu_ms", "CPU", "ms"),
        Figure("busy_percent", "machine busy", "%"),
    )
}

# (figure, way, limit, stacks): against virsh in the same run, which switches at once with QEMU 11 and after a
# pass with QEMU 10; how long it takes is compared with what switches there too.
GOALS: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("worst_silence_ms", "pcmig", 0.05, ("forky",)),
    ("worst_silence_ms", "pcmig", 0.15, ("backports",)),
    ("all_s", "pcmig-immediate", 1.10, ("forky",)),
    ("all_s", "pcmig", 1.00, ("backports",)),
    ("mean_arrival_s", "pcmig-immediate", 0.80, ("forky",)),
    ("mean_arrival_s", "pcmig", 0.80, ("backports",)),
)


def summary(guests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all guests of one round; a figure that one of them lacks is None."""
    errors = [f"{guest['name']}: {guest['error']}" for guest in guests if guest["error"]]
    arrived = [guest["arrived_s"] for guest in guests]

    def worst(key: str) -> float | None:
        values = [guest[key] for guest in guests]
        return None if None in values else max(values)

    return {
        "worst_silence_ms": worst("switch_silence_ms"),
        "worst_later_ms": worst("later_silence_ms"),
        "worst_before_ms": worst("before_silence_ms"),
        "all_s": worst("arrived_s"),
        "mean_arrival_s": None if None in arrived else round(sum(arrived) / len(arrived), 3),
        "cpu_ms": sum(guest["cpu_ms"] for guest in guests),
        "error": "; ".join(errors) or None,
    }


def ratio_to(rows: Sequence[Row], way: str, reference: str, key: str) -> float | None:
    """Median to median, of the rounds without an error."""
    of = {
        name: spread(FIGURES[key].of(row) for row in rows if row["way"] == name and not row["error"])
        for name in (way, reference)
    }
    return ratio(of[way], of[reference])


def judge(rows: Sequence[Row], stack: str, reference: str = "virsh") -> list[tuple[str, float, float | None]]:
    """(title, limit, value) of each goal of STACK; None where it was not measured."""
    return [
        (f"{FIGURES[key].title}, {way} / {reference}", limit, ratio_to(rows, way, reference, key))
        for key, way, limit, stacks in GOALS
        if stack in stacks
    ]
