# SPDX-License-Identifier: Apache-2.0
"""Hosts that lose power in a live migration, and the way out (doc/operate/lost.rst), typed as it is printed.

The disks are files that Nova copies, so where a guest is lost the operator's word is wanted each time.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Iterator

import pytest

from pcmig.nova import words
from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.compute import Compute
from tests.cloud.outage import commands, force_up_after_evacuation, power_off, power_on, type_, waits
from tests.cloud.server import Server
from tests.cloud.service import RUN
from tests.cloud.test_driver import Move
from tests.cloud_cases.scene import (
    BUSY,
    JOURNAL,
    RATE_MBIT,
    STATUS,
    ask,
    ends,
    idle,
    slow_move,
    sound,
    switch,
)

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(420, func_only=True)

# libvirt does not take a folder of one machine for one that two hosts share.
SHARED = (
    "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PERSIST_DEST, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, "
    "VIR_MIGRATE_POSTCOPY, VIR_MIGRATE_UNSAFE"
)


def helps(server: Server) -> str:
    """The command with which the details of the server's fault begin; administrators see them."""
    first = server.show()["fault"]["details"].splitlines()[0]
    match = re.search(r"Explained: (.*?)  # ", first)
    assert match, first
    return match[1]


def evacuate(cloud: Cloud, server: Server, target: Compute) -> float:
    """Its service is down. Returns when it was started at TARGET."""
    cloud.cli("openstack", "server", "evacuate", "--host", target.name, server.id)
    idle(server, "SHUTOFF")  # as Nova leaves it since API 2.95
    assert server.nova_host == target.host.name
    since_s = time.monotonic()
    cloud.cli("openstack", "server", "start", server.id)
    idle(server, "ACTIVE")
    server.wait_heartbeats(20, since_s=since_s, patience_s=90)
    return since_s


def power_on_after_evacuation(cloud: Cloud, source: Compute) -> None:
    """What it still has of the server goes."""
    [server] = cloud.servers
    source.host.start_libvirtd()
    assert source.host.domain_state(server.domain) is not None and not source.host.qemu_pids()
    cloud.restart_compute(source.host.name, wait=False)
    gone = "The guest was evacuated, its migration is over"
    wait_until(lambda: gone in source.nova.said(), 90, "the rest of the guest is gone")
    force_up_after_evacuation(cloud, source, server)
    cloud._wait_compute(source)
    assert not (source.instances / server.id).exists()


def forget(host: Compute, command: str) -> str:
    """COMMAND, a `pcmig forget`, wants a word; what is printed for that is typed."""
    refused = type_(host, command, 3)
    [word] = [line for line in commands(refused) if " --accept-loss " in line]
    said = type_(host, word)
    assert "forgotten: " in said
    return said


def test_the_source_loses_power_in_post_copy(cloud: Cloud, busy: Server, move: Move) -> None:
    source, target = ends(cloud, move)
    switch(cloud, move)
    power_off(source)
    wait_until(lambda: waits(target, busy), 60, "the destination's half waits")
    # Nobody is there who could write anything down. What is open is not rebooted.
    assert busy.show()["status"] == "MIGRATING"
    with pytest.raises(ApiError) as refused:
        ask(cloud, busy, {"reboot": {"type": "HARD"}})
    assert refused.value.status == 409
    status = type_(target, STATUS, 3)
    assert "\tcut off\t" in status and "nova-compute there goes on when it does" in status
    [advised] = commands(status)
    assert "if the silent host is lost:" in status and advised.startswith("pcmig forget ")

    # The source is back.
    cloud.network.limit(RATE_MBIT)
    power_on(cloud, source)
    idle(busy, "ERROR")
    assert move.look() == "error"
    assert "cannot be completed without an operator" in busy.show()["fault"]["message"]
    forget_at_source = helps(busy)
    assert forget_at_source.startswith("pcmig forget ")
    ask(cloud, busy, {"reboot": {"type": "HARD"}})
    lost = words.refusal("half-lost")
    wait_until(lambda: busy.show()["fault"]["message"] == lost, 60, "the reboot is refused")
    idle(busy, "ERROR")
    assert helps(busy).startswith("pcmig forget ")
    assert waits(target, busy), "nothing was touched"

    # The operator: at the destination, where the newer copy of the disk is, then at the source.
    status = type_(target, STATUS, 3)
    assert "half lost" in status and "cannot be saved" in status
    [advised] = commands(status)
    [destroy, listed, undefine] = commands(forget(target, advised))
    assert waits(target, busy), "nothing was touched"
    assert destroy.startswith("virsh ") and " destroy " in destroy
    type_(target, destroy)
    wait_until(lambda: not target.host.qemu_pids(), 60, "the half is gone")
    assert " undefine " in undefine
    type_(target, undefine)
    assert target.host.domain_state(busy.domain) is None
    assert listed == f"ls -d {RUN}/instances/{busy.id}"
    type_(target, listed)
    there, here = target.instances / busy.id, source.instances / busy.id
    (here / "disk").write_bytes((there / "disk").read_bytes())
    type_(target, listed.replace("ls -d", "rm -r"))
    said = forget(source, forget_at_source)
    wait_until(lambda: "is forgotten: Nova's records" in move.log(), 60, "nova-compute has followed")
    match = re.search(rf"openstack server reboot --hard {busy.id}", said)
    assert match, said
    since_s = time.monotonic()
    cloud.cli(*shlex.split(match[0]))
    idle(busy, "ACTIVE")
    sound(cloud, busy, move.source, since_s)


