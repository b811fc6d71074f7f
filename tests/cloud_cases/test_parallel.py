# SPDX-License-Identifier: Apache-2.0
"""Several streams of QEMU's own with post-copy, through pcmig's tunnel: live_migration_parallel_connections,
which Nova has since 33."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.compute import Compute
from tests.cloud.outage import type_
from tests.cloud.test_driver import POST_COPY, Move
from tests.cloud_cases.scene import CONF, RATE_MBIT, ends, is_switched
from tests.functional.tunnel_scene import Daemon, running_daemons

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(420, func_only=True)

OF_MEMORY = 3
# And the main one, and that of pages which the destination asks for in post-copy.
STREAMS = OF_MEMORY + 2


@pytest.fixture(scope="module")
def daemons(waiting_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    with running_daemons(waiting_cloud, tmp_path_factory.mktemp("pki"), control_group="nova") as found:
        yield found


@pytest.fixture(scope="module")
def cloud(waiting_cloud: Cloud, daemons: dict[str, Daemon]) -> Iterator[Cloud]:
    conf = {section: dict(options) for section, options in CONF.items()}
    conf["libvirt"]["live_migration_parallel_connections"] = OF_MEMORY
    conf["pcmig"]["tunnel"] = "pcmig"
    waiting_cloud.configure(conf)
    yield waiting_cloud
    waiting_cloud.configure(CONF)


def of_memory(host: Compute) -> int:
    """Streams of the one migration's memory that its tunnel has carried so far. Disks are under a name of
    their own, with one stream."""
    found = json.loads(type_(host, "pcmig tunnel show --json"))["streams"].values()
    return max((int(each["streams_ever"]) for each in found), default=0)


def switch(cloud: Cloud, move: Move) -> None:
    """Into post-copy, which Nova's record says before QEMU does anything of it."""
    source, _ = ends(cloud, move)
    cloud.force_complete(move.server)
    wait_until(lambda: is_switched(source, move.server), 60, "it has switched")
    assert move.look() == POST_COPY


def end(cloud: Cloud, move: Move) -> None:
    """At the link's full rate, and whole at the destination."""
    _, target = ends(cloud, move)
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(target.host.name)
    assert "VIR_MIGRATE_PARALLEL is left out" not in move.log()


def test_all_of_them_go_through_it(cloud: Cloud, move: Move) -> None:
    source, _ = ends(cloud, move)
    wait_until(lambda: of_memory(source) >= 1 + OF_MEMORY, 60, "memory goes over all of them")
    switch(cloud, move)
    wait_until(lambda: of_memory(source) >= STREAMS, 60, "that of requests is there, too")
    assert of_memory(source) == STREAMS
    end(cloud, move)


def test_a_daemon_is_killed_meanwhile(cloud: Cloud, move: Move, daemons: dict[str, Daemon]) -> None:
    """In post-copy, which is resumed over the main stream and that of requests."""
    _, target = ends(cloud, move)
    switch(cloud, move)
    wait_until(lambda: "post-copy" in str(target.host.domain_state(move.server.domain)), 60, "it runs there")
    daemons[target.host.name].kill()
    wait_until(lambda: "post-copy interrupted" in move.log(), 60, "nova-compute sees it")
    daemons[target.host.name].start()
    end(cloud, move)
    assert "post-copy goes on" in move.log()
