"""Runs the clients as users do: their own commands, in processes of their own, with pcmig or without."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pty
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.unit.clients.fake_cloud import FakeCloud

ROOT = pathlib.Path(__file__).parents[3]
TIMEOUT_S = 60
MAINS = {"nova": "novaclient.shell", "openstack": "openstackclient.shell"}


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

    They bear pcmig's name, so that an installed pcmig, which may be older, does not count.
    """
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in groups.items()
    ]
    folders = {}
    for installed in (True, False):
        folder = tmp_path_factory.mktemp("installed" if installed else "bare")
        info = folder / "pcmig-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pcmig\nVersion: 0\n")
        (info / "entry_points.txt").write_text("\n".join(lines) if installed else "")
        folders[installed] = folder
    return folders


@pytest.fixture
def client(
    cloud: FakeCloud, entry_points: Mapping[bool, pathlib.Path], tmp_path_factory: pytest.TempPathFactory
) -> Client:
    """client("nova", "list") runs it; plugin=False: without pcmig, terminal=True: on a pty."""

    home = tmp_path_factory.getbasetemp()  # one for all: stevedore keeps what it found there

    def run(*words: str, plugin: bool = True, terminal: bool = False, **env: str) -> Done:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
            "PYTHONPATH": f"{entry_points[plugin]}:{ROOT}",
            "PYTHONWARNINGS": "ignore",
            "no_proxy": "*",
            "OS_AUTH_URL": f"{cloud.url}/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": "secret",
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            **env,
        }
        argv = [sys.executable, "-c", f"import sys, {MAINS[words[0]]} as s; sys.argv[0] = {words[0]!r}; "
                "sys.exit(s.main())", *words[1:]]  # fmt: skip
        return on_terminal(argv, environment) if terminal else piped(argv, environment)

    return run


def piped(argv: list[str], env: Mapping[str, str]) -> Done:
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    return Done(done.returncode, done.stdout, done.stderr)


def on_terminal(argv: list[str], env: Mapping[str, str]) -> Done:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    kill = threading.Timer(TIMEOUT_S, process.kill)
    kill.start()
    text = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        text += piece
    assert process.stderr is not None
    err = process.stderr.read()
    code = process.wait()
    kill.cancel()
    os.close(ours)
    return Done(code, text.decode(), err)
