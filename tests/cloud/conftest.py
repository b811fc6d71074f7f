# SPDX-License-Identifier: Apache-2.0
"""One cloud for all modules with pcmig's driver: bringing it up takes as long as many a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.config import Sections

RATE_MBIT = 200
PERMITTED: Sections = {
    "DEFAULT": {"max_concurrent_live_migrations": 2},
    "libvirt": {"live_migration_permit_post_copy": True},
}
# Without a word from anybody no guest gets post-copy; with one that counts, it switches after the first pass.
ASKING: Sections = {
    "libvirt": {"live_migration_permit_post_copy": True},
    "pcmig": {"policy": "first-pass", "default_choice": "forbidden"},
}


@pytest.fixture(scope="session")
def pcmig_cloud() -> Iterator[Cloud]:
    """With pcmig's driver and the API's filter. Who changes it leaves it as it was."""
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=PERMITTED, reporter=print) as cloud:
        yield cloud


@contextlib.contextmanager
def configured(cloud: Cloud, nova_conf: Sections) -> Iterator[Cloud]:
    """The cloud with these options on both hosts. Servers that are left at the end are deleted."""
    cloud.configure(nova_conf)
    yield cloud
    for server in list(cloud.servers):
        cloud.delete(server)


@pytest.fixture(scope="module")
def asking_cloud(pcmig_cloud: Cloud) -> Iterator[Cloud]:
    with configured(pcmig_cloud, ASKING) as cloud:
        yield cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """It stays until the end, so those that share it come last: two clouds at once are too much."""
    items.sort(key=lambda item: "pcmig_cloud" in getattr(item, "fixturenames", ()))
