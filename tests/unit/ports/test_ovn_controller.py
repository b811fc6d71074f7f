# SPDX-License-Identifier: Apache-2.0
"""Whether ovn-controller answers, and where it is asked."""

from __future__ import annotations

import pathlib
import socket

import pytest

from pcmig.ports import ovn_controller
from pcmig.ports.ovn_controller import answers, folders_beside, sockets
from tests.unit.patience import PATIENCE_S
from tests.unit.ports.control_socket import controller


def test_it_answers(tmp_path: pathlib.Path) -> None:
    """What a dead one left counts only where there is no other."""
    assert answers(sockets([str(tmp_path)])) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "ovn-controller.1.ctl"))
    assert answers(sockets([str(tmp_path)])) is False
    with controller(tmp_path / "ovn-controller.2.ctl", {"version": "ovn-controller 23.03.1\n"}):
        assert answers(sockets([str(tmp_path)]), PATIENCE_S) is True
    assert answers([str(tmp_path / "gone.ctl")]) is None


def test_it_stands_still(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c"))
        listener.listen()  # the kernel takes the connection, and nobody reads
        assert answers([str(tmp_path / "c")], 0.1) is False


def test_who_may_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError("no")

    monkeypatch.setattr(ovn_controller, "command", denied)
    assert answers(["/run/ovn/ovn-controller.1.ctl"]) is None


@pytest.mark.parametrize(
    ("ovsdb", "folders"),
    [
        ("unix:/run/openvswitch/db.sock", ovn_controller.FOLDERS),
        ("unix:/var/run/openvswitch/db.sock", ovn_controller.FOLDERS),
        ("tcp:127.0.0.1:6640", ovn_controller.FOLDERS),
        ("unix:/tmp/x/db.sock", ("/tmp/x",)),
    ],
)
def test_where_it_is_asked(ovsdb: str, folders: tuple[str, ...]) -> None:
    assert folders_beside(ovsdb) == folders
