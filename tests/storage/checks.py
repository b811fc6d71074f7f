# SPDX-License-Identifier: Apache-2.0
"""Where a server, its disks and their attachments are, by all who know; and what its guest finds on them."""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Iterable, Mapping

from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.server import Server
from tests.cloud.storage.ceph import Ceph
from tests.cloud.storage.guest import disk_beats, found, wait_writes
from tests.cloud.storage.volumes import Volume, locking, watching
from tests.cloud.test_driver import Move


def check_disk(server: Server, disk: str, host: str, since_s: float, counts_s: float = 0.0) -> None:
    """The guest goes on writing to a disk on this host, and all that it read back was right. COUNTS_S: it
    turned back then, and told some numbers once more."""
    last = wait_writes(server, disk, since_s=since_s)
    assert last.host == host
    assert (last.bad, last.errors) == (0, 0), last
    assert last.verified > 0
    numbers = [beat.number for beat in disk_beats(server, disk, counts_s)]  # of all its boots
    assert numbers == sorted(numbers)


def check_held(ceph: Ceph, image: str, host: str) -> None:
    """This host's QEMU, and no other, has the image."""
    assert watching(ceph, image) == [host]
    assert set(locking(ceph, image)) <= {host}


def qemus(cloud: Cloud, server: Server) -> list[str]:
    """Hosts with a QEMU of the server, one for each, whatever libvirt there knows of it."""
    mark = f"guest={server.domain},".encode()
    return [
        name
        for name, compute in cloud.computes.items()
        for pid in compute.host.qemu_pids()
        if mark in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def domains(cloud: Cloud, server: Server) -> list[str]:
    """Hosts whose libvirt has a domain of the server, be it off."""
    return [
        name
        for name, compute in cloud.computes.items()
        if server.domain in compute.host.virsh("list", "--all", "--name").split()
    ]


def check_one(cloud: Cloud, server: Server, host: str) -> None:
    """There is one guest, on this host, and it runs."""
    assert domains(cloud, server) == [host]
    assert qemus(cloud, server) == [host]
    assert str(cloud.computes[host].host.domain_state(server.domain)).startswith("running")


def check_alone(cloud: Cloud, ceph: Ceph, server: Server, volumes: Iterable[Volume], host: str) -> None:
    """One guest, and of each of its volumes one attachment, one watcher and no foreign lock: on this host."""
    check_one(cloud, server, host)
    for volume in volumes:
        assert volume.attached() == {server.id: [host]}
        check_held(ceph, volume.image, host)


def acknowledged(server: Server, disks: Iterable[str]) -> dict[str, int]:
    """By disk, the number of the last write that the guest was told is there."""
    return {disk: disk_beats(server, disk)[-1].number for disk in disks}


def check_booted_again(server: Server, told: Mapping[str, int], since_s: float) -> None:
    """The boot that is heard since then found on each disk all that the one before was told is there."""
    server.wait_heartbeats(5, since_s=since_s, patience_s=90)
    for disk, number in told.items():
        wait_until(
            lambda disk=disk: found(server, disk, since_s) is not None, 30, f"{server.name} reads {disk}"
        )
        what = found(server, disk, since_s)
        assert what is not None
        assert what.bad == 0, what
        assert what.number >= number > 0, (what, number)

    # Memory is checked over and over; a second or two of that.
    server.wait_heartbeats(50, since_s=since_s)
    beats = [beat for beat in server.heartbeats(since_s) if beat.verified]
    assert beats and beats[-1].bad == 0, beats[-1:]


def tell_agents(cloud: Cloud, server: Server) -> None:
    """How the server's port is bound. Neutron 29 does not tell its agents that the binding to a live
    migration's source is gone. Where a tap goes and comes within a second, as in a hard reboot, the agent
    takes the port for one that leaves, and never wires it. When a port changes they hear all of it."""
    change = {"port": {"description": f"as of {time.monotonic()}"}}
    cloud.api.request("PUT", "network", f"/v2.0/ports/{server.port.id}", change)


def reboot_hard(cloud: Cloud, server: Server, disks: Iterable[str], counts_s: float = 0.0) -> None:
    """Nova allows it, and the guest boots at its host from disks that miss nothing."""
    host, told = str(server.nova_host), acknowledged(server, disks)
    tell_agents(cloud, server)
    cloud.api.post("compute", f"/servers/{server.id}/action", {"reboot": {"type": "HARD"}})
    # A lost one is in ERROR until then.
    wait_until(lambda: server.show()["OS-EXT-STS:task_state"] is None, 90, "the reboot has ended")
    server.wait_status("ACTIVE")
    check_booted_again(server, told, time.monotonic())
    for disk in told:
        check_disk(server, disk, host, time.monotonic(), counts_s)
    check_one(cloud, server, host)


def longest_pause_s(server: Server, disk: str, move: Move) -> float:
    """Between two words of a disk worker, while a migration ran and a moment after."""
    times = [beat.time_s for beat in disk_beats(server, disk, move.start_s)]
    return max(b - a for a, b in itertools.pairwise(times))
