# SPDX-License-Identifier: Apache-2.0
"""What the facts of a port come to: one row for each rule."""

from __future__ import annotations

import dataclasses

import pytest

from pcmig.ports import judgement
from pcmig.ports.model import LinuxPort, Nic, Readiness, SwitchPort

NIC = Nic("52:54:00:00:00:01", "bridge", "vnet0", "br0", False)
LINUX = LinuxPort("vnet0", True, "br0", "bridge", True, state=3, others_forwarding=1)
SWITCH = SwitchPort("tap0", "br0", ofport=3, link_up=True, admin_up=True)
NEUTRON = {"iface_id": "7a1b", "plugged_by_os_vif": True, "bridge": "br-int"}

LINUX_ROWS = [
    ({}, "ready", "forwards", 0),
    ({"up": False}, "stuck", "vnet0 is down", None),
    ({"master": None, "master_kind": None}, "stuck", "vnet0 is not in br0", None),
    ({"master_up": False}, "stuck", "br0 is down", None),
    ({"master_kind": "bond"}, "unseen", "which is no bridge", None),
    ({"state": 1, "timer_ms": 1500, "forward_delay_ms": 2000, "stp": True}, "waiting", "listens", 3500),
    ({"state": 2, "timer_ms": 1500, "forward_delay_ms": 2000, "stp": True}, "waiting", "learns", 1500),
    ({"state": 4}, "stuck", "saw a loop", None),
    ({"state": 0}, "waiting", "nobody holds vnet0 open", None),
    ({"state": None}, "unseen", "does not say", None),
    ({"filtering": True}, "stuck", "no VLAN of br0", None),
    ({"filtering": True, "vlans": (1, 7), "pvid": 7}, "ready", "forwards in VLAN 1, 7", 0),
    # What is wrong earlier on the way is told first.
    ({"filtering": True, "state": 1}, "waiting", "listens", 0),
]

SWITCH_ROWS = [
    ({}, "ready", "forwards"),
    ({"tag": 12}, "ready", "forwards in VLAN 12"),
    ({"error": "could not open network device tap0 (No such device)"}, "stuck", "No such device"),
    ({"ofport": None}, "waiting", "has not taken tap0 yet"),
    ({"ofport": -1}, "stuck", "could not take tap0"),
    ({"bridge": None}, "waiting", "no bridge"),
    ({"admin_up": False}, "stuck", "tap0 is down"),
    ({"link_up": False}, "waiting", "no carrier"),
    ({"tag": 4095}, "waiting", "VLAN 4095"),
    ({**NEUTRON}, "waiting", "has not wired the port"),
    ({**NEUTRON, "tag": 4}, "ready", "VLAN 4"),
    ({**NEUTRON, "bridge": "tbr-1234"}, "ready", "forwards"),
    ({**NEUTRON, "ovn": True}, "waiting", "ovn-installed"),
    ({**NEUTRON, "ovn": True, "ovn_installed": True}, "ready", "forwards"),
    ({**NEUTRON, "ovn": True, "ovn_installed": True, "controller_answers": True}, "ready", "forwards"),
    (
        {**NEUTRON, "ovn": True, "ovn_installed": True, "controller_answers": False},
        "waiting",
        "does not answer",
    ),
    ({"ovn": True}, "ready", "forwards"),  # none of OVN's ports
    ({"iface_id": "7a1b"}, "ready", "forwards"),  # libvirt's own id
    ({"stp_state": "listening"}, "waiting", "STP of br0: the port is listening"),
    ({"stp_state": "blocking"}, "stuck", "blocking"),
    ({"stp_state": "disabled"}, "ready", "forwards"),
    ({"rstp_state": "Learning"}, "waiting", "RSTP of br0: the port is learning"),
    ({"rstp_state": "Forwarding"}, "ready", "forwards"),
]


@pytest.mark.parametrize(("change", "readiness", "why", "left_ms"), LINUX_ROWS)
def test_linux(change: dict[str, object], readiness: str, why: str, left_ms: int | None) -> None:
    verdict = judgement.of_linux(NIC, dataclasses.replace(LINUX, **change))  # type: ignore[arg-type]
    assert (verdict.readiness, verdict.ready_in_ms) == (readiness, left_ms), verdict
    assert why in verdict.why
    assert bool(verdict.fix) == (readiness == "stuck" or (readiness == "waiting" and left_ms is not None))


@pytest.mark.parametrize(("change", "readiness", "why"), SWITCH_ROWS)
def test_switch(change: dict[str, object], readiness: str, why: str) -> None:
    verdict = judgement.of_switch(dataclasses.replace(SWITCH, **change))  # type: ignore[arg-type]
    assert verdict.readiness == readiness, verdict
    assert why in verdict.why


def test_notes() -> None:
    alone = judgement.of_linux(NIC, dataclasses.replace(LINUX, others_forwarding=0))
    assert alone.readiness == Readiness.READY and "this host alone" in alone.notes[0]
    tagged = judgement.of_linux(NIC, dataclasses.replace(LINUX, filtering=True, vlans=(7,)))
    assert "no PVID" in tagged.notes[0]


def test_a_name_in_a_fix_is_quoted() -> None:
    odd = dataclasses.replace(LINUX, device="a;b", up=False)
    assert judgement.of_linux(NIC, odd).fix == "ip link set 'a;b' up"


def test_without_a_bridge_nothing_can_tell() -> None:
    routed = dataclasses.replace(LINUX, master=None, master_kind=None)
    verdict = judgement.of_linux(dataclasses.replace(NIC, kind="ethernet", bridge=None), routed)
    assert verdict.readiness == Readiness.UNSEEN


@pytest.mark.parametrize("kind", sorted(judgement.NOT_SEEN))
def test_what_cannot_be_asked(kind: str) -> None:
    verdict = judgement.of_nic(dataclasses.replace(NIC, kind=kind))
    assert verdict is not None and verdict.readiness == Readiness.UNSEEN


def test_of_two_ports_the_worse_counts() -> None:
    forwards, listens = judgement.ready("forwards", "a note"), judgement.waiting("listens", 900)
    assert judgement.both(forwards, listens) == judgement.both(listens, forwards)
    worse = judgement.both(forwards, listens)
    assert (worse.readiness, worse.ready_in_ms, worse.notes) == (Readiness.WAITING, 900, ("a note",))
    blocked = judgement.stuck("blocked")
    assert judgement.both(listens, blocked).why == "blocked"
    assert judgement.both(listens, blocked).ready_in_ms is None
