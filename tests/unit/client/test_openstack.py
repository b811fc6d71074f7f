# SPDX-License-Identifier: Apache-2.0
"""`openstack server migrate --live-migration --post-copy` and `openstack pcmig`, by the real client."""

from __future__ import annotations

import json

import pytest

from tests.unit.client.conftest import Client
from tests.unit.client.fake_cloud import SERVER_ID, FakeCloud, migration, progress, state

KEY = "pcmig:post_copy"
MIGRATE = ("openstack", "server", "migrate", "--live-migration")
NEWEST = {"OS_COMPUTE_API_VERSION": "2.100"}


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("2.25", {"host": None, "block_migration": "auto"}),
        ("2.30", {"host": None, "block_migration": "auto"}),
        ("2.100", {"host": None, "block_migration": "auto"}),
    ],
)
def test_every_microversion(cloud: FakeCloud, client: Client, version: str, body: dict[str, object]) -> None:
    done = client(*MIGRATE, "--post-copy", "g1", OS_COMPUTE_API_VERSION=version)
    assert (done.code, done.text) == (0, "")
    assert cloud.actions == [{"os-migrateLive": {**body, "post_copy": True}}]


def test_against_it(cloud: FakeCloud, client: Client) -> None:
    done = client(*MIGRATE, "--no-post-copy", "--block-migration", "--host", "host-b", "g1", **NEWEST)
    assert (done.code, done.text) == (0, "")
    assert cloud.actions == [
        {"os-migrateLive": {"host": "host-b", "block_migration": True, "post_copy": False}}
    ]


@pytest.mark.parametrize("plugin", [True, False])
def test_without_the_option_nothing_is_added(cloud: FakeCloud, client: Client, plugin: bool) -> None:
    assert client(*MIGRATE, "--wait", "g1", plugin=plugin, **NEWEST).code == 0
    assert cloud.actions == [{"os-migrateLive": {"host": None, "block_migration": "auto"}}]
    assert not [request for request in cloud.requests if "metadata" in request or "pcmig" in request]


def test_interactively_a_wish_is_for_one_command(cloud: FakeCloud, client: Client) -> None:
    migrate = "server migrate --live-migration"
    typed = f"{migrate} --post-copy g1\n{migrate} g1\n{migrate} --post-copy g2\n{migrate} g1\nquit\n"
    done = client("openstack", typed=typed, **NEWEST)
    assert "Traceback" not in done.text
    asked = [body["os-migrateLive"].get("post_copy") for body in cloud.actions]
    assert asked == [True, None, None], done.text


def test_help_and_completion_have_it(client: Client) -> None:
    shown = client("openstack", "help", "server", "migrate").out
    bare = client("openstack", "help", "server", "migrate", plugin=False).out
    for option in ("--post-copy", "--no-post-copy", "--post-copy-by-metadata"):
        assert option in shown and option not in bare
    for option in ("--live-migration", "--host", "--shared-migration", "--disk-overcommit", "--wait"):
        assert option in shown and option in bare
    done = client("openstack", "complete")
    (options,) = [line for line in done.out.splitlines() if line.startswith("  cmds_server_migrate=")]
    assert "--post-copy " in options and "--live-migration" in options
    assert "cmds_pcmig='list show turn-back'" in done.out


@pytest.mark.parametrize("option", ["--post-copy", "--no-post-copy", "--post-copy-by-metadata"])
def test_only_with_live_migration(cloud: FakeCloud, client: Client, option: str) -> None:
    done = client("openstack", "server", "migrate", option, "g1", **NEWEST)
    assert done.code == 1
    assert done.err.startswith("--live-migration must be specified if --post-copy")
    assert not cloud.actions


def test_an_api_without_the_filter(cloud: FakeCloud, client: Client) -> None:
    cloud.filter = False
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", **NEWEST)
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "no pcmig filter" in line and "api-paste.ini" in line and "--post-copy-by-metadata" in line


