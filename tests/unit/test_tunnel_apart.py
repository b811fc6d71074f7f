# SPDX-License-Identifier: Apache-2.0
"""Guests are apart: a process of QEMU's own user, as that of another guest is, can neither see, take nor
replace a guest's socket. With file permissions alone, and other users as root makes them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.unit.certificates import Authority, Pair
from tests.unit.test_tunnel_refusals import ACCEPTED, BAD_SOCKET, NO_NAME, as_client, hello, logged, verdict
from tests.unit.tunnels import Daemon, authority, folder, new_name

__all__ = ["authority", "folder"]  # fixtures

ROOT = pathlib.Path(__file__).parents[2]
MEMORY = "memory of a guest"
DAEMON, QEMU, OTHER = (
    65532,
    65534,
    65533,
)  # users; a guest with a label of its own (<seclabel model='dac'>) has another one
as_root = pytest.mark.skipif(os.getuid() != 0, reason="other users' processes take root to start")

# In each: `run` is the folder, `name` the guest's.
LISTEN = """
l = socket.socket(socket.AF_UNIX)
with contextlib.suppress(FileNotFoundError):
    os.unlink(f"{run}/{name}")
l.bind(f"{run}/{name}")
l.listen()
print("listening", flush=True)
while True:
    c, _ = l.accept()
    print(c.recv(100).decode(), flush=True)
"""
REPLACE = 'os.rename(f"{run}/{name}", f"{run}/" + "0" * 32)\n' + LISTEN
CODE = """
import contextlib, os, socket, sys
user, run, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setgid(user); os.setuid(user); os.umask(0o002)
"""


class Guest:
    """A process of a guest's QEMU, or what has broken out of one."""

    def __init__(self, folder: pathlib.Path, name: str, does: str, user: int = QEMU) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE + does, str(user), str(folder / "run"), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


TRIES = """
for expression in {}:
    try: print(eval(expression), flush=True)
    except OSError as err: print(type(err).__name__, flush=True)
"""


def tries(folder: pathlib.Path, name: str, *expressions: str) -> list[str]:
    """What a guest's process gets for each: a value, or the name of an error."""
    with Guest(folder, name, TRIES.format(expressions)) as guest:
        return [guest.says() for _ in expressions]


@pytest.fixture
def destination(folder: pathlib.Path, authority: Authority) -> Iterator[Daemon]:
    folder.chmod(0o755)
    pair = authority.issue("host-b", "localhost", "127.0.0.1")
    with Daemon(folder / "b", authority, pair, owner_gid=QEMU, socket_wait_ms=100) as daemon:
        (folder / "b").chmod(0o755)
        yield daemon


@pytest.fixture
def good(authority: Authority) -> Pair:
    return authority.issue("host-a", "localhost")


@contextlib.contextmanager
def stream(source: Daemon, destination: Daemon, name: str) -> Iterator[None]:
    """Its first bytes are on their way."""
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    with source.connect(name) as here:
        here.sendall(MEMORY.encode())
        yield


@pytest.fixture
def source(folder: pathlib.Path, authority: Authority) -> Iterator[Daemon]:
    with Daemon(folder / "a", authority, authority.issue("host-a", "localhost"), owner_gid=QEMU) as daemon:
        (folder / "a").chmod(0o755)
        yield daemon


@as_root
def test_nobody_takes_the_place_of_a_socket_at_the_destination(source: Daemon, destination: Daemon) -> None:
    """Another process of QEMU's user knows the name from /proc/net/unix, moves the guest's socket away and
    listens itself: it gets nothing, and the log says so."""
    name = new_name()
    with Guest(destination.folder, name, LISTEN) as guest:
        assert guest.says() == "listening"
        with Guest(destination.folder, name, REPLACE) as thief:
            assert thief.says() == "listening"
            with stream(source, destination, name):
                words = ("refused a stream", name, "CN=host-a", "replaced before anybody was connected")
                logged(destination, *words)
            thief._process.kill()
            assert thief.says() == ""


