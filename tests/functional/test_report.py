# SPDX-License-Identifier: Apache-2.0
"""What is kept of real migrations, and the page of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pcmig.ledgers.store import Store
from tests.functional.scene import Scene
from tests.unit.ledgers.test_document import validate


def test_what_is_kept_of_a_migration_is_what_it_told(forky: Scene, tmp_path: Path) -> None:
    forky.prepare()
    source, destination = forky.source, forky.bed.other(forky.source)
    folder = forky.journal / "ledgers"
    before = len(Store(folder).paths())
    # At once: on a busy machine the guest writes too little for what decides by that.
    run = forky.migrate("--policy", "immediate", "--fault-latency", "monitor")
    run.expect(0, "done: ", "counted by QEMU")
    assert run.report is not None
    (kept,), errors = Store(folder).newest(1)
    assert errors == [] and len(Store(folder).paths()) == before + 1
    assert run.report["kept"] == str(kept.path)
    found = kept.document
    validate(found)
    assert found["ledger"] == run.report["ledger"]
    assert found["decisions"] == run.report["decisions"]
    assert found["guest"] == {"name": forky.name, "uuid": run.report["uuid"]}
    assert (found["outcome"], found["mode"]) == ("completed", "postcopy")
    for side, host in (("source", source), ("destination", destination)):
        facts = found["hosts"][side]
        assert facts["libvirt"] and facts["qemu"], facts
        assert facts["uri"] == (host.uri if side == "source" else host.remote_uri)
    columns = found["samples"]
    assert "postcopy" in columns["phase"]
    assert columns["t_ms"] == sorted(columns["t_ms"]) and columns["t_ms"][-1] <= found["elapsed_ms"]
    assert 0 < max(columns["processed_bytes"]) <= found["ledger"]["totals"]["wire_bytes"]

    # QEMU 11 at the destination has counted how long requested pages took, and says the same when asked.
    waited = found["ledger"]["latency"]
    assert waited["source"] == "qemu" and waited["requests"] > 0 and waited["mean_us"] > 0, waited
    said = destination.virsh("qemu-monitor-command", forky.name, '{"execute":"query-migrate"}')
    counted = json.loads(said)["return"]
    assert waited["buckets"] == counted["postcopy-latency-dist"]
    assert waited["mean_us"] == counted["postcopy-latency"] // 1000
    assert waited["vcpu_us"] == max(counted["postcopy-vcpu-latency"]) // 1000
    assert waited["requests"] == sum(waited["buckets"])

    # Both hosts are this machine; how many come back, and when, is its kernel's business.
    pages = found["huge_pages"]
    assert run.report["huge_pages"] == pages and pages["what"] == "read", pages
    most = found["ledger"]["totals"]["guest_pages"] * found["ledger"]["totals"]["page_size_bytes"] * 2
    assert 0 <= pages["before_bytes"] <= most and 0 <= pages["readings"][0]["bytes"] <= most, pages
    assert [each["bytes"] for each in pages["readings"][1:]] == [None, None], "nobody asked for these"

    page = tmp_path / "page.html"
    forky.run("report", forky.name, "--html", str(page), "--pdf", str(tmp_path / "page.pdf")).expect(0)
    shown = dict(re.findall(r'<data value="([^"]*)" data-of="([^"]*)"', page.read_text()))
    assert str(found["ledger"]["totals"]["wire_bytes"]) in shown
    assert shown[str(waited["mean_us"])] == "ledger.latency.mean_us"
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
    (same,) = json.loads(forky.run("report", forky.name, "--json").expect(0).out)
    assert same == found
