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
import os
import threading
from collections.abc import Callable
from typing import Any, Literal

from oslo_log import log as logging

from pcmig import journal, turn_back
from pcmig.nova import releases

LOG = logging.getLogger(__name__)

Side = Literal["source", "destination"]
CALLER = "nova"  # the part of an entry's `caller` that is ours
MARKS = "acts"  # the part of that with what of Nova's post step is begun and done (once.py)
SOURCE_URIS = "source_uris"  # the part of a destination's record with other ways to the source's libvirt
FOLDER = "folder"  # the part of a destination's record with where the server's disks are there
LEFT = "left"  # the mark that Nova has, or had, the server at the destination
BOOKS = "turned back, in Nova's books"  # the mark that Nova's records of a guest that turned back are right

DONE = "done"  # a mark of an act that is done


@dataclasses.dataclass
class Record:
    """A migration that this host has a half in. The verdict is the engine's, as soon as it has one."""

    entry: journal.Entry
    side: Side
    verdict: str | None = None  # "completed", "failed"
    unsaved: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields that are not on the disk yet

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

    @property
    def of(self) -> tuple[str, str, str]:
        """Tells migrations of one guest apart."""
        return self.side, self.entry.started, str(self.nova.get("migration"))

    @property
    def dest(self) -> str:
        """Nova's name of the destination."""
        return str(self.nova.get("dest") or "")

    @property
    def turned(self) -> bool:
        """Whether it turned back: it goes on at the source from the moment of the switch."""
        return (self.entry.turned_back or {}).get("done") is True

    @property
    def books_written(self) -> bool:
        """Whether Nova's records of a guest that turned back are right."""
        return self.marks.get(BOOKS) == DONE

    @property
    def about_to_turn(self) -> bool:
        """Whether nova-compute ended, or failed, while it had the guest turn back."""
        return self.entry.turned_back is not None and not self.turned

    @property
    def disks_copied(self) -> bool:
        """Whether disks are copied: after the switch the destination's are the newer ones. What was asked for
        may be "auto"; what became of it is in Nova's data."""
        data = self.nova.get("migrate_data")
        data = data.get("nova_object.data") if isinstance(data, dict) else None
        became = data.get("block_migration") if isinstance(data, dict) else None
        return bool(self.nova.get("block_migration") if became is None else became)

    @property
    def source_uris(self) -> list[str]:
        """Where the source's libvirt may be reached from here."""
        others = self.nova.get(SOURCE_URIS)
        return list(dict.fromkeys([self.entry.source_uri, *(others if isinstance(others, list) else [])]))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Records:
    """The journal of this nova-compute, and its content in memory: to ask for a guest costs a look at the
    folder. What an operator changes or removes on the disk counts from the next question on, but for what
    this process looks after: that is written again."""

    def __init__(self, folder: str) -> None:
        self._journal = journal.Journal(folder)
        self._known: dict[str, Record] = {}
        self._lock = threading.RLock()
        self._loaded = False
        self._seen: object = None  # the folder as it was read last
        self._trouble: str | None = None  # why it could not be
        self.forgotten: list[Record] = []  # by an operator; for the keeper, who takes them out
        # Guests on record, by their files, of whom nothing is known: UUID -> why.
        self._unreadable: dict[str, str] = {}

    def naming(self, text: str) -> str:
        """TEXT, whose `pcmig forget` finds this journal, typed as root."""
        return journal.naming(text, self._journal.folder, [journal.NOVA_FOLDER])

    def load(self) -> None:
        """What another process has left. What cannot be read is told, and left as it is."""
        with self._lock:
            self._loaded = True
            self._read(first=True)

    def _state(self) -> object:
        """Another one whenever a file came, went or was written."""
        uuids = list(self._known.keys() | self._unreadable.keys())
        names = [self._journal.folder, *map(self._journal.path, uuids)]
        found: list[tuple[int, int, int] | None] = []
        for name in names:
            try:
                stat = os.stat(name)
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return found

    def _look(self) -> None:
        """Reads again what has changed on the disk."""
        if not self._loaded or self._state() == self._seen:
            return
        with self._lock:
            if self._state() != self._seen:
                self._read(first=False)

    def _read(self, first: bool) -> None:
        seen = self._state()
        entries, errors = releases.off_hub(self._journal.all)
        for error in errors if first else ():
            LOG.error("A migration in flight may be unknown: %s", error)
        gone = bool(self._known) and not os.path.isdir(self._journal.folder)
        if gone or any(isinstance(error, journal.FolderError) for error in errors):
            # No operator has removed anything: no more descriptors, a disk that is not there.
            why = str(errors[0]) if errors else f"the journal {self._journal.folder} is not there"
            if why != self._trouble:
                LOG.error("Migrations in flight stay on record as they were known: %s", why)
            self._trouble = why
            return  # and is read at the next question
        self._trouble = None
        self._unreadable = {error.uuid: str(error) for error in errors if error.uuid is not None}
        there = {entry.uuid: entry for entry in entries}
        for uuid, record in list(self._known.items()):
            if uuid in there or uuid in self._unreadable:
                continue
            if record.entry.owner == journal.Owner.of(os.getpid()):
                LOG.warning(
                    "The record of a migration that is looked after was removed, and is written again: end "
                    "the migration instead, or ask for it when it is over (%s)",
                    self.naming(f"pcmig forget {uuid}"),
                )
                self._write_again(record)
                continue
            del self._known[uuid]
            self.forgotten.append(record)
            LOG.warning(
                "The record of the migration of guest %(name)s (%(uuid)s) was removed: nothing is refused "
                "for its sake any more",
                {"name": record.entry.name, "uuid": uuid},
            )
        for entry in entries:
            side = (entry.caller.get(CALLER) or {}).get("side")
            known = self._known.get(entry.uuid)
            if known is not None and known.side == side:
                known.entry = dataclasses.replace(entry, **known.unsaved)
            elif side in ("source", "destination"):
                self._known[entry.uuid] = Record(entry, side)
        self._seen = seen  # what changed meanwhile is read at the next look

    def _write_again(self, record: Record) -> None:
        """What cannot be written is told, and is written by save()."""
        try:
            releases.off_hub(self._journal.write, record.entry)
            record.unsaved = {}
        except journal.JournalError as err:
            LOG.error("A migration in flight is not on record: %s", err)

    def save(self) -> None:
        """What could not be written before, a disk that was full say. To be called now and then."""
        with self._lock:
            for record in list(self._known.values()):
                if not os.path.exists(self._journal.path(record.entry.uuid)):
                    if record.entry.owner == journal.Owner.of(os.getpid()):
                        self._write_again(record)
                elif record.unsaved:
                    try:
                        self._update(record)
                    except journal.JournalError as err:
                        LOG.error("What is known of a migration in flight is not on record: %s", err)
            self._seen = self._state()

    def _update(self, record: Record, **changes: Any) -> None:
        """For this process at once, and on the disk with whatever could not be written before. Raises
        journal.JournalError; it is tried again then, by the next one or save()."""
        with self._lock:
            record.entry = dataclasses.replace(record.entry, **changes)
            record.unsaved = record.unsaved | changes
            try:
                releases.off_hub(functools.partial(self._journal.update, record.entry.uuid, **record.unsaved))
                record.unsaved = {}
            finally:
                self._seen = self._state()

    def __bool__(self) -> bool:
        self._look()
        return bool(self._known or self._unreadable)

    def all(self) -> list[Record]:
        self._look()
        with self._lock:
            return list(self._known.values())

    def get(self, uuid: str) -> Record | None:
        self._look()
        return self._known.get(uuid)

    def unreadable(self, uuid: str) -> str | None:
        """Why a guest's record cannot be used, which is there; None where nothing is in the way."""
        self._look()
        return None if uuid in self._known else self._unreadable.get(uuid)

    def add(self, entry: journal.Entry, side: Side) -> Record:
        """Writes it down. The source's is looked after by this process; nobody looks after the destination's.
        Raises journal.JournalError."""
        noted = dict(entry.caller.get(CALLER) or {}) | {"side": side}
        entry = dataclasses.replace(entry, caller={**entry.caller, CALLER: noted})
        with self._lock:
            if side == "source":
                entry = releases.off_hub(self._journal.claim, entry, now())
            else:
                releases.off_hub(self._journal.write, entry)
            record = self._known[entry.uuid] = Record(entry, side)
            self._seen = self._state()
        return record

    def claim(self, record: Record) -> None:
        """This process looks after it from now on. Raises journal.JournalError."""
        with self._lock:
            record.entry = releases.off_hub(self._journal.claim, record.entry, now())
            record.unsaved = {}
            self._seen = self._state()

    def release(self, uuid: str) -> None:
        """Nobody looks after it: people have to, and may forget it. What cannot be written is told."""
        with self._lock:
            record = self._known.get(uuid)
            if record is None or record.entry.owner != journal.Owner.of(os.getpid()):
                return
            try:
                self._update(record, owner=None, owned=None)
            except journal.JournalError as err:
                LOG.error("A migration that needs an operator seems to be looked after: %s", err)

    def mark(self, record: Record, act: str, state: str) -> None:
        """Notes that ACT is begun or done: for this process at once, and on the disk. Raises
        journal.JournalError."""
        with self._lock:
            noted = record.nova | {MARKS: record.marks | {act: state}}
            self._update(record, caller={**record.entry.caller, CALLER: noted})

    def goes_to(self, uuid: str, host: str) -> None:
        """Notes the UUID of the host to which the guest goes. What cannot be written is told."""
        record = self._known.get(uuid)
        if record is not None:
            self._note(record, "To which host the guest goes", dest_host=host)

    def cross(self, uuid: str) -> None:
        """Notes that the switch to post-copy was issued. What cannot be written is told."""
        record = self._known.get(uuid)
        if record is not None and not record.entry.crossed:
            self._note(record, "That the guest changes hosts", crossed=True, crossed_at=now())

    def never_ran(self, record: Record) -> None:
        """Notes that no instruction of the guest ran at the destination. What cannot be written is told."""
        if not record.entry.unrun:
            self._note(record, "That the guest never ran at the destination", unrun=True)

    def _note(self, record: Record, what: str, **changes: Any) -> None:
        try:
            self._update(record, **changes)
        except journal.JournalError as err:
            LOG.error("%(what)s cannot be put on record yet: %(err)s", {"what": what, "err": err})

    def turns_back(self, record: Record, turn: Callable[[journal.Journal], turn_back.TurnedBack]) -> Any:
        """TURN writes into the journal that it is given. Raises what TURN raises."""
        done = releases.off_hub(turn, self._journal)
        with self._lock:
            record.entry = dataclasses.replace(done.entry, **record.unsaved)
        return done

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
            self._seen = self._state()
