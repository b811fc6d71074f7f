# SPDX-License-Identifier: Apache-2.0
"""What breaks while a server with volumes moves: afterwards every attachment is where its guest is, and every
disk holds what its guest was told is on it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import pytest

from pcmig.nova import words
from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.conftest import configured
from tests.cloud.outage import (
    force_down,
    force_up_after_evacuation,
    power_off,
    power_on,
    type_,
    waits,
)
from tests.cloud.server import Server
from tests.cloud.storage import volumes
from tests.cloud.storage.ceph import Ceph
from tests.cloud.storage.cinder import KIND
from tests.cloud.storage.guest import DiskWork, StorageSpec, wait_writes
from tests.cloud.storage.volumes import Volume, disk_image, root_volume
from tests.cloud.test_driver import POST_COPY, Move, other
from tests.cloud_cases.scene import STATUS, idle
from tests.storage.checks import (
    acknowledged,
    check_alone,
    check_booted_again,
    check_disk,
    check_held,
    check_one,
    domains,
    longest_pause_s,
    qemus,
    reboot_hard,
)
from tests.storage.conftest import NOVA_CONF, RATE_MBIT
from tests.storage.test_migration import QUIET

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(600, func_only=True)

SLOW_MBIT = 10  # of the link while a guest is to stay in post-copy
MOVED_BUT = "The guest has moved, but that cannot be written down yet"
# No busier than it must be.
BUSY = StorageSpec(
    memory_mib=128, worker_mib=32, write_pps=1000, verify_pps=2000, disks=(DiskWork("vda"), DiskWork("vdb"))
)


@pytest.fixture(scope="module")
def cloud(storage_cloud: Cloud) -> Iterator[Cloud]:
    with configured(storage_cloud, NOVA_CONF) as cloud:
        yield cloud


@dataclasses.dataclass
class Backed:
    """A server that boots from a volume, with a second one."""

    server: Server
    volumes: dict[str, Volume]


@pytest.fixture(scope="module")
def backed(cloud: Cloud) -> Backed:
    second = volumes.create(cloud.api)
    server = cloud.boot(dataclasses.replace(BUSY, name="backed"), root_volume=True, volumes=[second.id])
    wait_writes(server, "vdb")
    return Backed(server, {"vda": root_volume(server), "vdb": second})


@contextlib.contextmanager
def in_post_copy(cloud: Cloud, server: Server) -> Iterator[Move]:
    """A migration past its switch, which stays there as long as the link is slow."""
    move = Move(cloud, server)
    cloud.network.limit(SLOW_MBIT)
    try:
        cloud.live_migrate(server, other(move.source))
        move.wait_for(POST_COPY, 120)
        there = cloud.computes[other(move.source)].host
        # Before that the destination's libvirt takes it for a guest that has yet to come.
        wait_until(lambda: "post-copy" in str(there.domain_state(server.domain)), 60, "it runs there")
        wait_writes(server, "vda", 3, since_s=time.monotonic())
        assert move.look() == POST_COPY
        yield move
    finally:
        cloud.network.limit(RATE_MBIT)


def restart_in_post_copy(cloud: Cloud, server: Server) -> Move:
    """The source's nova-compute is killed there, and starts again; the migration comes to its end."""
    with in_post_copy(cloud, server) as move:
        source = cloud.computes[move.source]
        source.nova.kill()
        source.start_nova()
        wait_until(lambda: "is adopted" in move.log(), 60, "the migration is adopted")
    move.end()
    move.check_moved(other(move.source))
    return move


def test_restart_of_nova_compute_leaves_no_attachment(cloud: Cloud, ceph: Ceph, backed: Backed) -> None:
    move = restart_in_post_copy(cloud, backed.server)
    target = other(move.source)
    for disk in backed.volumes:
        check_disk(backed.server, disk, target, move.end_s)
    check_alone(cloud, ceph, backed.server, backed.volumes.values(), target)
    reboot_hard(cloud, backed.server, backed.volumes)
    check_alone(cloud, ceph, backed.server, backed.volumes.values(), target)


