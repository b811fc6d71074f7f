# SPDX-License-Identifier: Apache-2.0
"""What `pcmig check` reads of a real kernel's bridges and of a real Open vSwitch."""

from __future__ import annotations

import json
import sys

from pcmig.check import Facts, Row, Side, network
from pcmig.check.network_facts import Network
from pcmig.ports.model import LinuxBridge, SwitchBridge
from tests.functional.test_ports import ROOT, Place, place, until

__all__ = ["place"]  # a fixture

READ = """
import dataclasses, json, sys
from pcmig.check import network_facts
print(json.dumps(dataclasses.asdict(network_facts.gather("/nowhere", with_nova=False, ovsdb=sys.argv[1]))))
"""


def read(place: Place) -> Network:
    said = place.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-c", READ, f"unix:{place.socket}")
    found = json.loads(said)
    assert found["bridges_error"] is None and found["switches_error"] is None
    switches = found["switches"]
    return Network(
        bridges=tuple(LinuxBridge(**each) for each in found["bridges"]),
        switches=None if switches is None else tuple(SwitchBridge(**each) for each in switches),
    )


def rows(found: Network) -> dict[str, Row]:
    facts = Facts(here=Side("qemu:///system"), network=found)
    return {row.name: row for check in network.NETWORK if (row := check(facts)) is not None}


def test_what_it_reads(place: Place) -> None:
    assert read(place) == Network()
    place.run("ip", "link", "add", "br0", "type", "bridge")
    place.run("ip", "link", "add", "br1", "type", "bridge", "stp_state", "1", "ageing_time", "60000")
    place.run("ip", "tuntap", "add", "tap1", "mode", "tap")
    place.run("ip", "link", "set", "tap1", "master", "br1")
    assert rows(read(place)) == {}  # neither leads anywhere
    place.run("ip", "link", "add", "up1", "type", "veth", "peer", "name", "far")
    place.run("ip", "link", "set", "up1", "master", "br1")
    found = read(place)
    assert found.bridges == (
        LinuxBridge("br0", False, 15_000, 300_000, False),
        LinuxBridge("br1", True, 15_000, 600_000, True),
    )
    said = rows(found)["Linux bridges"]
    assert said.found == (
        "a port of br1 forwards 30 s after it was made (spanning tree), br1 remembers addresses for 600 s"
    )
    # The fix is a command that mends it.
    for command in said.fix.split("; ")[:2]:
        place.run(*command.partition(" (")[0].split())
    assert rows(read(place))["Linux bridges"].status == "ok"
    place.start_switch()
    until(lambda: read(place).switches, "Open vSwitch answers")
    place.vsctl("set", "bridge", "ovs0", "rstp_enable=true", "other_config:mac-aging-time=900")
    assert read(place).switches == (SwitchBridge("ovs0", False, True, 15, 15, 900),)
    said = rows(read(place))["Open vSwitch"]
    assert "3 to 30 s" in said.found and "900 s" in said.found
    for command in said.fix.split("; "):
        place.vsctl(*command.partition(" (")[0].split()[1:])
    assert rows(read(place))["Open vSwitch"].status == "ok"
