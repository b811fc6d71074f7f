# SPDX-License-Identifier: Apache-2.0
"""Two tunnel daemons in this process, and sockets in the place of QEMU, for tests."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from pcmig import _tunnel
from tests.unit.certificates import Authority, Pair
from tests.unit.patience import NEVER_MS, PATIENCE_S


class Daemon:
    """One daemon with its folder; stops at the end of a `with`."""

    # What a test is not about takes as long as a busy machine needs.
    TIMES: ClassVar[dict[str, int]] = dict.fromkeys(
        ("dead_after_ms", "handshake_ms", "socket_wait_ms", "dial_ms"), NEVER_MS
    )

    def __init__(
        self, folder: pathlib.Path, authority: Authority | None, pair: Pair | None, **more: Any
    ) -> None:
        self.folder = folder
        self.control = str(folder / "control")
        settings: dict[str, Any] = {
            "run_dir": str(folder / "run"),
            "control": self.control,
            "listen": ["127.0.0.1:0"],
            "workers": 2,
            "plaintext": authority is None,
            **self.TIMES,
        }
        if authority is not None and pair is not None:
            settings |= {
                "ca": str(authority.certificate),
                "certificate": str(pair.certificate),
                "key": str(pair.key),
            }
        folder.mkdir(exist_ok=True)
        self.log: list[tuple[int, str]] = []
        self._settings = settings | more
        self.tunnel = _tunnel.Tunnel(**self._settings)
        self.tunnel.start()
        self.port = self.tunnel.ports()[0] if self.tunnel.ports() else 0

    def ask(self, line: str) -> str:
        """One request to the control socket; its answer without the newline."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE_S)
            s.connect(self.control)
            s.sendall(line.encode() + b"\n")
            answer = s.makefile("rb").readline()
        assert answer.endswith(b"\n"), answer
        return answer[:-1].decode()

    def figures(self) -> dict[str, int]:
        """What `metrics` answers."""
        words = (word.split("=") for word in self.ask("metrics").split()[1:])
        return {key: int(value) for key, value in words}

    def reload(self, **more: Any) -> None:
        """With the same settings, and MORE."""
        self.tunnel.reload(**(self._settings | more))

    def show(self, name: str) -> dict[str, str]:
        answer = self.ask(f"show {name}")
        assert answer.startswith("ok "), answer
        return dict(word.split("=", 1) for word in answer.split()[1:])

    def messages(self) -> list[str]:
        """All there were so far."""
        self.log += self.tunnel.messages()
        return [text for _, text in self.log]

    def path(self, name: str) -> str:
        return str(self.folder / "run" / name)

    def listen(self, name: str) -> socket.socket:
        """A destination's QEMU: a socket under NAME."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(PATIENCE_S)
        s.bind(self.path(name))
        os.chmod(self.path(name), 0o700)
        s.listen(16)
        return s

    def connect(self, name: str) -> socket.socket:
        """A source's QEMU."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(PATIENCE_S)
        s.connect(self.path(name))
        return s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tunnel.stop()


class DaemonAsInstalled(Daemon):
    """With the times of a daemon that nobody has told any."""

    TIMES: ClassVar[dict[str, int]] = {}


class Cut:
    """A TCP relay to PORT that can fall silent, as a network does that was cut: no end, no error."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []

    def cut(self) -> None:
        """What runs is silent from now on, and nobody gets a new connection through."""
        self._silent.set()

    def mend(self) -> None:
        """New connections get through; the old ones stay silent."""
        self._silent = threading.Event()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._silent.is_set():
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._connections += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(*pair, self._silent), daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if silent.is_set():
                    return
                to.sendall(piece)
            if not silent.is_set():
                to.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Cut:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """With a short path: a socket's has 107 characters at most, and pytest's own folders are long."""
    with tempfile.TemporaryDirectory(prefix="pcmig-") as made:
        yield pathlib.Path(made)


@pytest.fixture
def authority(folder: pathlib.Path) -> Authority:
    return Authority(folder)


def new_name() -> str:
    return secrets.token_hex(16)


_quiet: list[socket.socket] = []  # open until this process ends


def quiet_port() -> int:
    """One that no socket of this host has, that the kernel gives to none, and this to no other process: an
    abstract name (unix(7)) stands for each, of which a network namespace has one, as of ports."""
    while True:
        port = random.SystemRandom().randrange(20000, 30000)
        mine = socket.socket(socket.AF_UNIX)
        try:
            mine.bind(f"\0pcmig-quiet-port-{port}")
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
        except OSError:
            mine.close()
            continue
        _quiet.append(mine)
        return port