@as_root
@pytest.mark.parametrize("user", [QEMU, OTHER])
def test_a_guest_gets_its_stream_and_is_resumed(source: Daemon, destination: Daemon, user: int) -> None:
    """Whatever its user is. It listens anew for each attempt to resume it; another process may not instead,
    even of the same user."""
    name = new_name()
    twice = LISTEN.replace("while True:", "for _ in range(2):")
    with Guest(destination.folder, name, twice + LISTEN, user) as guest:
        assert guest.says() == "listening"
        with stream(source, destination, name):
            assert guest.says() == MEMORY
        with stream(source, destination, name):
            assert [guest.says(), guest.says()] == [MEMORY, "listening"]  # a socket of its own again
        with stream(source, destination, name):
            assert guest.says() == MEMORY
        with Guest(destination.folder, name, LISTEN, user) as thief:
            assert thief.says() == "listening"
            with stream(source, destination, name):
                words = ("refused a stream", name, f"of user {user} listens, but the guest's QEMU is process")
                logged(destination, *words)


@as_root
def test_another_daemon_knows_whom_the_name_is(
    folder: pathlib.Path, source: Daemon, authority: Authority
) -> None:
    """A restart is not the moment to take a name over."""
    folder.chmod(0o755)
    pair = authority.issue("host-b", "localhost", "127.0.0.1")
    known, waiting, later = new_name(), new_name(), new_name()
    with contextlib.ExitStack() as stack:
        with Daemon(folder / "b", authority, pair, socket_wait_ms=100) as before:
            (folder / "b").chmod(0o755)
            guests = [stack.enter_context(Guest(before.folder, name, LISTEN)) for name in (known, waiting)]
            assert [guest.says() for guest in guests] == ["listening", "listening"]
            with stream(source, before, known):
                assert guests[0].says() == MEMORY
        stack.enter_context(thief := Guest(before.folder, later, LISTEN))
        assert thief.says() == "listening"
        for name in (known, waiting, later):
            assert source.ask(f"close {name}") in ("ok", f"error unknown name {name}")
        with Daemon(folder / "b", authority, pair, socket_wait_ms=100) as after:
            for guest, name in zip(guests, (known, waiting), strict=True):
                with stream(source, after, name):
                    assert guest.says() == MEMORY
            with stream(source, after, later):
                logged(after, "refused a stream", later, "made while the tunnel was not there")


@as_root
def test_what_a_guest_can_do_in_the_folders(source: Daemon, destination: Daemon) -> None:
    name, mine = new_name(), new_name()
    assert source.ask(f"open {name} localhost {destination.port}").startswith("ok ")
    real = source.folder / "run/source" / name
    os.chown(real, QEMU, QEMU)  # as libvirt does before its QEMU connects
    wishes = (
        ("os.listdir(run)", "PermissionError"),
        ("os.listdir(f'{run}/source')", "PermissionError"),
        ("os.listdir(f'{run}/known')", "PermissionError"),
        ("os.rename(f'{run}/{name}', f'{run}/x')", "PermissionError"),
        ("os.unlink(f'{run}/{name}')", "PermissionError"),
        ("os.rename(f'{run}/source/{name}', f'{run}/x')", "PermissionError"),
        ("os.unlink(f'{run}/source/{name}')", "PermissionError"),
        ("socket.socket(socket.AF_UNIX).bind(f'{run}/source/x')", "PermissionError"),
        ("os.rename(f'{run}/source', f'{run}/x')", "PermissionError"),
        ("os.symlink('1', f'{run}/known/x')", "PermissionError"),
        ("name in open('/proc/net/unix').read()", "False"),
        ("socket.socket(socket.AF_UNIX).connect(f'{run}/{name}')", "None"),
    )
    got = tries(source.folder, name, *(wish for wish, _ in wishes))
    assert list(zip((wish for wish, _ in wishes), got, strict=True)) == list(wishes)
    # Of a guest whose user is its own, nothing can be removed by another.
    with Guest(destination.folder, mine, LISTEN, OTHER) as guest:
        assert guest.says() == "listening"
        got = tries(
            destination.folder, mine, "os.unlink(f'{run}/{name}')", "os.rename(f'{run}/{name}', f'{run}/x')"
        )
        assert got == ["PermissionError", "PermissionError"]


