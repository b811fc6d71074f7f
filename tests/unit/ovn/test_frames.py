# SPDX-License-Identifier: Apache-2.0
"""Frames of a station, and what a pinger makes of times."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ovn import frames
from tests.ovn.frames import Station
from tests.ovn.pinger import longest

CLIENT = Station("02:70:63:6d:69:67", "10.80.0.1")
GUEST = Station("fa:16:3e:70:00:10", "10.80.0.16")
CLIENT_6, GUEST_6 = (Station(each.mac, frames.link_local(each.mac)) for each in (CLIENT, GUEST))


@pytest.mark.parametrize(("client", "guest"), [(CLIENT, GUEST), (CLIENT_6, GUEST_6)])
def test_an_echo_and_its_answer(client: Station, guest: Station) -> None:
    asked = frames.hear(frames.echo(client, guest, 7, 65_535))
    assert (asked.kind, asked.source, asked.ident, asked.number) == ("request", client.mac, 7, 65_535)
    answer = frames.answer(guest, asked)
    assert answer is not None and answer[:6] == frames.packed_mac(client.mac)
    heard = frames.hear(answer)
    assert (heard.kind, heard.source, heard.ident, heard.number) == ("reply", guest.mac, 7, 65_535)
    assert frames.answer(client, asked) is None  # it is for another address


def test_checksums_are_right() -> None:
    """A sum over what was summed, with the sum itself in it, is none (RFC 1071)."""
    packet = frames.echo(CLIENT, GUEST, 7, 1)[14:]
    assert frames.checksum(packet[:20]) == 0 and frames.checksum(packet[20:52]) == 0
    packet = frames.echo(CLIENT_6, GUEST_6, 7, 1)[14:]
    head = packet[8:40] + struct.pack("!II", len(packet) - 40, 58)
    assert frames.checksum(head + packet[40:]) == 0


def test_who_has_an_address() -> None:
    body = struct.pack("!HHBBH", 1, frames.IPV4, 6, 4, frames.WHO_HAS)
    body += frames.packed_mac(CLIENT.mac) + CLIENT.packed + bytes(6) + GUEST.packed
    asked = frames.hear(frames.ethernet(CLIENT.mac, frames.BROADCAST, frames.ARP, body))
    assert asked.kind == "arp"
    answer = frames.answer(GUEST, asked)
    assert answer is not None and answer[22:28] == frames.packed_mac(GUEST.mac)
    assert frames.answer(CLIENT, asked) is None


def test_link_local() -> None:
    assert GUEST_6.address == "fe80::f816:3eff:fe70:10"


def test_an_announcement_is_one_of_qemus() -> None:
    frame = frames.announcement(GUEST.mac)
    assert len(frame) == 60 and frames.hear(frame).kind == "rarp"
    assert frame[:14] == b"\xff" * 6 + frames.packed_mac(GUEST.mac) + b"\x80\x35"


@given(st.binary(max_size=120))
def test_anything_may_be_heard(frame: bytes) -> None:
    heard = frames.hear(frame)
    for station in (CLIENT, CLIENT_6):
        frames.answer(station, heard)


def test_silence() -> None:
    assert longest([1.0, 1.5, 1.75], 1.0, 2.0) == (500, 1.0)
    assert longest([], 1.0, 3.0) == (2000, 1.0)
    assert longest([0.5, 5.0], 1.0, 3.0) == (2000, 1.0)
