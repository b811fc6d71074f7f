# SPDX-License-Identifier: Apache-2.0
"""Servers whose destination loses power in post-copy go on at their source, on somebody's word; the
destination comes back and has lost (doc/operate/lost.rst)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.outage import power_off, power_on, waits
from tests.cloud.server import Server
from tests.cloud.test_driver import Move
from tests.cloud_cases.test_lost import (
    BUSY,
    CONF,
    RATE_MBIT,
    ask,
    ends,
    idle,
    slow_move,
    sound,
    switch,
)

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=CONF, reporter=print) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def busy(cloud: Cloud) -> Server:
    return cloud.boot(BUSY)


@pytest.fixture
def move(cloud: Cloud, busy: Server) -> Iterator[Move]:
    with slow_move(cloud, busy) as move:
        yield move


def test_a_destination_that_lost_power_is_fenced_and_comes_back(
    cloud: Cloud, busy: Server, move: Move
) -> None:
    source, target = ends(cloud, move)
    switch(cloud, move)
    power_off(target)
    wait_until(lambda: waits(source, busy), 60, "the source's half waits")
    with pytest.raises(ApiError) as refused:
        ask(cloud, busy, {"os-pcmigTurnBack": {}})
    assert refused.value.status == 409, "silence is not enough"
    assert waits(source, busy) and busy.show()["status"] == "MIGRATING"

    cloud.cli("openstack", "compute", "service", "set", "--down", target.name, "nova-compute")
    asked_s = time.monotonic()
    cloud.cli("openstack", "pcmig", "turn-back", busy.id)
    busy.wait_heartbeats(5, since_s=asked_s, patience_s=60)
    print(f"heartbeats {time.monotonic() - asked_s:.1f} s after the request")
    idle(busy, "ACTIVE")
    assert move.look() == "failed" and busy.nova_host == move.source

    # It comes back, with a definition and a copy of the disk.
    cloud.network.limit(RATE_MBIT)
    power_on(cloud, target, wait=False)
    copy = target.instances / busy.id
    wait_until(
        lambda: not copy.exists() and target.host.domain_state(busy.domain) is None,
        120,
        "what the destination had of it is gone",
    )
    cloud.cli("openstack", "compute", "service", "set", "--up", target.name, "nova-compute")
    cloud._wait_compute(target)
    since_s = time.monotonic()
    ask(cloud, busy, {"reboot": {"type": "HARD"}})
    idle(busy, "ACTIVE")
    sound(cloud, busy, move.source, since_s)
