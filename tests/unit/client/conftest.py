# SPDX-License-Identifier: Apache-2.0
"""Runs the clients as users do: their own commands, each in its own process, with pcmig or without."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pty
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from tests.unit.client.fake_cloud import FakeCloud
from tests.unit.patience import PATIENCE_S

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


Client = Callable[..., Done]


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    fake = FakeCloud()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def entry_points(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, pathlib.Path]:
    """Folders for the front of the path: with this checkout's entry points, and with none at all.

    They bear the package's name, so that an installed one, which may be older, does not count.
    """
    groups = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in groups.items()
    ]
    folders = {}
    for installed in (True, False):
        folder = tmp_path_factory.mktemp("installed" if installed else "bare")
        info = folder / "pcmig_client-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pcmig-client\nVersion: 0\n")
        (info / "entry_points.txt").write_text("\n".join(lines) if installed else "")
        folders[installed] = folder
    return folders


class Forker:
    """A process that has the clients imported, with pcmig's plugins or without; see forker.py."""

    def __init__(self, entry_points: pathlib.Path, home: pathlib.Path) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),  # one for all: stevedore keeps what it found there
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
            "PYTHONPATH": f"{entry_points}:{ROOT}:{ROOT}/common:{ROOT}/client",
            "PYTHONWARNINGS": "ignore",
            "no_proxy": "*",
        }
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(PATIENCE_S)
        # Not in ROOT: metadata that a build has left there would come before these entry points.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.client.forker"], stdin=theirs.fileno(), env=self.env, cwd=home
        )
        theirs.close()

    def run(self, words: Sequence[str], env: Mapping[str, str], files: Sequence[int]) -> int:
        order = {"words": words, "env": {**self.env, **env}}
        socket.send_fds(self._channel, [json.dumps(order).encode()], files)
        return int(self._channel.recv(64))

    def close(self) -> None:
        self._channel.close()
        self._process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def forkers(
    entry_points: Mapping[bool, pathlib.Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[bool, Forker]]:
    home = tmp_path_factory.getbasetemp()
    found = {plugin: Forker(folder, home) for plugin, folder in entry_points.items()}
    yield found
    for forker in found.values():
        forker.close()


@pytest.fixture
def client(cloud: FakeCloud, forkers: Mapping[bool, Forker], tmp_path: pathlib.Path) -> Client:
    """client("nova", "list") runs it; plugin=False: without pcmig, terminal=True: on a pty;
    typed: what is on its standard input."""
    names = ("in", "out", "err")

    def run(*words: str, plugin: bool = True, terminal: bool = False, typed: str = "", **env: str) -> Done:
        environment = {
            "OS_AUTH_URL": f"{cloud.url}/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": "secret",
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            **env,
        }
        (tmp_path / "in").write_text(typed)
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context((tmp_path / name).open("w" if name != "in" else "r")) for name in names
            ]
            numbers = [file.fileno() for file in files]
            screen = Screen() if terminal else None
            if screen is not None:
                numbers[1] = screen.theirs
            code = forkers[plugin].run(words, environment, numbers)
        out = screen.text() if screen is not None else (tmp_path / "out").read_text()
        return Done(code, out, (tmp_path / "err").read_text())

    return run


class Screen:
    """A terminal that keeps what is written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._pieces: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(self._ours, 4096):
                self._pieces.append(piece)

    def text(self) -> str:
        os.close(self.theirs)
        self._reader.join(PATIENCE_S)
        os.close(self._ours)
        return b"".join(self._pieces).decode()
