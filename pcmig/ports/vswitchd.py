# SPDX-License-Identifier: Apache-2.0
"""What ovs-vswitchd is told directly, over the sockets that ovs-ofctl and ovs-appctl use: to treat a frame as
if it came from a port, and to forget where an address was. Nothing of the switch's configuration changes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct

from pcmig.ports import ovn_controller

TIMEOUT_S = 2.0

# OpenFlow 1.0 and 1.3: version, and how a packet-out begins after the number of its buffer (none).
OPENFLOW_10, OPENFLOW_13 = 1, 4
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, PACKET_OUT, BARRIER = 0, 1, 2, 3, 13, {1: 18, 4: 20}
NO_BUFFER = 0xFFFFFFFF
TABLE_10, TABLE_13 = 0xFFF9, 0xFFFFFFF9  # OFPP_TABLE: through the bridge's flows
WHOLE = 0xFFFF
XID_HELLO, XID_BARRIER = 1, 2


class VswitchdError(Exception):
    """It does not answer, or refuses."""


def packet_out(version: int, ofport: int, frame: bytes) -> bytes:
    """A message that has the bridge treat FRAME as if it came in at OFPORT: pure."""
    if version == OPENFLOW_10:
        action = struct.pack("!HHHH", 0, 8, TABLE_10, WHOLE)
        body = struct.pack("!IHH", NO_BUFFER, ofport, len(action)) + action + frame
    else:
        action = struct.pack("!HHIH6x", 0, 16, TABLE_13, WHOLE)
        body = struct.pack("!IIH6x", NO_BUFFER, ofport, len(action)) + action + frame
    return _message(version, PACKET_OUT, 0, body)


def _message(version: int, kind: int, xid: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body


def send(folder: str, bridge: str, ofport: int, frames: list[bytes]) -> None:
    """Has BRIDGE treat FRAMES as if they came in at OFPORT, and waits until it has. FOLDER: where
    ovs-vswitchd has its sockets. Raises VswitchdError."""
    path = os.path.join(folder, f"{bridge}.mgmt")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            version = _agree(connection)
            for frame in frames:
                connection.sendall(packet_out(version, ofport, frame))
            connection.sendall(_message(version, BARRIER[version], XID_BARRIER))
            _wait_for_barrier(connection, version)
    except OSError as err:
        raise VswitchdError(f"{path}: {err.strerror or err}") from err


def _agree(connection: socket.socket) -> int:
    """The version of OpenFlow that both know. Who says only 1.3 is taken by its word."""
    connection.sendall(_message(OPENFLOW_13, HELLO, XID_HELLO, struct.pack("!HHI", 1, 8, 1 << 1 | 1 << 4)))
    version, kind, body, _ = _read(connection)
    if kind != HELLO:
        raise VswitchdError("the switch does not say hello")
    known = 0
    while len(body) >= 4:
        name, length = struct.unpack_from("!HH", body)
        if name == 1 and length >= 8 and len(body) >= 8:
            known = struct.unpack_from("!I", body, 4)[0]
        body = body[max(8, (length + 7) // 8 * 8) :]
    if not known:
        known = 1 << OPENFLOW_10 | (1 << OPENFLOW_13 if version >= OPENFLOW_13 else 0)
    for each in (OPENFLOW_13, OPENFLOW_10):
        if known & 1 << each:
            return each
    raise VswitchdError("the switch speaks neither OpenFlow 1.0 nor 1.3")


def _wait_for_barrier(connection: socket.socket, version: int) -> None:
    while True:
        _, kind, body, xid = _read(connection)
        if kind == ERROR:
            number = struct.unpack_from("!HH", body) if len(body) >= 4 else (0, 0)
            raise VswitchdError(f"the switch refuses: OpenFlow error {number[0]}, {number[1]}")
        if kind == ECHO_REQUEST:
            connection.sendall(_message(version, ECHO_REPLY, xid, body))
        if kind == BARRIER[version] + 1 and xid == XID_BARRIER:
            return


def _read(connection: socket.socket) -> tuple[int, int, bytes, int]:
    """Version, kind, body and number of a message."""
    version, kind, length, xid = struct.unpack("!BBHI", _exactly(connection, 8))
    return version, kind, _exactly(connection, max(0, length - 8)), xid


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise VswitchdError("the switch ended the connection")
        data += more
    return data


def forget(folder: str, bridge: str, port: tuple[str, int], mac: str, vlan: int) -> bool:
    """Has BRIDGE forget that it has learned MAC at PORT, device and number; whether it had. Raises
    VswitchdError.

    It removes no entries but those that somebody has put there: so it is made one of these first. Should
    nobody come to remove it, it goes with the port, at the migration's end."""
    words = [bridge, str(vlan), mac]
    learned = _tell(folder, "fdb/show", [bridge])
    if not is_learned(learned, port[1], mac, vlan):
        return False
    try:
        _tell(folder, "fdb/add", [bridge, port[0], str(vlan), mac])
    except VswitchdError:
        with contextlib.suppress(VswitchdError):
            _tell(folder, "fdb/del", words)  # it may have been done, and its answer late
        raise
    _tell(folder, "fdb/del", words)
    return True


def is_learned(table: str, number: int, mac: str, vlan: int) -> bool:
    """Whether MAC was learned at port NUMBER, by what fdb/show says: a line an entry, of port, VLAN, address
    and age, which is "static" of one that somebody has put there. Pure."""
    rows = (line.split() for line in table.splitlines())
    wanted = [str(number), str(vlan), mac.lower()]
    return any(row[:3] == wanted and row[3:4] != ["static"] for row in rows)


def _tell(folder: str, command: str, words: list[str]) -> str:
    """Its answer."""
    try:
        number = int((pathlib.Path(folder) / "ovs-vswitchd.pid").read_text())
        path = os.path.join(folder, f"ovs-vswitchd.{number}.ctl")
        return ovn_controller.command(path, command, *words, patience_s=TIMEOUT_S)
    except ValueError as err:
        raise VswitchdError(f"ovs-vswitchd's process id makes no sense: {err}") from err
    except ovn_controller.Refused as err:
        raise VswitchdError(f"ovs-vswitchd refuses {command}: {str(err).strip()}") from err
    except OSError as err:
        raise VswitchdError(f"ovs-vswitchd in {folder}: {err.strerror or err}") from err
