# SPDX-License-Identifier: Apache-2.0
"""One migration that runs, as a row of plain values: pure, the engine's status in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pcmig import _core

Row = dict[str, Any]

# Where libvirt cannot resume, in its recovery's words (csrc/core/recovery.c): before 8.5, and 11.2 and 11.3.
_CANNOT_RESUME = tuple(
    text for version in (8_000_000, 11_003_000) if (text := _core.resume_hold(version, version)) is not None
)


def row(
    *, name: str, uuid: str, dest_uri: str, policy: str, status: Mapping[str, Any], page_bytes: int
) -> Row:
    """PAGE_BYTES is the unit of its dirty pages. Figures that are not known are None."""
    recovery = status["recovery"]
    pace, eta = status.get("pace_mib"), status["eta_ms"]
    wait_us = (status.get("latency") or {}).get("now_us")
    return {
        "domain": name,
        "instance_uuid": uuid,
        "destination": host(dest_uri),
        "policy": policy.partition("=")[0],
        "phase": status["phase"],
        "outlook": status["eta"]["outlook"],
        "interrupted": recovery is not None or status["phase"] == "paused",
        "resume_impossible": cannot_resume(recovery),
        "total_bytes": status["memory_total_bytes"] + status["disk_total_bytes"],
        "processed_bytes": status["memory_processed_bytes"] + status["disk_processed_bytes"],
        "remaining_bytes": status["memory_remaining_bytes"] + status["disk_remaining_bytes"],
        "dirty_bytes_ps": status["dirty_pages_ps"] * page_bytes,
        "sent_bytes_ps": status["send_bps"],
        "passes": status["passes"],
        "requests": status["postcopy_requests"],
        "requests_ps": status["requests_ps"],
        "latency_s": None if wait_us is None or status["phase"] != "postcopy" else wait_us / 1e6,
        "pace_bytes_ps": pace << 20 if pace else None,  # 0: none
        "queue_bytes": status.get("queue_bytes"),
        "elapsed_s": status["elapsed_ms"] / 1000,
        "eta_s": None if eta is None else eta / 1000,
    }


def cannot_resume(recovery: Mapping[str, Any] | None) -> bool:
    """Whether RECOVERY waits until somebody upgrades libvirt."""
    text = str((recovery or {}).get("text"))
    return any(why in text for why in _CANNOT_RESUME)


def host(uri: str) -> str:
    """The host's name of a libvirt URI, which may hold more than others are to see."""
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""