def test_the_source_dies_in_pre_copy_and_the_server_is_evacuated(
    cloud: Cloud, busy: Server, move: Move
) -> None:
    source, target = ends(cloud, move)
    time.sleep(2.5)
    assert move.look() == "running"
    power_off(source)
    cloud.cli("openstack", "compute", "service", "set", "--down", source.name, "nova-compute")
    wait_until(
        lambda: target.host.domain_state(busy.domain) is None, 60, "the destination's empty half is gone"
    )
    # Its record, and with it the port's second binding; then the incomplete copy of the disk.
    status = type_(target, STATUS, 3)
    assert "\tsilent\t" in status
    [advised] = commands(status)
    [listed] = commands(forget(target, advised))
    type_(target, listed.replace("ls -d", "rm -r"))
    assert cloud.port_bindings(busy) == {move.source: "ACTIVE", target.host.name: "INACTIVE"}
    since_s = evacuate(cloud, busy, target)
    assert "evacuating from image" in cloud.compute_log(target.host.name)
    power_on_after_evacuation(cloud, source)
    sound(cloud, busy, target.host.name, since_s)


def test_the_source_dies_in_post_copy_and_the_server_is_evacuated(
    cloud: Cloud, busy: Server, move: Move
) -> None:
    """To the destination of the migration, where the newest of its disks are."""
    source, target = ends(cloud, move)
    switch(cloud, move)
    power_off(source)
    wait_until(lambda: waits(target, busy), 60, "the destination's half waits")
    cloud.cli("openstack", "compute", "service", "set", "--down", source.name, "nova-compute")
    status = type_(target, STATUS, 3)
    assert "\tcut off\t" in status
    [advised] = commands(status)
    [destroy, listed, undefine] = commands(forget(target, advised))
    for line in (destroy, undefine, listed):
        type_(target, line)
    since_s = evacuate(cloud, busy, target)
    assert "evacuating using existing disk" in cloud.compute_log(target.host.name)
    power_on_after_evacuation(cloud, source)
    sound(cloud, busy, target.host.name, since_s)


def test_the_destination_loses_power_in_post_copy(cloud: Cloud, busy: Server, move: Move) -> None:
    source, target = ends(cloud, move)
    switch(cloud, move)
    power_off(target)
    wait_until(lambda: waits(source, busy), 60, "the source's half waits")
    assert busy.show()["status"] == "MIGRATING"
    refused = type_(source, f"pcmig forget {JOURNAL} --accept-loss {busy.id}", 1)
    assert re.search(r"process \d+ .* looks after the migration", refused)

    cloud.network.limit(RATE_MBIT)
    power_on(cloud, target)
    idle(busy, "ERROR")
    assert "cannot be completed without an operator" in busy.show()["fault"]["message"]
    assert waits(source, busy), "nothing was touched"
    assert helps(busy).startswith("pcmig turn-back "), "the other way out: test_turned_back.py"
    [destroy] = commands(forget(source, f"pcmig forget {JOURNAL} {busy.id}"))
    type_(source, destroy)
    status = type_(target, STATUS, 3)
    [advised] = commands(status)
    for line in commands(forget(target, advised)):
        type_(target, line.replace("ls -d", "rm -r"))
    wait_until(lambda: "is forgotten: Nova's records" in move.log(), 60, "nova-compute has followed")
    since_s = time.monotonic()
    cloud.cli("openstack", "server", "reboot", "--hard", busy.id)
    idle(busy, "ACTIVE")
    sound(cloud, busy, move.source, since_s)


