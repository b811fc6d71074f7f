# SPDX-License-Identifier: Apache-2.0
"""Where a guest is, there its ports are bound, and nowhere else (doc/operate/ports.rst): with many ports,
without Neutron, with an agent that is late, and after migrations that failed when they were bound away."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.cloud.api import wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.compute import Compute
from tests.cloud.server import Server
from tests.cloud.test_driver import Move, other
from tests.cloud_cases.scene import BUSY, RATE_MBIT, dies_before_it_runs, ends, idle, slow_move
from tests.cloud_cases.test_turned_back import back_at_source, rebooted_is_like_any_other

# Each wait has a limit of its own, and says what did not come: this is more than all of them come to.
pytestmark = pytest.mark.timeout(1200, func_only=True)

PORTS = 4
CRAWL_MBIT = 8  # a pass over memory takes longer than the test, whatever the guest writes
TRICKLE_MBIT = 4  # post-copy takes minutes: longer than Neutron's start, also on a busy machine
BOUND = re.compile(r"(\d+) of (\d+) ports are bound to pcmig-\w, (\d+) ms after the guest stopped here")


@pytest.fixture
def many(cloud: Cloud) -> Iterator[Server]:
    server = cloud.boot(dataclasses.replace(BUSY, name="many"), ports=PORTS)
    yield server
    cloud.delete(server)


def is_bound_at(cloud: Cloud, server: Server, host: str) -> bool:
    """All of its ports, and to no other host."""
    return cloud.all_port_bindings(server) == [{host: "ACTIVE"}] * len(server.ports)


def settled_at(cloud: Cloud, server: Server, host: str) -> None:
    wait_until(lambda: is_bound_at(cloud, server, host), 60, f"all ports are bound to {host} alone")


def test_all_ports_are_bound_while_post_copy_goes_on(cloud: Cloud, many: Server) -> None:
    with slow_move(cloud, many) as move:
        target = other(move.source)
        cloud.force_complete(many)
        wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the ports are bound")
        found = [bindings[target] for bindings in cloud.all_port_bindings(many)]
        assert found == ["ACTIVE"] * PORTS and move.look() == "running (post-copy)"
        cloud.network.limit(RATE_MBIT)
        move.end()
        move.check_moved(target)
        log = move.log()
        assert "Activated binding for port" not in log, "Nova found them active"
        assert re.search(r"Binding for port \S+ and host", log) is None, "Nova was in nobody's way"
        print(BOUND.search(log))
    settled_at(cloud, many, target)


def test_neutron_is_away_for_ten_seconds_at_the_switch(cloud: Cloud, many: Server) -> None:
    with slow_move(cloud, many) as move:
        target = other(move.source)
        back_s = 0.0
        domain = many.domain  # Nova asks Neutron before it says so
        with cloud.api_away("network"):
            cloud.force_complete(many)
            there = cloud.computes[target].host
            wait_until(lambda: "post-copy" in str(there.domain_state(domain)), 60, "it runs there")
            cloud.network.limit(TRICKLE_MBIT)
            time.sleep(10)
            assert "cannot be bound to" in move.log() and BOUND.search(move.log()) is None
            assert "post-copy" in str(there.domain_state(domain)), "it goes on meanwhile"
            back_s = time.monotonic()
        wait_until(lambda: BOUND.search(move.log()) is not None, 120, "the ports are bound")
        print(f"bound {time.monotonic() - back_s:.1f} s after Neutron began to come back")
        found = [bindings[target] for bindings in cloud.all_port_bindings(many)]
        assert found == ["ACTIVE"] * PORTS
        cloud.network.limit(RATE_MBIT)
        move.end()
        move.check_moved(target)
    settled_at(cloud, many, target)


@contextlib.contextmanager
def paused_agent(compute: Compute, until: threading.Event) -> Iterator[None]:
    """Of Neutron, at this host, until UNTIL is set."""
    pids = compute.agent.pids()
    for pid in pids:
        compute.host.signal_process(pid, signal.SIGSTOP)

    def go_on() -> None:
        until.wait(60)
        for pid in pids:
            compute.host.signal_process(pid, signal.SIGCONT)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        until.set()
        thread.join()


def test_the_destinations_agent_is_paused_around_the_switch(cloud: Cloud, busy: Server, move: Move) -> None:
    """For a second from the order on. The port was wired before, so the gate is open."""
    _, target = ends(cloud, move)
    wait_until(lambda: "all ports forward" in move.log(), 60, "the port is wired there")
    go_on = threading.Event()
    with paused_agent(target, go_on):
        asked_s = time.monotonic()
        cloud.force_complete(busy)
        wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the port is bound")
        time.sleep(max(0.0, asked_s + 1 - time.monotonic()))
        go_on.set()
        busy.wait_heartbeats(5, since_s=time.monotonic(), patience_s=60)
    beats = [beat.time_s for beat in busy.heartbeats(asked_s - 1)]
    silence_ms = max(b - a for a, b in itertools.pairwise(beats)) * 1000
    print(f"longest silence around the switch: {silence_ms:.0f} ms")
    cloud.network.limit(RATE_MBIT)
    move.end()
    move.check_moved(target.host.name)


def test_an_agent_that_does_not_wire_the_port_holds_the_switch(cloud: Cloud, busy: Server) -> None:
    the_switch_waits_for_the_agent(cloud, busy)


def the_switch_waits_for_the_agent(cloud: Cloud, busy: Server) -> None:
    """The destination's agent stands still before the port is there: the switch waits until it goes on. An
    administrator who forces it would not wait, so a policy wants it."""
    cloud.configure({**cloud.nova_conf, "pcmig": {"policy": "immediate", "ports_wait": 120}})  # type: ignore[dict-item]
    cloud.network.limit(CRAWL_MBIT)
    try:
        move = Move(cloud, busy)
        target = cloud.computes[other(move.source)]
        go_on = threading.Event()
        with paused_agent(target, go_on):
            cloud.live_migrate(busy, target.host.name)
            wait_until(lambda: "the switch waits" in move.log(), 60, "the port is not wired")
            time.sleep(15)
            assert move.look() == "running" and "Live migration: switch:" not in move.log()
            waited_s = time.monotonic()
            go_on.set()
            wait_until(lambda: "Live migration: switch:" in move.log(), 60, "it switches")
            print(f"switched {time.monotonic() - waited_s:.1f} s after the agent went on")
        cloud.network.limit(RATE_MBIT)
        move.end()
        move.check_moved(target.host.name)
    finally:
        cloud.network.limit(RATE_MBIT)
        cloud.configure({**cloud.nova_conf, "pcmig": {"policy": "manual"}})  # type: ignore[dict-item]


def test_a_switch_that_fails_when_the_ports_are_bound(cloud: Cloud, busy: Server, move: Move) -> None:
    """The destination's libvirt, stopped, never lets its QEMU run, which dies: the guest goes on at the
    source, where its port is bound again and is in the bridge."""
    _, target = ends(cloud, move)
    with dies_before_it_runs(cloud, move):
        wait_until(lambda: BOUND.search(move.log()) is not None, 60, "the port is bound there")
        assert cloud.port_bindings(busy)[target.host.name] == "ACTIVE"
    back_at_source(cloud, move, time.monotonic())
    settled_at(cloud, busy, move.source)
    rebooted_is_like_any_other(cloud, move)


def activate(cloud: Cloud, server: Server, host: str) -> None:
    """As is done right before a switch that then fails."""
    for port in server.ports:
        path = f"/v2.0/ports/{port.id}/bindings/pcmig-{host}/activate"
        cloud.api.request("PUT", "network", path)


@pytest.mark.parametrize("restarted", [False, True])
def test_ports_that_were_bound_to_the_destination_come_back(
    cloud: Cloud, many: Server, restarted: bool
) -> None:
    """The migration is cancelled, or was adopted before, with its ports bound to the destination."""
    with slow_move(cloud, many) as move:
        source, target = ends(cloud, move)
        activate(cloud, many, target.host.name)
        assert not is_bound_at(cloud, many, move.source)
        if restarted:
            source.nova.kill()
            cloud.restart_compute(move.source)
            wait_until(lambda: "is adopted" in move.log(), 60, "the migration is adopted")
        record = cloud.migrations(many)[0]
        cloud.api.request("DELETE", "compute", f"/servers/{many.id}/migrations/{record['id']}")
        wait_until(lambda: move.look() in ("cancelled", "failed"), 60, "it has ended")
        ended_s = time.monotonic()
        idle(many, "ACTIVE")
        assert is_bound_at(cloud, many, move.source), cloud.all_port_bindings(many)
        many.wait_heartbeats(20, since_s=ended_s, patience_s=60)
        print(f"heard {many.heartbeats(ended_s)[0].time_s - ended_s:.1f} s after")
        cloud.network.limit(RATE_MBIT)
    moved = Move(cloud, many)  # nothing of before is in its way
    cloud.live_migrate(many, target.host.name)
    moved.wait_for("running")
    cloud.force_complete(many)
    moved.end()
    moved.check_moved(target.host.name)
    settled_at(cloud, many, target.host.name)
