# SPDX-License-Identifier: Apache-2.0
"""A few cells of the matrix; all of them: python -m tests.faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed.guest import LostWrite
from tests.faults.faults import FAULTS
from tests.faults.judge import Kind
from tests.faults.runner import Runner
from tests.faults.stage import PCMIG, HostsStage

pytestmark = pytest.mark.timeout(240)

STACK = "forky"
CELLS = (
    "stream-5s/post-copy",
    "libvirtd-source-kill/pre-copy",
    "libvirtd-destination-kill/post-copy",
    "qemu-destination/switch",
    "qemu-source/post-copy",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with HostsStage(PCMIG, STACK, tmp_path_factory.mktemp("matrix"), print) as stage:
        yield Runner(stage, "hosts", STACK)


@pytest.mark.parametrize("cell", CELLS)
def test_cell(runner: Runner, cell: str) -> None:
    fault, _, moment = cell.partition("/")
    row = runner.play(FAULTS[fault], moment, 1)
    if [kind for kind, _ in row.get("problems", [])] == [Kind.MEMORY.value] and row["lost_writes"]:
        raise LostWrite(f"QEMU lost {row['page_errors']} page writes: {row}")
    assert row["good"], row
