# SPDX-License-Identifier: Apache-2.0
"""nova-compute's figures: counted once, in a file and on a port."""

from __future__ import annotations

import logging
import pathlib
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pcmig.metrics import live, meter
from pcmig.metrics.meter import Where
from pcmig.metrics.store import Store
from pcmig.nova import conf as pcmig_conf
from pcmig.nova import metering
from pcmig.nova.metering import Metering
from pcmig.nova.settings import ConfigError
from tests.unit.cli import fake_core as fake
from tests.unit.metrics.figures import UUID, decisions, ledger, names, read, status, value
from tests.unit.nova.nova_conf import make
from tests.unit.patience import PATIENCE_S, wait_for

MIGRATION = "b0a0a0a0-0000-4000-8000-000000000000"


class Compute:
    """What the driver knows: migrations that the engine drives, and others."""

    def __init__(self) -> None:
        self.rows: list[live.Row] = []
        self.situations: dict[str, str] = {}

    def begin(self) -> None:
        self.rows = [
            live.row(
                name="instance-00000001",
                uuid=UUID,
                dest_uri=fake.DEST,
                policy="auto",
                status=status(),
                page_bytes=4096,
            )
        ]


@pytest.fixture
def compute() -> Compute:
    return Compute()


Start = Callable[..., Metering]


@pytest.fixture
def start(tmp_path: pathlib.Path, compute: Compute) -> Iterator[Start]:
    """start(textfiles=..., port=...)"""
    running: list[Metering] = []

    def begin(**where: Any) -> Metering:
        found = Metering(
            Where(**where),
            tmp_path / "metrics",
            str(tmp_path / "migrations"),
            lambda: compute.rows,
            lambda: compute.situations,
        )
        running.append(found)
        found.start()
        return found

    yield begin
    for each in running:
        each.stop()
        assert each._thread is not None
        each._thread.join(PATIENCE_S)


def end(metering: Metering, outcome: str | None = "completed") -> None:
    metering.ended(
        MIGRATION,
        policy="auto",
        outcome=outcome,
        ledger=ledger,
        decisions=decisions,
    )


def test_a_file_for_node_exporter(tmp_path: pathlib.Path, compute: Compute, start: Start) -> None:
    file = tmp_path / "pcmig-nova-compute.prom"
    compute.begin()
    one = start(textfiles=str(tmp_path))
    wait_for(file.exists, "it is written")
    found = read(file.read_text())
    assert value(found, "pcmig_migration_data_total_bytes", domain="instance-00000001") == 256 << 20
    compute.rows = []
    end(one)
    one.activated(MIGRATION, 0.12)
    one.stop()
    assert one._thread is not None
    one._thread.join(PATIENCE_S)
    found = read(file.read_text())
    assert "pcmig_migration_data_total_bytes" not in names(found)
    assert value(found, "pcmig_migrations_total", outcome="completed", mode="postcopy") == 1
    silence_us = ledger()["totals"]["downtime_events_us"]
    assert value(found, "pcmig_guest_silence_seconds_sum", mode="postcopy") == silence_us / 1e6
    assert value(found, "pcmig_gate_wait_seconds_count") == 1
    assert value(found, "pcmig_port_activation_seconds_sum") == 0.12


def test_what_is_left_to_others_has_not_ended_and_what_ended_counts_once(
    tmp_path: pathlib.Path, start: Start
) -> None:
    one = start()
    end(one, "detached")
    end(one, None)
    end(one)
    one.stop()
    end(other := start())  # adopted after a restart, as its end was not written down
    other.stop()
    for each in (one, other):
        assert each._thread is not None
        each._thread.join(PATIENCE_S)
        assert not each._ended
    counts = one._meter.store.counts()
    assert counts.counters["pcmig_migrations_total", ("completed", "postcopy")] == 1


