# SPDX-License-Identifier: Apache-2.0
"""What of a kernel's dump of VLANs is a port's. Not every kernel filters VLANs: the dump is written here. And
what this kernel counts."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pcmig.ports.bridge import Kernel, egress_in, vlans_by_port, vlans_of
from pcmig.ports.model import Egress


class Attributes:
    def __init__(self, *pairs: tuple[str, Any], index: int = 0) -> None:
        self._pairs = pairs
        self._index = index

    def __getitem__(self, name: str) -> int:
        return {"index": self._index}[name]

    def get_attr(self, name: str) -> Any:
        return next((value for key, value in self._pairs if key == name), None)

    def get_attrs(self, name: str) -> list[Any]:
        return [value for key, value in self._pairs if key == name]


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
