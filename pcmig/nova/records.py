# SPDX-License-Identifier: Apache-2.0
"""Migrations on record: what nova-compute must know of them after a restart, and which guests are not to be
touched meanwhile.

The source writes a record before libvirt hears of the migration, the destination when it has made ready for
the guest; each removes its own once the guest's fate is settled in Nova's database too.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import threading
from typing import Any, Literal

from oslo_log import log as logging

from pcmig import journal
from pcmig.nova import releases

LOG = logging.getLogger(__name__)

Side = Literal["source", "destination"]
CALLER = "nova"  # the part of an entry's `caller` that is ours
MARKS = "acts"  # the part of that with what of Nova's post step is begun and done (once.py)
LEFT = "left"  # the mark that Nova has, or had, the server at the destination


@dataclasses.dataclass
class Record:
    """A migration that this host has a half in. The verdict is the engine's, as soon as it has one."""

    entry: journal.Entry
    side: Side
    verdict: str | None = None  # "completed", "failed"

    @property
    def nova(self) -> dict[str, Any]:
        """What was noted for Nova."""
        noted = self.entry.caller.get(CALLER)
        return noted if isinstance(noted, dict) else {}

    @property
    def marks(self) -> dict[str, str]:
        """What of Nova's post step is begun and done."""
        marks = self.nova.get(MARKS)
        return marks if isinstance(marks, dict) else {}

    @property
    def left(self) -> bool:
        """Whether Nova was seen to have the server at the destination."""
        return LEFT in self.marks


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Records:
    """The journal of this nova-compute, and its content in memory: to ask for a guest costs nothing."""

    def __init__(self, folder: str) -> None:
        self._journal = journal.Journal(folder)
        self._known: dict[str, Record] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """What another process has left. What cannot be read is told, and left as it is."""
        entries, errors = releases.off_hub(self._journal.all)
        for error in errors:
            LOG.error("A migration in flight may be unknown: %s", error)
        with self._lock:
            for entry in entries:
                side = (entry.caller.get(CALLER) or {}).get("side")
                if side in ("source", "destination"):
                    self._known[entry.uuid] = Record(entry, side)

    def __bool__(self) -> bool:
        return bool(self._known)

    def all(self) -> list[Record]:
        with self._lock:
            return list(self._known.values())

    def get(self, uuid: str) -> Record | None:
        return self._known.get(uuid)

    def add(self, entry: journal.Entry, side: Side) -> Record:
        """Writes it down. Raises journal.JournalError."""
        noted = dict(entry.caller.get(CALLER) or {}) | {"side": side}
        entry = dataclasses.replace(entry, caller={**entry.caller, CALLER: noted})
        record = Record(releases.off_hub(self._journal.claim, entry, now()), side)
        with self._lock:
            self._known[entry.uuid] = record
        return record

    def claim(self, record: Record) -> None:
        """This process looks after it from now on. Raises journal.JournalError."""
        record.entry = releases.off_hub(self._journal.claim, record.entry, now())

    def mark(self, record: Record, act: str, state: str) -> None:
        """Notes that ACT is begun or done: for this process at once, and on the disk. Raises
        journal.JournalError."""
        noted = record.nova | {MARKS: record.marks | {act: state}}
        caller = {**record.entry.caller, CALLER: noted}
        record.entry = dataclasses.replace(record.entry, caller=caller)
        update = functools.partial(self._journal.update, record.entry.uuid, caller=caller)
        releases.off_hub(update)

    def settle(self, uuid: str, verdict: str) -> None:
        record = self._known.get(uuid)
        if record is not None and verdict in ("completed", "failed"):
            record.verdict = verdict

    def remove(self, uuid: str, side: Side | None = None) -> None:
        """Of SIDE only, if that is given. What cannot be removed is told."""
        with self._lock:
            record = self._known.get(uuid)
            if record is None or (side is not None and record.side != side):
                return
            del self._known[uuid]
        try:
            releases.off_hub(self._journal.remove, uuid)
        except journal.JournalError as err:
            LOG.error("A migration that is over stays on record: %s", err)
