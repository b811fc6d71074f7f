# SPDX-License-Identifier: Apache-2.0
"""One bed for all tests that do not break it; each test finds the guest whole on one of its hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed import Bed
from tests.functional.scene import RATE_MBIT, Scene, scene_on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/functional" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def forky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene with the newest libvirt and QEMU."""
    with scene_on(Bed("forky", RATE_MBIT), tmp_path_factory.mktemp("forky")) as scene:
        yield scene


@pytest.fixture
def scene(forky: Scene) -> Scene:
    """With the busy guest."""
    forky.prepare()
    return forky
