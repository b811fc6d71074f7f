# SPDX-License-Identifier: Apache-2.0
"""A server with a vTPM, whose state is encrypted with a passphrase that Nova hands from host to host.

Nova 33 and newer migrate such a server live where its flavor says hw:tpm_secret_security=host, older ones
never. The key manager is castellan's own for tests, in nova-compute's memory: the bed has no Barbican, and
Nova's ConfKeyManager stores nothing that it is given.
"""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Iterator

import pytest

from tests.bed.guest import GuestSpec
from tests.cases.scene import QEMU_CONF, STACK, configure_swtpm
from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.compute import Compute
from tests.cloud.config import Sections
from tests.cloud.outage import type_
from tests.cloud.service import outside
from tests.cloud.test_driver import POST_COPY, Move, other
from tests.cloud_cases.scene import CONF, RATE_MBIT, slow_move, switch

# Without the time in which the cloud comes up.
pytestmark = pytest.mark.timeout(420, func_only=True)

SWTPM: Sections = {
    **CONF,
    "libvirt": {
        "live_migration_permit_post_copy": True,
        "swtpm_enabled": True,
        "swtpm_user": "root",
        "swtpm_group": "root",
    },
    "key_manager": {"backend": "castellan.tests.unit.key_manager.mock_key_manager.MockKeyManager"},
}
GUEST = GuestSpec(name="vtpm", memory_mib=112, worker_mib=32)
VTPM = {"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-tis"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(
        STACK, RATE_MBIT, driver=PCMIG_DRIVER, nova_conf=SWTPM, qemu_conf=QEMU_CONF, reporter=print
    ) as cloud:
        for host in cloud.hosts:
            configure_swtpm(host)
        yield cloud


def secrets(host: Compute) -> list[str]:
    """UUIDs of libvirt's."""
    return [line.split()[0] for line in type_(host, "virsh secret-list").splitlines()[2:] if line.strip()]


def files_with(folder: pathlib.Path, *words: bytes) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def loggers_of(log: pathlib.Path, *words: bytes) -> set[str]:
    """Who wrote one of WORDS into nova-compute's LOG: "2026-11-29 06:33:02.045 242 DEBUG NAME [...] ...".
    Nova's own lines of DEBUG are Nova's to mend."""
    return {
        (line.split() + [b""] * 5)[4].decode(errors="replace")
        for line in log.read_bytes().splitlines()
        if any(word in line for word in words)
    }


def test_the_passphrase_goes_along_and_is_written_nowhere(cloud: Cloud) -> None:
    """Also by a nova-compute that adopts the migration, and has the passphrase from nobody."""
    server = cloud.boot(GUEST, flavor_specs={**VTPM, "hw:tpm_secret_security": "host"})
    source, target = cloud.computes["a"], cloud.computes["b"]
    [secret] = secrets(source)
    value = type_(source, f"virsh secret-get-value {secret}").splitlines()[0].strip().encode()
    passphrase = base64.b64decode(value)
    assert len(passphrase) > 100
    # virsh gives it in base64, and it is base64 itself: both are looked for.
    needles = (value, passphrase)
    with slow_move(cloud, server) as move:
        switch(cloud, move)
        assert secrets(target) == [secret], "the destination's QEMU has its state opened with it"
        for compute in (source, target):
            journals = list((outside(compute.host) / "nova/pcmig/migrations").glob("*.json"))
            assert journals and all(server.id in path.read_text() for path in journals), "on record"
            assert not files_with(outside(compute.host) / "nova", *needles)
        source.nova.kill()
        cloud.restart_compute(move.source)
        assert not files_with(outside(source.host) / "nova", *needles)
        cloud.network.limit(RATE_MBIT)
        move.end()
        move.check_moved(target.host.name)
    wait_until(lambda: not secrets(source), 60, "the source has its secret no more")
    assert secrets(target) == [secret]
    for compute in (source, target):
        assert not files_with(outside(compute.host) / "nova", *needles)
        assert not [name for name in loggers_of(compute.nova.log, *needles) if "pcmig" in name]
    cloud.delete(server)


def test_one_that_nova_does_not_migrate(cloud: Cloud) -> None:
    """The passphrase is its owner's alone: Nova refuses, with or without post-copy, and nothing has begun."""
    server = cloud.boot(GUEST, flavor_specs={**VTPM, "hw:tpm_secret_security": "user"})
    source = str(server.nova_host)
    move = Move(cloud, server)
    with pytest.raises(ApiError) as refused:
        cloud.live_migrate(server, other(source))
    assert refused.value.status in (400, 409) and "vTPM" in str(refused.value)  # by Nova's release
    assert move.look() == "" and server.status == "ACTIVE" and POST_COPY not in move.statuses
    cloud.delete(server)
