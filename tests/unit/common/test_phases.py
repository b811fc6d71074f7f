# SPDX-License-Identifier: Apache-2.0
"""The engine's phases, and how far a migration is in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig_common import phases


def status(phase: str) -> dict[str, Any]:
    return {
        "phase": phase,
        "pass_permille": 457,
        "memory_total_bytes": 1000,
        "memory_remaining_bytes": 100,
    }


def test_every_phase_of_the_engine_has_a_name() -> None:
    assert set(phases.PHASES) == {"setup", "precopy", "drain", "switchover", "postcopy", "paused", "finished"}
    assert phases.name("drain") == "draining"
    assert phases.name("new") == "new"


@pytest.mark.parametrize("phase", phases.PHASES)
def test_share_is_of_the_pass_until_the_guest_has_left(phase: str) -> None:
    wanted = 900 if phase in ("postcopy", "paused", "finished") else 457
    assert phases.share_permille(status(phase)) == wanted


@given(st.integers(-5, 1 << 40), st.integers(-(1 << 40), 1 << 40))
def test_what_has_arrived_stays_in_its_range(total_bytes: int, remaining_bytes: int) -> None:
    assert 0 <= phases.arrived_permille(total_bytes, remaining_bytes) <= 1000
