# SPDX-License-Identifier: Apache-2.0
"""A bed with each of two QEMUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed import Bed
from tests.functional.scene import RATE_MBIT, Scene, scene_on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/turn_back" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session", params=["forky", "backports"])
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_on(Bed(request.param, RATE_MBIT), tmp_path_factory.mktemp(request.param)) as scene:
        yield scene


@pytest.fixture
def scene(bed: Scene) -> Iterator[Scene]:
    """Without a guest."""
    bed.remove()
    yield bed
    bed.remove()
