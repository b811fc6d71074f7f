# SPDX-License-Identifier: Apache-2.0
"""A guest that is a station: what OVN's words mean, and how long the guest is not reached."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest

from pcmig.ports import vswitchd
from pcmig.ports.frames import announcements
from pcmig.ports.model import Readiness
from tests.ovn import frames
from tests.ovn.mover import SILENT_MS
from tests.ovn.pinger import socket_at
from tests.ovn.place import INTEGRATION, Place, until
from tests.ovn.scene import (
    CONTROLLER,
    GUEST,
    GUEST_DEVICE,
    GUEST_PORT,
    Result,
    StationScene,
    Way,
)

ROOT = pathlib.Path(__file__).parents[2]
XML = """<node><domain type='test'><name>g1</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
<memory>65536</memory><os><type>hvm</type></os><devices>
<interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/>
<virtualport type='openvswitch'/><target dev='{device}'/></interface></devices></domain></node>"""
# Others reach the guest again within that of its own silence, at 100 packets a second.
TIMES, MORE_MS = 1.5, 50.0


def said(scene: StationScene, place: Place) -> tuple[str, str]:
    verdict = scene.verdict(place, GUEST_DEVICE)
    return ("none", "") if verdict is None else (verdict.readiness.value, verdict.why)


def wait_said(scene: StationScene, place: Place, readiness: str, why: str) -> None:
    until(lambda: said(scene, place)[0] == readiness and why in said(scene, place)[1], f"{readiness}: {why}")


def bounded(result: Result, more_ms: float = 0.0) -> None:
    """No longer than the guest itself was silent, and a bit."""
    limit_ms = TIMES * result.own_ms + MORE_MS + more_ms
    busy_ms = max(result.client.own_ms, result.neighbour.own_ms)
    assert result.worst_ms() <= limit_ms + busy_ms, result


def test_what_is_said_of_a_port(scene: StationScene) -> None:
    """As it comes in a migration, from the real ovn-controller."""
    a, b = scene.ovn.a, scene.ovn.b
    scene.at_source()
    assert said(scene, a) == ("ready", "forwards")
    assert said(scene, b) == ("none", "")
    b.plug(GUEST_DEVICE, GUEST_PORT)
    time.sleep(0.5)
    assert said(scene, b)[0] == "waiting" and "ovn-installed" in said(scene, b)[1]
    scene.ovn.bind(GUEST_PORT, "a,b", "rarp")
    wait_said(scene, b, "ready", "forwards")
    binding = scene.ovn.binding(GUEST_PORT)
    assert (binding["chassis"], binding["additional_chassis"], binding["up"]) == ("a", "[b]", "true"), binding
    assert said(scene, a) == ("ready", "forwards")
    raw = socket_at(*scene.at["b"])
    raw.send(frames.announcement(GUEST.mac))
    raw.close()
    until(lambda: scene.ovn.activated(GUEST_PORT), "the announcement opens the port")
    scene.ovn.bind(GUEST_PORT, "b")
    wait_said(scene, a, "waiting", "ovn-installed")
    assert said(scene, b) == ("ready", "forwards")
    binding = scene.ovn.binding(GUEST_PORT)
    assert (binding["chassis"], binding["additional_chassis"]) == ("b", "[]"), binding


def test_a_port_that_ovn_does_not_know(scene: StationScene) -> None:
    scene.at_source()
    scene.ovn.b.plug(GUEST_DEVICE, "no-such-port")
    time.sleep(0.5)
    verdict = scene.verdict(scene.ovn.b, GUEST_DEVICE)
    assert verdict is not None and verdict.readiness == Readiness.WAITING and "ovn-installed" in verdict.why


@pytest.mark.parametrize("strategy", ["rarp", ""])
def test_others_reach_the_guest_at_once(scene: StationScene, strategy: str) -> None:
    result = scene.measure(Way(strategy))
    assert result.own_ms == SILENT_MS
    bounded(result)
    assert result.tempest_lost <= 1


def test_a_controller_that_stands_still_holds_activation_by_rarp(scene: StationScene) -> None:
    """It is in the way of the first frame; without the strategy it is not."""
    way = Way("rarp", stopped="b")
    held = scene.measure(way)
    assert held.worst_ms() > way.stopped_s * 1000 / 2, held
    if scene.ovn.network == "geneve":  # on localnet, a neighbour on the old host may wait for the binding
        bounded(held, way.stopped_s * 1000 / 2)
        bounded(scene.measure(Way("", stopped="b")))


def test_a_controller_that_does_not_answer(scene: StationScene, tmp_path: pathlib.Path) -> None:
    """`pcmig ports` does not call the port ready, and does again when it goes on."""
    scene.at_source()
    scene.announce_migration(Way("rarp"))
    scene.wait_installed(scene.ovn.b, GUEST_DEVICE)
    guest = tmp_path / "guest.xml"
    guest.write_text(XML.format(mac=GUEST.mac, device=GUEST_DEVICE))

    def ports() -> tuple[str, str]:
        b = scene.ovn.b
        pcmig = [f"PYTHONPATH={ROOT}", sys.executable, "-m", "pcmig.cli.main", "ports", "--json"]
        words = [*pcmig, "-c", f"test://{guest}", "--ovsdb", b.database, "g1"]
        done = subprocess.run(
            ["nsenter", "-t", str(b.pid), "--net", "--", "env", *words], capture_output=True, timeout=60
        )
        (port,) = json.loads(done.stdout)["ports"]
        assert port["switch"] == "OVN"
        return port["verdict"]["readiness"], port["verdict"]["why"]

    assert ports() == ("ready", "forwards")
    with scene.ovn.b.stopped(CONTROLLER):
        readiness, why = ports()
    assert readiness == "waiting" and "does not answer" in why
    assert ports() == ("ready", "forwards")


def test_what_pcmig_announces_opens_the_port(scene: StationScene) -> None:
    """QEMU's announcements are lost where flows come late; pcmig's go through OVN's flows as if the guest had
    sent them. What is no RARP does not open the port."""
    scene.at_source()
    scene.announce_migration(Way("rarp"))
    scene.wait_installed(scene.ovn.b, GUEST_DEVICE)
    port = scene.port(scene.ovn.b, GUEST_DEVICE)
    assert port is not None and port.ofport is not None
    folder = str(scene.ovn.b.run_folder)
    rarp, *others = announcements(GUEST.mac, [GUEST.address])
    client, neighbour = scene.pingers()
    with client, neighbour:
        vswitchd.send(folder, INTEGRATION, port.ofport, others)
        time.sleep(0.7)
        assert not scene.ovn.activated(GUEST_PORT)
        vswitchd.send(folder, INTEGRATION, port.ofport, [rarp])
        until(lambda: scene.ovn.activated(GUEST_PORT), "pcmig's announcement opens the port")
        vswitchd.send(folder, INTEGRATION, port.ofport, [rarp, *others])

        def heard() -> bool:
            return all(
                {"rarp", "arp"} <= {kind for _, kind in pinger.heard} for pinger in (client, neighbour)
            )

        until(heard, "both hear it")


def test_flows_that_come_late(scene: StationScene) -> None:
    """No switch before pcmig's word on the port; without it, the guest runs where nobody reaches it."""
    way = Way("rarp", bound_after_s=3.0)
    without = scene.measure(way, gate=False, late_s=2.5)
    assert without.worst_ms() > 500, without
    bounded(scene.measure(way, late_s=2.5))
