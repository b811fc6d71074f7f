# SPDX-License-Identifier: Apache-2.0
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
from tests.cloud.api import PASSWORD, Api, ApiError
from tests.cloud.cloud import Cloud
from tests.cloud.conftest import ASKING
from tests.cloud.server import Server
from tests.cloud.service import outside
from tests.cloud.test_driver import POST_COPY, Move, other

pytestmark = pytest.mark.timeout(420)

# Pre-copy moves it, in three passes: the first one leaves more than fits into the downtime.
LIVELY = GuestSpec(name="lively", memory_mib=112, worker_mib=32, write_pps=3000, verify_pps=5000)
METADATA = "pcmig:post_copy"
VERSIONS = ("2.1", "2.25", "2.30", "2.34", "2.67", "2.100")


@pytest.fixture(scope="module")
def cloud(asking_cloud: Cloud) -> Cloud:
    return asking_cloud


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    return cloud.boot(LIVELY)


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


def action(cloud: Cloud, host: str | None = None, **more: Any) -> dict[str, Any]:
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


def metadata(server: Server) -> dict[str, str]:
    return dict(server.api.get("compute", f"/servers/{server.id}/metadata")["metadata"])


def test_a_request_for_post_copy(cloud: Cloud, server: Server) -> None:
    """The guest switches, and whoever looks meanwhile sees how far it is."""
    source, domain = str(server.nova_host), server.domain
    path = f"/servers/{server.id}"
    move = Move(cloud, server)
    progress: list[dict[str, Any]] = []
    with Events(cloud, source) as events:
        assert said(cloud.api, server, action(cloud, other(source), post_copy=True)) == (202, "", "")
        move.wait_for("running")
        while move.look() == "running":
            shown = cloud.api.get("compute", f"{path}/os-pcmig")["pcmig"]["migration"]
            progress += [shown["progress"]] if shown["progress"] else []
        assert move.look() == POST_COPY, (move.statuses, move.log()[-5000:])
        (listed,) = cloud.api.get("compute", f"{path}/migrations")["migrations"]
        assert listed["status"] == POST_COPY and listed["source_compute"] == f"pcmig-{source}"
        one = cloud.api.get("compute", f"{path}/migrations/{listed['id']}")["migration"]
        assert one["uuid"] == listed["uuid"] and one["status"] == POST_COPY
        while move.look() == POST_COPY:
            shown = cloud.api.get("compute", f"{path}/os-pcmig")["pcmig"]["migration"]
            progress += [shown["progress"]] if shown["progress"] else []
        move.end()
        time.sleep(0.5)
    assert "Suspended Post-copy" in events.of(domain), (events.of(domain), move.log()[-5000:])
    move.check_moved(other(source))
    assert "the request asks for post-copy" in move.log()
    phases = [look["phase"] for look in progress]
    assert phases.index("pre-copy") < phases.index("post-copy")
    last = [look for look in progress if look["phase"] == "post-copy"][-1]
    assert last["requests"] > 0 and last["policy"] == "first-pass" and last["reason"]
    assert 0 < last["percent"] <= 100 and last["total_bytes"] > 64 << 20
    after = cloud.api.get("compute", f"{path}/os-pcmig")["pcmig"]
    assert after["post_copy"] == {"may_ask": True, "forbidden": None, "required": None}
    assert (after["migration"]["status"], after["migration"]["in_progress"]) == ("completed", False)
    assert after["migration"]["progress_missing"] == "the migration has ended"


@pytest.mark.parametrize("asked", [False, None])
def test_no_request_for_post_copy(cloud: Cloud, server: Server, asked: bool | None) -> None:
    """Against it, or nothing said: it stays in pre-copy. Metadata counts only where nova.conf says so."""
    source, domain = str(server.nova_host), server.domain
    cloud.api.post("compute", f"/servers/{server.id}/metadata", {"metadata": {METADATA: "true"}})
    move = Move(cloud, server)
    with Events(cloud, source) as events:
        more = {} if asked is None else {"post_copy": asked}
        assert said(cloud.api, server, action(cloud, other(source), **more)) == (202, "", "")
        move.end()
        time.sleep(0.5)
    move.check_moved(other(source))
    assert events.of(domain) and "Suspended Post-copy" not in events.of(domain)
    assert POST_COPY not in move.statuses
    reason = "[pcmig] default_choice is forbidden" if asked is None else "the request asks against it"
    assert f"no post-copy: {reason}" in move.log()
    assert metadata(server)[METADATA] == "true"
    cloud.api.request("DELETE", "compute", f"/servers/{server.id}/metadata/{METADATA}")


