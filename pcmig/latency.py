# SPDX-License-Identifier: Apache-2.0
"""How long requested pages took, for people: a ledger's `latency`, see doc/refer/ledger.rst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ESTIMATED = "estimated"
SOURCES = {ESTIMATED: "estimated", "qemu": "counted by QEMU"}
BUCKETS = 24


def bound_us(place: int) -> int:
    """No request of this bucket took longer; but for the last one, which has all that did."""
    return int(2 ** (place + 1))


def within_us(buckets: Sequence[int], permille: int) -> int | None:
    """So many of all requests took no longer; None where there was none, and where one of them is in the last
    bucket: nobody counted how long that took."""
    wanted = sum(buckets) * permille
    below = 0
    for place, count in enumerate(buckets[: BUCKETS - 1]):
        below += count * 1000
        if count and below >= wanted:
            return bound_us(place)
    return None


def milliseconds(value_us: float) -> str:
    """80 -> "0.08 ms", 1370 -> "1.4 ms", 20033 -> "20 ms"."""
    ms = value_us / 1000
    return f"{ms:.2f} ms" if ms < 0.995 else f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"


def source_words(source: str) -> str:
    return SOURCES.get(source, source)


def spread(latency: Mapping[str, Any]) -> str:
    """ "half within 4.1 ms, 99 % within 33 ms"; "not within 8389 ms" where nobody counted beyond that."""

    def said(permille: int) -> str:
        bound = within_us(latency["buckets"], permille)
        if bound is None:
            return f"not within {milliseconds(bound_us(BUCKETS - 2))}"
        return f"within {milliseconds(bound)}"

    return f"half {said(500)}, 99 % {said(990)}"


def words(latency: Mapping[str, Any] | None) -> str | None:
    """A sentence; None where nothing is known."""
    if not latency or not latency["requests"]:
        return None
    return (
        f"requested pages: {milliseconds(latency['mean_us'])} on average, {spread(latency)} "
        f"({source_words(latency['source'])})"
    )


def now_words(now: Mapping[str, Any] | None) -> str | None:
    """Of a status: what a page that is asked for now takes, and what it took so far: "5.1 ms"."""
    if now is None:
        return None
    if now["source"] == ESTIMATED and now["now_us"] is not None:
        return f"~{milliseconds(now['now_us'])}"
    about = "~" if now["source"] == ESTIMATED else ""
    return f"{about}{milliseconds(now['mean_us'])}"
