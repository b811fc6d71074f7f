# SPDX-License-Identifier: Apache-2.0
"""What both clients share, and what they must not need."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest

from pcmig_client import asking, state
from pcmig_common import choice
from tests.unit.client.conftest import ROOT
from tests.unit.client.fake_cloud import NOT_ALLOWED, migration, progress

MODULES = ("novaclient_extension", "openstack_migrate", "openstack_commands", "waiting")


def test_the_plugins_need_nothing_of_a_compute_host() -> None:
    imported = ", ".join(f"pcmig_client.{name}" for name in MODULES)
    unwanted = "{'pcmig', 'libvirt', 'nova'}"
    program = f"import sys, {imported}; print(sorted({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_key_is_the_driver_s() -> None:
    assert asking.METADATA_KEY == choice.METADATA_KEY


@pytest.mark.parametrize(
    ("given", "wish"),
    [
        ({}, None),
        ({"post_copy": None, "post_copy_by_metadata": None}, None),
        ({"post_copy": True}, asking.Wish(True)),
        ({"post_copy": False}, asking.Wish(False)),
        ({"post_copy": None, "post_copy_by_metadata": True}, asking.Wish(True, True)),
        ({"post_copy": False, "post_copy_by_metadata": True}, asking.Wish(False, True)),
    ],
)
def test_wish(given: dict[str, Any], wish: asking.Wish | None) -> None:
    assert asking.wish_of(argparse.Namespace(**given)) == wish


@pytest.mark.parametrize(
    ("status", "text", "explained"),
    [
        (400, NOT_ALLOWED, True),
        (400, NOT_ALLOWED.replace("post_copy", "force"), False),
        (400, "Additional properties are not allowed ('a', 'post_copy' were unexpected)", True),
        (403, NOT_ALLOWED, False),
        (None, NOT_ALLOWED, False),
    ],
)
def test_explain(status: int | None, text: str, explained: bool) -> None:
    words = asking.explain(status, text)
    assert (words is not None) is explained
    assert words is None or "\n" not in words


class Adapter:
    """Answers in turn, as novaclient's adapter does: a pair, or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str, Any]] = []

    def request(self, url: str, method: str, **kwargs: Any) -> Any:
        self.sent.append((method, url, kwargs.get("json", kwargs.get("body"))))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class HttpError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code


class Answer:
    status_code = 200
    reason = "OK"

    def __init__(self, content: Any = None) -> None:
        self.content = content

    def json(self) -> Any:
        return self.content


def test_metadata_that_cannot_be_removed_is_told() -> None:
    adapter = Adapter(HttpError(404), (Answer(), None), HttpError(409), HttpError(500))
    asking.Courier(adapter, asking.Wish(True, by_metadata=True), RuntimeError)
    with pytest.raises(RuntimeError, match=r"openstack server unset --property pcmig:post_copy ID$"):
        adapter.request("/servers/ID/action", "POST", body={"os-migrateLive": {}})
    assert [method for method, _, _ in adapter.sent] == ["GET", "POST", "POST", "DELETE"]


def test_metadata_that_nova_compute_was_faster_to_remove_is_no_error() -> None:
    adapter = Adapter(HttpError(404), (Answer(), None), HttpError(409), HttpError(404))
    asking.Courier(adapter, asking.Wish(True, by_metadata=True), RuntimeError)
    with pytest.raises(HttpError, match="error 409"):
        adapter.request("/servers/ID/action", "POST", body={"os-migrateLive": {}})


def test_no_answer_is_the_client_s_own_error() -> None:
    adapter = Adapter(ConnectionResetError("gone"))
    courier = asking.Courier(adapter, asking.Wish(True), RuntimeError)
    with pytest.raises(ConnectionResetError):
        adapter.request("/servers/ID/action", "POST", body={"os-migrateLive": {}}, microversion="2.30")
    assert (courier.asked, courier.refused) == (1, 1)


DRAINING = migration(1, "running", in_progress=True, progress=progress("draining", 55, requests=0))
SURE = migration(
    1, "running", in_progress=True, progress=progress("pre-copy", 55, requests=0, eta="0:40-1:30")
)
ENDLESS = migration(
    1,
    "running",
    in_progress=True,
    progress=progress("pre-copy", 97, requests=0, eta="unknown: pre-copy does not converge"),
)
NEWER = migration(
    1,
    "running",
    in_progress=True,
    progress=progress("pre-copy", 55, requests=0, eta="unknown: what a newer release says"),
)
UNKNOWN = {"memory_total_bytes": None, "memory_remaining_bytes": None}


@pytest.mark.parametrize(
    ("found", "phase", "percent", "line"),
    [
        (DRAINING, "draining", 55, "draining, 55%, pass 3, 120 MiB remain"),
        (SURE, "pre-copy", 55, "pre-copy, 55%, pass 3, 120 MiB remain, 0:40-1:30 to go"),
        (NEWER, "pre-copy", 55, "pre-copy, 55%, pass 3, 120 MiB remain"),
        (ENDLESS, "pre-copy", 97, "pre-copy, does not converge, pass 3, 120 MiB remain"),
        (
            migration(1, "running (post-copy)", in_progress=True),
            "post-copy",
            75,
            "post-copy, 75% of memory, 256 MiB remain",
        ),
        (migration(1, "completed", in_progress=False), "completed", 100, "completed"),
        (migration(1, "accepted", in_progress=True, **UNKNOWN), "accepted", None, "accepted"),
        (
            migration(1, "running", in_progress=True, memory_total_bytes=0),
            "running",
            None,
            "running, 256 MiB remain",
        ),
    ],
)
def test_line(found: dict[str, Any], phase: str, percent: int | None, line: str) -> None:
    assert (state.phase(found), state.percent(found), state.line(found)) == (phase, percent, line)
