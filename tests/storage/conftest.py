# SPDX-License-Identifier: Apache-2.0
"""One cloud with storage for all modules: a Ceph, Cinder, servers' disks in it, and pcmig's driver."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.storage.ceph import Ceph

RATE_MBIT = 100
NOVA_CONF: Sections = {
    "DEFAULT": {
        "max_concurrent_live_migrations": 2,
        "update_resources_interval": 10,  # how often nova-compute looks after what is on record
        "shutdown_timeout": 2,  # the guest has no ear for a power button
    },
    "libvirt": {"live_migration_permit_post_copy": True},
    # On a busy machine a guest may be so slow that pre-copy ends by itself: here each move is by post-copy.
    "pcmig": {"policy": "immediate"},
}


@pytest.fixture(scope="session")
def storage_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    started_s = time.monotonic()
    with Cloud(
        rate_mbit=RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=NOVA_CONF, storage="ceph", reporter=print
    ) as cloud:
        assert cloud.storage is not None
        memory = cloud.storage.ceph.memory_mib()
        print(f"up in {time.monotonic() - started_s:.0f} s; Ceph's memory in MiB: {memory}")
        yield cloud
        logs = tmp_path_factory.mktemp("logs")
        cloud.save_logs(logs)
        print(f"logs: {logs}")


@pytest.fixture(scope="session")
def ceph(storage_cloud: Cloud) -> Ceph:
    assert storage_cloud.storage is not None
    return storage_cloud.storage.ceph
