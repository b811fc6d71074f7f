# SPDX-License-Identifier: Apache-2.0
"""What os-pcmig answers."""

from __future__ import annotations

from typing import Any

import pytest

from pcmig_api import views
from pcmig_common.choice import Bounds, bounds, refusal

RECORD: dict[str, Any] = {name: name for name in views.fields()} | {"status": "running (post-copy)"}


def test_a_migration_with_progress() -> None:
    view = views.migration(RECORD, {"phase": "post-copy"}, None)
    assert list(view) == [
        "id", "uuid", "status", "source_compute", "dest_compute", "created_at", "updated_at", "in_progress",
        "memory_total_bytes", "memory_processed_bytes", "memory_remaining_bytes",
        "disk_total_bytes", "disk_processed_bytes", "disk_remaining_bytes", "progress",
    ]  # fmt: skip
    assert view["in_progress"] is True
    assert view["disk_total_bytes"] == "disk_total"


def test_a_migration_without_progress_says_why() -> None:
    view = views.migration(RECORD | {"status": "completed"}, None, "the migration has ended")
    assert (view["in_progress"], view["progress"]) == (False, None)
    assert view["progress_missing"] == "the migration has ended"


@pytest.mark.parametrize(
    ("status", "asked", "running"),
    [
        ("accepted", False, True),
        ("queued", False, True),
        ("preparing", False, True),
        ("running", True, True),
        ("running (post-copy)", True, True),
        ("post-copy interrupted at 43 %, resuming, attempt 3", True, True),
        ("post-migrating", False, True),
        ("completed", False, False),
        ("failed", True, False),
        ("error", True, False),
        ("cancelled", False, False),
    ],
)
def test_who_is_asked_for_progress(status: str, asked: bool, running: bool) -> None:
    assert (views.no_progress(status) is None) is asked
    assert views.in_progress(status) is running


def test_the_answer() -> None:
    assert views.pcmig(True, Bounds("why"), None) == {
        "pcmig": {
            "post_copy": {"may_ask": True, "forbidden": "why", "required": None},
            "way_back": {"may_ask": False, "turned_back": None},
            "migration": None,
        }
    }


def test_a_list_with_those_in_post_copy() -> None:
    listed: list[dict[str, Any]] = [{"id": 3, "of": "nova"}, {"id": 1}]
    more: list[dict[str, Any]] = [{"id": 2}, {"id": 3, "of": "pcmig"}]
    assert views.with_post_copy(listed, more) == [{"id": 1}, {"id": 2}, {"id": 3, "of": "nova"}]


FLAVOR = "the flavor's extra spec pcmig:post_copy"


@pytest.mark.parametrize("flavor", [None, "forbidden", "allowed", "required", "never"])
def test_bounds_are_what_requests_are_refused_for(flavor: str | None) -> None:
    said = {} if flavor is None else {"pcmig:post_copy": flavor}
    found = bounds(said)
    for request, reason in ((True, found.forbidden), (False, found.required)):
        refused = refusal(request, said)
        assert (refused is None) is (reason is None)
        assert refused is None or str(reason) in refused
    if flavor == "forbidden":
        assert found == Bounds(forbidden=f"{FLAVOR} is forbidden")
    if flavor == "never":
        assert (
            found.forbidden == found.required == f"{FLAVOR} = 'never' is none of forbidden, allowed, required"
        )
