# SPDX-License-Identifier: Apache-2.0
"""Records and figures of a real migration: they replay bit for bit, and they balance. On both stacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed
from tests.functional.scene import RATE_MBIT, Scene, scene_on


@pytest.fixture(scope="module")
def backports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """QEMU 10, which counts its passes otherwise, and libvirt 11."""
    with scene_on(Bed("backports", RATE_MBIT), tmp_path_factory.mktemp("backports")) as scene:
        yield scene


@pytest.fixture(params=["forky", "backports"])
def either(request: pytest.FixtureRequest) -> Scene:
    scene: Scene = request.getfixturevalue(request.param)
    scene.prepare()
    return scene


@pytest.mark.parametrize("policy", ["auto", "passes=2"])
def test_a_migration_replays_and_balances(either: Scene, policy: str, tmp_path: Path) -> None:
    source = either.source
    trace = tmp_path / "trace"
    run = either.migrate("--policy", policy, "--trace", str(trace)).expect(0, "done: ")
    either.expect_at(either.bed.other(source), run)
    assert "switch" in run.actions

    replayed = either.run("replay", str(trace)).expect(0, "identical")
    assert trace.read_text().startswith("pcmig-trace 1\n"), replayed

    assert run.report is not None
    balance = run.report["ledger"]["balance"]
    assert balance["final"], balance
    assert balance["balanced"], json.dumps(balance, indent=1)
    # Figures and the guest's own must agree: all of the worker's pages crossed, and some came on request.
    quantities = balance["quantities"]
    assert quantities["normal_pages"]["reported"] >= 32 << 8, quantities
    assert quantities["requests"]["reported"] > 0, quantities
    assert quantities["wire_bytes"]["reported"] >= quantities["normal_pages"]["reported"] * 4096, quantities


def test_a_cancelled_migration_replays(forky: Scene, tmp_path: Path) -> None:
    forky.prepare()
    source = forky.source
    trace = tmp_path / "trace"
    run = forky.migrate("--policy", "never", "--abort-after", "1", "--trace", str(trace))
    run.expect(1, "runs on at the source")
    forky.run("replay", str(trace)).expect(0, "identical")
    forky.expect_at(source, run)


def test_a_trace_that_cannot_be_written(forky: Scene) -> None:
    forky.prepare()
    source = forky.source
    run = forky.migrate("--trace", "/nowhere/trace").expect(2, "--trace .*: the folder .* does not exist")
    forky.expect_at(source, run)
    run = forky.migrate("--trace", "/dev/full").expect(1, "--trace '/dev/full': No space left")
    forky.expect_at(source, run)
