# SPDX-License-Identifier: Apache-2.0
"""Who lives: tests.bed.procs.ProcessId on real processes."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from tests.bed.procs import ProcessId
from tests.unit.patience import wait_for

# The first thread ends by itself (SYS_exit ends one thread only), the second goes on until its input closes.
LEADER_ENDS_FIRST = """
import ctypes, os, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""


def state(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_zombie(pid: int) -> None:
    wait_for(lambda: state(pid) == "Z", "a zombie")


def test_a_zombie_does_not_live() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessId.of(process.pid)
        assert identity is not None and identity.alive()
        process.kill()
        wait_for_zombie(process.pid)
        assert not identity.alive()
        assert ProcessId.of(process.pid) is None
    assert not identity.alive()


def test_a_process_lives_until_its_last_thread_ends() -> None:
    """Its files, and so the port of a daemon, are open as long."""
    with subprocess.Popen([sys.executable, "-c", LEADER_ENDS_FIRST], stdin=subprocess.PIPE) as process:
        wait_for_zombie(process.pid)
        identity = ProcessId.of(process.pid)
        assert identity is not None and identity.alive()
    assert not identity.alive()
