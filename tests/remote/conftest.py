# SPDX-License-Identifier: Apache-2.0
"""One bed for all. Run by name: tools/test remote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.scene import RemoteScene, remote_scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/remote" in item.nodeid and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteScene]:
    with remote_scene(tmp_path_factory.mktemp("remote")) as scene:
        yield scene


@pytest.fixture
def scene(bed: RemoteScene) -> Iterator[RemoteScene]:
    """With the busy guest, and both hosts as they should be."""
    bed.prepare()
    yield bed
    bed.mend()
