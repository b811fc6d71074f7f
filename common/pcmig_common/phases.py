# SPDX-License-Identifier: Apache-2.0
"""The engine's phases, and how far a migration is in them. Pure Python: nova-api and clients need no compiled
code for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What status()["phase"] is called in words. The dashboard, a package of its own, knows these words.
PHASES = {
    "setup": "setting up",
    "precopy": "pre-copy",
    "drain": "draining",
    "switchover": "switching",
    "postcopy": "post-copy",
    "paused": "paused",
    "finished": "finished",
}

# In post-copy: the guest has left the source, and not all of its memory has arrived. Not "switchover", with
# which pre-copy ends, too.
POSTCOPY = ("postcopy", "paused")
MOVED = (*POSTCOPY, "finished")


def name(phase: str) -> str:
    """The phase in words; a phase that is not known here is its own name."""
    return PHASES.get(phase, phase)


def arrived_permille(total_bytes: int, remaining_bytes: int) -> int:
    """The share that does not remain, within 0..1000; 0 where there is no total."""
    if total_bytes <= 0:
        return 0
    return max(0, min(1000, (total_bytes - remaining_bytes) * 1000 // total_bytes))


def share_permille(status: Mapping[str, Any]) -> int:
    """How far STATUS (of pcmig._core.Migration) is, 0..1000: in the running pass while the guest is at the
    source, with the guest's memory once it has left."""
    if status["phase"] in MOVED:
        return arrived_permille(status["memory_total_bytes"], status["memory_remaining_bytes"])
    return max(0, min(1000, int(status["pass_permille"])))
