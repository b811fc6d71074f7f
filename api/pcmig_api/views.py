# SPDX-License-Identifier: Apache-2.0
"""What os-pcmig answers: pure, plain values in, the answer's content out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcmig_common import turned_back as back
from pcmig_common.choice import Bounds

# Nova's event handler and lists know it by this name; Nova's server migrations leave it out.
POST_COPY = "running (post-copy)"

# Statuses of those that ended badly: the host that drove them may know why.
_BAD_ENDS = ("error", "failed")

# Statuses of live migrations that have ended (nova/compute/manager.py, nova/conductor/tasks/live_migrate.py).
ENDED = ("completed", "error", "failed", "cancelled")

# While post-copy is interrupted, the status is a sentence that begins so (pcmig.nova.interruption).
INTERRUPTED = "post-copy interrupted"

_SAME = ("id", "uuid", "status", "source_compute", "dest_compute", "created_at", "updated_at")
_FIGURES = (
    "memory_total",
    "memory_processed",
    "memory_remaining",
    "disk_total",
    "disk_processed",
    "disk_remaining",
)


def pcmig(
    may_ask: bool,
    bounds: Bounds,
    migration: dict[str, Any] | None,
    *,
    may_turn_back: bool = False,
    turned_back: str | None = None,
) -> dict[str, Any]:
    """The whole answer; MIGRATION is that of migration(), TURNED_BACK when the server did."""
    asking = {"may_ask": may_ask, "forbidden": bounds.forbidden, "required": bounds.required}
    way_back = {"may_ask": may_turn_back, "turned_back": turned_back}
    if turned_back is not None:
        way_back["refused"] = str(back.SENTENCE)
    return {"pcmig": {"post_copy": asking, "way_back": way_back, "migration": migration}}


def in_progress(status: str) -> bool:
    return status not in ENDED


def in_post_copy(status: str) -> bool:
    """Interrupted or not."""
    return status == POST_COPY or status.startswith(INTERRUPTED)


def migration(
    record: Mapping[str, Any], progress: dict[str, Any] | None, missing: str | None
) -> dict[str, Any]:
    """RECORD has the fields of Nova's migration, PROGRESS is that of pcmig.nova.progress, or MISSING says
    why there is none."""
    view = {name: record[name] for name in _SAME}
    view["in_progress"] = in_progress(record["status"])
    view |= {f"{name}_bytes": record[name] for name in _FIGURES}
    view["progress"] = progress
    if progress is None:
        view["progress_missing"] = missing
    return view


def no_progress(status: str) -> str | None:
    """Why nobody needs to be asked how far a migration with STATUS is."""
    if status in _BAD_ENDS:
        return None
    if not in_progress(status):
        return "the migration has ended"
    driven = status == "running" or in_post_copy(status)  # by the source's nova-compute
    return None if driven else "the migration is being prepared"


def fields() -> tuple[str, ...]:
    """The fields of Nova's migration that migration() reads."""
    return (*_SAME, *_FIGURES)


def with_post_copy(listed: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nova's list LISTED with MORE of the same form, each migration once, in the order of their making."""
    known = {item["id"] for item in listed}
    return sorted([*listed, *(item for item in more if item["id"] not in known)], key=lambda item: item["id"])
