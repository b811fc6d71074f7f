"""Asking for post-copy by the API, in a real cloud: who gets it, and what the others are told."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed.guest import GuestSpec
from tests.cloud.api import Api
from tests.cloud.cloud import PCMIG_DRIVER, Cloud
from tests.cloud.config import Sections
from tests.cloud.server import Server
from tests.cloud.service import outside
from tests.cloud.test_driver import POST_COPY, Move, other

pytestmark = pytest.mark.timeout(420)

IDLE = GuestSpec(name="idle", memory_mib=112, worker_mib=32, write_pps=20, verify_pps=5000)
# Pre-copy would do for this guest. Without a word from anybody it gets no post-copy; with one that counts, it
# switches after the first pass.
CONF: Sections = {
    "libvirt": {"live_migration_permit_post_copy": True},
    "pcmig": {"policy": "first-pass", "default_choice": "forbidden"},
}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(rate_mbit=200, driver=PCMIG_DRIVER, nova_conf=CONF, reporter=print) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def idle(cloud: Cloud) -> Server:
    return cloud.boot(IDLE)


class Events:
    """What libvirt of a host says of its guests' lives, told by virsh: `with Events(...) as events:`."""

    def __init__(self, cloud: Cloud, host: str) -> None:
        self._host = cloud.computes[host].host
        self._log = outside(self._host) / "log" / f"lifecycle-{time.monotonic_ns()}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Events:
        argv = ["stdbuf", "-oL", "virsh", "-c", "qemu:///system", "event", "--event", "lifecycle", "--loop"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._host.inside(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(15)

    def of(self, domain: str) -> list[str]:
        """As virsh has them: "Suspended Post-copy"."""
        return re.findall(rf"event 'lifecycle' for domain '{domain}': (.*)", self._log.read_text())


def action(cloud: Cloud, server: Server, host: str | None = None, **more: Any) -> dict[str, Any]:
    """The body of a live migration."""
    name = cloud.computes[host].name if host else None
    return {"os-migrateLive": {"host": name, "block_migration": "auto", **more}}


def said(api: Api, server: Server, body: Any, version: str = "2.100") -> tuple[int, str, str]:
    """(status, the fault's name, its message) of a POST of BODY, which may be bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "OpenStack-API-Version": f"compute {version}"}
    status, content = api.exchange("POST", "compute", f"/servers/{server.id}/action", raw, headers)
    if not content.strip():
        return status, "", ""
    ((name, fault),) = json.loads(content).items()
    assert fault["code"] == status
    return status, name, fault["message"]


@pytest.mark.parametrize(("asked", "switches"), [(True, True), (False, False), (None, False)])
def test_what_is_asked_for_is_what_happens(
    cloud: Cloud, idle: Server, asked: bool | None, switches: bool
) -> None:
    source, domain = str(idle.nova_host), idle.domain
    move = Move(cloud, idle)
    with Events(cloud, source) as events:
        more = {} if asked is None else {"post_copy": asked}
        assert said(cloud.api, idle, action(cloud, idle, other(source), **more)) == (202, "", "")
        move.end()
        time.sleep(0.5)
    move.check_moved(other(source))
    assert ("Suspended Post-copy" in events.of(domain)) is switches, (
        events.of(domain),
        move.statuses,
        move.log()[-5000:],
    )
    assert (POST_COPY in move.statuses) is switches
    if asked is not None:
        assert f"the request asks {'for post-copy' if asked else 'against it'}" in move.log()
