# SPDX-License-Identifier: Apache-2.0
"""What a played engine's status() says unless a test says otherwise."""

from __future__ import annotations

from typing import Any

MIB = 1 << 20

PRECOPY: dict[str, Any] = {
    "phase": "precopy",
    "crossed": False,
    "left": False,
    "outcome": None,
    "error": None,
    "operator_command": None,
    "gate": "closed",
    "elapsed_ms": 1000,
    "progress_permille": 120,
    "eta": {"outlook": "range", "least_ms": 4000, "most_ms": 9000},
    "eta_ms": 9000,
    "downtime": None,
    "downtime_ms": 0,
    "send_bps": 5 * MIB,
    "link_bps": None,
    "queue_bytes": None,
    "pace_mib": None,
    "dirty_pages_ps": 6000,
    "passes": 0,
    "pass_permille": 0,
    "memory_total_bytes": 100 * MIB,
    "memory_processed_bytes": 30 * MIB,
    "memory_remaining_bytes": 75 * MIB,
    "disk_total_bytes": 0,
    "disk_processed_bytes": 0,
    "disk_remaining_bytes": 0,
    "postcopy_requests": 0,
    "requests_ps": 0,
    "switch_late_us": None,
    "recovery": None,
    "quickack": "off",
    "stream_peer": None,
    "note": None,
    "turn": "free",
    "waits_for": None,
    "unrun": False,
    "dest_host": None,
    "dest_ended": False,
}
