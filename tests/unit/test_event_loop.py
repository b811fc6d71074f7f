# SPDX-License-Identifier: Apache-2.0
"""Who runs libvirt's event loop. Each case needs a process of its own: there is one loop in it."""

from __future__ import annotations

import subprocess
import sys

COUNT_THREADS = """
import os, time
from pcmig import _core

def threads(expected):
    # A connection is closed on a thread of its own, which ends by itself.
    end_s = time.monotonic() + 180
    while len(os.listdir("/proc/self/task")) != expected and time.monotonic() < end_s:
        time.sleep(0.01)
    return len(os.listdir("/proc/self/task"))
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_own_loop_runs_on_a_thread_of_its_own() -> None:
    assert run('_core.host_facts("test:///default"); print(threads(2))') == "2"


def test_shared_loop_starts_no_thread() -> None:
    code = '_core.share_event_loop(); _core.host_facts("test:///default"); print(threads(1))'
    assert run(code) == "1"


def test_sharing_twice_is_fine() -> None:
    assert run('_core.share_event_loop(); _core.share_event_loop(); print("fine")') == "fine"


def test_sharing_comes_too_late_once_the_own_loop_runs() -> None:
    code = """
_core.host_facts("test:///default")
try:
    _core.share_event_loop()
except _core.Error as err:
    print(err)
"""
    assert "before the first connection" in run(code)
