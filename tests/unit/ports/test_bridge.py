# SPDX-License-Identifier: Apache-2.0
"""What of a kernel's dump of VLANs is a port's. Not every kernel filters VLANs: the dump is written here. And
what this kernel counts."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from pcmig.ports import bridge
from pcmig.ports.bridge import (
    FORWARDING,
    IFF_UP,
    NUD_REACHABLE,
    Kernel,
    egress_in,
    vlans_by_port,
    vlans_of,
)
from pcmig.ports.model import Egress


class Attributes:
    def __init__(self, *pairs: tuple[str, Any], index: int = 0) -> None:
        self._pairs = pairs
        self._index = index

    def __getitem__(self, name: str) -> int:
        return {"index": self._index, "ifindex": self._index, "flags": IFF_UP, "state": NUD_REACHABLE}[name]

    def get_attr(self, name: str) -> Any:
        return next((value for key, value in self._pairs if key == name), None)

    def get_attrs(self, name: str) -> list[Any]:
        return [value for key, value in self._pairs if key == name]


class Netlink:
    """A bridge, number 1, and its ports, 2 and more, each with a state."""

    def __init__(self, *states: int) -> None:
        self.states = states
        self.dumps = 0
        self.forgotten: list[tuple[int, str, int]] = []

    def link(self, command: str, **wanted: Any) -> list[Attributes]:
        bridge = Attributes(
            ("IFLA_IFNAME", "br0"),
            ("IFLA_LINKINFO", Attributes(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", Attributes()))),
            index=1,
        )
        links = [bridge, *(self._port(number, state) for number, state in enumerate(self.states, 2))]
        if command == "dump":  # as a kernel that minds no filter
            self.dumps += 1
            return links
        return [
            each for each in links if (each.get_attr("IFLA_IFNAME"), each["index"]) in _wanted(wanted, each)
        ]

    @staticmethod
    def _port(number: int, state: int) -> Attributes:
        data = Attributes(("IFLA_BRPORT_STATE", state))
        info = Attributes(("IFLA_INFO_SLAVE_DATA", data))
        name = f"tap{number}"
        return Attributes(("IFLA_IFNAME", name), ("IFLA_MASTER", 1), ("IFLA_LINKINFO", info), index=number)

    def fdb(self, command: str) -> list[Attributes]:
        """Each port has learned one address, in VLAN 7."""
        assert command == "dump"
        self.dumps += 1
        return [
            Attributes(("NDA_MASTER", 1), ("NDA_LLADDR", mac(number)), ("NDA_VLAN", 7), index=number)
            for number, _ in enumerate(self.states, 2)
        ]

    def neigh(self, command: str, **wanted: Any) -> None:
        assert command == "del"
        self.forgotten.append((wanted["ifindex"], wanted["lladdr"], wanted["vlan"]))

    def close(self) -> None: ...


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def _wanted(wanted: dict[str, Any], each: Attributes) -> list[tuple[Any, Any]]:
    return [(wanted.get("ifname", each.get_attr("IFLA_IFNAME")), wanted.get("index", each["index"]))]


def test_a_bridge_is_asked_for_its_ports_once_in_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at all while the guest's do not forward, when it is looked at most often."""
    netlink = Netlink(FORWARDING, FORWARDING, 1, 0)
    monkeypatch.setattr(bridge, "IPRoute", lambda: netlink)
    with contextlib.closing(Kernel()) as kernel:
        for look in (1, 2):
            kernel.begin_look()
            found = [kernel.port(f"tap{number}") for number in (2, 3)]
            assert [each and each.others_forwarding for each in found] == [1, 1]
            assert netlink.dumps == look
        kernel.begin_look()
        waiting = kernel.port("tap4")
        assert waiting is not None and waiting.others_forwarding is None and netlink.dumps == 2
        assert kernel.egresses("tap4") == [Egress("tap2"), Egress("tap3")]


def test_bridges_are_asked_once_what_they_have_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ports the guest has: its address is forgotten at the port where it was."""
    netlink = Netlink(FORWARDING, FORWARDING, FORWARDING)
    monkeypatch.setattr(bridge, "IPRoute", lambda: netlink)
    with contextlib.closing(Kernel()) as kernel:
        kernel.begin_look()
        assert [kernel.forget(f"tap{number}", mac(number)) for number in (2, 3)] == [1, 1]
        assert kernel.forget("tap4", mac(2)) == 0, "it is elsewhere"
        assert netlink.forgotten == [(2, mac(2), 7), (3, mac(3), 7)] and netlink.dumps == 1
        kernel.begin_look()
        assert kernel.forget("tap4", mac(4)) == 1 and netlink.dumps == 2


def vlan(vid: int, flags: int = 0) -> tuple[str, dict[str, int]]:
    return "IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": flags}


def test_vlans() -> None:
    dump = [
        Attributes(("IFLA_AF_SPEC", Attributes(vlan(1, 6))), index=3),
        Attributes(("IFLA_AF_SPEC", Attributes(vlan(7, 6), vlan(5))), index=4),
        Attributes(index=5),
    ]
    assert vlans_of(dump, 3) == ((1,), 1)
    assert vlans_of(dump, 4) == ((5, 7), 7)
    assert vlans_of(dump, 5) == vlans_of(dump, 6) == ((), None)


def test_where_frames_of_a_vlan_leave() -> None:
    """With its tag at a trunk, without one where the port takes it off, and not where it does not belong."""
    dump = [Attributes(("IFLA_AF_SPEC", Attributes(vlan(1, 6), vlan(7), vlan(8, 4))), index=3)]
    trunk = vlans_by_port(dump)[3]
    assert egress_in("eth0", 1, trunk) == Egress("eth0")
    assert egress_in("eth0", 7, trunk) == Egress("eth0", 7)
    assert egress_in("eth0", 8, trunk) == Egress("eth0")
    assert egress_in("eth0", 9, trunk) is egress_in("eth0", None, trunk) is None


def test_what_came_out_of_a_device_is_counted() -> None:
    with contextlib.closing(Kernel()) as kernel, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        before = kernel.frames_from("lo")
        assert before is not None
        one.bind(("127.0.0.1", 0))
        one.sendto(b"x", one.getsockname())
        assert one.recv(1) == b"x"
        after = kernel.frames_from("lo")
        assert after is not None and after > before
        assert kernel.frames_from("no-such-device") is None
