# SPDX-License-Identifier: Apache-2.0
"""The cloud's networks beside the bed's migration link, and its addresses.

Management: a bridge in the control node, linked to each host; APIs, messages, images. Flat: a second bridge,
the provider network of neutron's "physnet1", linked to each host's br-ex; guests, and the collector. The
migration link stays the bed's own, so its limit touches migrations alone. Addresses are the same in every
cloud: namespaces keep them apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from tests.bed.procs import run

CONTROL = "10.78.0.1"
FLAT_CIDR = "10.80.0.0/16"
FLAT_NETMASK = "255.255.0.0"
COLLECTOR = "10.80.0.1"
COLLECTOR_MAC = "02:70:63:6d:69:67"
COLLECTOR_PORT = 5514
FIRST_GUEST = 16  # 10.80.0.16 and up: below are the cloud's own
PHYSICAL_NETWORK = "physnet1"
MANAGEMENT, FLAT = "mgmt0", "flat0"
CLONE_NEWNET = 0x40000000
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h

_libc = ctypes.CDLL(None, use_errno=True)


def management_address(host: str) -> str:
    return f"10.78.0.{'ab'.index(host) + 11}"


def tunnel_address(host: str) -> str:
    """Of OVN's tunnels between the hosts, on the flat network."""
    return f"10.81.0.{'ab'.index(host) + 11}"


def guest_mac(number: int) -> str:
    """MAC of the cloud's n-th port; its last two bytes are those of the address (guest/init.c)."""
    return f"fa:16:3e:70:{number >> 8:02x}:{number & 255:02x}"


def guest_address(number: int) -> str:
    return f"10.80.{number >> 8}.{number & 255}"


def connect(control_pid: int, host_namespaces: dict[str, str]) -> None:
    """Make both networks, from inside the control node; its end takes all links along."""
    inside = ["nsenter", "-t", str(control_pid), "--net", "--", "ip"]
    for bridge, address in ((MANAGEMENT, f"{CONTROL}/24"), (FLAT, f"{COLLECTOR}/16")):
        run([*inside, "link", "add", bridge, "type", "bridge"], f"making the bridge {bridge}")
        if bridge == FLAT:
            run([*inside, "link", "set", FLAT, "address", COLLECTOR_MAC], "setting the collector's MAC")
        run([*inside, "address", "add", address, "dev", bridge], f"addressing the bridge {bridge}")
        run([*inside, "link", "set", bridge, "up"], f"starting the bridge {bridge}")
    _compute_checksums(control_pid, FLAT)
    run([*inside, "link", "set", "lo", "up"], "starting the control node's loopback")
    for host, namespace in host_namespaces.items():
        what = f"linking host {host} to the control node"
        in_host = ["ip", "-n", namespace]
        for bridge in (MANAGEMENT, FLAT):
            port = f"{bridge}-{host}"
            ends = ["type", "veth", "peer", "name", port, "netns", str(control_pid)]
            run([*in_host, "link", "add", bridge, *ends], what)
            run([*inside, "link", "set", port, "master", bridge, "up"], what)
            run([*in_host, "link", "set", bridge, "up"], what)
        run([*in_host, "address", "add", f"{management_address(host)}/24", "dev", MANAGEMENT], what)


def _compute_checksums(control_pid: int, interface: str) -> None:
    """Senders fill checksums in: Open vSwitch in user space passes on what they leave to hardware."""
    with network_of(control_pid):
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with control:
        value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
        fcntl.ioctl(control, SIOCETHTOOL, request.ljust(40, b"\0"))


def socket_in(control_pid: int, address: tuple[str, int], timeout_s: float) -> socket.socket:
    """A TCP connection made inside the control node's network; it stays there wherever it is used."""
    with network_of(control_pid):
        connection = socket.socket()
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def network_of(pid: int) -> Iterator[None]:
    """This thread, and no other, is in the network namespace of a process until the block ends."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(other)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(other)
    finally:
        os.close(own)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
