# SPDX-License-Identifier: Apache-2.0
"""Asking for post-copy by the clients that people have, in a real cloud: with pcmig's plugins and without."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.bed.guest import GuestSpec
from tests.cloud.cloud import Cloud
from tests.cloud.config import Sections
from tests.cloud.conftest import ASKING, configured
from tests.cloud.server import Server
from tests.cloud.test_api import Events
from tests.cloud.test_driver import Move, other

pytestmark = pytest.mark.timeout(600)

# Pre-copy converges, but not before the switch of "first-pass".
LIVELY = GuestSpec(name="lively", memory_mib=112, worker_mib=32, write_pps=3000, verify_pps=5000)
CONF: Sections = {**ASKING, "pcmig": {**ASKING["pcmig"], "request_sources": "api,metadata"}}
NEWEST = {"OS_COMPUTE_API_VERSION": "2.100"}
KEY = "pcmig:post_copy"


@pytest.fixture(scope="module")
def cloud(pcmig_cloud: Cloud) -> Iterator[Cloud]:
    with configured(pcmig_cloud, CONF) as cloud:
        yield cloud


@pytest.fixture
def restarted_api(cloud: Cloud) -> Iterator[Callable[..., None]]:
    yield cloud.restart_api
    cloud.restart_api()


@pytest.fixture(scope="module")
def lively(cloud: Cloud) -> Server:
    return cloud.boot(LIVELY)


Client = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def client(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """client("nova", ...): a command as a user types it, on the control node; plugin=False: without pcmig."""
    home = str(tmp_path_factory.getbasetemp())

    def run(*words: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
        # The wheel is in the environment as the control node sees it, and not in the machine's.
        where = cloud.control.inside if plugin else cloud.control.command
        return subprocess.run(
            where(words),
            # `nova` finds the newest version by itself, `openstack` takes an old one.
            env={
                **cloud.client_env(),
                **(NEWEST if words[0] == "openstack" else {}),
                "HOME": home,
                "COLUMNS": "150",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run


def check(cloud: Cloud, server: Server, switches: bool, ask: Callable[[str], None]) -> None:
    """ask(name of the other host) moves the server, with post-copy or without: libvirt of the source says."""
    source, domain = str(server.nova_host), server.domain
    move = Move(cloud, server)
    with Events(cloud, source) as events:
        ask(cloud.computes[other(source)].name)
        move.end()
        time.sleep(0.5)
    print(*(line for line in move.log().splitlines() if "post-copy" in line), sep="\n")
    move.check_moved(other(source))
    assert ("Suspended Post-copy" in events.of(domain)) is switches, (events.of(domain), move.log()[-4000:])


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_nova_with_the_option(cloud: Cloud, lively: Server, client: Client) -> None:
    def ask(host: str) -> None:
        assert done(client("nova", "live-migration", "--post-copy", lively.id, host)) == ""

    check(cloud, lively, True, ask)


def test_an_old_nova_against_the_filter(cloud: Cloud, lively: Server, client: Client) -> None:
    assert "--post-copy" not in done(client("nova", "help", "live-migration", plugin=False))
    assert "--post-copy" in done(client("nova", "help", "live-migration"))

    def ask(host: str) -> None:
        assert done(client("nova", "live-migration", "--block-migrate", lively.id, host, plugin=False)) == ""

    check(cloud, lively, False, ask)


def test_openstack_with_the_option_waits(cloud: Cloud, lively: Server, client: Client) -> None:
    words = ("openstack", "server", "migrate", "--live-migration", "--post-copy", "--wait", lively.id)
    said: list[str] = []
    check(cloud, lively, True, lambda _: said.extend(done(client(*words)).splitlines()))
    assert said[-1].startswith(f"Complete: {lively.id} runs at pcmig-") and "with post-copy" in said[-1], said
    assert any("%" in line for line in said[:-1]), said
    shown = json.loads(done(client("openstack", "pcmig", "show", "-f", "json", lively.id)))
    assert shown["status"] == "completed" and shown["in_progress"] is False and shown["may_ask"] is True
    assert shown["dest_compute"] == f"pcmig-{lively.nova_host}"


def test_openstack_against_it(cloud: Cloud, lively: Server, client: Client) -> None:
    words = ("openstack", "server", "migrate", "--live-migration", "--no-post-copy", "--wait", lively.name)
    check(cloud, lively, False, lambda _: print(done(client(*words))))


# As doc/operate/clients.rst has it.
SDK = """
import sys, openstack
conn = openstack.connect()
server = conn.compute.get_server(sys.argv[1])
body = {"os-migrateLive": {"host": None, "block_migration": "auto", "post_copy": True}}
answer = conn.compute.post(f"/servers/{server.id}/action", json=body, microversion="2.30")
openstack.exceptions.raise_from_response(answer)
"""


def test_openstacksdk(cloud: Cloud, lively: Server, client: Client) -> None:
    page = (pathlib.Path(__file__).parents[2] / "doc/operate/clients.rst").read_text()
    for line in SDK.strip().splitlines()[-3:]:
        assert line in page
    check(cloud, lively, True, lambda _: print(done(client("python3", "-c", SDK, lively.id))))


def test_who_may_not_is_told(
    cloud: Cloud, lively: Server, client: Client, restarted_api: Callable[..., None]
) -> None:
    rule = "os_compute_api:os-migrate-server:migrate_live:post_copy"
    restarted_api(policy=f'"{rule}": "!"\n')
    before = len(cloud.migrations(lively))
    for words in (
        ("nova", "live-migration", "--post-copy", lively.id),
        ("openstack", "server", "migrate", "--live-migration", "--post-copy", "--wait", lively.id),
    ):
        result = client(*words)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert f"Policy doesn't allow {rule}" in result.stderr, result.stderr
    assert len(cloud.migrations(lively)) == before


def test_an_api_without_the_filter(
    cloud: Cloud, lively: Server, client: Client, restarted_api: Callable[..., None]
) -> None:
    """Clear words from both clients; and what they offer instead, works."""
    restarted_api(api_filter=False)
    before = len(cloud.migrations(lively))
    for words in (
        ("nova", "live-migration", "--post-copy", lively.id),
        ("openstack", "server", "migrate", "--live-migration", "--post-copy", "--wait", lively.id),
    ):
        result = client(*words)
        (line,) = [line for line in result.stderr.splitlines() if "deprecated" not in line]
        assert result.returncode == 1
        assert "no pcmig filter" in line and "--post-copy-by-metadata" in line
    assert len(cloud.migrations(lively)) == before

    def ask(_: str) -> None:
        host = cloud.computes[str(lively.nova_host)].name
        told = client("nova", "host-evacuate-live", "--post-copy-by-metadata", "--strict", host)
        assert "| True" in done(told), told.stdout

    check(cloud, lively, True, ask)
    assert KEY not in lively.show()["metadata"]
