# SPDX-License-Identifier: Apache-2.0
"""A guest is announced in a Linux bridge: out of the ports beside its own, as a frame that is sent on its
device would go to the guest."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable

from pcmig.ports.bridge import BridgeError, Kernel
from pcmig.ports.frames import tagged
from pcmig.ports.host import HostError

# By a process that is only there to open it, as its parent may not.
OPENS = """
import socket
opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
socket.send_fds(socket.socket(fileno=0), [b"."], [opened.fileno()])
"""
OPENS_S = 10.0


@functools.cache
def packet_socket() -> socket.socket:
    """One that receives nothing. OSError for who has not CAP_NET_RAW."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@functools.cache
def packet_socket_of_root() -> socket.socket:
    """The same for root without CAP_NET_RAW, as oslo.privsep leaves it: a program that root starts has all
    capabilities again, those of the bounding set. Once in a process, as to send needs no right. OSError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # Without PYTHON* and site-packages: to open a socket it needs neither, and is there sooner.
        words = [sys.executable, "-I", "-S", "-c", OPENS]
        try:
            done = subprocess.run(
                words, stdin=theirs.fileno(), capture_output=True, timeout=OPENS_S, check=False
            )
        except subprocess.TimeoutExpired as err:
            raise OSError(None, f"the process that opens it took longer than {OPENS_S:g} s") from err
        theirs.close()
        _, found, _, _ = socket.recv_fds(ours, 1, 1)
    if not found:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason was told"]
        raise OSError(None, lines[-1])
    return socket.socket(fileno=found[0])


def send(
    kernel: Kernel,
    device: str,
    mac: str,
    frames: Iterable[bytes],
    opened: Callable[[], socket.socket] = packet_socket,
) -> None:
    """FRAMES, as if the guest with this MAC had sent them at DEVICE. The bridge itself may have learned that
    the guest is beyond another of its ports, from what it sent at its old host, and would drop what comes
    from there for the guest: so it is told first, for which it takes CAP_NET_ADMIN. Raises HostError where
    nothing was sent, or not out of each port."""
    frames = list(frames)
    try:
        port = kernel.port(device)
        vlan = port.pvid if port is not None and port.filtering else None
        kernel.has_moved_here(device, mac, vlan)
        egresses = kernel.egresses(device)
        failed = None if egresses else f"no other port of {device}'s bridge takes its frames"
        out = opened()
    except BridgeError as err:
        raise HostError(str(err)) from err
    except OSError as err:
        raise HostError(f"no packet socket: {err.strerror}") from err
    for egress in egresses:
        for frame in frames:
            content = frame if egress.vlan is None else tagged(frame, egress.vlan)
            try:
                out.sendto(content, (egress.device, 0))
            except OSError as err:  # the others may do
                failed = f"{egress.device}: {err.strerror}"
    if failed is not None:
        raise HostError(failed)


def send_as_root(device: str, mac: str, frames: Iterable[bytes]) -> None:
    """The same, for root without CAP_NET_RAW. Raises HostError."""
    try:
        kernel = Kernel()
    except BridgeError as err:
        raise HostError(str(err)) from err
    try:
        send(kernel, device, mac, frames, packet_socket_of_root)
    finally:
        kernel.close()
