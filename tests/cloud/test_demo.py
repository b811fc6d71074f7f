# SPDX-License-Identifier: Apache-2.0
"""tools/demo --cloud as a newcomer types it, in a shell whose variables would lead its programs astray."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bed import bed as beds
from tests.bed.network import namespaces_present
from tests.cloud.cloud import KeptCloud

pytestmark = pytest.mark.timeout(600)

ROOT = pathlib.Path(__file__).parents[2]
ASTRAY = {
    "PYTHONPATH": str(ROOT),
    "PYTHONSTARTUP": "/nowhere.py",
    "LIBVIRT_DEFAULT_URI": "test:///default",
    "OS_AUTH_URL": "http://192.0.2.1:5000/v3",
    "OS_CLOUD": "another",
    "OS_NOVA_DISABLE_EVENTLET_PATCHING": "false",
    "XDG_CONFIG_HOME": "/nowhere",
    "LC_ALL": "tr_TR.UTF-8",
    "PCMIG_JOURNAL_DIR": "/nowhere",
}


@pytest.fixture(scope="module")
def demo() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(ROOT / "tools/demo"), "--cloud"],
        cwd="/",
        env={**os.environ, **ASTRAY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    process.terminate()
    process.wait(60)


def clouds() -> set[str]:
    return {bed.id for bed in beds.kept_beds() if isinstance(bed.content.get("cloud"), dict)}


def test_it_moves_the_guest_and_leaves_nothing(demo: subprocess.Popen[str]) -> None:
    before, namespaces_before = clouds(), set(namespaces_present())
    assert demo.stdout is not None
    said: list[str] = []
    running: set[int] = set()
    for line in demo.stdout:
        said.append(line)
        if "it runs on a as" in line:
            (new,) = clouds() - before
            cloud = KeptCloud(beds.BEDS / new)
            nodes = (cloud.control, cloud.host("a"), cloud.host("b"))
            running = {pid for node in nodes for pid in node.processes()}
    assert demo.wait(60) == 0, "".join(said)
    text = "".join(said)
    assert "the guest runs on b, and every page holds what the guest wrote" in text, text
    assert "\x1b[" not in text  # colours are for terminals
    assert len(running) > 20
    assert clouds() == before
    assert set(namespaces_present()) == namespaces_before
    deadline_s = time.monotonic() + 5  # a zombie or two may take a moment
    while left := [pid for pid in running if pathlib.Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.1)