def test_what_was_made_twice_is_refused(destination: Daemon, authority: Authority, good: Pair) -> None:
    """The same without root; and whether or not the daemon has looked in between."""
    context = as_client(authority, good)
    once = new_name()
    with destination.listen(once):
        assert verdict(destination, context, hello(once.encode())) == ACCEPTED
    for _ in range(30):
        name = new_name()
        destination.listen(name).close()
        os.unlink(destination.path(name))
        with destination.listen(name):
            assert verdict(destination, context, hello(name.encode())) == BAD_SOCKET
    assert verdict(destination, context, hello(new_name().encode())) == NO_NAME


UNPRIVILEGED = """
import json, os, signal, sys
from pcmig import _tunnel
user = int(sys.argv[1])
os.setgroups([]); os.setgid(user); os.setuid(user); os.umask(0o077)
tunnel = _tunnel.Tunnel(**json.loads(sys.argv[2]))
tunnel.start()
print(tunnel.ports()[0], flush=True)
signal.pause()
"""


@contextlib.contextmanager
def unprivileged(folder: pathlib.Path, authority: Authority, pair: Pair) -> Iterator[int]:
    """A daemon in FOLDER that is neither root nor of a group of QEMU's; its port."""
    folder.mkdir()
    os.chown(folder, DAEMON, DAEMON)
    pair.key.chmod(0o644)
    settings = {
        "run_dir": str(folder / "run"),
        "control": str(folder / "control"),
        "listen": ["127.0.0.1:0"],
        "ca": str(authority.certificate),
        "certificate": str(pair.certificate),
        "key": str(pair.key),
        "owner_gid": QEMU,
        "control_gid": DAEMON,
        **Daemon.TIMES,
        "socket_wait_ms": 100,
    }
    words = [sys.executable, "-c", UNPRIVILEGED, str(DAEMON), json.dumps(settings)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            yield int(daemon.stdout.readline())
        finally:
            daemon.kill()


@as_root
def test_the_daemon_needs_no_right_of_roots(folder: pathlib.Path, authority: Authority) -> None:
    """It reaches sockets of any user at the destination; at the source libvirt gives them to the guest's."""
    folder.chmod(0o755)
    mine, pair = folder / "b", authority.issue("host-b", "localhost", "127.0.0.1")
    with (
        unprivileged(mine, authority, pair) as port,
        Daemon(folder / "a", authority, authority.issue("host-a", "localhost")) as other,
    ):
        (folder / "a").chmod(0o755)
        for user in (QEMU, OTHER):
            name = new_name()
            with Guest(mine, name, LISTEN, user) as guest:
                assert guest.says() == "listening"
                assert other.ask(f"open {name} localhost {port}").startswith("ok ")
                with other.connect(name) as here:
                    here.sendall(MEMORY.encode())
                    assert guest.says() == MEMORY
        name = new_name()
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(mine / "control"))
            control.sendall(f"open {name} localhost {other.port}\n".encode())
            assert control.recv(200).startswith(b"ok ")
        real = mine / "run/source" / name
        assert (real.stat().st_uid, stat.S_IMODE(real.stat().st_mode)) == (DAEMON, 0o600)
        connect = "socket.socket(socket.AF_UNIX).connect(f'{run}/{name}')"
        assert tries(mine, name, connect) == ["PermissionError"]
        os.chown(real, QEMU, QEMU)
        assert tries(mine, name, connect) == ["None"]
