# SPDX-License-Identifier: Apache-2.0
"""pcmig._tunnel leaves no memory, descriptors or threads behind: daemons that come and go, and streams."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcmig import _tunnel
from tests.leak.meter import BLOCKS_PER_LOAD, grows, load_anew
from tests.unit.certificates import Authority
from tests.unit.tunnels import DaemonAsInstalled, new_name

Settings = dict[str, Any]
CALLS: dict[str, Callable[[Settings], object]] = {}


def row(name: str) -> Callable[[Callable[[Settings], object]], Callable[[Settings], object]]:
    def add(call: Callable[[Settings], object]) -> Callable[[Settings], object]:
        CALLS[name] = call
        return call

    return add


@row("TunnelError")
def _raised(_: Settings) -> None:
    with contextlib.suppress(_tunnel.TunnelError):
        raise _tunnel.TunnelError("text")


@row("Tunnel")
def _made(settings: Settings) -> None:
    _tunnel.Tunnel(**settings)
    for change in (
        {"ca": "/nowhere"},
        {"listen": ["nonsense"]},
        {"listen": [1]},
        {"allow": "text"},
        {"run_dir": "/proc/none/run"},
        {"workers": -1},
        {"owner_gid": 1 << 40},
        {"key": "\0"},
    ):
        with contextlib.suppress(_tunnel.TunnelError, TypeError, ValueError, OverflowError):
            _tunnel.Tunnel(**(settings | change))
            raise AssertionError(f"{change} was taken")


@row("Tunnel.start")
def _started(settings: Settings) -> None:
    tunnel = _tunnel.Tunnel(**settings)
    tunnel.start()
    with contextlib.suppress(_tunnel.TunnelError):
        tunnel.start()


@row("Tunnel.stop")
def _stopped(settings: Settings) -> None:
    tunnel = _tunnel.Tunnel(**settings)
    tunnel.start()
    tunnel.stop()
    tunnel.stop(grace_ms=10)
    with contextlib.suppress(ValueError):
        tunnel.stop(grace_ms=-1)


@row("Tunnel.reload")
def _reloaded(settings: Settings) -> None:
    tunnel = _tunnel.Tunnel(**settings)
    tunnel.start()
    tunnel.reload(**settings)
    tunnel.reload(**(settings | {"listen": ["127.0.0.2:0"]}))
    with contextlib.suppress(_tunnel.TunnelError):
        tunnel.reload(**(settings | {"listen": ["127.0.0.3:0", "127.0.0.3"]}))
    key = pathlib.Path(settings["key"])
    content = key.read_bytes()
    key.write_bytes(b"")
    with contextlib.suppress(_tunnel.TunnelError):
        tunnel.reload(**settings)
    key.write_bytes(content)


@row("Tunnel.reload_asked")
def _reload_asked(settings: Settings) -> int:
    return _tunnel.Tunnel(**settings).reload_asked()


@row("Tunnel.answer_reload")
def _answer_reload(settings: Settings) -> None:
    tunnel = _tunnel.Tunnel(**settings)
    tunnel.answer_reload(0, "ok")  # to nobody
    tunnel.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(settings["control"])
        client.sendall(b"reload\n")
        while not tunnel.reload_asked():
            time.sleep(0.001)
        tunnel.answer_reload(tunnel.reload_asked(), "error no")
        assert client.recv(100) == b"error no\n"


@row("Tunnel.silent_ms")
def _silent_ms(settings: Settings) -> int:
    return _tunnel.Tunnel(**settings).silent_ms()


@row("Tunnel.ends")
def _ends(settings: Settings) -> dict[str, int]:
    return _tunnel.Tunnel(**settings).ends()


@row("Tunnel.fileno")
def _fileno(settings: Settings) -> int:
    return _tunnel.Tunnel(**settings).fileno()


@row("Tunnel.messages")
def _messages(settings: Settings) -> list[tuple[int, str]]:
    tunnel = _tunnel.Tunnel(**settings)
    tunnel.start()
    return tunnel.messages()


@row("Tunnel.ports")
def _ports(settings: Settings) -> list[int]:
    return _tunnel.Tunnel(**settings).ports()


def exports() -> Iterator[str]:
    for name, value in vars(_tunnel).items():
        if name.startswith("_") or not callable(value):
            continue
        yield name
        if isinstance(value, type) and not issubclass(value, BaseException):
            yield from (f"{name}.{method}" for method in vars(value) if not method.startswith("_"))


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="pcmig-") as made:
        yield pathlib.Path(made)


def test_every_export_has_a_row() -> None:
    assert set(exports()) == CALLS.keys()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_calls_leave_nothing_behind(folder: pathlib.Path, name: str) -> None:
    authority = Authority(folder)
    pair = authority.issue("host", "localhost")
    settings = {
        "run_dir": str(folder / "run"),
        "control": str(folder / "control"),
        "listen": ["127.0.0.1:0"],
        "ca": str(authority.certificate),
        "certificate": str(pair.certificate),
        "key": str(pair.key),
        "crl": str(authority.revoke()),
        "allow": ["localhost", "*"],
    }
    assert grows(lambda: CALLS[name](settings), calls=20) is None


def test_streams_leave_nothing_behind(folder: pathlib.Path) -> None:
    """What is refused, too; and many bytes through one stream take no more memory than few."""
    authority = Authority(folder)
    pair = authority.issue("host", "localhost", "127.0.0.1")
    with (
        DaemonAsInstalled(folder / "a", authority, pair, dial_ms=50) as source,
        DaemonAsInstalled(
            folder / "b", authority, pair, socket_wait_ms=1, max_handshakes_per_s=100_000
        ) as destination,
    ):

        def once() -> None:
            name = new_name()
            assert source.ask(f"open {name} localhost {destination.port} streams=2").startswith("ok ")
            with destination.listen(name) as listening:
                here = source.connect(name)
                there, _ = listening.accept()
                here.sendall(b"x" * 100_000)
                here.shutdown(socket.SHUT_WR)
                while there.recv(1 << 16):
                    pass
                here.close()
                there.close()
            pathlib.Path(destination.path(name)).unlink()
            with source.connect(name) as nobody:
                assert nobody.recv(1) == b""
            with socket.create_connection(("127.0.0.1", destination.port)) as stranger:
                stranger.sendall(b"nonsense")
            assert source.ask(f"probe localhost {destination.port}").startswith("ok ")
            assert source.ask(f"close {name}") == "ok"
            assert destination.ask(f"close {name}") == "ok"
            source.tunnel.messages()
            destination.tunnel.messages()

        assert grows(once, calls=20) is None

        name = new_name()
        assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
        with destination.listen(name) as listening, source.connect(name) as here:
            there, _ = listening.accept()
            block = bytes(1 << 17)

            def a_lot() -> None:
                here.sendall(block)
                left = len(block)
                while left:
                    got = len(there.recv(left))
                    assert got, "the stream has ended"
                    left -= got

            assert grows(a_lot, calls=200) is None
            there.close()


def test_loading_again_and_again_leaves_nothing_behind() -> None:
    def load() -> None:
        module = load_anew(_tunnel)
        assert module is not _tunnel and module.Tunnel is not _tunnel.Tunnel

    assert grows(load, calls=20, blocks_allowed=BLOCKS_PER_LOAD) is None
