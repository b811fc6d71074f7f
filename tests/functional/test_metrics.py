# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a real migration from node_exporter: the ledger's numbers are in it, and every
query of the dashboard finds something."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from pcmig.tunnel import metrics as tunnel_metrics
from pcmig.tunnel.client import Client
from tests.functional.prometheus import Prometheus, node_exporter
from tests.functional.scene import ROOT, Scene
from tests.unit.certificates import Authority
from tests.unit.tunnels import Daemon, authority, folder

__all__ = ["authority", "folder"]  # fixtures

RULES = ROOT / "etc" / "prometheus" / "pcmig.rules.yml"
# In pre-copy that does not converge there is no estimate, and post-copy may be over before there is one.
MAY_BE_UNKNOWN = {"pcmig_migration_eta_seconds", "pcmig_migration_page_request_latency_seconds"}


def queries() -> list[str]:
    """Of the dashboard, as Grafana sends them."""
    board = json.loads((ROOT / "etc" / "grafana" / "pcmig.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    for name, value in (("$instance", ".*"), ("$__rate_interval", "1m"), ("$__range", "5m")):
        found = [query.replace(name, value) for query in found]
    assert not any("$" in query for query in found)
    return found


@pytest.mark.timeout(300)
def test_prometheus_sees_a_migration(
    scene: Scene, tmp_path: pathlib.Path, folder: pathlib.Path, authority: Authority
) -> None:
    source = scene.source
    shutil.rmtree(scene.journal / "metrics", ignore_errors=True)  # of other tests
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    with Daemon(folder / "a", authority, authority.issue("a", "localhost", days=300)) as daemon:
        text = tunnel_metrics.text(Client(daemon.control).metrics())
    (textfiles / "pcmig-tunnel.prom").write_text(text)
    with node_exporter(textfiles) as port, Prometheus(tmp_path, port, RULES) as prometheus:
        command = scene.migration("--policy", "manual", "--metrics-dir", str(textfiles))
        prometheus.wait_for(f'pcmig_migration_data_processed_bytes{{domain="{scene.name}"}} > 0')
        prometheus.wait_for('pcmig_migrations_running{phase="precopy"} == 1')
        total = prometheus.value("pcmig_migration_data_total_bytes")
        scene.ask("switch", source).expect(0)
        run = command.wait().expect(0, "done: ")
        # A counter that has just come shows an increase from its second sample on.
        prometheus.wait_for("count_over_time(pcmig_switches_total[5m]) >= 2")
        prometheus.wait_for('{__name__=~"pcmig_migration_.*", domain!=""}', gone=True)

        assert run.report is not None
        status, ledger = run.report["status"], run.report["ledger"]
        totals = ledger["totals"]
        assert total == status["memory_total_bytes"] + status["disk_total_bytes"]
        assert prometheus.value('pcmig_migrations_total{outcome="completed", mode="postcopy"}') == 1
        assert prometheus.value("sum(pcmig_migrations_total)") == 1
        assert prometheus.value("node_textfile_scrape_error") == 0, "node_exporter takes every line"
        read = prometheus.now("node_textfile_mtime_seconds")
        assert {pathlib.Path(each["metric"]["file"]).name for each in read} == {
            "pcmig.prom",
            "pcmig-tunnel.prom",
        }
        (switch,) = prometheus.now("pcmig_switches_total")
        assert "switch" not in run.actions
        assert (switch["metric"]["policy"], switch["metric"]["reason"]) == ("manual", "others")
        assert prometheus.value("pcmig_page_requests_total") == totals["requests"] > 0
        for phase in ("precopy", "postcopy"):
            sent = sum(row["wire_bytes"] for row in ledger["phases"] if row["phase"] == phase)
            assert prometheus.value(f'pcmig_sent_bytes_total{{phase="{phase}"}}') == sent > 0
            lasted_s = totals["phase_us"][phase] / 1e6
            its = f'pcmig_phase_seconds_total{{phase="{phase}"}}'
            assert prometheus.value(its) == pytest.approx(lasted_s, abs=1e-5)
        silence = 'pcmig_guest_silence_seconds_sum{mode="postcopy"}'
        assert prometheus.value(silence) == pytest.approx(totals["downtime_events_us"] / 1e6)
        waited = ledger["latency"]
        latency = f'pcmig_page_request_latency_seconds_count{{source="{waited["source"]}"}}'
        assert prometheus.value(latency) == waited["requests"] > 0
        assert prometheus.value(latency.replace("_count", "_sum")) == pytest.approx(
            waited["mean_us"] * waited["requests"] / 1e6
        )
        duration = 'pcmig_migration_duration_seconds_sum{outcome="completed", mode="postcopy"}'
        assert prometheus.value(duration) == pytest.approx(totals["total_us"] / 1e6)
        assert prometheus.value("pcmig_interrupted") == prometheus.value("pcmig_unattended") == 0

        empty = [query for query in queries() if not prometheus.since(query)]
        assert {query.partition("{")[0] for query in empty} <= MAY_BE_UNKNOWN
        (group,) = prometheus.get("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} == {"ok"}, group
        firing = [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]
        assert firing == ["PcmigTunnelCertificateExpires"], "the tests' CA is good for less than 30 days"
        assert "level=error" not in prometheus.said() and "level=warn" not in prometheus.said()
    scene.expect_at(scene.bed.other(source), run)
