# SPDX-License-Identifier: Apache-2.0
"""pcmig check foretells what a migration will find: between two real hosts, as QEMU's user there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Host

ROOT = Path(__file__).parents[2]


def check(host: Host, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pcmig.cli.main", "check", "--json", *arguments]
    answer = subprocess.run(
        host.inside(["env", f"PYTHONPATH={ROOT}", *command]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.stderr == ""
    found: dict[str, Any] = json.loads(answer.stdout)
    assert answer.returncode == (0 if found["ok"] else 1)
    return found


def status(found: dict[str, Any], subject: str, name: str) -> str | None:
    return next(
        (row["status"] for row in found["rows"] if (row["subject"], row["name"]) == (subject, name)), None
    )


def migrate(source: Host, destination: Host) -> subprocess.CompletedProcess[str]:
    """Stock virsh, so that nothing of pcmig decides what is found."""
    options = ["--live", "--p2p", "--postcopy", "--postcopy-after-precopy"]
    where = [destination.remote_uri, "--migrateuri", destination.migrate_uri]
    command = ["timeout", "60", "virsh", "migrate", *options, "g1", *where]
    return subprocess.run(source.inside(command), capture_output=True, text=True, check=False)


def set_namespaces(host: Host, value: str) -> None:
    (conf,) = host.state.rglob("qemu.conf")
    conf.write_text(re.sub(r"namespaces = .*", f"namespaces = {value}", conf.read_text()))
    host.restart_libvirtd()


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Hosts whose QEMU runs as a user that the kernel denies userfaultfd."""
    with Bed(qemu_user="nobody", rate_mbit=None) as bed:
        bed.start_guest()
        yield bed


def test_two_hosts(bed: Bed) -> None:
    found = check(bed.a, "--peer", bed.b.remote_uri, "--domain", "g1")
    assert found["ok"], [row for row in found["rows"] if row["status"] == "fail"]
    assert status(found, "both", "different hosts") == "ok"
    assert status(found, "both", "architecture") == "ok"
    assert status(found, "guest", "guest") == "ok"
    assert status(found, "guest", "emulation") == "warn"  # QEMU 11 loses page writes there
    assert status(found, "peer", "userfaultfd") == "unknown"


def test_the_same_host(bed: Bed) -> None:
    assert status(check(bed.a, "--peer", bed.a.remote_uri), "both", "different hosts") == "fail"


def test_denial_and_grant_come_true(bed: Bed) -> None:
    assert status(check(bed.b), "this host", "userfaultfd for QEMU") == "fail"
    refused = migrate(bed.a, bed.b)
    assert refused.returncode != 0
    assert "Postcopy is not supported" in refused.stderr
    assert (bed.a.domain_state("g1") or "").startswith("running")

    set_namespaces(bed.b, '[ "mount" ]')  # libvirt's default: now it grants the node
    assert status(check(bed.b), "this host", "userfaultfd for QEMU") == "ok"
    done = migrate(bed.a, bed.b)
    assert done.returncode == 0, done.stderr
    assert (bed.b.domain_state("g1") or "").startswith("running")
