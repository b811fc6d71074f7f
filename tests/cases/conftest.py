# SPDX-License-Identifier: Apache-2.0
"""One bed for all cases. Run by name: tools/test cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cases.scene import CaseScene, case_bed, prepare_hosts
from tests.functional.scene import played


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cases" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseScene]:
    with played(case_bed(tmp_path_factory.mktemp("cases"))) as scene:
        prepare_hosts(scene)
        yield scene


@pytest.fixture
def scene(bed: CaseScene) -> Iterator[CaseScene]:
    """Without the busy guest, which a case boots when it needs it (prepare())."""
    bed.bed.network.link_up()
    bed.bed.network.limit(200)
    bed.remove()
    bed.forget_guests()
    yield bed
    bed.bed.network.link_up()
    bed.remove()
    bed.forget_guests()
