# SPDX-License-Identifier: Apache-2.0
"""Servers whose destination dies in post-copy go on at their source: by themselves where they never ran
there, on request, on somebody's word; a destination that comes back has lost (doc/operate/lost.rst)."""

from __future__ import annotations

import signal
import time

import pytest

from pcmig_common.turned_back import WORDS
from tests.bed.errors import BedError
from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.outage import power_off, power_on, waits
from tests.cloud.server import Server
from tests.cloud.test_driver import Move
from tests.cloud_cases.scene import (
    RATE_MBIT,
    ask,
    dies_before_it_runs,
    ends,
    idle,
    is_switched,
    sound,
    switch,
)

# Of the server, in the action of its live migration (pcmig/nova/turned_back.py).
EVENT = "turned back: goes on at its host from before the live migration, whose destination was lost"

pytestmark = pytest.mark.timeout(420, func_only=True)


def back_at_source(cloud: Cloud, move: Move, since_s: float) -> None:
    """The server goes on and is heard, and Nova says what became of its migration."""
    server = move.server
    try:
        server.wait_heartbeats(5, since_s=since_s, patience_s=60)
    except BedError:
        print(move.found(), cloud.computes[move.source].switch_report(), sep="\n")
        raise
    print(f"heartbeats {server.heartbeats(since_s)[0].time_s - since_s:.1f} s after it could turn back")
    wait_until(lambda: move.look() == "failed", 60, "the migration has failed")
    print(f"written down {time.monotonic() - since_s:.1f} s after")
    idle(server, "ACTIVE")
    move.end_s = time.monotonic()
    move.check_at(move.source)
    actions = cloud.api.get("compute", f"/servers/{server.id}/os-instance-actions")["instanceActions"]
    request = next(each["request_id"] for each in actions if each["action"] == "live-migration")
    found = cloud.api.get("compute", f"/servers/{server.id}/os-instance-actions/{request}")["instanceAction"]
    assert EVENT in [event["event"] for event in found["events"]]
    shown = cloud.api.get("compute", f"/servers/{server.id}/os-pcmig")["pcmig"]
    assert shown["way_back"]["turned_back"]


def rebooted_is_like_any_other(cloud: Cloud, move: Move, kind: str = "HARD") -> None:
    cloud.network.limit(RATE_MBIT)
    ask(cloud, move.server, {"reboot": {"type": kind}})
    idle(move.server, "ACTIVE")
    is_like_any_other(cloud, move)


def is_like_any_other(cloud: Cloud, move: Move) -> None:
    """Its QEMU has ended, and libvirt holds on to no migration of the new one."""
    server = move.server
    sound(cloud, server, move.source, time.monotonic())  # the one before is heard no more
    job = cloud.computes[move.source].host.virsh("domjobinfo", server.domain)
    assert "None" in job, job
    shown = cloud.api.get("compute", f"/servers/{server.id}/os-pcmig")["pcmig"]
    assert shown["way_back"] == {"may_ask": True, "turned_back": None}


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
    back_at_source(cloud, move, asked_s)

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
    rebooted_is_like_any_other(cloud, move)


def test_the_destination_dies_and_an_administrator_has_the_server_turn_back(
    cloud: Cloud, busy: Server, move: Move
) -> None:
    """Its QEMU is gone, in post-copy, and its host says so: nobody has to vouch for anything."""
    source, target = ends(cloud, move)
    switch(cloud, move)
    with pytest.raises(ApiError) as refused:
        ask(cloud, busy, {"os-pcmigTurnBack": dict.fromkeys(WORDS, True)})
    assert refused.value.status == 409 and "in post-copy" in str(refused.value), (
        "it lives, whatever anybody says"
    )
    [qemu] = target.host.qemu_pids(busy.domain)
    target.host.signal_process(qemu, signal.SIGKILL)
    idle(busy, "ERROR", 60)  # it has run there, so nobody turns it back unasked
    assert waits(source, busy)
    cloud.network.limit(RATE_MBIT)
    asked_s = time.monotonic()
    ask(cloud, busy, {"os-pcmigTurnBack": {}})
    back_at_source(cloud, move, asked_s)
    assert list(cloud.placement_allocations(busy)) == [move.source]
    assert cloud.placement_allocations(cloud.migrations(busy)[0]["uuid"]) == {}
    assert cloud.port_bindings(busy) == {move.source: "ACTIVE"}
    copy = target.instances / busy.id
    wait_until(lambda: not copy.exists(), 60, "the destination's copy of the disk is gone")
    with pytest.raises(ApiError) as refused:
        ask(cloud, busy, {"suspend": None})
    assert refused.value.status == 409 and "reboot it hard" in str(refused.value)
    # What powers it off works.
    cloud.network.limit(RATE_MBIT)
    ask(cloud, busy, {"os-stop": None})
    idle(busy, "SHUTOFF")
    assert not source.host.qemu_pids(busy.domain)
    ask(cloud, busy, {"os-start": None})
    idle(busy, "ACTIVE")
    is_like_any_other(cloud, move)


def test_by_itself_where_it_never_ran(cloud: Cloud, busy: Server, move: Move) -> None:
    """The destination's libvirt, stopped, never lets its QEMU run: it says so when it goes on."""
    source, _ = ends(cloud, move)
    with dies_before_it_runs(cloud, move):
        wait_until(lambda: is_switched(source, busy), 60, "it has switched")
        time.sleep(0.5)
    back_at_source(cloud, move, time.monotonic())
    # libvirt lets nobody shut it down, so a hard reboot it becomes.
    rebooted_is_like_any_other(cloud, move, "SOFT")
