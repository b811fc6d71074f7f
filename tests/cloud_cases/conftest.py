# SPDX-License-Identifier: Apache-2.0
"""A cloud whose migrations wait for the test, and a busy server on it. Bringing it up takes as long as many a
test: all that can have this one do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.outage import power_on
from tests.cloud.server import Server
from tests.cloud.test_driver import Move
from tests.cloud_cases.scene import BUSY, CONF, RATE_MBIT, slow_move


@pytest.fixture(scope="session")
def waiting_cloud() -> Iterator[Cloud]:
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=CONF, reporter=print) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def cloud(waiting_cloud: Cloud) -> Cloud:
    """Modules that need another one have a fixture of this name."""
    return waiting_cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """It stays until the end, so those that share it come last: two clouds at once are too much."""
    items.sort(key=lambda item: "waiting_cloud" in getattr(item, "fixturenames", ()))


@pytest.fixture
def busy(cloud: Cloud) -> Server:
    """As the test before left it. After one that failed, hosts that are there, and a new one."""
    computes = cloud.computes.values()
    away = [each for each in computes if each.host.libvirtd() is None or not each.nova.running()]
    for compute in away:
        power_on(cloud, compute, wait=False)
    if away or not cloud.computes_up():
        for compute in computes:  # that may be forced down
            cloud.cli("openstack", "compute", "service", "set", "--up", compute.name, "nova-compute")
            cloud._wait_compute(compute)
    for server in list(cloud.servers):
        if server.status == "ACTIVE":
            return server
        cloud.delete(server)
    return cloud.boot(BUSY)


@pytest.fixture
def move(cloud: Cloud, busy: Server) -> Iterator[Move]:
    with slow_move(cloud, busy) as move:
        yield move
