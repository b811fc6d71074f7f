# SPDX-License-Identifier: Apache-2.0
"""`nova live-migration --post-copy` and its like, by the real novaclient."""

from __future__ import annotations

import pytest

from tests.unit.client.conftest import Client
from tests.unit.client.fake_cloud import SECOND_ID, SERVER_ID, FakeCloud

KEY = "pcmig:post_copy"


@pytest.mark.parametrize(
    ("version", "rest"),
    [
        ("2.1", {"block_migration": False, "disk_over_commit": False}),
        ("2.25", {"block_migration": "auto"}),
        ("2.30", {"block_migration": "auto"}),
        ("2.68", {"block_migration": "auto"}),
        ("2.latest", {"block_migration": "auto"}),
    ],
)
@pytest.mark.parametrize(("option", "value"), [("--post-copy", True), ("--no-post-copy", False)])
def test_every_microversion(
    cloud: FakeCloud, client: Client, version: str, rest: dict[str, object], option: str, value: bool
) -> None:
    done = client("nova", "--os-compute-api-version", version, "live-migration", option, "g1")
    assert (done.code, done.out) == (0, "")
    assert cloud.actions == [{"os-migrateLive": {"host": None, **rest, "post_copy": value}}]


def test_with_a_host_and_block_migration(cloud: FakeCloud, client: Client) -> None:
    assert client("nova", "live-migration", "--block-migrate", "--post-copy", SERVER_ID, "host-b").code == 0
    assert cloud.actions == [
        {"os-migrateLive": {"host": "host-b", "block_migration": True, "post_copy": True}}
    ]


@pytest.mark.parametrize("plugin", [True, False])
def test_without_the_option_nothing_is_added(cloud: FakeCloud, client: Client, plugin: bool) -> None:
    assert client("nova", "live-migration", "g1", plugin=plugin).code == 0
    assert cloud.actions == [{"os-migrateLive": {"host": None, "block_migration": "auto"}}]
    assert not [request for request in cloud.requests if "metadata" in request or "pcmig" in request]


def test_help_shows_it(client: Client) -> None:
    done = client("nova", "help", "live-migration")
    assert done.code == 0
    for word in ("--post-copy", "--no-post-copy", "--post-copy-by-metadata", "--block-migrate"):
        assert word in done.out
    assert "--post-copy" in client("nova", "help", "host-evacuate-live").out
    assert "--post-copy" not in client("nova", "help", "live-migration", plugin=False).out
    assert "--post-copy" not in client("nova", "help", "migrate").out
    assert "--no-post-copy" in client("nova", "bash-completion").out


def test_both_at_once_is_wrong_usage(cloud: FakeCloud, client: Client) -> None:
    done = client("nova", "live-migration", "--post-copy", "--no-post-copy", "g1")
    assert done.code == 2
    assert "argument --no-post-copy: not allowed with the other one" in done.err
    assert not cloud.actions


def test_an_api_without_the_filter(cloud: FakeCloud, client: Client) -> None:
    cloud.filter = False
    done = client("nova", "live-migration", "--post-copy", "g1")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if "deprecated" not in line]
    assert "no pcmig filter" in line and "api-paste.ini" in line and "--post-copy-by-metadata" in line


def test_the_oldest_api_drops_unknown_keys_so_it_is_asked_first(cloud: FakeCloud, client: Client) -> None:
    """/v2 without the filter would take the request and forget what was asked."""
    cloud.filter, cloud.legacy_v2 = False, True
    done = client("nova", "--os-compute-api-version", "2.0", "live-migration", "--post-copy", "g1")
    assert done.code == 1 and "no pcmig filter" in done.err
    assert not cloud.actions
    cloud.filter = True
    assert client("nova", "--os-compute-api-version", "2.0", "live-migration", "--post-copy", "g1").code == 0
    assert cloud.actions[0]["os-migrateLive"]["post_copy"] is True


@pytest.mark.parametrize(
    ("status", "key", "reason"),
    [
        (403, "forbidden", "Policy doesn't allow os_compute_api:os-migrate-server:migrate_live:post_copy"),
        (409, "conflictingRequest", "the request is for post-copy, but the flavor's extra spec is forbidden"),
        (400, "badRequest", "Invalid input for field/attribute post_copy"),
    ],
)
def test_a_refusal_is_told_in_the_api_s_words(
    cloud: FakeCloud, client: Client, status: int, key: str, reason: str
) -> None:
    cloud.refusal = (status, key, reason)
    done = client("nova", "live-migration", "--post-copy", "g1")
    assert done.code == 1
    assert reason in done.err and f"HTTP {status}" in done.err
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["--post-copy-by-metadata"], "true"),
        (["--post-copy", "--post-copy-by-metadata"], "true"),
        (["--no-post-copy", "--post-copy-by-metadata"], "false"),
    ],
)
def test_by_metadata(cloud: FakeCloud, client: Client, options: list[str], value: str) -> None:
    cloud.filter = False
    assert client("nova", "live-migration", *options, "g1").code == 0
    assert cloud.actions == [{"os-migrateLive": {"host": None, "block_migration": "auto"}}]
    assert cloud.metadata_at_action == [{KEY: value}]


@pytest.mark.parametrize("before", [{}, {KEY: "false"}])
def test_by_metadata_refused_leaves_what_was_there(
    cloud: FakeCloud, client: Client, before: dict[str, str]
) -> None:
    cloud.metadata = dict(before)
    cloud.refusal = (409, "conflictingRequest", "Cannot 'os-migrateLive' while it is in vm_state stopped")
    done = client("nova", "live-migration", "--post-copy-by-metadata", "g1")
    assert done.code == 1 and "vm_state stopped" in done.err
    assert cloud.metadata_at_action == [{KEY: "true"}]
    assert cloud.metadata == before


def test_by_metadata_that_cannot_be_set(cloud: FakeCloud, client: Client) -> None:
    cloud.metadata_is_locked = True
    done = client("nova", "live-migration", "--post-copy-by-metadata", "g1")
    assert done.code == 1 and f"server metadata {KEY} cannot be set: Policy doesn't allow it" in done.err
    assert not cloud.actions


def test_a_host_is_emptied(cloud: FakeCloud, client: Client) -> None:
    cloud.servers[SECOND_ID] = "g2"
    done = client("nova", "host-evacuate-live", "--post-copy", "host-a")
    assert done.code == 0, done.err
    assert [body["os-migrateLive"]["post_copy"] for body in cloud.actions] == [True, True]
    assert done.out.count("True") == 2
    cloud.actions.clear()
    assert client("nova", "host-evacuate-live", "host-a").code == 0
    assert all("post_copy" not in body["os-migrateLive"] for body in cloud.actions)


def test_a_host_is_emptied_by_an_api_without_the_filter(cloud: FakeCloud, client: Client) -> None:
    cloud.servers[SECOND_ID] = "g2"
    cloud.filter = False
    done = client("nova", "host-evacuate-live", "--post-copy", "host-a")
    assert done.code == 1
    assert done.out.count("refused, see below the table") == 2
    assert "2 of 2 live migrations were refused: the Nova API has no pcmig filter" in done.err


def test_another_command_is_not_concerned(cloud: FakeCloud, client: Client) -> None:
    assert client("nova", "meta", "g1", "set", "a=b").code == 0
    assert cloud.metadata == {"a": "b"}
