# SPDX-License-Identifier: Apache-2.0
"""The text, as Prometheus' own parsers read it."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pcmig.metrics import exposition, live
from pcmig.metrics.families import COMMAND, COUNTERS, GUEST, HISTOGRAMS, LIVE, NOVA, PROGRAMS
from pcmig.metrics.store import Counts
from pcmig.tunnel import metrics as tunnel_metrics
from tests.unit.cli import fake_core as fake
from tests.unit.metrics.figures import UUID, ended, ledger, names, read, status, value

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "doc" / "operate" / "metrics.rst").read_text(encoding="utf-8")


def view(program: str = COMMAND, rows: list[live.Row] | None = None, **figures: int) -> exposition.View:
    counts = Counts(since_s=9e8)
    book = ledger()
    book["totals"]["gate_us"] = 1_500_000
    counts.add(ended(ledger=book, gated=True))
    counts.add(ended("failed"))
    of_others = dict.fromkeys(("unattended", "interrupted", "half_lost", "resume_impossible"), 0)
    return exposition.View(program, counts, list(rows or []), **{**of_others, **figures}, written_s=1e9)


def row(**changes: object) -> live.Row:
    return live.row(
        name="g1",
        uuid=UUID,
        dest_uri="qemu+ssh://root@b.example.org/system?keyfile=/root/key",
        policy="deadline=20",
        status=status(**changes),
        page_bytes=4096,
    )


def text(*views: exposition.View) -> str:
    return exposition.text(lambda: exposition.families(list(views)))


def test_counts() -> None:
    found = read(text(view()))
    assert value(found, "pcmig_migrations_total", outcome="completed", mode="postcopy") == 1
    assert value(found, "pcmig_migrations_total", outcome="failed", mode="postcopy") == 1
    assert value(found, "pcmig_migrations_total", outcome="needs-operator", mode="precopy") == 0
    assert value(found, "pcmig_gate_wait_seconds_bucket", le="1.0") == 0
    assert value(found, "pcmig_gate_wait_seconds_bucket", le="2.0") == 1
    assert value(found, "pcmig_gate_wait_seconds_bucket", le="300.0") == 1, "what is below counts, too"
    assert value(found, "pcmig_gate_wait_seconds_count") == 1
    assert value(found, "pcmig_gate_wait_seconds_sum") == 1.5
    assert value(found, "pcmig_build_info") == 1


def test_guests_are_named_while_they_migrate_and_only_in_gauges() -> None:
    waits = {"source": "estimated", "mean_us": 5000, "now_us": 7000}
    its_row = row(eta_ms=9000, pace_mib=3, queue_bytes=7, phase="postcopy", latency=waits)
    found = read(text(view(rows=[its_row])))
    named = {name for name, labels in found if "domain" in dict(labels)}
    assert named == {each.name for each in LIVE} | {"pcmig_migration_info"}
    assert all(set(GUEST) <= dict(labels).keys() for name, labels in found if name in named)
    its = {each.key: value(found, each.name, domain="g1", instance_uuid=UUID) for each in LIVE}
    assert its["total_bytes"] == 256 << 20
    assert its["dirty_bytes_ps"] == 1562 * 4096
    assert (its["eta_s"], its["pace_bytes_ps"], its["queue_bytes"]) == (9, 3 << 20, 7)
    assert its["latency_s"] == 0.007
    info = next(dict(labels) for name, labels in found if name == "pcmig_migration_info")
    assert (info["destination"], info["phase"], info["policy"]) == ("b.example.org", "postcopy", "deadline")
    assert info["outlook"] == "range"
    after = text(view())
    assert "g1" not in after and UUID not in after


def test_what_is_not_known_is_left_out() -> None:
    found = names(read(text(view(rows=[row(eta_ms=None, pace_mib=0, queue_bytes=None)]))))
    assert not {"pcmig_migration_eta_seconds", "pcmig_migration_pace_bytes_per_second"} & found
    assert "pcmig_migration_queue_bytes" not in found and "pcmig_migration_passes" in found


def test_what_to_alert_on() -> None:
    held = {
        **fake.RECOVERY,
        "state": "held",
        "text": f"post-copy interrupted at 43 %, {live._CANNOT_RESUME[1]}",
    }
    rows = [row(), row(phase="paused", recovery=held), row(phase="paused", recovery=fake.RECOVERY)]
    # What is there twice here has other guests in truth; only sums are looked at.
    for each, number in zip(rows, "abc", strict=True):
        each["instance_uuid"] = number
    found = read(text(view(rows=rows, unattended=4, interrupted=2, half_lost=1)))
    assert value(found, "pcmig_interrupted") == 4
    assert value(found, "pcmig_half_lost") == 1
    assert value(found, "pcmig_resume_impossible") == 1
    assert value(found, "pcmig_unattended") == 4
    assert value(found, "pcmig_migrations_running", phase="paused") == 2
    assert value(found, "pcmig_migrations_running", phase="precopy") == 1
    assert value(found, "pcmig_migrations_running", phase="setup") == 0


def test_two_programs_in_two_files_are_told_apart() -> None:
    """node_exporter refuses a figure that two files have."""
    command, nova = read(text(view(rows=[row()]))), read(text(view(NOVA, [row()])))
    assert not command.keys() & nova.keys()
    assert read(text(view(rows=[row()]), view(NOVA, [row()]))) == command | nova
    programs = {dict(labels).get("program") for _, labels in command | nova}
    assert programs == set(PROGRAMS)


def test_open_metrics() -> None:
    """What Prometheus asks a port for. Its parser knows names that clash."""
    registry = exposition.registry(lambda: exposition.families([view(rows=[row()])]))
    made = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    found = text_string_to_metric_families(made)  # type: ignore[no-untyped-call]
    families = {family.name: family.type for family in found}
    assert families["pcmig_migrations"] == "counter"
    assert families["pcmig_migrations_running"] == "gauge"
    assert families["pcmig_guest_silence_seconds"] == "histogram"


def test_names_are_as_prometheus_wants_them() -> None:
    for family in COUNTERS:
        assert re.fullmatch(r"pcmig_[a-z_]+_total", family.name)
    for family in HISTOGRAMS:
        assert family.name.endswith("_seconds") and list(family.buckets) == sorted(set(family.buckets))
    for family in (*COUNTERS, *HISTOGRAMS):
        assert not set(GUEST) & set(family.labels), "there would be more and more of them"


def written() -> set[str]:
    """Every name that can be in what Prometheus reads."""
    waits = {"source": "estimated", "mean_us": 1, "now_us": 1}
    rows = [row(eta_ms=1, pace_mib=1, queue_bytes=1, phase="postcopy", latency=waits)]
    figures: dict[str, object] = {**dict.fromkeys(tunnel_metrics.ROWS, 1), "refused_peer": 1, "ends_ca": 1}
    return names(read(text(view(rows=rows)) + tunnel_metrics.text(figures)))


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bpcmig_\w+", expression))


def test_alerts_and_dashboard_ask_for_what_there_is() -> None:
    rules = yaml.safe_load((ROOT / "etc" / "prometheus" / "pcmig.rules.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((ROOT / "etc" / "grafana" / "pcmig.json").read_text())
    queries = [each["expr"] for panel in board["panels"] for each in panel.get("targets", [])]
    assert len(alerts) >= 8 and len(queries) >= 25
    for expression in (*alerts, *queries):
        assert asked(expression) and asked(expression) <= written(), expression


def test_grafana_can_take_the_dashboard() -> None:
    """As far as it is known without Grafana: what its import and its editor insist on."""
    board = json.loads((ROOT / "etc" / "grafana" / "pcmig.json").read_text())
    assert 36 <= board["schemaVersion"] <= 41, "data sources by uid; what a Grafana of today still reads"
    assert re.fullmatch(r"[\w-]{1,40}", board["uid"]) and board.get("id") is None, "an id is of one Grafana"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered: dict[tuple[int, int], str] = {}
    for panel in panels:
        place, title = panel["gridPos"], panel["title"]
        assert title and min(place["w"], place["h"]) > 0 <= min(place["x"], place["y"]), title
        assert place["x"] + place["w"] <= 24, title
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert covered.setdefault((x, y), title) == title, f"{title} lies on {covered[x, y]}"
    variables = {each["name"] for each in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(board))) == variables
    for panel in (panel for panel in panels if panel["type"] != "row"):
        title = panel["title"]
        assert panel["description"], title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        letters = [target["refId"] for target in panel["targets"]]
        assert letters and len(set(letters)) == len(letters), title
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), title


def test_each_alert_is_tested_and_on_the_page() -> None:
    rules = yaml.safe_load((ROOT / "etc" / "prometheus" / "pcmig.rules.yml").read_text())
    tests = yaml.safe_load((ROOT / "etc" / "prometheus" / "pcmig.rules.test.yml").read_text())
    fired = {
        case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]
    }
    quiet = {
        case["alertname"]
        for test in tests["tests"]
        for case in test["alert_rule_test"]
        if not case["exp_alerts"]
    }
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert alerts == fired
    assert alerts - {"PcmigTunnelCertificateExpires"} == quiet
    assert [name for name in sorted(alerts) if f"``{name}``" not in PAGE] == []


@pytest.mark.parametrize("name", [family.name for family in (*COUNTERS, *HISTOGRAMS, *LIVE)])
def test_each_figure_is_on_the_page(name: str) -> None:
    assert f"``{name}``" in PAGE


def test_so_is_each_gauge() -> None:
    gauges = {name for name in names(read(text(view()))) if not re.search("_(bucket|sum|count|total)$", name)}
    assert [name for name in sorted(gauges) if f"``{name}``" not in PAGE] == []


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError):
        text(view())
