# SPDX-License-Identifier: Apache-2.0
"""Servers whose ports have a Linux bridge of their own before Open vSwitch (neutron's hybrid plugging): they
are announced there, too, though neither nova-compute's user nor Nova's privileged daemon may open a packet
socket."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.server import Server
from tests.cloud.test_driver import ARRIVED, Move
from tests.cloud_cases.scene import CONF, RATE_MBIT, ends
from tests.cloud_cases.test_bindings import BOUND, settled_at

pytestmark = pytest.mark.timeout(1200, func_only=True)

# With a problem there would be more, in brackets.
WELL = re.compile(r"tap\S+: announced \d+ times from \d+ ms on, heard after \d+ ms$")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(
        rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=CONF, hybrid=True, reporter=print
    ) as cloud:
        yield cloud


def test_a_server_in_a_linux_bridge_is_announced(cloud: Cloud, busy: Server, move: Move) -> None:
    _, target = ends(cloud, move)
    begun = len(cloud.compute_log(target.host.name))
    wait_until(lambda: "all ports forward" in move.log(), 60, "the port is wired there")
    beside = target.ports_of(f"qbr{busy.port.id}"[:14])
    assert {each[:3] for each in beside} == {"tap", "qvb"}, beside
    cloud.force_complete(busy)
    wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the port is bound there")

    def announced() -> re.Match[str] | None:
        return ARRIVED.search(cloud.compute_log(target.host.name)[begun:])

    wait_until(announced, 120, "the destination tells how it announced the guest")
    said = announced()
    assert said is not None and WELL.search(said[0]), said
    print(said[0])
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(target.host.name)
    settled_at(cloud, busy, target.host.name)
