"""One cloud for all modules that ask for post-copy: bringing it up takes as long as many a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.config import Sections

RATE_MBIT = 200
# Without a word from anybody no guest gets post-copy; with one that counts, it switches after the first pass.
ASKING: Sections = {
    "libvirt": {"live_migration_permit_post_copy": True},
    "pcmig": {"policy": "first-pass", "default_choice": "forbidden"},
}


@pytest.fixture(scope="session")
def asking_cloud() -> Iterator[Cloud]:
    """With pcmig's driver and the API's filter. Who changes it leaves it as it was."""
    with Cloud(rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=ASKING, reporter=print) as cloud:
        yield cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """It stays until the end, so those that share it come last: two clouds at once are too much."""
    items.sort(key=lambda item: "asking_cloud" in getattr(item, "fixturenames", ()))
