# SPDX-License-Identifier: Apache-2.0
"""A recorded migration for tests: a guest that pre-copy cannot move, on a 100 Mb/s link with QEMU 11."""

from __future__ import annotations

from pcmig import _core

GUEST_PAGES = 68608
SENT_PER_STEP = 165
STEP_US = 55_000
NEVER_US = 2**63 - 1


def inputs() -> list[str]:
    """The lines of a trace without its decisions: switch in the second pass, post-copy, end."""
    lines = ["pcmig-trace 1", "params policy=auto", "0 event migrate-called", "1000 event dst-started"]
    sent = requests = 0
    time_us = 0
    switched = False
    for step in range(1, 700):
        time_us = step * STEP_US
        sent += SENT_PER_STEP
        dirty = min(sent // 2, 32768)
        if step == 620:
            switched = True
            lines.append(f"{time_us - 3000} event switch-issued")
            lines.append(f"{time_us - 2000} event src-suspended-postcopy")
            lines.append(f"{time_us - 1000} event dst-resumed-postcopy")
        requests += 73 if switched and step < 640 else 0
        lines.append(
            f"{time_us} sample {_memory(sent, dirty, requests)} memory_bps=12500000 dirty_pages_ps=9000 "
            f"iteration={step} elapsed_ms={time_us // 1000} queue_bytes={0 if step > 300 else 20000}"
        )
    lines.append(f"{time_us + 1000} event dst-resumed-migrated")
    lines.append(f"{time_us + 2000} final {_memory(sent + 40, 0, requests)} downtime_ms=4")
    return lines


def recorded() -> list[str]:
    """The same with the decisions of the policy."""
    return with_decisions(inputs())


def with_decisions(lines: list[str]) -> list[str]:
    """LINES without decisions, with those of the policy."""
    lines = list(lines)
    for answer in reversed(_core.replay(lines)["decisions"]):
        decision = answer["replayed"]
        assert decision is not None
        lines.insert(answer["line"], decision_line(decision))
    return lines


def decision_line(decision: _core.Decision) -> str:
    """A decision as a trace has it."""
    next_us = NEVER_US if decision["next_us"] is None else decision["next_us"]
    return (
        f"{decision['t_us']} decision {decision['action']} {decision['reason']} a={decision['a']} "
        f"b={decision['b']} c={decision['c']} pace_mib={decision['pace_mib']} next_us={next_us}"
    )


def _memory(sent: int, dirty: int, requests: int) -> str:
    remaining = max(GUEST_PAGES - sent, 0) + dirty
    return (
        f"memory_total_bytes={GUEST_PAGES * 4096} memory_processed_bytes={sent * 4104} "
        f"memory_remaining_bytes={remaining * 4096} normal_pages={sent} postcopy_requests={requests} "
        "page_size_bytes=4096"
    )
