# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames of a station that needs no kernel's network of its own: pure."""

from __future__ import annotations

import dataclasses
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
ICMP, UDP, ICMPV6 = 1, 17, 58
ECHO_REPLY, ECHO_REQUEST = 0, 8
ECHO_REQUEST_6, ECHO_REPLY_6, SOLICITATION, ADVERTISEMENT = 128, 129, 135, 136
WHO_HAS, IS_AT, REVERSE = 1, 2, 3
SHORTEST = 60  # of a frame, without its checksum


@dataclasses.dataclass(frozen=True)
class Station:
    """Who sends and receives: one address, IPv4 or IPv6."""

    mac: str
    address: str

    @property
    def six(self) -> bool:
        return ":" in self.address

    @property
    def packed(self) -> bytes:
        return socket.inet_pton(socket.AF_INET6 if self.six else socket.AF_INET, self.address)


@dataclasses.dataclass(frozen=True)
class Heard:
    """KIND: "request" or "reply" (of an echo, with its numbers), "udp", "arp", "rarp", "solicitation",
    "other"."""

    kind: str
    source: str  # MAC
    ident: int = 0
    number: int = 0
    payload: bytes = b""
    sender: bytes = b""  # its address, packed
    wanted: bytes = b""  # the address that is asked for


def link_local(mac: str) -> str:
    """The IPv6 address that a kernel makes of a MAC."""
    raw = bytearray(packed_mac(mac))
    raw[0] ^= 2
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + raw[:3] + b"\xff\xfe" + raw[3:])


def packed_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data: bytes) -> int:
    """Of the internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    frame = packed_mac(destination) + packed_mac(source) + struct.pack("!H", kind) + payload
    return frame.ljust(SHORTEST, b"\0")


def announcement(mac: str) -> bytes:
    """As QEMU announces a guest: a reverse ARP request for itself."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, REVERSE) + (packed_mac(mac) + bytes(4)) * 2
    return ethernet(mac, BROADCAST, RARP, body)


def echo(source: Station, destination: Station, ident: int, number: int, *, reply: bool = False) -> bytes:
    """An echo request, or the answer to one."""
    body = struct.pack("!HH", ident, number) + b"pcmig".ljust(24, b".")
    if source.six:
        kind = ECHO_REPLY_6 if reply else ECHO_REQUEST_6
        return ethernet(source.mac, destination.mac, IPV6, _icmp6(source, destination.packed, kind, body))
    head = struct.pack("!BB", ECHO_REPLY if reply else ECHO_REQUEST, 0)
    message = head + struct.pack("!H", checksum(head + b"\0\0" + body)) + body
    return ethernet(source.mac, destination.mac, IPV4, _ipv4(source, destination, ICMP, message))


def datagram(source: Station, destination: Station, port: int, payload: bytes) -> bytes:
    """UDP over IPv4, without a checksum."""
    message = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
    return ethernet(source.mac, destination.mac, IPV4, _ipv4(source, destination, UDP, message))


def answer(me: Station, heard: Heard) -> bytes | None:
    """What a station answers to a frame for it; None when nothing is to be answered."""
    if heard.kind == "arp" and heard.wanted == me.packed:
        body = struct.pack("!HHBBH", 1, IPV4, 6, 4, IS_AT) + packed_mac(me.mac) + me.packed
        return ethernet(me.mac, heard.source, ARP, body + packed_mac(heard.source) + heard.sender)
    if heard.kind == "solicitation" and heard.wanted == me.packed:
        body = struct.pack("!I", 0x60000000) + me.packed + b"\2\1" + packed_mac(me.mac)
        to = heard.sender if any(heard.sender) else socket.inet_pton(socket.AF_INET6, "ff02::1")
        return ethernet(me.mac, heard.source, IPV6, _icmp6(me, to, ADVERTISEMENT, body))
    if heard.kind == "request" and heard.wanted == me.packed:
        family = socket.AF_INET6 if me.six else socket.AF_INET
        asker = Station(heard.source, socket.inet_ntop(family, heard.sender))
        return echo(me, asker, heard.ident, heard.number, reply=True)
    return None


def hear(frame: bytes) -> Heard:
    """What came; whatever it is."""
    source = ":".join(f"{byte:02x}" for byte in frame[6:12])
    kind = int.from_bytes(frame[12:14], "big")
    body = frame[14:]
    if kind == RARP:
        return Heard("rarp", source)
    if kind == ARP and len(body) >= 28:
        asks = int.from_bytes(body[6:8], "big") == WHO_HAS
        return Heard("arp" if asks else "other", source, sender=body[14:18], wanted=body[24:28])
    if kind == IPV4 and len(body) >= 28:
        rest = body[(body[0] & 15) * 4 :]
        if body[9] == UDP:
            return Heard("udp", source, payload=rest[8:], sender=body[12:16], wanted=body[16:20])
        if body[9] == ICMP and len(rest) >= 8:
            kinds = {ECHO_REQUEST: "request", ECHO_REPLY: "reply"}
            return _icmp(kinds.get(rest[0]), rest, source, body[12:16], body[16:20])
    if kind == IPV6 and len(body) >= 48 and body[6] == ICMPV6:
        rest = body[40:]
        if rest[0] == SOLICITATION and len(rest) >= 24:
            return Heard("solicitation", source, sender=body[8:24], wanted=rest[8:24])
        kinds = {ECHO_REQUEST_6: "request", ECHO_REPLY_6: "reply"}
        return _icmp(kinds.get(rest[0]), rest, source, body[8:24], body[24:40])
    return Heard("other", source)


def _icmp(kind: str | None, message: bytes, source: str, sender: bytes, wanted: bytes) -> Heard:
    if kind is None:
        return Heard("other", source)
    ident, number = struct.unpack("!HH", message[4:8])
    return Heard(kind, source, ident, number, sender=sender, wanted=wanted)


def _ipv4(source: Station, destination: Station, protocol: int, message: bytes) -> bytes:
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(message), 0, 0x4000, 64, protocol)
    ends = source.packed + destination.packed
    return head + struct.pack("!H", checksum(head + b"\0\0" + ends)) + ends + message


def _icmp6(source: Station, destination: bytes, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BB", kind, 0) + b"\0\0" + body
    ends = source.packed + destination
    total = checksum(ends + struct.pack("!II", len(message), ICMPV6) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + ends + message
