# SPDX-License-Identifier: Apache-2.0
"""Frames that tell everybody where a guest is: pure. None of them asks anybody for anything."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

BROADCAST = b"\xff" * 6
ALL_NODES = bytes.fromhex("333300000001"), ipaddress.IPv6Address("ff02::1")
LEAST_BYTES = 60  # of a frame on the wire, without its checksum
IPV4, ARP, RARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8035, 0x8100, 0x86DD
ARP_REQUEST, RARP_REQUEST = 1, 3
ICMPV6, ADVERTISEMENT, OVERRIDE, TARGET_ADDRESS = 58, 136, 0x20000000, 2


def mac_bytes(mac: str) -> bytes:
    """Of one machine's address as libvirt writes it. Raises ValueError."""
    parts = mac.split(":")
    address = bytes(int(part, 16) for part in parts if len(part) == 2)
    if len(parts) != 6 or len(address) != 6 or address[0] & 1:
        raise ValueError(f"{mac!r} is no machine's address")
    return address


def announcements(mac: str, addresses: Iterable[str] = ()) -> list[bytes]:
    """A RARP request as QEMU sends it, which teaches switches; for each IP address what tells its neighbours
    too. Raises ValueError."""
    own = mac_bytes(mac)
    nobody = bytes(4)
    frames = [_frame(BROADCAST, own, RARP, _arp(RARP_REQUEST, own, nobody, own, nobody))]
    for text in addresses:
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv4Address):
            told = _arp(ARP_REQUEST, own, address.packed, bytes(6), address.packed)
            frames.append(_frame(BROADCAST, own, ARP, told))
        else:
            frames.append(_frame(ALL_NODES[0], own, IPV6, _advertisement(own, address)))
    return frames


def tagged(frame: bytes, vlan: int) -> bytes:
    """FRAME in a VLAN."""
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]


def _frame(to: bytes, own: bytes, kind: int, content: bytes) -> bytes:
    return (to + own + struct.pack("!H", kind) + content).ljust(LEAST_BYTES, b"\0")


def _arp(operation: int, sender: bytes, sender_ip: bytes, target: bytes, target_ip: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + sender + sender_ip + target + target_ip


def _advertisement(own: bytes, address: ipaddress.IPv6Address) -> bytes:
    """An unsolicited neighbour advertisement (RFC 4861, 7.2.6)."""
    option = struct.pack("!BB", TARGET_ADDRESS, 1) + own
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, OVERRIDE) + address.packed + option
    ends = address.packed + ALL_NODES[1].packed
    checksum = _checksum(ends + struct.pack("!II", len(body), ICMPV6) + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + ends + body


def _checksum(data: bytes) -> int:
    """Of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
