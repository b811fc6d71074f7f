# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pathlib
from importlib import resources
from typing import Any

import jsonschema
import pytest

from pcmig import _core
from pcmig.ledgers import document, opening
from pcmig.ledgers.keeping import Keeping
from pcmig.ledgers.store import Store, read
from tests.unit import traces
from tests.unit.cli import fake_core
from tests.unit.ledgers import made


def schema() -> Any:
    found = json.loads(resources.files("pcmig.ledgers").joinpath("schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def validate(found: Any) -> None:
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(found)))


def status(**changes: Any) -> dict[str, Any]:
    return fake_core.STATUS | {"stream_peer": None} | changes


def test_a_document_is_as_the_schema_says(tmp_path: pathlib.Path) -> None:
    validate(made.document(tmp_path))


def test_the_schema_knows_every_name_of_the_core() -> None:
    """Phases, decisions and figures that the core may give one day are in no document that the schema
    refuses."""
    found = schema()
    ledger = _core.ledger_from_trace(traces.recorded())
    assert set(ledger["phases"][0]) <= set(found["$defs"]["row"]["required"])
    totals = found["properties"]["ledger"]["properties"]["totals"]
    # What was added later is not in every document of this version.
    assert set(ledger["totals"]) == {*totals["required"], "waited_us"}
    assert "waited_us" in json.dumps(totals)
    assert set(ledger["totals"]["phase_us"]) == set(
        found["properties"]["ledger"]["properties"]["phase"]["enum"]
    )
    assert set(document.COLUMNS) == set(found["properties"]["samples"]["required"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outcome",), "moved"),
        (("samples", "t_ms"), ["a"]),
        (("ledger", "totals", "requests"), -1),
        (("guest", "uuid"), None),
        (("begun",), "yesterday"),
    ],
)
def test_the_schema_refuses(tmp_path: pathlib.Path, path: tuple[str, ...], value: Any) -> None:
    found = json.loads(json.dumps(made.document(tmp_path)))
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(found)


def test_samples_are_bounded_and_keep_the_phases() -> None:
    samples = document.Samples()
    phases = {0: "setup", 500: "precopy", 90_000: "drain", 90_020: "postcopy", 99_000: "finished"}
    phase = "setup"
    for step in range(100_000):
        phase = phases.get(step, phase)
        samples.add(status(elapsed_ms=step * 100, phase=phase, memory_remaining_bytes=step))
    found = samples.columns()
    assert {len(column) for column in found.values()} == {len(found["t_ms"])}
    assert document.SAMPLES_MAX // 4 < len(found["t_ms"]) <= document.SAMPLES_MAX + 1
    assert found["t_ms"] == sorted(found["t_ms"])
    assert list(dict.fromkeys(found["phase"])) == ["setup", "precopy", "drain", "postcopy"]
    first = {name: found["t_ms"][found["phase"].index(name)] for name in ("setup", "precopy", "postcopy")}
    assert first == {"setup": 0, "precopy": 50_000, "postcopy": 9_002_000}
    assert found["t_ms"][-1] == 98_999 * 100  # the last one, whatever was left out


def test_samples_are_bounded_whatever_happens() -> None:
    samples = document.Samples()
    for step in range(5000):
        samples.add(status(elapsed_ms=step, phase=("postcopy", "paused")[step % 2]))
    assert len(samples.columns()["t_ms"]) <= document.SAMPLES_MAX + 1


def test_no_samples_are_empty_columns() -> None:
    assert document.Samples().columns() == {name: [] for name in document.COLUMNS}


def test_changes_of_the_pace_make_room() -> None:
    decision = fake_core.DECISION
    many = [{**decision, "t_us": i, "action": "set-pace"} for i in range(5000)]
    many[4000] = {**decision, "t_us": 4000, "action": "switch"}
    found = document.thinned(many)
    assert len(found) == document.DECISIONS_MAX
    assert [row["t_us"] for row in found if row["action"] == "switch"] == [4000]
    assert [row["t_us"] for row in found] == sorted(row["t_us"] for row in found)
    assert document.thinned(many[:10]) == many[:10]
    assert len(document.thinned([{**decision, "t_us": i} for i in range(5000)])) == document.DECISIONS_MAX


def test_silences_are_the_ledgers(tmp_path: pathlib.Path) -> None:
    found = made.document(tmp_path)
    totals = found["ledger"]["totals"]
    assert found["silences"] == [
        {"what": "switch", "by": "libvirt", "start_us": None, "duration_us": 4000},
        {"what": "switch", "by": "events", "start_us": 34_097_000, "duration_us": 1000},
    ]
    assert (totals["downtime_reported_ms"], totals["downtime_events_us"]) == (4, 1000)


