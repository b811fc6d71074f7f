# SPDX-License-Identifier: Apache-2.0
"""One OVN for all tests of a network with a station for a guest, and one for those with real guests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ovn.cloud import NETWORKS
from tests.ovn.guest import GuestScene, guest_scene
from tests.ovn.scene import StationScene, station_scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/ovn" in item.nodeid:
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="module", params=NETWORKS)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationScene]:
    with station_scene(tmp_path_factory.mktemp("ovn"), request.param) as scene:
        yield scene


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestScene]:
    with guest_scene(tmp_path_factory.mktemp("guests"), "geneve") as scene:
        yield scene
