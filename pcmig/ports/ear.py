# SPDX-License-Identifier: Apache-2.0
"""Hears what a guest itself sends at its port, whichever switch that is in: a packet socket on the device,
with a filter, so that nothing is copied but frames that are wanted."""

from __future__ import annotations

import ctypes
import socket
import struct

from pcmig.ports.frames import RARP, mac_bytes

SO_ATTACH_FILTER = 26
ETH_P_ALL = 3
# Classic BPF (linux/filter.h)
LOAD_WORD, LOAD_HALF, JUMP_EQUAL, RETURN = 0x20, 0x28, 0x15, 0x06
ALL = 0x40000


class EarError(Exception):
    """The device cannot be listened to."""


def program(mac: str) -> list[tuple[int, int, int, int]]:
    """Takes frames that the machine with this address sends, but for RARP, which is QEMU's word and not the
    guest's: pure."""
    own = mac_bytes(mac)
    return [
        (LOAD_WORD, 0, 0, 8),  # the sender's last four bytes
        (JUMP_EQUAL, 0, 4, int.from_bytes(own[2:])),
        (LOAD_HALF, 0, 0, 6),  # ... and its first two
        (JUMP_EQUAL, 0, 2, int.from_bytes(own[:2])),
        (LOAD_HALF, 0, 0, 12),
        (JUMP_EQUAL, 0, 1, RARP),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, ALL),
    ]


class Ear:
    """Listens to what the guest with this address sends at DEVICE, until close(). Raises EarError."""

    def __init__(self, device: str, mac: str) -> None:
        steps = b"".join(struct.pack("=HBBI", *step) for step in program(mac))
        kept = ctypes.create_string_buffer(steps, len(steps))
        wanted = struct.pack("HL", len(steps) // 8, ctypes.addressof(kept))
        try:
            # Without a protocol it hears nothing until it is bound: no frame passes unfiltered.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as err:
            raise EarError(f"no packet socket: {err.strerror}") from err
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, wanted)
            self._socket.bind((device, ETH_P_ALL))
        except OSError as err:
            self._socket.close()
            raise EarError(f"{device} cannot be listened to: {err.strerror}") from err

    def fileno(self) -> int:
        return self._socket.fileno()

    def heard(self) -> bool:
        """Whether the guest has sent something since the last call."""
        found = False
        while True:
            try:
                _, address = self._socket.recvfrom(64)
            except OSError:  # nothing more, or the device is gone
                return found
            found = found or address[2] != socket.PACKET_OUTGOING

    def close(self) -> None:
        self._socket.close()
