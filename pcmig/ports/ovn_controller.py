# SPDX-License-Identifier: Apache-2.0
"""ovn-controller of this host, asked at its control socket as ovn-appctl(8) does. It answers between two of
its rounds: one that does not answer installs no flows and opens no port meanwhile."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import time
from collections.abc import Iterable

FOLDERS = ("/run/ovn", "/run/openvswitch")  # the second before OVN had one of its own
MAX_ANSWER = 1 << 20
BUSY_S = 0.2  # longer than most guests' own silence at the switch


class Refused(Exception):
    """It does not know the command."""


def sockets(folders: Iterable[str] = FOLDERS) -> list[str]:
    """Those that are there; what one left that was killed is among them."""
    return [
        str(path) for folder in folders for path in sorted(pathlib.Path(folder).glob("ovn-controller.*.ctl"))
    ]


def folders_beside(ovsdb: str) -> tuple[str, ...]:
    """Where its socket is, if Open vSwitch's database is at OVSDB."""
    kind, _, path = ovsdb.partition(":")
    folder = str(pathlib.Path(path).parent) if kind == "unix" else FOLDERS[1]
    return FOLDERS if folder in (*FOLDERS, "/var/run/openvswitch") else (folder,)


def answers(paths: Iterable[str], patience_s: float = BUSY_S) -> bool | None:
    """Whether it answers at one of PATHS within that time. None: there is none that may be asked."""
    found: bool | None = None
    for path in paths:
        try:
            command(path, "version", patience_s=patience_s)
            return True
        except (PermissionError, FileNotFoundError):
            continue
        except (OSError, Refused):
            found = False
    return found


def command(path: str, name: str, *words: str, patience_s: float) -> str:
    """What it says to a command. OSError when it does not answer, Refused when it does not know it."""
    deadline_s = time.monotonic() + patience_s
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience_s)
        try:
            connection.connect(path)
            connection.sendall(json.dumps({"method": name, "params": words, "id": 0}).encode())
            text = b""
            while len(text) < MAX_ANSWER and time.monotonic() < deadline_s:
                data = connection.recv(65536)
                if not data:
                    raise OSError("it ended the connection")
                text += data
                with contextlib.suppress(ValueError, RecursionError):  # not the whole of it yet
                    return _result(json.loads(text))
        except TimeoutError:
            pass
    raise OSError(f"no answer in {patience_s:g} s")


def _result(answer: object) -> str:
    if not isinstance(answer, dict):
        raise OSError("it answers with something else than an object")
    if answer.get("error") is not None:
        raise Refused(str(answer["error"]))
    return str(answer.get("result"))