def test_an_interruption_is_a_silence() -> None:
    lines = traces.inputs()
    at = next(i for i, line in enumerate(lines) if line.startswith("34650000 "))
    lines[at:at] = ["34600000 event src-postcopy-failed", "34640000 event dst-resumed-postcopy"]
    ledger = _core.ledger_from_trace(lines)
    paused = [row for row in ledger["phases"] if row["phase"] == "paused"]
    assert len(paused) == 1
    assert {
        "what": "interrupted",
        "by": "events",
        "start_us": 34_600_000,
        "duration_us": paused[0]["duration_us"],
    } in document.silences(ledger)


@pytest.mark.parametrize(
    ("phases", "mode"),
    [
        (["setup"], "none"),
        (["setup", "precopy", "switchover"], "precopy"),
        (["setup", "precopy", "drain", "switchover", "postcopy"], "postcopy"),
    ],
)
def test_mode(phases: list[str], mode: str) -> None:
    assert document.mode({"phases": [{"phase": name} for name in phases]}) == mode


def test_versions() -> None:
    assert [document.version(v) for v in (11_003_000, 8_000_001, 0, None)] == ["11.3.0", "8.0.1", None, None]


def test_what_was_followed_is_kept(tmp_path: pathlib.Path) -> None:
    def ask(uri: str) -> dict[str, Any]:
        if uri.startswith("qemu+tcp"):
            raise _core.ConnectError("it is away")
        return {"hostname": "a", "libvirt_version": 11_003_000, "qemu_version": 10_000_002}

    keeping = Keeping(Store(tmp_path), {"program": "pcmig migrate"}, ask)
    keeping.begin(
        name="g1",
        uuid=made.UUID,
        source_uri="qemu:///system",
        dest_uri="qemu+tcp://b/system",
        arguments={"flags": 1, "policy": "passes=2", "params": {"downtime_limit_ms": 50}},
    )
    keeping.look(status(phase="precopy", elapsed_ms=100))
    end = status(phase="finished", outcome="failed", error="connection refused", elapsed_ms=150)
    keeping.look(end)
    migration = _core.Migration("g1", "qemu+tcp://b/system")
    path = keeping.end(migration, end, patience_s=60.0)
    assert path is not None
    found = read(path)
    validate(found)
    assert found["hosts"]["source"] == {
        "uri": "qemu:///system",
        "hostname": "a",
        "uuid": None,
        "libvirt": "11.3.0",
        "qemu": "10.0.2",
        "pcmig": _core.VERSION,
    }
    assert found["hosts"]["destination"]["libvirt"] is None
    assert (found["policy"], found["params"]) == ("passes=2", {"downtime_limit_ms": 50})
    assert found["flags"] == ["VIR_MIGRATE_LIVE"]
    assert (found["outcome"], found["words"]) == ("failed", "failed: connection refused")
    assert (found["mode"], found["adopted"], found["steered"]) == ("none", False, True)
    assert found["samples"]["t_ms"] == [100]
    assert found["begun"] == found["started"] <= found["ended"]


def test_none_is_kept_where_none_is_wanted(tmp_path: pathlib.Path) -> None:
    keeping = Keeping(Store(tmp_path, kept=0), {"program": "p"}, lambda uri: pytest.fail("nobody is asked"))
    keeping.begin(name="g", uuid=made.UUID, source_uri="a", dest_uri="b", arguments={})
    migration = _core.Migration("g1", "qemu+tcp://b/system")
    assert keeping.end(migration, status(outcome="failed")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_trace_makes_the_ledger_that_replay_makes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "g1.trace"
    path.write_text("\n".join(traces.recorded()) + "\n")
    found = opening.open_file(str(path)).document
    assert found["ledger"] == _core.ledger_from_trace(str(path))
    recorded = [answer["recorded"] for answer in _core.replay(str(path))["decisions"]]
    assert found["decisions"] == recorded and len(recorded) > 2
    assert (found["outcome"], found["mode"]) == ("completed", "postcopy")
    columns = found["samples"]
    assert columns["requests"][-1] == found["ledger"]["totals"]["requests"] > 0
    assert max(columns["requests_ps"]) == pytest.approx(73 / 0.055, rel=0.1)
    assert set(columns["phase"]) == {"precopy", "drain", "postcopy"}
