# SPDX-License-Identifier: Apache-2.0
"""What both hosts of a migration on record say of its guest, as the core's guard takes it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any, NamedTuple

from pcmig import _core, turn_back
from pcmig.journal import Entry

# A host that has not answered by then may be silent, and the other one is asked meanwhile.
PROMPT_S = 1.0
# A host that was silent for all of its time is asked again for so long: one that is back answers.
SILENT_AGAIN_MS = 2000


class Evidence(NamedTuple):
    source: _core.Half
    destination: _core.Half
    disks_copied: bool
    crossed: bool
    turned_back: bool = False
    asked: turn_back.Asked | None = None  # what else they were asked at this look

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


def ask(uri: str, uuid: str, timeout_ms: int | None = None) -> _core.Half:
    """A host's half; "unknown" when it cannot be asked. TIMEOUT_MS to connect, else as for every command."""
    try:
        return _core.half(uri, uuid) if timeout_ms is None else _core.half(uri, uuid, timeout_ms)
    except _core.LibvirtError:
        return untold(uri, uuid)


def ask_both(
    entry: Entry, how: Callable[[str, str], _core.Half] | None = None
) -> tuple[_core.Half, _core.Half]:
    """The source before the destination, see _core.half(), and yet two silent hosts in the time of one: where
    the source does not answer at once, the destination is asked meanwhile, and again when the source has."""
    how = how or ask
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(how, entry.source_uri, entry.uuid)
        done, _ = concurrent.futures.wait([first], PROMPT_S)
        meanwhile = None if done else pool.submit(how, entry.dest_uri, entry.uuid)
        source = first.result()
        if meanwhile is not None and (destination := meanwhile.result())["half"] == "unknown":
            return source, destination
    return source, how(entry.dest_uri, entry.uuid)


class Looks:
    """Asks both hosts of ENTRY each time that it is called; one that was silent, a little only."""

    def __init__(self, entry: Entry, seen: tuple[_core.Half, _core.Half] | None = None) -> None:
        self.entry = entry
        self._silent: set[str] = set()
        if seen is not None:
            self._note(seen)

    def __call__(self) -> tuple[_core.Half, _core.Half]:
        seen = ask_both(
            self.entry, lambda uri, uuid: ask(uri, uuid, SILENT_AGAIN_MS if uri in self._silent else None)
        )
        self._note(seen)
        return seen

    def _note(self, seen: tuple[_core.Half, _core.Half]) -> None:
        ends = zip((self.entry.source_uri, self.entry.dest_uri), seen, strict=True)
        self._silent = {uri for uri, half in ends if half["half"] == "unknown"}


def untold(uri: str, uuid: str) -> _core.Half:
    """The half of a host that nobody asks."""
    return {
        "half": "unknown",
        "job_active": None,
        "shut_down": False,
        "defined": False,
        "runs": False,
        "running": False,
        "id": None,
    }


def of_entry(entry: Entry, how: Callable[[str, str], _core.Half] | None = None) -> Evidence:
    """HOW a host is asked: ask(), if nothing else is said."""
    source, destination = ask_both(entry, how)
    asked = turn_back.Asked(entry)
    return Evidence(
        source,
        destination,
        disks_copied(entry),
        entry.crossed,
        turn_back.has_turned_back(entry, source, entry.source_uri, entry.uuid, asked),
        asked,
    )


def disks_copied(entry: Entry) -> bool:
    """Whether the migration copies disks. Of nova-compute's records the one of the destination has no flags,
    but says so too."""
    noted = entry.caller.get("nova")
    if isinstance(noted, dict) and noted.get("block_migration"):
        return True
    return turn_back.copies_disks(entry.engine.get("flags", 0))
