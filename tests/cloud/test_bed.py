# SPDX-License-Identifier: Apache-2.0
"""The cloud bed itself, with Nova's own driver: its services are up, a guest moves with its NIC."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.bed.guest import GuestSpec
from tests.cloud.cloud import PCMIG_DRIVER, STOCK_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.conftest import configured
from tests.cloud.server import Server

pytestmark = pytest.mark.timeout(420)  # the first use makes the databases

IDLE = GuestSpec(worker_mib=32, write_pps=200, verify_pps=2000)
NOTHING: Sections = {}


@pytest.fixture(scope="module")
def cloud(pcmig_cloud: Cloud) -> Iterator[Cloud]:
    """With Nova's own driver, and a nova-api without the filter."""
    pcmig_cloud.use(STOCK_DRIVER, NOTHING)
    pcmig_cloud.restart_api(api_filter=False)
    try:
        with configured(pcmig_cloud, NOTHING) as cloud:
            yield cloud
    finally:
        pcmig_cloud.restart_api()
        pcmig_cloud.use(PCMIG_DRIVER, NOTHING)


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    return cloud.boot(IDLE)


def test_services_are_up(cloud: Cloud) -> None:
    services = cloud.api.get("compute", "/os-services")["services"]
    states = {(service["binary"], service["host"]): service["state"] for service in services}
    assert states == {
        ("nova-conductor", "control"): "up",
        ("nova-scheduler", "control"): "up",
        ("nova-compute", "pcmig-a"): "up",
        ("nova-compute", "pcmig-b"): "up",
    }


def test_guest_is_on_the_network(cloud: Cloud, server: Server) -> None:
    server.wait_heartbeats(20)
    assert server.heartbeats()[-1].host == server.nova_host == "a"
    assert cloud.port_bindings(server) == {"a": "ACTIVE"}
    deadline_s = time.monotonic() + 10  # the guest may be deaf for a moment while it fills its memory
    while not cloud.reaches(server) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    assert cloud.reaches(server)


def test_idle_guest_moves_with_the_stock_driver(cloud: Cloud, server: Server) -> None:
    start_s = time.monotonic()
    cloud.cli("nova", "live-migration", server.id)
    migration = cloud.wait_migration(server)
    end_s = time.monotonic()
    record = server.wait_status("ACTIVE")
    assert migration["status"] == "completed"
    assert record["OS-EXT-SRV-ATTR:host"] == migration["dest_compute"] == "pcmig-b"
    assert cloud.port_bindings(server) == {"b": "ACTIVE"}
    assert cloud.placement_allocations(server) == {"b": {"VCPU": 1, "MEMORY_MB": IDLE.memory_mib}}
    assert cloud.placement_allocations(migration["uuid"]) == {}
    row = cloud.nova_db(f"select host, node, vm_state, task_state from instances where uuid = '{server.id}'")
    assert row == [{"host": "pcmig-b", "node": "pcmig-b", "vm_state": "active", "task_state": None}]
    assert server.wait_verified(end_s)
    verdict = server.verdict(start_s, end_s, time.monotonic() - end_s)
    assert verdict.page_errors == 0
    assert verdict.full_passes_after >= 1
    assert verdict.host == "b" and verdict.alive
    assert cloud.reaches(server)