@pytest.mark.parametrize(
    ("status", "key", "reason"),
    [
        (403, "forbidden", "Policy doesn't allow os_compute_api:os-migrate-server:migrate_live:post_copy"),
        (409, "conflictingRequest", "the request is for post-copy, but the flavor's extra spec is forbidden"),
    ],
)
def test_a_refusal_is_told_in_the_api_s_words(
    cloud: FakeCloud, client: Client, status: int, key: str, reason: str
) -> None:
    cloud.refusal = (status, key, reason)
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", **NEWEST)
    assert done.code == 1
    assert reason in done.err and str(status) in done.err
    assert "Traceback" not in done.text


def test_by_metadata(cloud: FakeCloud, client: Client) -> None:
    cloud.filter = False
    assert client(*MIGRATE, "--post-copy-by-metadata", "g1", **NEWEST).code == 0
    assert cloud.actions == [{"os-migrateLive": {"host": None, "block_migration": "auto"}}]
    assert cloud.metadata_at_action == [{KEY: "true"}]


def test_by_metadata_refused_leaves_nothing(cloud: FakeCloud, client: Client) -> None:
    cloud.refusal = (409, "conflictingRequest", "Cannot 'os-migrateLive' while it is in vm_state stopped")
    done = client(*MIGRATE, "--no-post-copy", "--post-copy-by-metadata", "g1", **NEWEST)
    assert done.code == 1 and "vm_state stopped" in done.err
    assert cloud.metadata_at_action == [{KEY: "false"}]
    assert cloud.metadata == {}


def course() -> list[tuple[dict[str, object], str]]:
    """What one migration looks like from outside, a second between."""
    old = migration(6, "completed", in_progress=False)
    running = [
        migration(7, "running", in_progress=True, progress=progress("pre-copy", 40, requests=0)),
        migration(7, "running (post-copy)", in_progress=True, progress=progress("post-copy", 80)),
    ]
    done = migration(7, "completed", in_progress=False)
    return [
        (state(old), "MIGRATING"),
        *((state(row), "MIGRATING") for row in running),
        (state(done), "MIGRATING"),
        (state(done), "ACTIVE"),
    ]


def test_wait_on_pipes_prints_lines(cloud: FakeCloud, client: Client) -> None:
    cloud.states = [(state(migration(6, "completed", in_progress=False)), "ACTIVE")]
    cloud.after_action = course()
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", **NEWEST)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert any("pre-copy, 40%, pass 3, 120 MiB remain" in line for line in lines)
    assert any("post-copy, 80%, 120 MiB remain, 31 page requests" in line for line in lines)
    assert lines[-1].startswith(f"Complete: {SERVER_ID} runs at host-b (")
    assert lines[-1].endswith("with post-copy)")
    assert "\r" not in done.out


def test_wait_on_a_terminal_writes_over_one_line(cloud: FakeCloud, client: Client) -> None:
    cloud.after_action = course()
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", terminal=True, **NEWEST)
    assert (done.code, done.err) == (0, "")
    assert "\rProgress: pre-copy, 40%" in done.out and "\rProgress: post-copy, 80%" in done.out
    assert done.out.splitlines()[-1].startswith("Complete: ")


def test_wait_for_one_that_fails(cloud: FakeCloud, client: Client) -> None:
    cloud.after_action = [(state(migration(7, "error", in_progress=False)), "ACTIVE")]
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", **NEWEST)
    assert done.code == 1
    assert "the live migration's status is error and the server's is ACTIVE" in done.err
    assert f"openstack server event list {SERVER_ID}" in done.err


def test_wait_for_one_that_never_starts(cloud: FakeCloud, client: Client) -> None:
    done = client(*MIGRATE, "--post-copy", "--wait", "g1", **NEWEST)
    assert done.code == 1
    assert "no live migration started" in done.err


def test_wait_without_a_filter_to_ask_is_the_client_s_own(cloud: FakeCloud, client: Client) -> None:
    cloud.filter = False
    done = client(*MIGRATE, "--post-copy-by-metadata", "--wait", "g1", **NEWEST)
    assert done.code == 0
    assert done.out.startswith("Complete") and "%" not in done.out


