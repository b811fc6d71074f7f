# SPDX-License-Identifier: Apache-2.0
"""What was reported of clouds with other settings than the bed's (doc/refer/reports.rst), tried on one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.server import Server
from tests.cloud.test_driver import POST_COPY, Move, moved, other
from tests.cloud_cases.scene import BUSY, RATE_MBIT

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(420, func_only=True)

PERMITTED: Sections = {"libvirt": {"live_migration_permit_post_copy": True}}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=PERMITTED, reporter=print) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def busy(cloud: Cloud) -> Server:
    return cloud.boot(BUSY)


def test_a_paused_server_arrives_paused(cloud: Cloud, busy: Server) -> None:
    """Asked for with post-copy, which it does not need: it is moved all the same, and runs when it is to."""
    action = f"/servers/{busy.id}/action"
    cloud.api.post("compute", action, {"pause": None})
    busy.wait_status("PAUSED")
    target = other(busy.nova_host)
    move = Move(cloud, busy)
    cloud.cli("openstack", "server", "migrate", "--live-migration", "--post-copy", busy.id)
    wait_until(lambda: move.look() == "completed", 90, "the paused server has moved")
    assert POST_COPY not in move.statuses
    busy.wait_status("PAUSED")
    assert busy.nova_host == target
    assert "paused" in (cloud.computes[target].host.domain_state(busy.domain) or "")
    assert cloud.computes[move.source].host.domain_state(busy.domain) is None
    cloud.api.post("compute", action, {"unpause": None})
    move.end()
    move.check_moved(target)


def test_libvirt_over_the_loopback(cloud: Cloud, busy: Server) -> None:
    """connection_uri names this host by its loopback: its kernel and its sockets are looked at as ever."""
    over_tcp = {"libvirt": {**PERMITTED["libvirt"], "connection_uri": "qemu+tcp://127.0.0.1/system"}}
    cloud.use(cloud.driver, over_tcp)
    try:
        move = moved(cloud, busy)
        assert POST_COPY in move.statuses
        assert "The route's option quickack: set" in move.log()
    finally:
        cloud.use(cloud.driver, PERMITTED)


def test_a_downtime_beyond_all_reason(cloud: Cloud, busy: Server) -> None:
    """As guides for vGPUs set it: with it pre-copy is content with any stop, and auto switches before."""
    absurd = {
        "libvirt": {
            **PERMITTED["libvirt"],
            "live_migration_completion_timeout": 0,
            "live_migration_downtime": 500000,
            "live_migration_downtime_steps": 3,
            "live_migration_downtime_delay": 3,
        }
    }
    cloud.use(cloud.driver, absurd)
    try:
        move = moved(cloud, busy)
        verdict = busy.verdict(move.start_s, move.end_s, 2.0)
        print(f"statuses {move.statuses}, silence at the switch {verdict.switch_silence_ms} ms")
    finally:
        cloud.use(cloud.driver, PERMITTED)
