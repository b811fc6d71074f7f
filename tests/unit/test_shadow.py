# SPDX-License-Identifier: Apache-2.0
"""The account of a migration that somebody else drives, and what the policy would have decided; and, over any
inputs, that progress never falls and is whole at the end only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmig import _core
from pcmig.shadow import Shadow, sample_line
from tests.unit import traces

COMPLETE = ("src-stopped-migrated", "dst-resumed-migrated", "call-succeeded")

_figure = st.integers(0, 2**64 - 1) | st.integers(0, 1 << 20)
_figures = (
    "memory_total_bytes",
    "memory_processed_bytes",
    "memory_remaining_bytes",
    "memory_bps",
    "normal_pages",
    "zero_pages",
    "iteration",
    "disk_total_bytes",
    "disk_remaining_bytes",
    "page_size_bytes",
    "postcopy_requests",
)
_sample = st.fixed_dictionaries(dict.fromkeys(_figures, _figure))
_event = st.sampled_from(
    [
        "src-suspended-postcopy",
        "dst-resumed-postcopy",
        "src-postcopy-failed",
        "src-resumed",
        "job-completed",
        *COMPLETE,
    ]
)
_lines = st.lists(
    st.tuples(st.integers(0, 1 << 30), _sample | _event, st.sampled_from(["sample", "final"])),
    max_size=60,
)


def line(t_us: int, what: Any, kind: str) -> str:
    if isinstance(what, str):
        return f"{t_us} event {what}"
    return sample_line(t_us, what).replace(" sample", f" {kind}", 1)


@settings(deadline=None)
@given(_lines)
def test_progress_never_falls_and_is_whole_at_the_end_only(inputs: list[tuple[int, Any, str]]) -> None:
    judge = _core.Judge()
    before, complete = 0, False
    for each in inputs:
        judge.feed(line(*each))
        complete = complete or each[1] in COMPLETE or (each[2] == "final" and not isinstance(each[1], str))
        found = judge.look()
        assert before <= found["progress_permille"] <= 1000
        assert (found["progress_permille"] == 1000) == complete
        before = found["progress_permille"]
        eta = found["eta"]
        if eta["outlook"] == "range":
            assert eta["least_ms"] is not None and eta["most_ms"] is not None
            assert 0 <= eta["least_ms"] <= eta["most_ms"]
        if eta["outlook"] in ("least", "not-converging", "too-early", "interrupted"):
            assert eta["most_ms"] is None


def moments(lines: list[str], switches: bool = False) -> list[_core.Judged]:
    judge = _core.Judge(switches=switches)
    found = []
    for each in lines:
        judge.feed(each)
        found.append(judge.look())
    return found


def guest(pages_ps: int, hot_pages: int, seconds: int, *, always: bool) -> list[str]:
    """Pre-copy of 64 Ki pages at 3,000 a second, of which the guest writes PAGES_PS among HOT_PAGES. ALWAYS:
    the bitmap is synchronised every 100 ms, as QEMU 11 does, otherwise at the end of a pass."""
    lines, total, rate = ["0 event migrate-called"], 65536, 3000
    left, sent, dirty, iteration = total, 0, 0.0, 1
    for step in range(1, seconds * 10 + 1):
        now = min(rate // 10, left)
        left, sent = left - now, sent + now
        share = 1.0 if sent > total else sent / total  # what was not sent cannot become dirty again
        dirty = min(dirty + pages_ps / 10 * share, hot_pages)
        if always or left <= rate * 3 // 10:
            left, dirty, iteration = int(left + dirty), 0.0, iteration + 1
        figures = {
            "memory_total_bytes": total * 4096,
            "memory_remaining_bytes": left * 4096,
            "memory_processed_bytes": sent * 4100,
            "normal_pages": sent,
            "memory_bps": rate * 4100,
            "iteration": iteration,
            "page_size_bytes": 4096,
            "queue_bytes": 200_000,
        }
        lines.append(sample_line(step * 100_000, figures))
        if sent >= total and left <= rate * 3 // 10:
            break  # it fits in QEMU's downtime limit
    return lines


@pytest.mark.parametrize("always", [False, True])
def test_pre_copy_without_an_end_is_told_as_that(always: bool) -> None:
    found = moments(guest(20_000, 32768, 90, always=always))
    assert found[-1]["eta"]["outlook"] == "not-converging"
    assert 500 <= found[-1]["progress_permille"] < 1000
    assert {each["eta"]["outlook"] for each in found[3:100]} == {"least"}


@pytest.mark.parametrize("always", [False, True])
def test_pre_copy_that_converges_has_a_time_within_which_it_ends(always: bool) -> None:
    lines = guest(1200, 32768, 90, always=always)
    assert len(lines) < 900, "it ended"
    found = [each["eta"] for each in moments(lines)]
    known = [(number, eta) for number, eta in enumerate(found) if eta["outlook"] == "range"]
    for number, eta in known:
        left_ms = (len(found) - 1 - number) * 100
        assert eta["most_ms"] is not None and left_ms <= eta["most_ms"]
    assert known and not any(eta["outlook"] == "not-converging" for eta in found)


def test_who_switches_has_an_upper_bound_from_the_first_pass_on() -> None:
    lines = guest(20_000, 32768, 20, always=True)
    assert moments(lines, switches=True)[-1]["eta"]["outlook"] == "range"
    assert moments(lines)[-1]["eta"]["outlook"] == "least"


def test_the_recorded_migration() -> None:
    seen = Shadow()
    seen.feed(traces.recorded())  # decisions of the recording count for nothing
    ledger = seen.ledger()
    assert ledger["totals"] == _core.ledger_from_trace(traces.inputs())["totals"]
    assert ledger["balance"]["balanced"]
    found = seen.look()
    assert (found["phase"], found["progress_permille"], found["eta"]["outlook"]) == ("finished", 1000, "over")
    assert found["downtime"] == {"ms": 1, "source": "events"}
    assert seen.final["postcopy_requests"] == ledger["totals"]["requests"]


def test_what_pcmig_would_have_done_is_what_the_replay_does() -> None:
    lines = traces.inputs()
    first = next(
        answer["replayed"] for answer in _core.replay(lines)["decisions"] if answer["replayed"] is not None
    )
    seen = Shadow()
    seen.feed(lines)
    assert seen.verdict == first
    at = f"{first['t_us'] / 1e6:.1f} s"
    assert seen.words() == f"pcmig would have switched at {at}: {first['text']}"
    told = seen.told()
    assert (told["would"], told["at_ms"], told["reason"]) == (
        "switch",
        first["t_us"] // 1000,
        first["reason"],
    )
    assert told["switched_at_ms"] == (620 * traces.STEP_US - 2000) // 1000


def test_a_switch_before_its_time() -> None:
    seen = Shadow("manual")
    seen.feed(traces.inputs())
    assert seen.words().startswith("it was switched at 34.1 s, before")
    assert seen.told()["would"] is None


def test_what_began_before_anybody_looked() -> None:
    seen = Shadow()
    seen.saw("postcopy")
    assert seen.words() == "it was in post-copy when it was first seen"


def test_pre_copy_that_ends_by_itself() -> None:
    seen = Shadow("never")
    seen.feed(each for each in traces.inputs() if "postcopy event" not in each)
    assert seen.words().startswith("it was switched")
    seen = Shadow("never")
    seen.feed(["1000 sample memory_total_bytes=4096", "2000 final memory_total_bytes=4096 downtime_ms=4"])
    assert seen.words() == "pcmig would not have switched: pre-copy ended by itself"
    assert seen.look()["downtime"] == {"ms": 4, "source": "libvirt"}


def test_a_look_tells_what_no_event_did() -> None:
    seen = Shadow()
    seen.feed(["1000 sample memory_total_bytes=8192 memory_remaining_bytes=4096 normal_pages=1 iteration=2"])
    for state, phase in (
        ("precopy", "precopy"),
        ("postcopy", "postcopy"),
        ("paused", "paused"),
        ("postcopy", "postcopy"),
    ):
        seen.saw(state)
        assert seen.look()["phase"] == phase, state
    assert seen.switched_us == 1000


def test_nothing_is_sent_while_post_copy_is_interrupted() -> None:
    """QEMU goes on telling its last rate."""
    seen = Shadow()
    seen.feed(["1000 sample memory_total_bytes=8192 memory_remaining_bytes=4096 normal_pages=1 memory_bps=7"])
    assert seen.look()["send_bps"] == 7
    for state, sent in (("postcopy", 7), ("paused", 0), ("postcopy", 7)):
        seen.saw(state)
        assert seen.look()["send_bps"] == sent, state


def test_a_policy_that_is_none() -> None:
    with pytest.raises(_core.PolicyError):
        Shadow("sometimes")
    with pytest.raises(_core.TraceError):
        Shadow().feed(["1000 sample colour=3"])
