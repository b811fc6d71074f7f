# SPDX-License-Identifier: Apache-2.0
"""Runs functional_adoption, functional_ending and the like, each in processes of its own, as Nova's
functional tests change the whole process."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(3000)  # of functional_faults, on a machine that does other work: minutes

ROOT = pathlib.Path(__file__).parents[2]
MODULES = tuple(
    f"tests.nova_own.functional_{name}"
    for name in ("adoption", "ending", "restart", "lost", "turning", "faults")
)


@pytest.mark.parametrize("module", MODULES)
def test_novas_records_after_restarts_errors_and_interruptions(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.nova_own", "--module", module],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2900,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    assert ", 0 with Nova's own too," in done.stdout, done.stdout[-4000:]
