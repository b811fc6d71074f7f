# SPDX-License-Identifier: Apache-2.0
"""Services that are away for a minute around a switch, as an operator meets it: connections are refused, a
proxy answers 503, or nothing comes back. The guest runs all the time, and the books end right by themselves.

Each call after a switch is failed by itself on Nova's fixtures (tests/nova_own/functional_faults.py).
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.controlplane import Away
from tests.cloud.server import Server
from tests.cloud.test_driver import Move
from tests.cloud_cases.scene import RATE_MBIT, dies_before_it_runs, ends, sound
from tests.cloud_cases.test_bindings import BOUND, settled_at
from tests.cloud_cases.test_turned_back import back_at_source, rebooted_is_like_any_other

# Each wait has a limit of its own, and says what did not come: this is more than all of them come to.
pytestmark = pytest.mark.timeout(1200, func_only=True)

AWAY_S = 60.0
WAITS = re.compile(r"(?:cannot be written down yet|cannot be bound to|Live migration needs).*")
NETWORK, PLACEMENT, IDENTITY = "network", "placement", "identity"


@pytest.mark.parametrize(
    ("how", "names", "at_the_switch"),
    [
        ("503", (NETWORK,), True),
        ("503", (NETWORK, PLACEMENT, IDENTITY), False),
        ("hangs", (NETWORK, PLACEMENT), False),
        ("refused", (PLACEMENT,), False),
    ],
)
def test_who_is_away_for_a_minute_is_waited_for(
    cloud: Cloud, busy: Server, move: Move, how: Away, names: tuple[str, ...], at_the_switch: bool
) -> None:
    source, target = ends(cloud, move)
    here, there, domain = source.host, target.host, busy.domain  # Nova asks Neutron before it says so
    with contextlib.ExitStack() as away:
        if not at_the_switch:
            cloud.force_complete(busy)
            wait_until(lambda: "post-copy" in str(here.domain_state(domain)), 30, "it has switched")
        struck_s = time.monotonic()
        for name in names:
            away.enter_context(cloud.api_away(name, how))
        if at_the_switch:
            cloud.force_complete(busy)
            wait_until(lambda: "post-copy" in str(here.domain_state(domain)), 30, "it has switched")
        cloud.network.limit(RATE_MBIT)
        # Whole there, whoever is away: post-copy needs nobody but the two hosts.
        wait_until(lambda: str(there.domain_state(domain)).startswith("running ("), 60, "it runs there")
        wait_until(lambda: "post-copy" not in str(there.domain_state(domain)), 60, "all of it is there")
        time.sleep(max(0.0, struck_s + AWAY_S - time.monotonic()))
        assert [beat for beat in busy.heartbeats(time.monotonic() - 5) if beat.bad == 0], "it goes on"
        assert str(there.domain_state(domain)).startswith("running ("), "nobody touched it"
        assert len(there.qemu_pids(domain)) == 1
        print(*(found[0][:200] for found in WAITS.finditer(move.log())), sep="\n")
        back_s = time.monotonic()
    move.end(patience_s=240)
    print(f"written down {move.end_s - back_s:.1f} s after they began to come back")
    moved = cloud.migrations(busy)[0][
        "uuid"
    ]  # what placement has for it goes last, a minute later at the most
    wait_until(lambda: cloud.placement_allocations(moved) == {}, 120, "the migration's allocation is gone")
    move.check_moved(there.name)
    settled_at(cloud, busy, there.name)
    sound(cloud, busy, there.name, move.end_s)


def port_of(cloud: Cloud, server: Server) -> Any:
    return cloud.api.get("network", f"/v2.0/ports/{server.port.id}")["port"]


def test_neutron_is_away_while_a_guest_comes_back(cloud: Cloud, busy: Server, move: Move) -> None:
    """It had switched, and its ports had moved. What the owner has written of the port stays as it is."""
    texts = {"description": "d" * 250, "name": "web"}
    cloud.api.request("PUT", "network", f"/v2.0/ports/{busy.port.id}", {"port": texts})
    _, target = ends(cloud, move)
    with contextlib.ExitStack() as away:
        with dies_before_it_runs(cloud, move):
            wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the port is bound there")
            away.enter_context(cloud.api_away(NETWORK, "503"))
        struck_s = time.monotonic()
        time.sleep(AWAY_S)
        assert not target.host.qemu_pids()
    busy.wait_heartbeats(5, since_s=struck_s, patience_s=150)  # Neutron's agents have to catch up
    back_at_source(cloud, move, struck_s)
    settled_at(cloud, busy, move.source)

    def said() -> dict[str, str]:
        found = port_of(cloud, busy)
        return {name: found[name] for name in texts}

    wait_until(lambda: said() == texts, 60, "the port's texts are as before")
    rebooted_is_like_any_other(cloud, move)
    assert said() == texts