def test_who_may_ask(cloud: Cloud, server: Server) -> None:
    """A project's manager may migrate, says Nova since 32, and so he may ask; a member may do neither."""
    member, manager = make_user(cloud, "member"), make_user(cloud, "manager")
    before, source = server.show(), server.nova_host
    count = len(cloud.migrations(server))
    for wish in (True, False):
        assert said(member, server, action(cloud, post_copy=wish)) == (
            403,
            "forbidden",
            "Policy doesn't allow os_compute_api:os-migrate-server:migrate_live:post_copy to be performed.",
        )
    after = server.show()
    assert (after["status"], after["OS-EXT-STS:task_state"], server.nova_host) == ("ACTIVE", None, source)
    assert after["updated"] == before["updated"]
    assert len(cloud.migrations(server)) == count
    for user in (member, manager):  # it names hosts, which are administrators'
        with pytest.raises(ApiError) as refused:
            user.get("compute", f"/servers/{server.id}/os-pcmig")
        assert refused.value.status == 403
    move = Move(cloud, server)
    assert said(manager, server, action(cloud, post_copy=True)) == (202, "", "")
    move.end()
    assert POST_COPY in move.statuses


def make_user(cloud: Cloud, role: str) -> Api:
    """A user of the admin's project with ROLE and what it implies, called after it."""
    project = cloud.api.get("identity", "/projects?name=admin")["projects"][0]["id"]
    record = {"name": role, "password": PASSWORD, "default_project_id": project, "domain_id": "default"}
    user = cloud.api.post("identity", "/users", {"user": record})["user"]["id"]
    names = ("reader", "member", "manager")
    for known in cloud.api.get("identity", "/roles")["roles"]:
        if known["name"] in names[: names.index(role) + 1]:
            path = f"/projects/{project}/users/{user}/roles/{known['id']}"
            cloud.api.request("PUT", "identity", path)
    return Api(cloud.api.control_pid, role)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_value(cloud: Cloud, server: Server, version: str) -> None:
    count = len(cloud.migrations(server))
    for value in (1, "maybe", None, [True]):
        body = action(cloud, post_copy=value)
        if version == "2.1":
            body["os-migrateLive"] |= {"block_migration": True, "disk_over_commit": False}
        status, name, message = said(cloud.api, server, body, version)
        assert (status, name) == (400, "badRequest")
        assert message.startswith("Invalid input for field/attribute post_copy. Value: ")
    status, name, message = said(cloud.api, server, b'{"os-migrateLive": {"post_copy": true', version)
    assert (status, name, message) == (400, "badRequest", "Malformed request body")
    # The key is right and the rest is not: Nova's own answer, which does not speak of the key.
    status, name, message = said(cloud.api, server, {"os-migrateLive": {"post_copy": True}}, version)
    assert (status, name) == (400, "badRequest") and "is a required property" in message
    assert len(cloud.migrations(server)) == count


def test_a_flavor_that_forbids(cloud: Cloud) -> None:
    server = cloud.boot(
        GuestSpec(name="forbidden", memory_mib=112, worker_mib=32),
        flavor_specs={"pcmig:post_copy": "forbidden"},
        wait=False,
    )
    server.wait_status("ACTIVE")
    assert said(cloud.api, server, action(cloud, post_copy=True)) == (
        409,
        "conflictingRequest",
        "the request is for post-copy, but the flavor's extra spec pcmig:post_copy is forbidden",
    )
    shown = cloud.api.get("compute", f"/servers/{server.id}/os-pcmig")["pcmig"]
    assert shown["post_copy"]["forbidden"] == "the flavor's extra spec pcmig:post_copy is forbidden"
    assert shown["migration"] is None
    cloud.delete(server)


@pytest.fixture
def without_filter(cloud: Cloud, server: Server) -> Iterator[None]:
    """The API without pcmig; the source listens to metadata."""
    source = str(server.nova_host)
    pcmig = {**ASKING["pcmig"], "request_sources": "metadata"}
    cloud.restart_api(api_filter=False)
    cloud.restart_compute(source, nova_conf={**ASKING, "pcmig": pcmig})
    yield
    cloud.restart_api()
    cloud.restart_compute(source, nova_conf=ASKING)


@pytest.mark.usefixtures("without_filter")
def test_without_the_filter_metadata_can_ask(cloud: Cloud, server: Server) -> None:
    """Where nova.conf of the source lets it: once, and then the word is gone. The API knows nothing of it."""
    status, _, message = said(cloud.api, server, action(cloud, post_copy=True))
    assert status == 400 and "'post_copy' was unexpected" in message
    with pytest.raises(ApiError) as missing:
        cloud.api.get("compute", f"/servers/{server.id}/os-pcmig")
    assert missing.value.status == 404
    source, domain = str(server.nova_host), server.domain
    cloud.api.post(
        "compute", f"/servers/{server.id}/metadata", {"metadata": {METADATA: "True", "mine": "stays"}}
    )
    move = Move(cloud, server)
    with Events(cloud, source) as events:
        assert said(cloud.api, server, action(cloud, other(source)))[0] == 202
        move.end()
        time.sleep(0.5)
    assert "Suspended Post-copy" in events.of(domain), (events.of(domain), move.log()[-5000:])
    assert metadata(server) == {"mine": "stays"}
    move.check_moved(other(source))
