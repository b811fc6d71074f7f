# SPDX-License-Identifier: Apache-2.0
"""The engine's phases, and how far a migration is in them. Pure Python: nova-api and clients need no compiled
code for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcmig_common import units

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


ENDLESS = "pre-copy does not converge"

# What an outlook (status()["eta"]) says where it has no end to tell.
UNKNOWN = {
    "too-early": "not known yet",
    "not-converging": f"unknown: {ENDLESS}",
    "interrupted": "unknown: post-copy is interrupted",
    "waits": "unknown: another guest goes first",
}


def eta_words(eta: Mapping[str, Any]) -> str | None:
    """How long a migration still takes, as sure as that is: "0:40-1:30", "at least 0:40", or why nobody
    knows; None once it is over."""
    least_ms, most_ms = eta["least_ms"], eta["most_ms"]
    if eta["outlook"] == "range":
        ends = dict.fromkeys((units.clock(least_ms), units.clock(most_ms)))
        return "-".join(ends)
    if eta["outlook"] == "least":
        # "at least 0:00" tells nothing.
        return f"at least {units.clock(least_ms)}" if least_ms >= 1000 else UNKNOWN["too-early"]
    return UNKNOWN.get(eta["outlook"])


# Whose figure a downtime is.
DOWNTIME_SOURCES = {
    "events": "as both hosts' events tell",
    "libvirt": "libvirt's figure",
    "expected": "as QEMU expects",
}


def downtime_words(downtime: Mapping[str, Any] | None) -> str | None:
    """ "61 ms (as both hosts' events tell)"."""
    if downtime is None:
        return None
    source = DOWNTIME_SOURCES.get(downtime["source"], downtime["source"])
    return f"{downtime['ms']} ms ({source})"


def share_words(status: Mapping[str, Any]) -> str:
    """How far STATUS is, for people: no share of what has no end."""
    if status["eta"]["outlook"] == "not-converging":
        return "does not converge"
    return f"{status['progress_permille'] // 10}%"
