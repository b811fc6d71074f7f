# SPDX-License-Identifier: Apache-2.0
"""Announcements byte for byte, and the filter that hears the guest."""

from __future__ import annotations

import struct

import pytest

from pcmig.ports import ear, frames

MAC = "52:54:00:12:34:56"
OWN = bytes.fromhex("525400123456")


def test_rarp() -> None:
    """As QEMU's own."""
    (frame,) = frames.announcements(MAC)
    assert frame.hex() == (
        "ffffffffffff" + OWN.hex() + "8035"
        "0001080006040003" + OWN.hex() + "00000000" + OWN.hex() + "00000000" + "00" * 18
    )


def test_arp() -> None:
    _, frame = frames.announcements(MAC, ["10.0.0.9"])
    assert frame.hex() == (
        "ffffffffffff" + OWN.hex() + "0806"
        "0001080006040001" + OWN.hex() + "0a000009" + "000000000000" + "0a000009" + "00" * 18
    )


def test_neighbour_advertisement() -> None:
    _, frame = frames.announcements(MAC, ["fd00::9"])
    source, target = "fd000000000000000000000000000009", "ff020000000000000000000000000001"
    assert frame.hex() == (
        "333300000001" + OWN.hex() + "86dd"
        "60000000"
        + "0020"
        + "3a"
        + "ff"
        + source
        + target
        + "8800"
        + frame[56:58].hex()
        + "20000000"
        + source
        + "0201"
        + OWN.hex()
    )
    # With its checksum in place, all of it and the pseudo header come to nothing.
    data = bytes.fromhex(source + target) + struct.pack("!II", 32, 58) + frame[54:]
    assert frames._checksum(data) == 0


def test_a_frame_in_a_vlan() -> None:
    (frame,) = frames.announcements(MAC)
    assert frames.tagged(frame, 7) == frame[:12] + b"\x81\x00\x00\x07" + frame[12:]


@pytest.mark.parametrize(
    "mac",
    ["", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:xx", "01:00:5e:00:00:01", "5254.0012.3456"],
)
def test_no_address_of_a_machine(mac: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|no machine's address"):
        frames.announcements(mac)


def run_filter(steps: list[tuple[int, int, int, int]], frame: bytes) -> int:
    """As the kernel runs it."""
    at, value = 0, 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == ear.RETURN:
            return operand
        if code == ear.JUMP_EQUAL:
            at += yes if value == operand else no
        else:
            size = 4 if code == ear.LOAD_WORD else 2
            value = int.from_bytes(frame[operand : operand + size])


@pytest.mark.parametrize(
    ("sender", "kind", "taken"),
    [
        (MAC, 0x0800, True),
        (MAC, 0x0806, True),
        (MAC, 0x8035, False),  # QEMU says that, and not the guest
        ("52:54:00:12:34:57", 0x0800, False),
        ("52:55:00:12:34:56", 0x0800, False),
    ],
)
def test_what_is_heard(sender: str, kind: int, taken: bool) -> None:
    frame = b"\xff" * 6 + frames.mac_bytes(sender) + struct.pack("!H", kind) + bytes(46)
    assert bool(run_filter(ear.program(MAC), frame)) == taken