def test_show_for_people_and_for_scripts(cloud: FakeCloud, client: Client) -> None:
    found = migration(7, "running (post-copy)", in_progress=True, progress=progress("post-copy", 80))
    cloud.states = [(state(found, forbidden="the flavor's extra spec is forbidden"), "MIGRATING")]
    table = client("openstack", "pcmig", "show", "g1").out
    for words in ("post-copy", "80%", "120 MiB", "11.0 MiB/s", "12.3 s", "14 ms", "host-b", "yes"):
        assert words in table, table
    values = json.loads(client("openstack", "pcmig", "show", "-f", "json", SERVER_ID).out)
    assert values["phase"] == "post-copy" and values["percent"] == 80 and values["in_progress"] is True
    assert values["remaining_bytes"] == 120 << 20 and values["elapsed_ms"] == 12345
    assert values["eta_ms"] is None and values["server"] == SERVER_ID
    assert values["post_copy_forbidden"] == "the flavor's extra spec is forbidden"
    assert client("openstack", "pcmig", "show", "-f", "value", "-c", "requests", "g1").out == "31\n"


def test_show_of_a_server_that_never_moved(cloud: FakeCloud, client: Client) -> None:
    values = json.loads(client("openstack", "pcmig", "show", "-f", "json", "g1").out)
    assert values["status"] is None and values["may_ask"] is True


def test_show_where_it_cannot(cloud: FakeCloud, client: Client) -> None:
    done = client("openstack", "pcmig", "show", "nobody")
    assert done.code == 1 and "nobody" in done.err
    cloud.filter = False
    done = client("openstack", "pcmig", "show", "g1")
    assert done.code == 1
    assert done.err == "the Nova API has no pcmig filter, which knows the state of live migrations\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), {}),
        (("--destination-is-dead",), {"destination_is_dead": True}),
        (
            ("--accept-newer-disks", "--destination-is-dead"),
            {"destination_is_dead": True, "accept_newer_disks": True},
        ),
        (("--guest-is-nowhere-else",), {"guest_is_nowhere_else": True}),
    ],
)
def test_turn_back(cloud: FakeCloud, client: Client, options: tuple[str, ...], said: dict[str, bool]) -> None:
    done = client("openstack", "pcmig", "turn-back", *options, "g1")
    assert done.code == 0 and f"openstack pcmig show {SERVER_ID}" in done.out
    assert cloud.actions == [{"os-pcmigTurnBack": said}]


def test_turn_back_is_refused(cloud: FakeCloud, client: Client) -> None:
    cloud.refusal = (409, "conflictingRequest", "the destination does not answer")
    done = client("openstack", "pcmig", "turn-back", "g1")
    assert (done.code, done.err) == (1, "the destination does not answer\n")
    cloud.refusal = (400, "badRequest", "There is no such action: os-pcmigTurnBack")
    done = client("openstack", "pcmig", "turn-back", "g1")
    assert (done.code, done.err) == (1, "the Nova API has no pcmig filter, or one of before\n")


def test_list(cloud: FakeCloud, client: Client) -> None:
    assert json.loads(client("openstack", "pcmig", "list", "-f", "json").out) == []
    found = migration(7, "running (post-copy)", in_progress=True, progress=progress("post-copy", 80))
    cloud.states = [(state(found), "MIGRATING")]
    cloud.running = [{**found, "instance_uuid": SERVER_ID, "migration_type": "live-migration"}]
    (row,) = json.loads(client("openstack", "pcmig", "list", "-f", "json").out)
    assert row == {
        "server": SERVER_ID,
        "name": "g1",
        "status": "running (post-copy)",
        "phase": "post-copy",
        "percent": 80,
        "remaining_bytes": 120 << 20,
        "source_compute": "host-a",
        "dest_compute": "host-b",
    }
    cloud.filter = False  # Nova's own list says less, and says it still
    (row,) = json.loads(client("openstack", "pcmig", "list", "-f", "json").out)
    assert row["phase"] == "post-copy"
