# SPDX-License-Identifier: Apache-2.0
"""What pcmig's filter tells of a server's live migration (GET /servers/ID/os-pcmig), for people."""

from __future__ import annotations

from typing import Any

from pcmig_client.asking import Api, NotAnswered
from pcmig_common import phases, units

POST_COPY_STATUS = "running (post-copy)"  # Nova's name of it (nova/compute/manager.py)
# What Nova's record begins with while post-copy is interrupted; a sentence on what is done follows.
INTERRUPTED = "post-copy interrupted"
# Phases, as the API names them, in which passes are counted.
PASSES = tuple(name for phase, name in phases.PHASES.items() if phase not in phases.MOVED)


class NoState(Exception):
    """The API does not say: `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def fetch(api: Api, server_id: str) -> dict[str, Any]:
    """What the filter says of a server that is there. Raises NoState."""
    try:
        answer = api.ask("GET", f"/servers/{server_id}/os-pcmig")
    except NotAnswered as err:
        text = str(err)
        if err.status == 404 and "nstance" not in text:  # "Instance … could not be found."
            text = "the Nova API has no pcmig filter, which knows the state of live migrations"
        raise NoState(err.status, text) from err
    state = answer.get("pcmig") if isinstance(answer, dict) else None
    if not isinstance(state, dict):
        raise NoState(404, "what answers for the state of live migrations is not pcmig's filter")
    return state


def phase(migration: dict[str, Any]) -> str:
    """Where a migration is: the engine's phase, else what Nova's status tells of it."""
    progress = migration.get("progress")
    if migration.get("in_progress") and progress and progress.get("phase"):
        return str(progress["phase"])
    status = str(migration.get("status"))
    if status == POST_COPY_STATUS:
        return "post-copy"
    return INTERRUPTED if status.startswith(INTERRUPTED) else status


def percent(migration: dict[str, Any]) -> int | None:
    """0 to 100; None when nobody knows."""
    progress = migration.get("progress") or {}
    if migration.get("in_progress") and isinstance(progress.get("percent"), (int, float)):
        return int(progress["percent"])
    if migration.get("status") == "completed":
        return 100
    total = migration.get("memory_total_bytes")
    remaining = migration.get("memory_remaining_bytes")
    if not isinstance(total, int) or not isinstance(remaining, int) or total <= 0:
        return None
    return max(0, min(100, 100 * (total - remaining) // total))


def remaining_bytes(migration: dict[str, Any]) -> int | None:
    """Of a migration in progress."""
    if not migration.get("in_progress"):
        return None
    progress = migration.get("progress") or {}
    value = progress.get("remaining_bytes", migration.get("memory_remaining_bytes"))
    return value if isinstance(value, int) else None


def switched(migration: dict[str, Any]) -> bool:
    """The guest went on at the destination with memory still to come, now or earlier in this migration."""
    progress = migration.get("progress") or {}
    return phase(migration).startswith("post-copy") or bool(progress.get("requests"))


def line(migration: dict[str, Any]) -> str:
    """One line for who waits: "pre-copy, 45%, pass 2, 120 MiB remain, 0:40-1:30 to go"."""
    if not migration.get("in_progress"):
        return phase(migration)
    progress = migration.get("progress") or {}
    parts = [phase(migration)]
    known = percent(migration)
    eta = progress.get("eta")
    endless = eta == phases.UNKNOWN["not-converging"]
    if endless:
        parts.append("does not converge")
    elif known is not None:
        parts.append(f"{known}%" if progress else f"{known}% of memory")
    if parts[0] in PASSES and "passes" in progress:
        parts.append(f"pass {progress['passes'] + 1}")
    remaining = remaining_bytes(migration)
    if remaining is not None:
        parts.append(f"{units.size(remaining)} remain")
    if progress.get("requests"):
        parts.append(f"{progress['requests']} page requests")
    # A newer nova-compute may have more reasons for "unknown: ..." than are listed here.
    unknown = not isinstance(eta, str) or eta in phases.UNKNOWN.values() or eta.startswith("unknown")
    if not unknown:
        parts.append(f"{eta} to go")
    return ", ".join(parts)


# What `openstack pcmig show` has, in its order: the filter's name, where it is (None: the migration itself),
# and how a person reads it.
FIELDS = (
    ("id", None, "text"),
    ("uuid", None, "text"),
    ("status", None, "text"),
    ("in_progress", None, "text"),
    ("source_compute", None, "text"),
    ("dest_compute", None, "text"),
    ("created_at", None, "text"),
    ("updated_at", None, "text"),
    ("phase", "progress", "text"),
    ("policy", "progress", "text"),
    ("reason", "progress", "text"),
    ("passes", "progress", "text"),
    ("percent", "progress", "percent"),
    ("elapsed_ms", "progress", "ms"),
    ("eta", "progress", "text"),
    ("eta_ms", "progress", "ms"),
    ("downtime_ms", "progress", "short_ms"),
    ("downtime_source", "progress", "text"),
    ("total_bytes", "progress", "bytes"),
    ("transferred_bytes", "progress", "bytes"),
    ("remaining_bytes", "progress", "bytes"),
    ("rate_bytes_per_s", "progress", "rate"),
    ("dirty_bytes_per_s", "progress", "rate"),
    ("requests", "progress", "text"),
    ("recovery", "progress", "text"),
    ("way_back", "progress", "way_back"),
    ("progress_missing", None, "text"),
    ("memory_total_bytes", None, "bytes"),
    ("memory_processed_bytes", None, "bytes"),
    ("memory_remaining_bytes", None, "bytes"),
    ("disk_total_bytes", None, "bytes"),
    ("disk_processed_bytes", None, "bytes"),
    ("disk_remaining_bytes", None, "bytes"),
)


def readable(value: Any, kind: str) -> str:
    """A field's value for a person; nothing for what nobody knows."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if kind == "way_back":
        return f"{value['cost']}: {value['text']}" if isinstance(value, dict) and "cost" in value else ""
    if kind == "text" or not isinstance(value, (int, float)):
        return str(value)
    if kind == "bytes":
        return units.size(int(value))
    if kind == "rate":
        return units.rate(value)
    if kind == "ms":
        return f"{value / 1000:.1f} s"
    return f"{value} ms" if kind == "short_ms" else f"{value}%"
