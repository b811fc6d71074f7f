# SPDX-License-Identifier: Apache-2.0
"""Takes down the heartbeats of the cloud's guests, which come as UDP datagrams through the flat network.

It listens on the flat bridge's port of each host, before the bridge has them, so that every line carries the
host that it really came from. One file for each guest's address, with lines as the two-host bed has them.

usage: python collector.py FOLDER ADDRESS PORT HOST=INTERFACE...
"""

from __future__ import annotations

import contextlib
import pathlib
import selectors
import socket
import struct
import sys
import time
from typing import TextIO

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h
ETHERNET_BYTES, UDP = 14, 17


def parse(frame: bytes, port: int) -> tuple[str, bytes] | None:
    """(sender's address, text) of a heartbeat's frame; None for anything else."""
    if len(frame) < ETHERNET_BYTES + 28 or int.from_bytes(frame[12:14], "big") != ETH_P_IP:
        return None
    header_bytes = (frame[ETHERNET_BYTES] & 15) * 4
    if frame[ETHERNET_BYTES + 9] != UDP:
        return None
    start = ETHERNET_BYTES + header_bytes
    try:
        _, to_port, length, _ = struct.unpack_from("!HHHH", frame, start)
    except struct.error:
        return None
    if to_port != port or length < 8:
        return None
    address = socket.inet_ntoa(frame[ETHERNET_BYTES + 12 : ETHERNET_BYTES + 16])
    return address, frame[start + 8 : start + length]  # short frames are padded


def collect(folder: pathlib.Path, address: str, port: int, interfaces: dict[str, str]) -> None:
    # Never read: it keeps the kernel from answering "port unreachable", an error for the guest.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        keeper.bind((address, port))
        selector = selectors.DefaultSelector()
        for host, interface in interfaces.items():
            # All kinds: a bridge takes packets before a listener for one kind has them.
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            packets.bind((interface, ETH_P_ALL))
            selector.register(packets, selectors.EVENT_READ, host)
        logs: dict[str, TextIO] = {}
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                frame, sender = key.fileobj.recvfrom(65536)
                now_s = time.monotonic()
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                heartbeat = parse(frame, port)
                if heartbeat is None:
                    continue
                name, text = heartbeat
                if name not in logs:
                    logs[name] = (folder / f"{name}.log").open("a", buffering=1, encoding="latin-1")
                for line in text.decode("latin-1").splitlines():
                    logs[name].write(f"{now_s:.4f} {key.data} {line}\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        collect(
            pathlib.Path(sys.argv[1]),
            sys.argv[2],
            int(sys.argv[3]),
            dict(word.split("=", 1) for word in sys.argv[4:]),
        )
