"""The cloud bed itself, with Nova's own driver: it comes up, a guest moves with its NIC, nothing is left."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

import pytest

from tests.bed.guest import GuestSpec
from tests.bed.network import namespaces_present
from tests.cloud.cloud import Cloud
from tests.cloud.server import Server

pytestmark = pytest.mark.timeout(420)  # the first use makes the databases

IDLE = GuestSpec(worker_mib=32, write_pps=200, verify_pps=2000)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(reporter=print) as cloud:
        yield cloud
        if cloud.state.exists():
            logs = tmp_path_factory.mktemp("logs")
            cloud.save_logs(logs)
            print(f"logs: {logs}")


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    started_s = time.monotonic()
    server = cloud.boot(IDLE)
    print(f"booted in {time.monotonic() - started_s:.0f} s")
    return server


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


def test_nothing_is_left(cloud: Cloud, server: Server) -> None:
    """The last test: it takes the cloud down."""
    processes = {pid for node in (cloud.control, *cloud.hosts) for pid in node.processes()}
    assert len(processes) > 20
    state, namespaces = cloud.state, set(cloud.network.namespaces.values())
    cloud.down()
    assert not state.exists()
    assert not namespaces & set(namespaces_present())
    assert not [pid for pid in processes if pathlib.Path(f"/proc/{pid}").exists()]
