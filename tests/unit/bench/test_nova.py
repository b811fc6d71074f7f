# SPDX-License-Identifier: Apache-2.0
"""Logs, traces, medians and the goal of the bench of the drivers, on made-up ones whose answers are plain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bed import BedError
from tests.bench.nova import logs, report
from tests.bench.nova.figures import Results, copy_s, pcmig_delays, stock_delays
from tests.bench.nova.logs import Switch, cpu_ticks, late_us, moment, switch_of
from tests.bench.nova.ways import DEFAULT_WAYS, parse_way, parse_ways
from tests.cloud.cloud import PCMIG_DRIVER, STOCK_DRIVER

LOG = """\
2026-01-02 03:04:05.100 7 INFO nova.compute.manager [None req-1] [instance: u] Took 1 s for pre_live_migration
  no line of a log: Live migration not completed after 4 sec
2026-01-02 03:04:09.250 7 WARNING nova.virt.libvirt.migration [None req-1] [instance: u] Live migration not \
completed after 4 sec
2026-01-02 03:04:09.760 7 INFO nova.virt.libvirt.migration [None req-1] [instance: u] Switching to post-copy \
migration mode
2026-01-02 03:04:09.800 7 INFO pcmig.nova.steer [None req-1] [instance: u] Live migration: switched to \
post-copy, 17 us after the decision
"""

TRACE = """\
pcmig-trace 1
params policy=auto gate=1
500 decision drain converge a=0 b=0 c=0 pace_mib=1 next_us=1
900 decision undrain refused a=0 b=0 c=0 pace_mib=0 next_us=1
1000 decision drain converge a=0 b=0 c=0 pace_mib=1 next_us=490000
1500 request open-gate
2000 decision switch drained a=0 b=144 c=0 pace_mib=0 next_us=9223372036854775807
2900 event switch-refused
4000 decision switch retry a=1 b=0 c=0 pace_mib=0 next_us=9223372036854775807
5500 event switch-issued
9000 event src-suspended-postcopy
9500 decision drain never a=0 b=0 c=0 pace_mib=0 next_us=1
"""


def row(way: str, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "way": way,
        "round": 1,
        "error": None,
        "settle": {"disturbed": None},
        "switch_ms": 600.0,
        "call_ms": 500.0,
        "decided_ms": 600.0,
        "baseline_pps": 1000,
        "work_pages": 22_000,
        "work_elapsed_s": 32.0,
        "complete_s": 30.0,
        "events": [[9.5, "b", "Started Migrated"], [30.0, "b", "Resumed Migrated"]],
    }
    return base | more


def test_moments_of_a_log() -> None:
    timeout_s, switched_s = moment(LOG, logs.TIMEOUT), moment(LOG, logs.STOCK_SWITCHED)
    assert timeout_s is not None and switched_s is not None
    assert switched_s - timeout_s == pytest.approx(0.51)
    assert moment(LOG, "Live migration: abort") is None


def test_lateness_by_the_log() -> None:
    assert late_us(LOG) == 17
    assert late_us("") is None


def test_switch_of_a_trace() -> None:
    assert switch_of(TRACE) == Switch(decided_us=1000, switched_us=4000, issued_us=5500, stopped_us=9000)


def test_a_switch_without_draining_begins_with_its_decision() -> None:
    lines = [line for line in TRACE.splitlines() if "drain" not in line.split()[2:3]]
    assert switch_of("\n".join(lines)) == Switch(4000, 4000, 5500, 9000)


@pytest.mark.parametrize("missing", ["switch-issued", "src-suspended-postcopy", "decision switch"])
def test_half_a_switch_is_none(missing: str) -> None:
    assert switch_of("\n".join(line for line in TRACE.splitlines() if missing not in line)) is None


def test_the_event_may_come_before_the_call_has_returned() -> None:
    lines = TRACE.splitlines()
    issued, stopped = (
        lines.index("5500 event switch-issued"),
        lines.index("9000 event src-suspended-postcopy"),
    )
    lines[issued], lines[stopped] = "5400 event src-suspended-postcopy", "5500 event switch-issued"
    switch = switch_of("\n".join(lines))
    assert switch is not None and switch.stopped_us == 5400


def test_copying_begins_with_the_destinations_qemu() -> None:
    assert copy_s(row("stock", events=[])) is None
    assert copy_s(row("stock", complete_s=None)) is None


@given(st.text())
def test_any_text_is_a_log_and_a_trace(text: str) -> None:
    moment(text, logs.TIMEOUT)
    late_us(text)
    switch_of(text)


def test_cpu_of_a_process_whose_name_has_brackets() -> None:
    fields = " ".join(str(number) for number in range(1, 50))
    assert cpu_ticks(f"12 (a) b) S {fields}") == 11 + 12


def test_delays() -> None:
    assert stock_delays(100.0, 100.5, 100.6) == {
        "late_ms": None,
        "call_ms": 500.0,
        "switch_ms": pytest.approx(600.0),
        "decided_ms": pytest.approx(600.0),
    }
    assert stock_delays(None, 100.5, 100.6)["switch_ms"] is None
    switch = Switch(1000, 4000, 5500, 9000)
    assert pcmig_delays(switch, 17, None, 50.0) == {
        "late_ms": 0.017,
        "call_ms": 1.5,
        "switch_ms": 5.0,
        "decided_ms": 8.0,
    }
    assert pcmig_delays(switch, 17, 49.75, 50.0)["decided_ms"] == 250.0
    assert pcmig_delays(None, 17, None, 50.0)["switch_ms"] is None


def test_medians_and_ratios_leave_failed_rounds_out() -> None:
    rows = [row("stock", switch_ms=value) for value in (500.0, 700.0, 600.0)]
    rows += [row("pcmig", switch_ms=6.0), row("pcmig", switch_ms=1.0, error="it failed")]
    results = Results(rows)
    found = results.spread("stock", "switch_ms")
    assert found is not None and (found.count, found.median, found.low, found.high) == (3, 600, 500, 700)
    assert results.ratio("pcmig", "switch_ms") == pytest.approx(0.01)
    assert results.times_less("pcmig", "switch_ms") == pytest.approx(100)
    assert results.ratio("pcmig-timeout", "switch_ms") is None
    copying = results.spread("stock", "copy_s")
    assert copying is not None and copying.median == pytest.approx(20.5)
    lost = results.spread("stock", "time_lost_s")
    assert lost is not None and lost.median == pytest.approx(10)


def test_report_says_what_was_reached_and_what_was_left_out() -> None:
    rows = [row("stock"), row("pcmig", switch_ms=13.0), row("pcmig-timeout", switch_ms=6.0)]
    rows.append(row("pcmig", error="3 pages do not hold what the guest wrote"))
    machine = {"cores": 2, "cpu": "c", "memory_mib": 1, "kernel": "k", "stacks": {"s": {"qemu": "1"}}}
    guest = {"memory_mib": 256, "worker_mib": 128, "write_pps": 10}
    console = Console(record=True, width=200, file=None, quiet=False)
    with console.capture() as said:
        report.show(console, {"machine": machine, "guest": guest, "rate_mbit": 100, "rounds": rows})
    assert "pcmig: from the decision to the guest's stop 46 times less (50: missed)" in said.get()
    assert "pcmig-timeout: from the decision to the guest's stop 100 times less (50: reached)" in said.get()
    assert "left out: pcmig, round 1: 3 pages" in said.get()


def test_ways() -> None:
    ways = parse_ways(DEFAULT_WAYS + ", stock,pcmig-passes=2")
    assert [way.name for way in ways] == ["stock", "pcmig", "pcmig-timeout", "pcmig-passes=2"]
    assert [way.driver for way in ways] == [STOCK_DRIVER, PCMIG_DRIVER, PCMIG_DRIVER, PCMIG_DRIVER]
    assert [way.by_timeout for way in ways] == [True, False, True, False]
    assert ways[0].nova_conf["libvirt"] == ways[2].nova_conf["libvirt"]
    assert "live_migration_completion_timeout" not in ways[1].nova_conf["libvirt"]
    assert ways[3].nova_conf["pcmig"]["policy"] == "passes=2"


@pytest.mark.parametrize("name", ["nova", "pcmig-", "stock-2"])
def test_unknown_ways_are_named(name: str) -> None:
    with pytest.raises(BedError, match=name):
        parse_way(name)


def test_no_way() -> None:
    with pytest.raises(BedError, match="names none"):
        parse_ways(" ,")
