# SPDX-License-Identifier: Apache-2.0
"""What an ended migration adds: the ledger's own figures."""

from __future__ import annotations

import pytest

from pcmig.metrics import account
from tests.unit.metrics.figures import decisions, ended, ledger


def test_it_is_the_ledgers() -> None:
    book = ledger()
    totals = book["totals"]
    totals["gate_us"] = 250_000
    found = ended(ledger=book, gated=True)
    assert found.counters["pcmig_migrations_total", ("completed", "postcopy")] == 1
    assert found.counters["pcmig_switches_total", ("passes", "not-converging")] == 1
    assert found.counters["pcmig_page_requests_total", ()] == totals["requests"] > 0
    sent = {key[1][0]: by for key, by in found.counters.items() if key[0] == "pcmig_sent_bytes_total"}
    assert sum(sent.values()) == totals["wire_bytes"]
    assert sent["postcopy"] == sum(row["wire_bytes"] for row in book["phases"] if row["phase"] == "postcopy")
    for phase, us in totals["phase_us"].items():
        if phase != "finished":
            by = found.counters.get(("pcmig_phase_seconds_total", (phase,)), 0)
            assert by == pytest.approx(us / 1e6), phase
    observed = dict(found.observations)
    assert observed["pcmig_guest_silence_seconds", ("postcopy",)] == totals["downtime_events_us"] / 1e6
    duration = observed["pcmig_migration_duration_seconds", ("completed", "postcopy")]
    assert duration == totals["total_us"] / 1e6
    assert observed["pcmig_gate_wait_seconds", ()] == 0.25
    assert not any(name == "pcmig_interruptions_total" for name, _ in found.counters)


def test_a_switch_that_others_made() -> None:
    found = ended(decisions=[])
    assert found.counters["pcmig_switches_total", ("passes", "others")] == 1
    book = dict(ledger())
    book["phases"] = [row for row in book["phases"] if row["phase"] == "postcopy"]
    taken_over = ended(decisions=[], ledger=book)
    assert not any(name == "pcmig_switches_total" for name, _ in taken_over.counters)


def test_what_nobody_measured_is_not_observed() -> None:
    book = dict(ledger())
    book["totals"] = {**book["totals"], "downtime_events_us": None}
    found = ended(ledger=book)
    assert [key[0] for key, _ in found.observations] == ["pcmig_migration_duration_seconds"]


def test_a_guest_that_stays_was_not_silent() -> None:
    assert not any(name == "pcmig_gate_wait_seconds" for (name, _), _ in ended().observations), "no gate"
    found = ended("failed")
    assert "pcmig_guest_silence_seconds" not in {key[0] for key, _ in found.observations}
    assert found.counters["pcmig_migrations_total", ("failed", "postcopy")] == 1


@pytest.mark.parametrize(
    ("phases", "kind"),
    [
        ([], "none"),
        (["setup"], "none"),
        (["setup", "precopy", "switchover"], "precopy"),
        (["paused"], "postcopy"),
    ],
)
def test_modes(phases: list[str], kind: str) -> None:
    assert account.mode({"phases": [{"phase": name} for name in phases]}) == kind


def test_a_switch_that_came_to_nothing_is_none() -> None:
    book = dict(ledger())
    book["phases"] = [row for row in book["phases"] if row["phase"] in ("setup", "precopy", "drain")]
    found = account.increments(outcome="failed", policy="auto", ledger=book, decisions=decisions())
    assert "pcmig_switches_total" not in {name for name, _ in found.counters}


@pytest.mark.parametrize("outcome", ["failed", "needs-operator"])
def test_one_that_was_resumed_and_failed_later_was_resumed(outcome: str) -> None:
    book = dict(ledger())
    post = next(row for row in book["phases"] if row["phase"] == "postcopy")
    end_us = post["end_us"]
    paused = {**post, "phase": "paused", "end_us": end_us + 10}
    finished = {**post, "phase": "finished", "end_us": end_us + 40}
    book["phases"] = [post, paused, {**post, "end_us": end_us + 20}, finished]
    found = ended(outcome, ledger=book).counters
    assert found["pcmig_resumes_total", ("resumed",)] == 1
    assert ("pcmig_resumes_total", ("not-resumed",)) not in found
    # As it is when the table of phases was full: a later stay is in the row of an earlier one.
    book["phases"] = [{**paused, "merged": 1, "end_us": end_us + 30}, {**post, "end_us": end_us + 20}]
    found = ended(outcome, ledger=book).counters
    assert found["pcmig_resumes_total", ("resumed",)] == found["pcmig_resumes_total", ("not-resumed",)] == 1


@pytest.mark.parametrize(("outcome", "resumed", "left"), [("completed", 3, 0), ("needs-operator", 2, 1)])
def test_interruptions(outcome: str, resumed: int, left: int) -> None:
    book = dict(ledger())
    post = next(row for row in book["phases"] if row["phase"] == "postcopy")
    paused = {**post, "phase": "paused", "wire_bytes": 0, "duration_us": 2_000_000}
    book["phases"] = [*book["phases"], paused, post, {**paused, "merged": 1}]
    found = ended(outcome, ledger=book).counters
    assert found["pcmig_interruptions_total", ()] == 3
    assert found["pcmig_phase_seconds_total", ("paused",)] == 4
    assert found.get(("pcmig_resumes_total", ("resumed",)), 0) == resumed
    assert found.get(("pcmig_resumes_total", ("not-resumed",)), 0) == left
