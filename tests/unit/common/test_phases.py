# SPDX-License-Identifier: Apache-2.0
"""The engine's phases, and how far a migration is in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig_common import phases


def test_every_phase_of_the_engine_has_a_name() -> None:
    assert set(phases.PHASES) == {"setup", "precopy", "drain", "switchover", "postcopy", "paused", "finished"}
    assert phases.name("drain") == "draining"
    assert phases.name("new") == "new"


@pytest.mark.parametrize(
    ("outlook", "least_ms", "most_ms", "words"),
    [
        ("range", 40_000, 90_000, "0:40-1:30"),
        ("range", 40_000, 40_900, "0:40"),
        ("least", 3_725_000, None, "at least 1:02:05"),
        ("least", 1_000, None, "at least 0:01"),
        ("least", 999, None, "not known yet"),
        ("too-early", None, None, "not known yet"),
        ("not-converging", 9_000, None, "unknown: pre-copy does not converge"),
        ("interrupted", None, None, "unknown: post-copy is interrupted"),
        ("waits", None, None, "unknown: another guest goes first"),
        ("over", 0, 0, None),
    ],
)
def test_a_time_is_told_as_sure_as_it_is(
    outlook: str, least_ms: int | None, most_ms: int | None, words: str | None
) -> None:
    assert phases.eta_words({"outlook": outlook, "least_ms": least_ms, "most_ms": most_ms}) == words


@pytest.mark.parametrize(("outlook", "words"), [("range", "97%"), ("not-converging", "does not converge")])
def test_what_has_no_end_has_no_share(outlook: str, words: str) -> None:
    assert phases.share_words({"progress_permille": 970, "eta": {"outlook": outlook}}) == words


@pytest.mark.parametrize(
    ("downtime", "words"),
    [
        (None, None),
        ({"ms": 61, "source": "events"}, "61 ms (as both hosts' events tell)"),
        ({"ms": 4, "source": "libvirt"}, "4 ms (libvirt's figure)"),
        ({"ms": 300, "source": "expected"}, "300 ms (as QEMU expects)"),
    ],
)
def test_a_downtime_says_whose_figure_it_is(downtime: dict[str, Any] | None, words: str | None) -> None:
    assert phases.downtime_words(downtime) == words


@given(st.integers(-5, 1 << 40), st.integers(-(1 << 40), 1 << 40))
def test_what_has_arrived_stays_in_its_range(total_bytes: int, remaining_bytes: int) -> None:
    assert 0 <= phases.arrived_permille(total_bytes, remaining_bytes) <= 1000
