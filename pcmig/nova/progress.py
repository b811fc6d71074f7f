# SPDX-License-Identifier: Apache-2.0
"""How far a migration is, as the API's os-pcmig tells: pure, the engine's figures in, plain values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pcmig_common import phases


def progress(
    status: Mapping[str, Any], decisions: Iterable[Mapping[str, Any]], policy: str, page_bytes: int
) -> dict[str, Any]:
    """STATUS and DECISIONS are those of pcmig._core.Migration; PAGE_BYTES is the unit of its dirty pages.

    `percent` is of the whole migration and never falls. `eta` says in words how long it still takes, and how
    sure that is, `eta_ms` the most that it may; `downtime_ms` is by `downtime_source`. Unknown figures are
    None. Sizes are bytes, rates bytes per second, times ms.
    """
    recovery, eta, downtime = status["recovery"], status["eta"], status["downtime"] or {}
    return {
        "phase": phases.name(status["phase"]),
        "policy": policy,
        "reason": reason(decisions),
        "passes": status["passes"],
        "percent": status["progress_permille"] // 10,
        "elapsed_ms": status["elapsed_ms"],
        "remaining_bytes": status["memory_remaining_bytes"],
        "total_bytes": status["memory_total_bytes"],
        "transferred_bytes": status["memory_processed_bytes"],
        "rate_bytes_per_s": status["send_bps"],
        "dirty_bytes_per_s": status["dirty_pages_ps"] * page_bytes,
        "requests": status["postcopy_requests"],
        "eta": phases.eta_words(eta),
        "eta_ms": eta["most_ms"],
        "eta_least_ms": eta["least_ms"],
        "downtime_ms": downtime.get("ms"),
        "downtime_source": downtime.get("source"),
        # What is done about an interruption, as the engine puts it, hosts and libvirt's words included.
        "recovery": recovery["text"] if recovery is not None else None,
    }


def reason(decisions: Iterable[Mapping[str, Any]]) -> str | None:
    """Why it switched, or else the latest that was decided; pacing is no reason for anything."""
    found: str | None = None
    for decision in decisions:
        if decision["action"] == "switch":
            return str(decision["text"])
        if decision["action"] != "set-pace":
            found = str(decision["text"])
    return found
