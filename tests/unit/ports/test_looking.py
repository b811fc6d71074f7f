# SPDX-License-Identifier: Apache-2.0
"""Which of kernel and Open vSwitch is believed about which port."""

from __future__ import annotations

import pytest

from pcmig.ports.looking import SwitchError, look
from pcmig.ports.model import LinuxPort, Nic, Readiness, SwitchPort, held_up

TAP = "tap7a1b"
IN_BRIDGE = LinuxPort(TAP, True, "br0", "bridge", True, state=3, others_forwarding=1)
IN_QBR = LinuxPort(TAP, True, "qbr7a1b", "bridge", True, state=3, others_forwarding=1)
IN_OVS = LinuxPort(TAP, True, "ovs-system", "openvswitch", True)
ALONE = LinuxPort(TAP, True)
GOOD = SwitchPort(TAP, "br-int", 3, True, True, tag=4)
UNTAKEN = SwitchPort(TAP, "br-int", None, None, True)
NIC = Nic("52:54:00:00:00:01", "bridge", TAP, "br-int", False)
OVS_NIC = Nic("52:54:00:00:00:01", "bridge", TAP, "br-int", True)


class Kernel:
    def __init__(self, port: LinuxPort | None) -> None:
        self._port = port

    def port(self, device: str) -> LinuxPort | None:
        assert device == TAP
        return self._port


def switch(**ports: SwitchPort | None):  # type: ignore[no-untyped-def]
    def ask(device: str) -> SwitchPort | None:
        if not ports:
            raise SwitchError("Open vSwitch does not run here")
        return ports.get(device)

    return ask


@pytest.mark.parametrize(
    ("nic", "linux", "asked", "where", "readiness"),
    [
        (NIC, IN_BRIDGE, switch(), ("Linux bridge", "br0"), "ready"),
        (NIC, IN_OVS, switch(tap7a1b=GOOD), ("Open vSwitch", "br-int"), "ready"),
        (NIC, ALONE, switch(tap7a1b=GOOD), ("Open vSwitch", "br-int"), "ready"),  # user space datapath
        (NIC, ALONE, switch(), ("", "br-int"), "stuck"),  # it should be in a bridge
        (OVS_NIC, ALONE, switch(), ("Open vSwitch", "br-int"), "unseen"),
        (OVS_NIC, ALONE, switch(tap7a1b=None), ("Open vSwitch", "br-int"), "waiting"),
        (OVS_NIC, ALONE, switch(tap7a1b=UNTAKEN), ("Open vSwitch", "br-int"), "waiting"),
        (OVS_NIC, None, switch(tap7a1b=GOOD), ("", "br-int"), "waiting"),  # the database is behind
        # Neutron's hybrid plugging: a bridge, and Open vSwitch behind it.
        (NIC, IN_QBR, switch(qvo7a1b=GOOD), ("Linux bridge, Open vSwitch", "qbr7a1b"), "ready"),
        (NIC, IN_QBR, switch(qvo7a1b=UNTAKEN), ("Linux bridge, Open vSwitch", "qbr7a1b"), "waiting"),
        (NIC, IN_QBR, switch(), ("Linux bridge, Open vSwitch", "qbr7a1b"), "unseen"),
    ],
)
def test_who_is_asked(nic: Nic, linux: LinuxPort | None, asked, where, readiness) -> None:  # type: ignore[no-untyped-def]
    (row,) = look([nic], Kernel(linux), asked)
    assert ((row.switch, row.bridge), row.verdict.readiness) == (where, readiness), row


def test_no_device_yet() -> None:
    (row,) = look([Nic("52:54:00:00:00:01", "bridge", None, "br0", False)], Kernel(None), switch())
    assert row.verdict.readiness == Readiness.WAITING and "no device" in row.verdict.why


def test_what_holds_a_guest_up() -> None:
    rows = look([NIC, Nic("", "direct", "macvtap0", None, False)], Kernel(None), switch())
    assert [row.verdict.readiness for row in rows] == ["waiting", "unseen"]
    assert held_up(rows) == rows[:1]
