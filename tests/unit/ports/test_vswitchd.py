# SPDX-License-Identifier: Apache-2.0
"""What ovs-vswitchd is told, by somebody in its place that may answer anything. The real one is in
tests/functional/test_ports.py."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from pcmig.ports import vswitchd
from pcmig.ports.vswitchd import VswitchdError
from tests.unit.patience import PATIENCE_S

FRAME = bytes(range(60))


def test_packet_out() -> None:
    assert vswitchd.packet_out(1, 5, FRAME).hex() == (
        "010d005400000000ffffffff0005000800000008fff9ffff" + FRAME.hex()
    )
    assert vswitchd.packet_out(4, 5, FRAME).hex() == (
        "040d006400000000ffffffff00000005001000000000000000000010fffffff9ffff000000000000" + FRAME.hex()
    )


class Place(Protocol):
    def __call__(
        self, name: str, answer: Callable[[socket.socket], None], times: int = 1
    ) -> pathlib.Path: ...


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    """A folder with one socket, at which somebody answers."""
    threads: list[threading.Thread] = []

    def made(name: str, answer: Callable[[socket.socket], None], times: int = 1) -> pathlib.Path:
        (tmp_path / "ovs-vswitchd.pid").write_text("77\n")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / name))
        listener.listen(1)

        def once() -> None:
            with listener:
                for _ in range(times):
                    with listener.accept()[0] as connection:
                        answer(connection)

        threads.append(threading.Thread(target=once, daemon=True))
        threads[-1].start()
        return tmp_path

    yield made
    for thread in threads:
        thread.join(PATIENCE_S)


def message(version: int, kind: int, xid: int = 0, body: bytes = b"") -> bytes:
    return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body


def read(connection: socket.socket) -> tuple[int, int, bytes]:
    version, kind, length, _ = struct.unpack("!BBHI", connection.recv(8, socket.MSG_WAITALL))
    return version, kind, connection.recv(length - 8, socket.MSG_WAITALL) if length > 8 else b""


@pytest.mark.parametrize(
    ("hello", "version", "barrier"),
    [
        (message(1, 0), 1, 18),
        (message(6, 0, 0, struct.pack("!HHI", 1, 8, 1 << 1 | 1 << 4 | 1 << 6)), 4, 20),
        (message(4, 0, 0, struct.pack("!HHI", 1, 8, 1 << 4)), 4, 20),
        (message(4, 0), 4, 20),
    ],
)
def test_a_switch_that_does_it(place: Place, hello: bytes, version: int, barrier: int) -> None:
    got: list[bytes] = []

    def switch(connection: socket.socket) -> None:
        connection.sendall(hello)
        assert read(connection)[:2] == (4, 0)
        for _ in range(2):
            got.append(read(connection)[2])
        assert read(connection)[:2] == (version, barrier)
        connection.sendall(message(version, 2, 9, b"are you there"))
        assert read(connection) == (version, 3, b"are you there")
        connection.sendall(message(version, barrier + 1, vswitchd.XID_BARRIER))

    folder = place("br0.mgmt", switch)
    vswitchd.send(str(folder), "br0", 5, [FRAME, FRAME[::-1]])
    assert [each[-60:] for each in got] == [FRAME, FRAME[::-1]]


@pytest.mark.parametrize(
    ("said", "message_"),
    [
        (b"", "ended the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n" + bytes(30000), "does not say hello"),
        (message(6, 0, 0, struct.pack("!HHI", 1, 8, 1 << 6)), "neither OpenFlow"),
        (message(1, 0) + message(1, 1, 0, struct.pack("!HH", 1, 9)), "OpenFlow error 1, 9"),
        (message(1, 0) + message(1, 1), "OpenFlow error 0, 0"),
        (message(1, 0) + b"\x01", "ended the connection"),
    ],
)
def test_one_that_does_not(place: Place, said: bytes, message_: str) -> None:
    def switch(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # it leaves without reading the rest
            while connection.recv(4096):
                pass

    with pytest.raises(VswitchdError, match=message_):
        vswitchd.send(str(place("br0.mgmt", switch)), "br0", 5, [FRAME])


def test_nobody(tmp_path: pathlib.Path) -> None:
    with pytest.raises(VswitchdError, match=r"br0\.mgmt: No such file"):
        vswitchd.send(str(tmp_path), "br0", 5, [FRAME])
    with pytest.raises(VswitchdError, match="No such file"):
        ask_to_forget(tmp_path)
    (tmp_path / "ovs-vswitchd.pid").write_text("seven")
    with pytest.raises(VswitchdError, match="makes no sense"):
        ask_to_forget(tmp_path)


TABLE = """ port  VLAN  MAC                Age
    1     7  52:54:00:00:00:01    3
    2     0  52:54:00:00:00:02   12
