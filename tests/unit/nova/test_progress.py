# SPDX-License-Identifier: Apache-2.0
"""How far a migration is, from the engine's figures."""

from __future__ import annotations

from typing import Any

from pcmig.nova.progress import progress, reason

STATUS: dict[str, Any] = {
    "phase": "precopy",
    "elapsed_ms": 1500,
    "passes": 1,
    "progress_permille": 457,
    "memory_total_bytes": 1000,
    "memory_processed_bytes": 1300,
    "memory_remaining_bytes": 100,
    "send_bps": 12_500_000,
    "dirty_pages_ps": 10,
    "postcopy_requests": 0,
    "eta": {"outlook": "least", "least_ms": 900, "most_ms": None},
    "downtime": None,
    "recovery": None,
}


def decision(action: str, text: str) -> dict[str, Any]:
    return {"action": action, "text": text}


def test_in_pre_copy() -> None:
    assert progress(STATUS, [], "auto", 4096) == {
        "phase": "pre-copy",
        "policy": "auto",
        "reason": None,
        "passes": 1,
        "percent": 45,
        "elapsed_ms": 1500,
        "remaining_bytes": 100,
        "total_bytes": 1000,
        "transferred_bytes": 1300,
        "rate_bytes_per_s": 12_500_000,
        "dirty_bytes_per_s": 40_960,
        "requests": 0,
        "eta": "not known yet",
        "eta_ms": None,
        "eta_least_ms": 900,
        "downtime_ms": None,
        "downtime_source": None,
        "recovery": None,
    }


def test_a_downtime_has_its_source() -> None:
    moved = {**STATUS, "phase": "postcopy", "postcopy_requests": 7, "downtime": {"ms": 3, "source": "events"}}
    found = progress(moved, [], "auto", 4096)
    assert (found["requests"], found["downtime_ms"], found["downtime_source"]) == (7, 3, "events")


def test_a_phase_without_a_name_is_told_as_it_is() -> None:
    assert progress({**STATUS, "phase": "new"}, [], "auto", 4096)["phase"] == "new"


def test_reason() -> None:
    assert reason([]) is None
    wait, pace = decision("keep", "it converges"), decision("set-pace", "3 MiB/s")
    switch = decision("switch", "does not converge")
    assert reason([wait, pace]) == "it converges"
    assert reason([wait, switch, pace, decision("undrain", "later")]) == "does not converge"


def test_an_interruption_in_the_engines_words() -> None:
    text = "post-copy interrupted at 43 %, attempt 1 failed (no route to compute-0042), next in 5 s"
    assert progress({**STATUS, "recovery": {"text": text}}, [], "auto", 4096)["recovery"] == text
