# SPDX-License-Identifier: Apache-2.0
"""What both hosts of a migration on record say of its guest, as the core's guard takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pcmig import _core, turn_back
from pcmig.journal import Entry


class Evidence(NamedTuple):
    source: _core.Half
    destination: _core.Half
    disks_copied: bool
    crossed: bool
    turned_back: bool = False

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of _core.guard()."""
        return {
            "source": self.source["half"],
            "destination": self.destination["half"],
            "in_flight": True,
            "job_active": self.source["job_active"],
            "source_shut_down": self.source["shut_down"],
            "destination_shut_down": self.destination["shut_down"],
            "disks_copied": self.disks_copied,
            "crossed": self.crossed,
            "turned_back": self.turned_back,
        }


def ask(uri: str, uuid: str) -> _core.Half:
    """A host's half; "unknown" when it cannot be asked."""
    try:
        return _core.half(uri, uuid)
    except _core.LibvirtError:
        return untold(uri, uuid)


def untold(uri: str, uuid: str) -> _core.Half:
    """The half of a host that nobody asks."""
    return {
        "half": "unknown",
        "job_active": None,
        "shut_down": False,
        "defined": False,
        "runs": False,
        "id": None,
    }


def of_entry(entry: Entry, ask: Callable[[str, str], _core.Half] = ask) -> Evidence:
    """The source is asked first, see _core.half()."""
    source = ask(entry.source_uri, entry.uuid)
    return Evidence(
        source,
        ask(entry.dest_uri, entry.uuid),
        disks_copied(entry),
        entry.crossed,
        turn_back.has_turned_back(entry, source, entry.source_uri, entry.uuid),
    )


def disks_copied(entry: Entry) -> bool:
    """Whether the migration copies disks. Of nova-compute's records the one of the destination has no flags,
    but says so too."""
    noted = entry.caller.get("nova")
    if isinstance(noted, dict) and noted.get("block_migration"):
        return True
    return turn_back.copies_disks(entry.engine.get("flags", 0))