def test_a_guest_that_powers_itself_off_in_pre_copy(cloud: Cloud, busy: Server, move: Move) -> None:
    """QEMU ends as libvirt sees it end when the guest powers itself off."""
    source, target = ends(cloud, move)
    time.sleep(2.5)
    assert move.look() == "running"
    [qemu] = source.host.qemu_pids()
    source.host.signal_process(qemu, signal.SIGTERM)
    wait_until(lambda: busy.show()["OS-EXT-STS:task_state"] is None, 60, "the migration is over")
    assert move.look() in ("error", "failed")
    copy = target.instances / busy.id
    wait_until(lambda: not copy.exists(), 60, "the destination's copy of the disk is gone")
    since_s = time.monotonic()
    ask(cloud, busy, {"reboot": {"type": "HARD"}})
    idle(busy, "ACTIVE")
    sound(cloud, busy, move.source, since_s)


@pytest.fixture(scope="module")
def shared(cloud: Cloud) -> Iterator[Server]:
    """A server whose disks both hosts see, so that none is copied; the only one."""
    for server in list(cloud.servers):
        cloud.delete(server)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for compute in cloud.computes.values():
            type_(compute, f"chmod 755 {folder} && chown nova: {folder}")
        before = cloud.nova_conf
        assert isinstance(before, dict)
        default = {**before["DEFAULT"], "instances_path": folder}
        libvirt = {**before["libvirt"], "live_migration_flag": SHARED}
        cloud.use(cloud.driver, {**before, "DEFAULT": default, "libvirt": libvirt})
        server = cloud.boot(dataclasses.replace(BUSY, name="shared"))
        try:
            yield server
        finally:
            cloud.delete(server)
            cloud.use(cloud.driver, before)


def test_half_a_guest_with_shared_disks(cloud: Cloud, shared: Server) -> None:
    """When both hosts have said twice that it is gone, Nova may start it again without another word."""
    with slow_move(cloud, shared) as move:
        source, target = ends(cloud, move)
        switch(cloud, move)
        power_off(source)
        wait_until(lambda: waits(target, shared), 60, "the destination's half waits")
        cloud.network.limit(RATE_MBIT)
        power_on(cloud, source)
        idle(shared, "ERROR")
        log_start = len(cloud.compute_log(move.source))
        type_(target, f"virsh destroy {shared.domain}")
        # Nova clears nothing up at a destination that shares the server's folder.
        type_(target, f"virsh undefine --keep-nvram --keep-tpm {shared.domain}")
        advised = f"openstack server reboot --hard {shared.id}"
        wait_until(lambda: advised in cloud.compute_log(move.source)[log_start:], 150, "it is said")
        since_s = time.monotonic()
        cloud.cli(*shlex.split(advised))
        idle(shared, "ACTIVE")
        sound(cloud, shared, move.source, since_s)


def test_a_guest_that_powers_itself_off_in_post_copy(cloud: Cloud, shared: Server) -> None:
    """Nothing is lost; what stands is the half from before the switch, and what libvirt defined there."""
    with slow_move(cloud, shared) as move:
        source, target = ends(cloud, move)
        switch(cloud, move)
        log_start = len(cloud.compute_log(move.source))
        # QEMU looks once a second whether somebody has the terminal open, and reads nothing before.
        type_(target, f"{{ sleep 2; echo poweroff; sleep 2; }} > $(virsh ttyconsole {shared.domain})")
        wait_until(lambda: not target.host.qemu_pids(), 60, "the guest is off")
        off_s = time.monotonic()
        cloud.network.limit(RATE_MBIT)
        idle(shared, "ERROR")
        advised = f"openstack server reboot --hard {shared.id}"
        wait_until(lambda: advised in cloud.compute_log(move.source)[log_start:], 150, "it is said")
        # In no moment it ran again by itself, and what Nova's books say is what is there.
        assert not shared.heartbeats(off_s + 1) and not target.host.qemu_pids()
        # The half from before the switch stands, until somebody says that it is of no use.
        assert "paused" in type_(source, f"virsh domstate {shared.domain}")
        assert shared.nova_host == move.source and cloud.port_bindings(shared) == {move.source: "ACTIVE"}
        assert list(cloud.placement_allocations(shared)) == [move.source]
        # Nova clears nothing up at a destination that shares the server's folder.
        type_(target, f"virsh undefine --keep-nvram --keep-tpm {shared.domain}")
        since_s = time.monotonic()
        cloud.cli(*shlex.split(advised))
        idle(shared, "ACTIVE")
        sound(cloud, shared, move.source, since_s)
