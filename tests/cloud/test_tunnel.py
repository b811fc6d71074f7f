# SPDX-License-Identifier: Apache-2.0
"""nova-compute sends live migrations through pcmig's tunnel."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.bed.guest import GuestSpec
from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.config import Sections
from tests.cloud.conftest import RATE_MBIT, configured
from tests.cloud.server import Server
from tests.cloud.test_driver import POST_COPY, Move, other
from tests.functional.tunnel_scene import MARKERS, Daemon, running_daemons, seen, size_mib, wire

pytestmark = pytest.mark.timeout(240)

IDLE = GuestSpec(name="idle", memory_mib=112, worker_mib=32, write_pps=20, verify_pps=5000)
# As nova.conf files of the prototype have it, which libvirt refuses.
FLAGS = "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, VIR_MIGRATE_TUNNELLED"
OLD_FLAGS: Sections = {
    "libvirt": {
        "live_migration_flag": f"{FLAGS}, VIR_MIGRATE_ENABLE_POSTCOPY",
        "block_migration_flag": f"{FLAGS}, VIR_MIGRATE_NON_SHARED_INC, VIR_MIGRATE_ENABLE_POSTCOPY",
    },
    "pcmig": {"policy": "immediate"},
}
SLOW_MBIT = 20  # at the switch: post-copy takes long enough for what happens meanwhile


@pytest.fixture(scope="module")
def daemons(pcmig_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    with running_daemons(pcmig_cloud, tmp_path_factory.mktemp("pki"), control_group="nova") as found:
        yield found


@pytest.fixture(scope="module")
def cloud(pcmig_cloud: Cloud, daemons: dict[str, Daemon]) -> Iterator[Cloud]:
    with configured(pcmig_cloud, OLD_FLAGS) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def idle(cloud: Cloud) -> Server:
    return cloud.boot(IDLE)


def test_an_old_flag_means_this_tunnel(cloud: Cloud, idle: Server) -> None:
    """Memory and disk, and no page of it is on the wire."""
    move = Move(cloud, idle)
    said = cloud.compute_log(move.source)
    assert "VIR_MIGRATE_TUNNELLED together with post-copy means pcmig's tunnel" in said
    target = other(move.source)
    folder = cloud.computes[move.source].host.state
    with wire(cloud.computes[move.source].host, folder) as path:
        cloud.live_migrate(idle, target)
        move.end()
    move.check_moved(target)
    log = move.log()
    assert "goes through pcmig's tunnel to " in log
    assert ", memory: " in log and ", disks: " in log
    assert POST_COPY in move.statuses
    assert size_mib(path) > 30 and seen(path, MARKERS) == 0
    path.unlink()


def test_nova_compute_and_a_daemon_are_killed(cloud: Cloud, idle: Server, daemons: dict[str, Daemon]) -> None:
    """In post-copy, one after the other: the way is in the journal."""
    move = Move(cloud, idle)
    target = other(move.source)
    cloud.network.limit(SLOW_MBIT)
    try:
        cloud.live_migrate(idle, target)
        move.wait_for(POST_COPY)
        time.sleep(2.5)
        source = cloud.computes[move.source]
        source.nova.kill()
        daemons[move.source].kill()
        daemons[move.source].start()
        source.start_nova()
        wait_until(lambda: "is adopted" in move.log(), 60, "the migration is adopted")
    finally:
        cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(target)


def test_no_daemon_no_migration(cloud: Cloud, idle: Server, daemons: dict[str, Daemon]) -> None:
    """The guest stays, and the log says why."""
    move = Move(cloud, idle)
    daemons[move.source].kill()
    try:
        cloud.live_migrate(idle, other(move.source))
        wait_until(lambda: move.look() == "error", 60, "the pre-check fails")
        wait_until(lambda: idle.status == "ACTIVE", 60, "the server is as it was")
        assert "systemctl start pcmig-tunnel" in move.log()
        assert idle.nova_host == move.source
    finally:
        daemons[move.source].start()