def test_without_cinders_credentials_it_is_told(cloud: Cloud, ceph: Ceph, backed: Backed) -> None:
    """A restarted nova-compute has no token: without credentials of its own it cannot tell Cinder that the
    source has let go. The guest is none the worse, and what is left can be deleted by hand."""
    server = backed.server
    source = str(server.nova_host)
    target = other(source)
    service = cloud.restart_compute(source, nova_conf={**NOVA_CONF, "cinder": {"auth_type": ""}})
    try:
        assert "[cinder] has no auth_type" in service.said()
        move = restart_in_post_copy(cloud, server)
    finally:
        cloud.restart_compute(source, nova_conf=NOVA_CONF)
    for disk, volume in backed.volumes.items():
        check_disk(server, disk, target, move.end_s)
        check_held(ceph, volume.image, target)
        assert volume.attached() == {server.id: sorted([source, target])}
        for attachment in volume.show()["attachments"]:
            if attachment["host_name"] == cloud.computes[source].name:
                cloud.api.request("DELETE", KIND, f"/attachments/{attachment['attachment_id']}")
    check_alone(cloud, ceph, server, backed.volumes.values(), target)
    reboot_hard(cloud, server, backed.volumes)
    check_alone(cloud, ceph, server, backed.volumes.values(), target)


def test_a_failure_in_the_post_step_touches_no_neighbour(cloud: Cloud, ceph: Ceph) -> None:
    """Neutron is away when the guest has moved, so that Nova's post step fails and is called again: what was
    done with the multi-attach volume is not done a second time, and the server that stays keeps it."""
    shared = volumes.create(cloud.api, volume_type=volumes.multi_attach_type(cloud.api))
    home = "a"
    leaver, stayer = (
        cloud.boot(
            dataclasses.replace(spec, name=name, disks=(DiskWork("vda"), DiskWork("vdb", start_mib))),
            host=home,
            disk_gib=1,
            volumes=[shared.id],
        )
        for name, spec, start_mib in (("goes", BUSY, 1), ("stays", QUIET, 16))
    )
    for server in (leaver, stayer):
        wait_writes(server, "vdb")
    with in_post_copy(cloud, leaver) as move, cloud.api_away("network"):
        cloud.network.limit(RATE_MBIT)
        wait_until(lambda: MOVED_BUT in move.log(), 90, "the post step has failed")
        check_disk(stayer, "vdb", home, time.monotonic())
    move.end()
    move.check_moved("b")
    check_disk(leaver, "vdb", "b", move.end_s)
    check_disk(stayer, "vdb", home, move.end_s)
    assert shared.attached() == {leaver.id: ["b"], stayer.id: [home]}
    assert volumes.watching(ceph, shared.image) == [home, "b"]
    check_one(cloud, leaver, "b")
    check_one(cloud, stayer, home)
    reboot_hard(cloud, leaver, ("vda", "vdb"))
    check_disk(stayer, "vdb", home, time.monotonic())
    assert longest_pause_s(stayer, "vdb", move) < 5
    assert shared.attached() == {leaver.id: ["b"], stayer.id: [home]}
    cloud.delete(leaver)
    check_disk(stayer, "vdb", home, time.monotonic())
    cloud.delete(stayer)
    shared.wait_status("available")
    shared.delete()


def test_source_killed_in_post_copy(cloud: Cloud, ceph: Ceph, backed: Backed) -> None:
    """The guest is lost with the memory that only the source had. Nothing is ended or booted by itself; once
    somebody has ended the half that is left, a hard reboot brings it back from volumes that miss nothing."""
    server = backed.server
    with in_post_copy(cloud, server) as move:
        source, target = cloud.computes[move.source], cloud.computes[other(move.source)]
        power_off(source)
        try:
            wait_until(lambda: waits(target, server), 60, "the destination's half waits")
        finally:
            power_on(cloud, source)
    wait_until(lambda: server.status == "ERROR", 120, "Nova knows that the guest is lost")
    cloud.api.post("compute", f"/servers/{server.id}/action", {"reboot": {"type": "HARD"}})
    lost = words.refusal("half-lost")
    wait_until(lambda: server.show()["fault"]["message"] == lost, 60, "the reboot is refused")
    server.wait_status("ERROR")
    for volume in backed.volumes.values():
        assert volume.attached() == {server.id: sorted([move.source, other(move.source)])}
    assert qemus(cloud, server) == [other(move.source)]

    type_(target, f"virsh destroy {server.domain}")
    assert qemus(cloud, server) == []
    advised = f"openstack server reboot --hard {server.id}"
    wait_until(lambda: advised in move.log(), 150, "it is said what to type")
    reboot_hard(cloud, server, backed.volumes)
    check_alone(cloud, ceph, server, backed.volumes.values(), move.source)
    assert server.nova_host == move.source
    assert list(cloud.placement_allocations(server)) == [move.source]