LOCAL     0  52:54:00:00:00:03    0
    3     0  52:54:00:00:00:04  static
"""


@pytest.mark.parametrize(
    ("number", "mac", "vlan", "learned"),
    [
        (1, "52:54:00:00:00:01", 7, True),
        (2, "52:54:00:00:00:02", 0, True),
        (1, "52:54:00:00:00:01", 0, False),
        (2, "52:54:00:00:00:01", 7, False),
        (3, "52:54:00:00:00:04", 0, False),
        (9, "52:54:00:00:00:09", 0, False),
    ],
)
def test_what_is_learned(number: int, mac: str, vlan: int, learned: bool) -> None:
    assert vswitchd.is_learned(TABLE, number, mac.upper(), vlan) == learned


def ask_to_forget(folder: pathlib.Path) -> bool:
    return vswitchd.forget(str(folder), "br0", ("vnet0", 1), "52:54:00:00:00:01", 7)


def test_an_address_that_is_forgotten(place: Place) -> None:
    asked: list[Any] = []

    def switch(connection: socket.socket) -> None:
        asked.append(json.loads(connection.recv(4096)))
        answer = json.dumps({"id": 0, "result": TABLE if len(asked) == 1 else "", "error": None}).encode()
        connection.sendall(answer[:9])
        connection.sendall(answer[9:])

    assert ask_to_forget(place("ovs-vswitchd.77.ctl", switch, 3))
    assert [(each["method"], *each["params"]) for each in asked] == [
        ("fdb/show", "br0"),
        ("fdb/add", "br0", "vnet0", "7", "52:54:00:00:00:01"),
        ("fdb/del", "br0", "7", "52:54:00:00:00:01"),
    ]


def test_an_entry_that_may_have_been_made(place: Place) -> None:
    """It would stay for as long as the port does: it is taken away again."""
    asked: list[str] = []

    def switch(connection: socket.socket) -> None:
        asked.append(json.loads(connection.recv(4096))["method"])
        if asked[-1] != "fdb/add":
            connection.sendall(json.dumps({"id": 0, "result": TABLE, "error": None}).encode())

    with pytest.raises(VswitchdError, match="ended the connection"):
        ask_to_forget(place("ovs-vswitchd.77.ctl", switch, 3))
    assert asked == ["fdb/show", "fdb/add", "fdb/del"]


def test_one_that_is_not_known(place: Place) -> None:
    def switch(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b'{"id": 0, "result": "port VLAN MAC Age", "error": null}')

    assert not ask_to_forget(place("ovs-vswitchd.77.ctl", switch))


@pytest.mark.parametrize(
    ("answer", "message_"),
    [
        (b'{"id": 0, "error": "no such bridge\\n"}', "refuses fdb/show: no such bridge$"),
        (b"", "ended the connection"),
        (b"[1]", "something else than an object"),
    ],
)
def test_a_daemon_that_does_not(place: Place, answer: bytes, message_: str) -> None:
    def switch(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with pytest.raises(VswitchdError, match=message_):
        ask_to_forget(place("ovs-vswitchd.77.ctl", switch))
