# SPDX-License-Identifier: Apache-2.0
"""Servers whose disks are in Ceph move by post-copy: memory and disks whole, and nothing left behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.conftest import configured
from tests.cloud.server import Server
from tests.cloud.storage import volumes
from tests.cloud.storage.ceph import Ceph
from tests.cloud.storage.guest import DiskWork, StorageSpec, wait_writes
from tests.cloud.storage.volumes import disk_image, root_volume, watching
from tests.cloud.test_driver import POST_COPY, Move, other
from tests.storage.checks import check_alone, check_disk, check_held, check_one, longest_pause_s, reboot_hard
from tests.storage.conftest import NOVA_CONF

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(420, func_only=True)

# It dirties all of its work within a second, over and over.
BUSY = StorageSpec(memory_mib=128, worker_mib=32, write_pps=6000, verify_pps=2000)
QUIET = StorageSpec(memory_mib=112, worker_mib=4, write_pps=20, verify_pps=100)
BOTH = (DiskWork("vda"), DiskWork("vdb"))


@pytest.fixture(scope="module")
def cloud(storage_cloud: Cloud) -> Iterator[Cloud]:
    with configured(storage_cloud, NOVA_CONF) as cloud:
        yield cloud


def moved_by_post_copy(cloud: Cloud, server: Server) -> Move:
    move = Move(cloud, server)
    target = other(server.nova_host)
    cloud.live_migrate(server, target, block_migration=False)
    move.end()
    move.check_moved(target)
    assert POST_COPY in move.statuses, move.statuses
    verdict = server.verdict(move.start_s, move.end_s)
    silences = f"{verdict.switch_silence_ms} ms, later {verdict.later_silence_ms} ms"
    print(f"{server.name}: silence at the switch {silences}")
    return move


def test_volume_backed_server_with_a_second_volume(cloud: Cloud, ceph: Ceph) -> None:
    second = volumes.create(cloud.api)
    spec = dataclasses.replace(BUSY, name="volumes", disks=BOTH)
    server = cloud.boot(spec, root_volume=True, volumes=[second.id])
    root = root_volume(server)
    for disk in ("vda", "vdb"):
        wait_writes(server, disk)
    for volume in (root, second):
        check_held(ceph, volume.image, "a")
    for target in ("b", "a"):
        move = moved_by_post_copy(cloud, server)
        for disk in ("vda", "vdb"):
            check_disk(server, disk, target, move.end_s)
        check_alone(cloud, ceph, server, [root, second], target)
    reboot_hard(cloud, server, ("vda", "vdb"))
    cloud.delete(server)
    second.wait_status("available")
    images = ceph.images("volumes")
    assert f"volume-{second.id}" in images and f"volume-{root.id}" not in images
    second.delete()


def test_server_with_its_own_disk_in_ceph(cloud: Cloud, ceph: Ceph) -> None:
    """The source clears its files away, and never the disk, which is the same at the destination."""
    server = cloud.boot(dataclasses.replace(BUSY, name="own"), disk_gib=1)
    image = disk_image(server)
    wait_writes(server, "vda")
    check_held(ceph, image, "a")
    move = moved_by_post_copy(cloud, server)
    check_disk(server, "vda", "b", move.end_s)
    check_one(cloud, server, "b")
    check_held(ceph, image, "b")
    assert not (cloud.computes["a"].instances / server.id).exists()
    cloud.delete(server)
    assert not [name for name in ceph.images("vms") if name.startswith(server.id)]


def test_neighbour_with_the_same_volume_goes_on(cloud: Cloud, ceph: Ceph) -> None:
    """A multi-attach volume: when one server leaves, the other at the source keeps it."""
    shared = volumes.create(cloud.api, volume_type=volumes.multi_attach_type(cloud.api))
    leaver, stayer = (
        cloud.boot(
            dataclasses.replace(spec, name=name, disks=(DiskWork("vdb", start_mib),)),
            disk_gib=1,
            volumes=[shared.id],
        )
        for name, spec, start_mib in (("leaver", BUSY, 1), ("stayer", QUIET, 16))
    )
    for server in (leaver, stayer):
        wait_writes(server, "vdb")
    assert shared.attached() == {leaver.id: ["a"], stayer.id: ["a"]}
    move = moved_by_post_copy(cloud, leaver)
    check_disk(leaver, "vdb", "b", move.end_s)
    check_disk(stayer, "vdb", "a", move.end_s)
    assert longest_pause_s(stayer, "vdb", move) < 5
    assert shared.attached() == {leaver.id: ["b"], stayer.id: ["a"]}
    assert watching(ceph, shared.image) == ["a", "b"]
    cloud.delete(leaver)
    check_disk(stayer, "vdb", "a", time.monotonic())
    cloud.delete(stayer)
    shared.wait_status("available")
    shared.delete()