def test_a_defect_ends_no_migration(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    start().ended(
        MIGRATION,
        policy="auto",
        outcome="failed",
        ledger=lambda: {},
        decisions=decisions,
    )
    assert "is not counted" in caplog.text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_on_a_port(compute: Compute, start: Start) -> None:
    compute.begin()
    compute.situations = {UUID: "half-lost"}
    port = free_port()
    start(port=port)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        found = text_string_to_metric_families(answer.read().decode())  # type: ignore[no-untyped-call]
        families = {each.name: each for each in found}
    assert families["pcmig_migrations"].type == "counter"
    (sample,) = families["pcmig_migration_data_total_bytes"].samples
    assert sample.labels == {
        "program": "nova-compute",
        "domain": "instance-00000001",
        "instance_uuid": UUID,
    }


def test_a_port_that_is_taken(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.WARNING):
        port = server.getsockname()[1]
        end(one := start(port=port))
    assert f"[pcmig] metrics_port: metrics are not on 127.0.0.1:{port}: Address already in use" in caplog.text
    wait_for(lambda: one._meter.store.counts().ended == [f"{MIGRATION} completed"], "it is counted")


def test_a_migration_waits_for_no_file_system_that_hangs(
    tmp_path: pathlib.Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go = threading.Event(), threading.Event()
    real = meter.files.replace  # type: ignore[attr-defined]

    def replace(*arguments: Any) -> None:
        hangs.set()
        go.wait(PATIENCE_S)
        real(*arguments)

    monkeypatch.setattr(meter.files, "replace", replace)  # type: ignore[attr-defined]
    one = start(textfiles=str(tmp_path))
    assert hangs.wait(PATIENCE_S)
    try:
        end(one)
        one.activated(MIGRATION, 0.1)
        assert not go.is_set() and one._meter.store.counts().ended == []
    finally:
        go.set()
    counted = [f"{MIGRATION} completed", f"{MIGRATION} ports"]
    wait_for(lambda: one._meter.store.counts().ended == counted, "it is counted later")


def test_a_migration_waits_for_no_process_that_is_stopped(tmp_path: pathlib.Path, start: Start) -> None:
    one = start()
    other = Store(tmp_path / "metrics").locked()
    other.__enter__()
    ends = threading.Thread(target=end, args=(one,), daemon=True)
    try:
        ends.start()
        ends.join(PATIENCE_S)
        assert not ends.is_alive()
    finally:
        other.__exit__(None, None, None)
    wait_for(lambda: one._meter.store.counts().ended == [f"{MIGRATION} completed"], "it is counted later")


def test_what_may_block_is_done_off_the_hub(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And what goes wrong there is logged by the thread of the figures."""
    off: set[str] = set()
    logged_off_it: list[bool] = []
    there = threading.local()

    def off_hub(call: Callable[..., Any], *arguments: Any) -> Any:
        off.add(call.__name__)
        there.now = True
        try:
            return call(*arguments)
        finally:
            there.now = False

    def broken(*_: object) -> None:
        raise KeyError("phase")

    monkeypatch.setattr(metering.releases, "off_hub", off_hub)  # type: ignore[attr-defined]
    monkeypatch.setattr(metering, "_warn", lambda _: logged_off_it.append(getattr(there, "now", False)))
    monkeypatch.setattr(Store, "add", broken)
    end(start())
    wait_for(lambda: logged_off_it, "it is told")
    assert off == {"ended", "publish"} and logged_off_it == [False]


def test_without_the_library(
    tmp_path: pathlib.Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    one = start(port=free_port(), textfiles=str(tmp_path))
    wait_for(lambda: "python3-prometheus-client" in caplog.text, "it is said")
    end(one)
    wait_for(lambda: one._meter.store.counts().ended == [f"{MIGRATION} completed"], "it is counted")


def options(folder: pathlib.Path, text: str) -> Where:
    return pcmig_conf.load(make(folder, f"[pcmig]\n{text}")).metrics


def test_options(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter.os.path, "isdir", lambda path: path == meter.TEXTFILE_FOLDER)  # type: ignore[attr-defined]
    monkeypatch.setattr(meter.os, "access", lambda *_: True)  # type: ignore[attr-defined]
    assert options(tmp_path, "") == Where(textfiles=meter.TEXTFILE_FOLDER)
    assert options(tmp_path, "metrics_dir = none") == Where()
    monkeypatch.undo()
    if not pathlib.Path(meter.TEXTFILE_FOLDER).exists():
        assert options(tmp_path, "") == Where()
    there = f"metrics_dir = {tmp_path}\nmetrics_port = 9464\nmetrics_address = ::"
    assert options(tmp_path, there) == Where(str(tmp_path), 9464, "::")
    for text, why in (
        ("metrics_dir = /nowhere/at/all", "there is no such folder"),
        ("metrics_dir = here", "not an absolute path"),
        ("metrics_address = everywhere", "not an IP address"),
        ("metrics_port = 70000", "Should be less than or equal to 65535"),
    ):
        with pytest.raises(ConfigError, match=why):
            options(tmp_path, text)