def test_source_dies_in_post_copy_and_it_is_evacuated_to_the_destination(
    cloud: Cloud, ceph: Ceph, backed: Backed
) -> None:
    """Its volumes are there already. As long as half of it waits there it is refused, and nobody loses an
    attachment by that; once somebody has ended that half, it boots there from volumes that miss nothing."""
    server = backed.server
    with in_post_copy(cloud, server) as move:
        source, target = cloud.computes[move.source], cloud.computes[other(move.source)]
        power_off(source)
        wait_until(lambda: waits(target, server), 60, "the destination's half waits")
    evacuate = {"evacuate": {"host": target.name}}
    try:
        force_down(cloud, source, True)
        told = acknowledged(server, backed.volumes)
        cloud.api.post("compute", f"/servers/{server.id}/action", evacuate)
        idle(server, "ERROR")
        assert waits(target, server), "nothing was touched"
        for volume in backed.volumes.values():
            assert volume.attached() == {server.id: sorted([move.source, target.host.name])}

        # libvirt has defined it there at the switch, and Nova evacuates to no host that knows the server.
        type_(target, f"virsh destroy {server.domain}")
        type_(target, f"virsh undefine --keep-nvram --keep-tpm {server.domain}")
        cloud.api.post("compute", f"/servers/{server.id}/action", evacuate)
        evacuated_s = time.monotonic()  # nothing else was heard of it since its source died
        wait_until(lambda: server.nova_host == target.host.name, 120, "it is evacuated")
        idle(server, "ACTIVE")  # Nova turns off only what was ACTIVE
        check_booted_again(server, told, evacuated_s)
    finally:
        power_on(cloud, source, wait=False)
        wait_until(lambda: domains(cloud, server) == [target.host.name], 90, "its source has cleared away")
        force_up_after_evacuation(cloud, source, server)
    reboot_hard(cloud, server, backed.volumes)
    check_alone(cloud, ceph, server, backed.volumes.values(), target.host.name)
    assert list(cloud.placement_allocations(server)) == [target.host.name]
    for record in cloud.migrations(server):
        assert cloud.placement_allocations(record["uuid"]) == {}, record
    for compute in cloud.computes.values():
        assert "no migrations" in type_(compute, STATUS)


def test_evacuated_with_its_disks(cloud: Cloud, ceph: Ceph) -> None:
    """The host comes back later, clears away what it had of the server, and no disk is part of that."""
    second = volumes.create(cloud.api)
    server = cloud.boot(dataclasses.replace(BUSY, name="evacuated"), disk_gib=1, volumes=[second.id])
    disks = {"vda": disk_image(server), "vdb": second.image}
    for disk in disks:
        wait_writes(server, disk, 50)
    power_off(cloud.computes["a"])
    told = acknowledged(server, disks)
    try:
        force_down(cloud, cloud.computes["a"], True)
        cloud.api.post("compute", f"/servers/{server.id}/action", {"evacuate": {"host": "pcmig-b"}})
        server.wait_status("SHUTOFF")
        assert server.nova_host == "b"
        started_s = time.monotonic()
        cloud.api.post("compute", f"/servers/{server.id}/action", {"os-start": None})
        server.wait_status("ACTIVE")
        check_booted_again(server, told, started_s)
    finally:
        power_on(cloud, cloud.computes["a"], wait=False)
        wait_until(lambda: domains(cloud, server) == ["b"], 90, "its first host has cleared away")
        force_up_after_evacuation(cloud, cloud.computes["a"], server)
    reboot_hard(cloud, server, disks)
    check_alone(cloud, ceph, server, [second], "b")
    check_held(ceph, disks["vda"], "b")
    cloud.delete(server)
    second.wait_status("available")
    second.delete()
