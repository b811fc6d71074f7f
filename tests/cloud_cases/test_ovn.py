# SPDX-License-Identifier: Apache-2.0
"""Neutron with its OVN driver: a port is at both hosts while its server migrates, shut at the destination
until ovn-controller there sees the guest announced (activation by RARP, neutron's default)."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.server import Server
from tests.cloud.test_driver import ARRIVED, Move
from tests.cloud_cases.scene import CONF, RATE_MBIT, ends
from tests.cloud_cases.test_bindings import BOUND, settled_at, the_switch_waits_for_the_agent

pytestmark = pytest.mark.timeout(1200, func_only=True)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=CONF, ovn=True, reporter=print) as cloud:
        yield cloud


def test_a_server_moves_by_post_copy(cloud: Cloud, busy: Server, move: Move) -> None:
    assert cloud.ovn is not None
    _, target = ends(cloud, move)
    begun = len(cloud.compute_log(target.host.name))
    port = busy.port.id
    wait_until(lambda: "all ports forward" in move.log(), 60, "the port is wired there")
    asked = cloud.ovn.asked(port)
    assert "activation-strategy=rarp" in asked and target.name in asked, asked
    assert "additional-chassis-activated" not in cloud.ovn.found(port), "shut until it is announced"

    switched_s = time.monotonic()
    cloud.force_complete(busy)
    wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the port is bound there")
    assert move.look() == "running (post-copy)"

    def heard() -> bool:
        return any(beat.host == target.host.name for beat in busy.heartbeats(switched_s))

    wait_until(heard, 60, "the guest is heard at its new host")

    def announced() -> re.Match[str] | None:
        return ARRIVED.search(cloud.compute_log(target.host.name)[begun:])

    wait_until(announced, 90, "the destination tells how it announced the guest")
    alone = f"requested-chassis={target.name}"
    wait_until(lambda: alone in cloud.ovn.asked(port).replace('"', ""), 60, "the port is there alone")
    beats = [beat.time_s for beat in busy.heartbeats(switched_s - 1)]
    silence_ms = max(b - a for a, b in itertools.pairwise(beats)) * 1000
    print(*(said[0] for said in (BOUND.search(move.log()), announced()) if said), sep="\n")
    print(f"longest silence around the switch: {silence_ms:.0f} ms")
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(target.host.name)
    settled_at(cloud, busy, target.host.name)


def test_an_ovn_controller_that_does_not_claim_the_port_holds_the_switch(cloud: Cloud, busy: Server) -> None:
    the_switch_waits_for_the_agent(cloud, busy)
