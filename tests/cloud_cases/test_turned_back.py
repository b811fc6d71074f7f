# SPDX-License-Identifier: Apache-2.0
"""Servers whose destination loses power in post-copy go on at their source, on somebody's word; the
destination comes back and has lost (doc/operate/lost.rst)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.bed.errors import BedError
from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.outage import power_off, power_on, waits
from tests.cloud.server import Server
from tests.cloud.test_driver import Move, other
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


def test_the_destination_dies_and_an_administrator_has_the_server_turn_back(cloud: Cloud, move: Move) -> None:
    """Its QEMU is gone, in post-copy: the server goes on at the source, by memory and by Nova's books."""
    server, target = move.server, cloud.computes[other(move.source)]
    switch(cloud, move)
    action = f"/servers/{server.id}/action"
    [qemu] = target.host.qemu_pids()
    target.host.signal_process(qemu, signal.SIGKILL)
    try:
        wait_until(lambda: server.status == "ERROR", 60, "it has run there, so nobody turns it back unasked")
    except BedError:
        print(move.found())
        raise
    assert str(cloud.computes[move.source].host.domain_state(server.domain)) == "paused (post-copy failed)"
    cloud.network.limit(RATE_MBIT)
    asked_s = time.monotonic()
    cloud.api.post("compute", action, {"os-pcmigTurnBack": {}})
    try:
        wait_until(lambda: move.look() == "failed", 60, "the migration has failed")
        server.wait_heartbeats(5, since_s=asked_s, patience_s=60)
    except BedError:
        print(move.found())
        raise
    print(f"heartbeats {time.monotonic() - asked_s:.1f} s after the request")
    server.wait_status("ACTIVE")
    move.end_s = time.monotonic()
    move.check_at(move.source)
    assert list(cloud.placement_allocations(server)) == [move.source]
    assert cloud.placement_allocations(cloud.migrations(server)[0]["uuid"]) == {}
    assert cloud.port_bindings(server) == {move.source: "ACTIVE"}
    copy = target.instances / server.id
    wait_until(lambda: not copy.exists(), 30, "the destination's copy of the disk is gone")
    with pytest.raises(ApiError) as refused:
        cloud.api.post("compute", action, {"suspend": None})
    assert refused.value.status == 409 and "reboot it hard" in str(refused.value)
    cloud.api.post("compute", action, {"reboot": {"type": "HARD"}})
    since_s = time.monotonic()
    server.wait_status("ACTIVE")
    server.wait_heartbeats(20, since_s=since_s, patience_s=90)
    shown = cloud.api.get("compute", f"/servers/{server.id}/os-pcmig")["pcmig"]
    assert shown["way_back"] == {"may_ask": True, "turned_back": None}
