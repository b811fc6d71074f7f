# SPDX-License-Identifier: Apache-2.0
"""The gate before the switch, on real migrations: what a driver does with it."""

from __future__ import annotations

import pathlib
from typing import Any

from pcmig import _core
from tests.functional.scene import SLOW_MBIT, Scene
from tests.functional.test_core_migration import run_program

GATED = """
import json, select, sys, time
from pcmig import _core

source, dest, migrate_uri, name, trace, how = sys.argv[1:]
m = _core.Migration(name, dest, source_uri=source, migrate_uri=migrate_uri, policy="first-pass", gate=True,
                    trace_path=trace, params={"gate_wait_ms": 2000} if how == "late" else None)
seen = [m.status()["gate"]]
poller = select.poll()
poller.register(m.fileno(), select.POLLIN)

def until(condition, patience_s=60):
    end = time.monotonic() + patience_s
    while True:
        poller.poll(500)
        m.clear()
        status = m.status()
        if status["gate"] != seen[-1]:
            seen.append(status["gate"])
        if condition(status):
            return status
        assert time.monotonic() < end, (status, m.decisions())

def actions():
    return [d["action"] for d in m.decisions()]

answer = {}
m.start()
wanted = until(lambda s: s["gate"] == "wanted")
answer["asked_in"] = wanted["phase"]
if how == "open":
    time.sleep(1.5)  # a database that takes its time
    answer["before"] = actions()
    m.open_gate()
elif how == "open at once":
    m.open_gate()
elif how == "refuse":
    m.refuse_gate()
    until(lambda s: s["gate"] == "refused")
    sent = m.status()["memory_processed_bytes"], time.monotonic()
    time.sleep(3)
    status = m.status()
    answer["refused"] = [status["phase"], status["gate"], status["outcome"], actions()]
    answer["bps"] = (status["memory_processed_bytes"] - sent[0]) / (time.monotonic() - sent[1])
    m.abort()
elif how == "late":
    until(lambda s: s["gate"] == "closed")
    answer["before"] = actions()
    m.open_gate()
end = until(lambda s: s["outcome"] is not None)
print(json.dumps({**answer, "seen": seen, "outcome": end["outcome"], "error": end["error"],
                  "late_us": end["switch_late_us"], "decisions": m.decisions()}))
"""


def gated(scene: Scene, how: str, trace: pathlib.Path) -> dict[str, Any]:
    source = scene.source
    destination = scene.bed.other(source)
    answer = run_program(
        source,
        GATED,
        source.uri,
        destination.remote_uri,
        destination.migrate_uri,
        scene.name,
        str(trace),
        how,
    )
    replay = _core.replay(trace)
    assert replay["identical"] and replay["gate"], replay
    return answer


def reasons(answer: dict[str, Any], action: str) -> list[str]:
    return [each["reason"] for each in answer["decisions"] if each["action"] == action]


def test_no_switch_before_the_gate_is_open(scene: Scene, tmp_path: pathlib.Path) -> None:
    destination = scene.bed.other(scene.source)
    answer = gated(scene, "open", tmp_path / "trace")
    assert answer["outcome"] == "completed", answer
    assert answer["asked_in"] == "precopy"
    assert answer["seen"][:3] == ["closed", "wanted", "open"], answer
    assert answer["before"] == ["ask"], answer  # pre-copy goes on at full speed
    assert reasons(answer, "drain") == ["gate-open"], answer
    assert reasons(answer, "switch")[0] in ("drained", "drain-timeout"), answer
    # From the decision to libvirt's call: no poll is that fast.
    assert answer["late_us"] < 5000, answer
    opened = next(line for line in (tmp_path / "trace").read_text().splitlines() if "open-gate" in line)
    drain = next(each for each in answer["decisions"] if each["action"] == "drain")
    assert drain["t_us"] == int(opened.split()[0])
    assert drain["a"] >= 1500
    scene.expect_at(destination)


def test_a_gate_that_opens_first_waits_for_the_drain(scene: Scene, tmp_path: pathlib.Path) -> None:
    destination = scene.bed.other(scene.source)
    answer = gated(scene, "open at once", tmp_path / "trace")
    assert answer["outcome"] == "completed", answer
    assert len(reasons(answer, "switch")) == 1
    assert reasons(answer, "switch")[0] in ("drained", "drain-timeout"), answer
    scene.expect_at(destination)


def test_a_refused_gate_keeps_the_guest_in_pre_copy(scene: Scene, tmp_path: pathlib.Path) -> None:
    source = scene.source
    scene.bed.network.limit(SLOW_MBIT)
    answer = gated(scene, "refuse", tmp_path / "trace")
    phase, gate, outcome, actions = answer["refused"]
    assert (phase, gate, outcome) == ("precopy", "refused", None), answer
    assert actions == ["ask", "undrain"], answer
    assert answer["bps"] > 8 << 20, answer  # not at the pace of the drain: the link carries 12 MiB/s
    assert answer["outcome"] == "failed"
    assert "switch" not in [each["action"] for each in answer["decisions"]]
    scene.expect_at(source)


def test_a_gate_that_opens_late_counts_for_the_next_time(scene: Scene, tmp_path: pathlib.Path) -> None:
    destination = scene.bed.other(scene.source)
    answer = gated(scene, "late", tmp_path / "trace")
    assert answer["outcome"] == "completed", answer
    assert answer["seen"][:3] == ["closed", "wanted", "closed"], answer
    assert "switch" not in answer["before"]
    assert reasons(answer, "undrain") == ["gate-timeout"], answer
    assert reasons(answer, "ask") == reasons(answer, "drain") == ["passes-done"], answer
    assert len(reasons(answer, "switch")) == 1
    scene.expect_at(destination)
