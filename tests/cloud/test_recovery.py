# SPDX-License-Identifier: Apache-2.0
"""What breaks in a live migration heals by itself, and Nova's record follows: streams that break, and a
nova-compute that is gone for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pcmig.nova import words
from tests.bed.guest import GuestSpec
from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.config import Sections
from tests.cloud.conftest import RATE_MBIT, configured
from tests.cloud.server import Server
from tests.cloud.test_driver import POST_COPY, Move, other

pytestmark = pytest.mark.timeout(240)

# Of the link at the switch; the pace of post-copy follows it to the end: a dozen seconds, or long enough for
# nova-compute to come back meanwhile.
QUICK_MBIT = 60
SLOW_MBIT = 20
BUSY = GuestSpec(name="busy", memory_mib=112, worker_mib=32)
AT_ONCE: Sections = {
    "libvirt": {"live_migration_permit_post_copy": True},
    "pcmig": {"policy": "immediate"},
}
INTERRUPTED = "post-copy interrupted at "


@pytest.fixture(scope="module")
def cloud(pcmig_cloud: Cloud) -> Iterator[Cloud]:
    with configured(pcmig_cloud, AT_ONCE) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def busy(cloud: Cloud) -> Server:
    return cloud.boot(BUSY)


@pytest.fixture
def move(request: pytest.FixtureRequest, cloud: Cloud, busy: Server) -> Iterator[Move]:
    """In post-copy, past the moment of the switch."""
    move = Move(cloud, busy)
    cloud.network.limit(getattr(request, "param", QUICK_MBIT))
    try:
        cloud.live_migrate(busy, other(move.source))
        move.wait_for(POST_COPY)
        time.sleep(2.5)
        assert move.look() == POST_COPY
        yield move
    finally:
        cloud.network.link_up()
        cloud.network.limit(RATE_MBIT)


def interrupt(move: Move) -> None:
    move.cloud.computes[move.source].host.virsh("domjobabort", move.server.domain, "--postcopy")


def events(move: Move) -> list[str]:
    """Names of the events of the server's live migrations."""
    path = f"/servers/{move.server.id}/os-instance-actions"
    found: list[str] = []
    for action in move.cloud.api.get("compute", path)["instanceActions"]:
        if action["action"] == "live-migration":
            shown = move.cloud.api.get("compute", f"{path}/{action['request_id']}")["instanceAction"]
            found += [str(event["event"]) for event in shown["events"]]
    return found


def states(move: Move) -> dict[str, str | None]:
    """What libvirt on both hosts says of the guest."""
    domain = move.server.domain
    return {name: compute.host.domain_state(domain) for name, compute in move.cloud.computes.items()}


def test_a_broken_stream_is_resumed_and_nova_says_so(cloud: Cloud, move: Move) -> None:
    interrupt(move)
    wait_until(lambda: move.look().startswith(INTERRUPTED), 20, "the record tells of the interruption")
    assert move.server.show()["status"] == "MIGRATING"
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(other(move.source))
    told = [status for status in move.statuses if status.startswith(INTERRUPTED)]
    # On this link an attempt may be over before anybody looks; without one it would not go on.
    assert told and "post-copy goes on" in move.log(), move.statuses
    assert POST_COPY in move.statuses[move.statuses.index(told[-1]) :]
    names = [name for name in events(move) if name.startswith(INTERRUPTED)]
    assert names and not any("://" in text or "compute" in text for text in [*names, *told])


def test_nothing_is_done_to_a_guest_while_it_is_broken(cloud: Cloud, move: Move) -> None:
    """Not even when somebody makes Nova believe that nothing is under way."""
    source = cloud.computes[move.source]
    cloud.network.link_down()
    interrupt(move)
    wait_until(lambda: move.look().startswith(INTERRUPTED), 20, "the record tells of the interruption")
    path = f"/servers/{move.server.id}/action"
    cloud.api.post("compute", path, {"os-resetState": {"state": "active"}})
    cloud.api.post("compute", path, {"reboot": {"type": "HARD"}})
    wait_until(lambda: move.server.status == "ERROR", 60, "the reboot is refused")
    fault = move.server.show()["fault"]
    # For the server's owner one sentence; for administrators what helps, first.
    assert fault["message"] == words.refusal("interrupted")
    assert "Explained: pcmig resume -c " in fault["details"].splitlines()[0]
    assert "rebooting it at the source" in fault["details"]
    left = states(move)
    assert str(left[move.source]).startswith("paused (post-copy"), left
    assert "post-copy" in str(left[other(move.source)]), left
    assert (source.instances / move.server.id / "disk").exists()
    cloud.network.limit(RATE_MBIT)
    cloud.network.link_up()
    move.end()
    move.check_moved(other(move.source))


@pytest.mark.parametrize("move", [SLOW_MBIT], indirect=True)
def test_nova_compute_killed_in_post_copy_and_back(cloud: Cloud, move: Move) -> None:
    source = cloud.computes[move.source]
    source.nova.kill()
    source.start_nova()
    wait_until(lambda: "is adopted" in move.log(), 60, "the migration is adopted")
    assert move.server.show()["status"] == "MIGRATING"
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(other(move.source))


def test_the_guest_arrived_while_nova_compute_was_away(cloud: Cloud, move: Move) -> None:
    source, target = cloud.computes[move.source], other(move.source)
    source.nova.kill()
    cloud.network.limit(RATE_MBIT)
    wait_until(
        lambda: states(move) == {move.source: None, target: "running (migrated)"}, 60, "the guest has moved"
    )
    source.start_nova()
    move.end()
    move.check_moved(target)
    assert not (source.instances / move.server.id).exists()
