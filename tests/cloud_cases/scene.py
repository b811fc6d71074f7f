# SPDX-License-Identifier: Apache-2.0
"""Servers in the middle of a live migration, and what a person does to them: for all tests of this folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from tests.bed.guest import GuestSpec
from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.compute import Compute
from tests.cloud.config import Sections
from tests.cloud.outage import type_
from tests.cloud.server import Server
from tests.cloud.service import RUN
from tests.cloud.test_driver import POST_COPY, Move, other

RATE_MBIT = 200
SLOW_MBIT = 20  # neither pre-copy nor post-copy ends before the test is done with it
BUSY = GuestSpec(name="busy", memory_mib=112, worker_mib=32)
CONF: Sections = {
    "DEFAULT": {
        "update_resources_interval": 10,  # how often nova-compute looks after what is on record
        "shutdown_timeout": 2,  # the guest has no ear for a power button
    },
    "libvirt": {"live_migration_permit_post_copy": True},
    "pcmig": {"policy": "manual"},
}
# Below Nova's state_path, which is not /var/lib/nova here: what is printed names it, too.
JOURNAL = f"--journal {RUN}/nova/pcmig/migrations"
STATUS = f"pcmig status {JOURNAL}"


@contextlib.contextmanager
def slow_move(cloud: Cloud, server: Server) -> Iterator[Move]:
    """In pre-copy, which does not end."""
    move = Move(cloud, server)
    cloud.network.limit(SLOW_MBIT)
    try:
        cloud.live_migrate(server, other(move.source))
        move.wait_for("running")
        yield move
    finally:
        cloud.network.limit(RATE_MBIT)


def ends(cloud: Cloud, move: Move) -> tuple[Compute, Compute]:
    return cloud.computes[move.source], cloud.computes[other(move.source)]


@contextlib.contextmanager
def dies_before_it_runs(cloud: Cloud, move: Move) -> Iterator[None]:
    """Switches while the destination's libvirt is stopped, which so never lets its QEMU run; at the end of
    the block that QEMU dies, and libvirt goes on."""
    source, target = ends(cloud, move)
    libvirtd, domain = target.host.libvirtd(), move.server.domain  # Nova may not say so later
    server = move.server
    assert libvirtd is not None
    # Nova says "running" before libvirt has begun, which needs the destination's for what it sets up.
    wait_until(lambda: source.host.processed_bytes(domain) > 0, 60, "memory flows")
    libvirtd.signal(signal.SIGSTOP)
    try:
        cloud.force_complete(server)
        yield
        [qemu] = target.host.qemu_pids(domain)
        target.host.signal_process(qemu, signal.SIGKILL)
        wait_until(lambda: not target.host.qemu_pids(domain), 60, "its QEMU is gone")
    finally:
        libvirtd.signal(signal.SIGCONT)


def is_switched(source: Compute, server: Server) -> bool:
    """By libvirt at SOURCE."""
    return "post-copy" in str(source.host.domain_state(server.domain))


def switch(cloud: Cloud, move: Move) -> None:
    """Into post-copy, which does not end either."""
    server = move.server
    cloud.force_complete(server)
    move.wait_for(POST_COPY)
    there = cloud.computes[other(move.source)].host
    wait_until(lambda: "post-copy" in str(there.domain_state(server.domain)), 60, "it runs there")
    time.sleep(2.5)
    assert move.look() == POST_COPY


def ask(cloud: Cloud, server: Server, action: dict[str, Any]) -> None:
    cloud.api.post("compute", f"/servers/{server.id}/action", action)


def idle(server: Server, status: str, patience_s: float = 120) -> dict[str, Any]:
    """The server once it is STATUS without a task; it may have been in ERROR before."""

    def found() -> bool:
        shown = server.show()
        return (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)

    wait_until(found, patience_s, f"{server.name} is {status}")
    return server.show()


def sound(cloud: Cloud, server: Server, host: str, since_s: float) -> None:
    """It runs on HOST, once, and nobody has anything else of it."""
    assert server.nova_host == host
    server.wait_heartbeats(20, since_s=since_s, patience_s=90)
    assert server.host() == host
    left = other(host)
    domain = server.domain
    states = {name: compute.host.domain_state(domain) for name, compute in cloud.computes.items()}
    assert str(states[host]).startswith("running") and states[left] is None, states
    qemus = {name: len(compute.host.qemu_pids(domain)) for name, compute in cloud.computes.items()}
    assert qemus == {host: 1, left: 0}
    assert cloud.port_bindings(server)[host] == "ACTIVE"
    allocations = cloud.placement_allocations(server)
    assert list(allocations) == [host] and allocations[host]["MEMORY_MB"] == BUSY.memory_mib, allocations
    for record in cloud.migrations(server):
        assert record["status"] in ("completed", "error", "failed", "done"), record
        assert cloud.placement_allocations(record["uuid"]) == {}, record
    for compute in cloud.computes.values():
        assert "no migrations" in type_(compute, STATUS)
    print(f"sound at {host}")
