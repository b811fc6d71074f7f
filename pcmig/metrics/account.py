# SPDX-License-Identifier: Apache-2.0
"""What an ended migration adds to the counts: pure, the engine's ledger, decisions and last status in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from pcmig.metrics.families import PHASES

Key = tuple[str, tuple[str, ...]]  # name of a family, values of its labels

# The reason of a switch that was not pcmig's decision: by `pcmig switch`, by virsh.
OTHERS = "others"

POSTCOPY = {"postcopy", "paused"}
PRECOPY = {"precopy", "drain", "switchover"}


@dataclasses.dataclass
class Increments:
    """To be added to counters, and observed by histograms."""

    counters: dict[Key, float] = dataclasses.field(default_factory=dict)
    observations: list[tuple[Key, float]] = dataclasses.field(default_factory=list)
    # Observed by somebody else: how many fell into each bucket of the family, and what all add up to.
    observed: dict[Key, tuple[list[int], float]] = dataclasses.field(default_factory=dict)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        if by > 0:
            self.counters[name, labels] = self.counters.get((name, labels), 0) + by

    def observe(self, name: str, *labels: str, value: float | None) -> None:
        """None: nobody measured it, and it is not observed."""
        if value is not None:
            self.observations.append(((name, labels), value))


def mode(ledger: Mapping[str, Any]) -> str:
    """ "postcopy" when the guest left before its memory had; "none" when nothing was transferred."""
    names = {row["phase"] for row in ledger["phases"]}
    if names & POSTCOPY:
        return "postcopy"
    return "precopy" if names & PRECOPY else "none"


def increments(
    *,
    outcome: str,
    policy: str,
    ledger: Mapping[str, Any],
    decisions: Iterable[Mapping[str, Any]],
    gated: bool = False,
) -> Increments:
    """GATED: its switch was to wait for something. What is not known is not in the ledger, or None there, and
    counts nowhere."""
    found = Increments()
    kind = mode(ledger)
    totals: Mapping[str, Any] = ledger.get("totals", {})
    found.count("pcmig_migrations_total", outcome, kind)
    reasons = [str(decision["reason"]) for decision in decisions if decision["action"] == "switch"]
    # Of one that was taken over in post-copy, whoever had it before has counted, or nobody knows.
    if kind == "postcopy" and any(row["phase"] in PRECOPY for row in ledger["phases"]):
        # The number of a policy ("passes=3") is anybody's choice: no label.
        found.count("pcmig_switches_total", policy.partition("=")[0], reasons[-1] if reasons else OTHERS)
    found.count("pcmig_page_requests_total", by=totals.get("requests", 0))
    interruptions = 0
    lasted = [row for row in ledger["phases"] if row["phase"] in PHASES]
    for row in lasted:
        found.count("pcmig_sent_bytes_total", row["phase"], by=row["wire_bytes"])
        found.count("pcmig_phase_seconds_total", row["phase"], by=row["duration_us"] / 1e6)
        interruptions += row["merged"] + 1 if row["phase"] == "paused" else 0
    found.count("pcmig_interruptions_total", by=interruptions)
    # One that was resumed may fail later, for another reason. A row has the end of its last stay.
    last = max(reversed(lasted), key=lambda row: row["end_us"], default={"phase": None})["phase"]
    left = int(last == "paused" and outcome != "completed")
    found.count("pcmig_resumes_total", "resumed", by=interruptions - left)
    found.count("pcmig_resumes_total", "not-resumed", by=left)
    if outcome == "completed":
        silence_us = totals.get("downtime_events_us")
        found.observe(
            "pcmig_guest_silence_seconds", kind, value=None if silence_us is None else silence_us / 1e6
        )
    if "total_us" in totals:
        found.observe("pcmig_migration_duration_seconds", outcome, kind, value=totals["total_us"] / 1e6)
    if (waited := ledger.get("latency")) is not None and waited["requests"]:
        key = ("pcmig_page_request_latency_seconds", (str(waited["source"]),))
        found.observed[key] = (list(waited["buckets"]), waited["mean_us"] * waited["requests"] / 1e6)
    if gated and kind == "postcopy" and "gate_us" in totals:
        found.observe("pcmig_gate_wait_seconds", value=totals["gate_us"] / 1e6)
    return found
