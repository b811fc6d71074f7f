# SPDX-License-Identifier: Apache-2.0
"""A server that boots from a volume, and whose destination dies in post-copy, goes on at its source: by
itself where it never ran there, and otherwise on the word of somebody who knows that its volumes are the
newer ones. Its attachments are the source's then, and nobody else has its images open."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator

import pytest

from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.conftest import configured
from tests.cloud.outage import waits
from tests.cloud.storage import volumes
from tests.cloud.storage.ceph import Ceph
from tests.cloud.storage.guest import disk_beats, wait_writes
from tests.cloud.storage.volumes import root_volume, watching
from tests.cloud.test_driver import Move
from tests.cloud_cases.scene import ask, dies_before_it_runs, ends, idle, is_switched, slow_move, switch
from tests.storage.checks import acknowledged, check_alone, domains, reboot_hard
from tests.storage.conftest import NOVA_CONF
from tests.storage.test_migration import BOTH, BUSY
from tests.storage.test_recovery import Backed

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(600, func_only=True)


@pytest.fixture(scope="module")
def cloud(storage_cloud: Cloud) -> Iterator[Cloud]:
    with configured(storage_cloud, {**NOVA_CONF, "pcmig": {"policy": "manual"}}) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def backed(cloud: Cloud) -> Iterator[Backed]:
    second = volumes.create(cloud.api)
    spec = dataclasses.replace(BUSY, name="turned", disks=BOTH)
    server = cloud.boot(spec, root_volume=True, volumes=[second.id])
    for disk in ("vda", "vdb"):
        wait_writes(server, disk)
    yield Backed(server, {"vda": root_volume(server), "vdb": second})
    cloud.delete(server)
    second.wait_status("available")
    second.delete()


def back_with_its_volumes(
    cloud: Cloud, ceph: Ceph, backed: Backed, move: Move, told: dict[str, int], since_s: float
) -> None:
    """It goes on at the source, and writes each disk on beyond what TOLD says, the highest numbers on them;
    nobody at the destination has anything of it."""
    server = backed.server
    server.wait_heartbeats(5, since_s=since_s, patience_s=60)
    wait_until(lambda: move.look() == "failed", 60, "the migration has failed")
    idle(server, "ACTIVE")
    for disk, number in told.items():
        wait_until(
            lambda disk=disk, number=number: any(
                beat.number > number for beat in disk_beats(server, disk, since_s)
            ),
            120,
            f"it has written {disk} beyond {number}",
        )
        last = disk_beats(server, disk, since_s)[-1]
        assert (last.host, last.bad, last.errors) == (move.source, 0, 0), last
    for volume in backed.volumes.values():
        # Of a QEMU that was killed Ceph knows for half a minute.
        wait_until(
            lambda volume=volume: watching(ceph, volume.image) == [move.source],
            90,
            "it alone has its volumes",
        )
    # The destination is told, and clears up in its own time.
    wait_until(lambda: domains(cloud, server) == [move.source], 90, "the destination has nothing of it")
    check_alone(cloud, ceph, server, backed.volumes.values(), move.source)
    assert list(cloud.placement_allocations(server)) == [move.source]
    # As any other after a power cycle, from disks that miss nothing.
    reboot_hard(cloud, server, backed.volumes, since_s)
    check_alone(cloud, ceph, server, backed.volumes.values(), move.source)


def test_by_itself_where_it_never_ran(cloud: Cloud, ceph: Ceph, backed: Backed) -> None:
    """Nobody wrote to its volumes since the switch, which is proven: no word is asked for."""
    server = backed.server
    with slow_move(cloud, server) as move:
        source, _ = ends(cloud, move)
        with dies_before_it_runs(cloud, move):
            wait_until(lambda: is_switched(source, server), 60, "it has switched")
            told = acknowledged(server, backed.volumes)
    back_with_its_volumes(cloud, ceph, backed, move, told, time.monotonic())


def test_volumes_that_may_be_newer_take_a_word(cloud: Cloud, ceph: Ceph, backed: Backed) -> None:
    server = backed.server
    with slow_move(cloud, server) as move:
        source, target = ends(cloud, move)
        switch(cloud, move)
        for disk in backed.volumes:
            wait_writes(server, disk, 3)
        told = acknowledged(server, backed.volumes)
        assert {disk_beats(server, disk)[-1].host for disk in told} == {target.host.name}
        [qemu] = target.host.qemu_pids()
        target.host.signal_process(qemu, signal.SIGKILL)
        idle(server, "ERROR")
        assert waits(source, server)
    for volume in backed.volumes.values():
        assert volume.attached() == {server.id: ["a", "b"]}
    with pytest.raises(ApiError) as refused:
        ask(cloud, server, {"os-pcmigTurnBack": {}})
    assert refused.value.status == 409 and "--accept-newer-disks" in str(refused.value), refused.value
    assert waits(source, server), "nothing was done"
    since_s = time.monotonic()
    cloud.cli("openstack", "pcmig", "turn-back", "--accept-newer-disks", server.id)
    back_with_its_volumes(cloud, ceph, backed, move, told, since_s)
