# SPDX-License-Identifier: Apache-2.0
"""The journal's entry of the migration that a command looks after, and what happens to it."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

from pcmig import _core, journal
from pcmig.cli.base import CommandError, say

if TYPE_CHECKING:
    from pcmig._core import Recovery
    from pcmig.journal import Entry, Journal, Owner

PROGRAM = "pcmig"  # what the command writes as the caller; another caller's entries are not its business

# Asks the process that looks after a migration to look at the journal, and to pause or resume accordingly.
LOOK = signal.SIGUSR2


def utc_now() -> str:
    """2026-11-21T10:03:27.123Z"""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# What the entry keeps of the status, by the same names, as soon as it is so: which host the destination is;
# that the switch was issued; that no instruction ran there; that the half's process was seen to end there.
KEPT = ("dest_host", "crossed", "unrun", "dest_ended")


class Record:
    """This process is the owner. Without an entry (the journal could not be written) nothing is kept."""

    def __init__(self, book: Journal, entry: Entry | None) -> None:
        self.book = book
        self.entry = entry

    @classmethod
    def claim(cls, book: Journal, entry: Entry) -> Record:
        """Makes this process the owner of ENTRY. A journal that cannot be written is a note, because hosts
        with a full disk are to be emptied; an entry that somebody else has, or that is not understood, raises
        CommandError."""
        try:
            return cls(book, book.claim(entry, utc_now()))
        except journal.HeldError as err:
            raise CommandError(held_by(err.owner, err.entry)) from err
        except journal.JournalError as err:
            if book.path(entry.uuid).exists():
                raise CommandError(str(err)) from err
            say(
                f"pcmig: note: {err}; should this process be killed, 'pcmig resume' will not know the "
                "options of this migration",
                sys.stderr,
            )
            return cls(book, None)

    def held(self) -> bool:
        """Whether somebody asked for a pause, and nobody for a resume since."""
        try:
            entry = self.book.read(self.entry.uuid) if self.entry else None
        except journal.JournalError:  # nothing that is broken holds a guest
            return False
        return entry is not None and entry.held

    def recovering(self, recovery: Recovery | None) -> None:
        """Leaves word for `pcmig status`. A journal that cannot be written is no reason to stop looking after
        the guest."""
        if self.entry is not None:
            with contextlib.suppress(journal.JournalError):
                self.book.update(self.entry.uuid, recovery=recovery)

    def note(self, name: str, value: Any) -> None:
        """One of KEPT, for whoever comes after this process."""
        changes = {name: value} | ({"crossed_at": utc_now()} if name == "crossed" else {})
        if self.entry is not None:
            with contextlib.suppress(journal.JournalError):
                self.entry = self.book.update(self.entry.uuid, **changes) or self.entry

    def close(self, *, settled: bool) -> None:
        """SETTLED: one host has the guest, an entry of the command has served. Otherwise it stays, without an
        owner; another program's always does, as that has books of its own to close."""
        if self.entry is None:
            return
        try:
            if settled and self.entry.caller.get("program") == PROGRAM:
                self.book.remove(self.entry.uuid)
            else:
                self.book.update(self.entry.uuid, owner=None, owned=None)
        except journal.JournalError as err:
            say(f"pcmig: note: {err}", sys.stderr)


def held_by(owner: Owner, entry: Entry) -> str:
    """That OWNER looks after the migration, and what to type instead."""
    since = entry.owned or entry.started
    return (
        f"process {owner.pid} looks after the migration of {entry.name} to {entry.dest_uri}, since {since}; "
        f"to see it:\n  {watch_command(entry.source_uri, word(entry))}"
    )


def word(entry: Entry) -> str:
    """How to name ENTRY's guest in a command."""
    return _core.guest_word(entry.name, entry.uuid)


def watch_command(source_uri: str, guest: str) -> str:
    """What to type to see the rest of a migration that was left to itself. GUEST is a word for a command."""
    return shlex.join(["pcmig", "watch", "-c", source_uri, guest])


def resume_command(source_uri: str, guest: str, dest_uri: str) -> str:
    """What to type to go on with a migration that was left interrupted. GUEST is a word for a command."""
    return shlex.join(["pcmig", "resume", "-c", source_uri, guest, dest_uri])


def resume_in(book: Journal, source_uri: str, guest: str, dest_uri: str) -> str:
    """The same for a migration of BOOK, which may be another journal than the command's own."""
    command = resume_command(source_uri, guest, dest_uri)
    if book.folder == journal.default_folder():
        return command
    return f"{journal.ENVIRONMENT}={shlex.quote(str(book.folder))} {command}"


def forget_in(book: Journal, text: str) -> str:
    """TEXT, whose `pcmig forget` finds BOOK."""
    return journal.naming(text, book.folder, journal.default_folders())


def choices(advice: str) -> tuple[str, dict[str, str]]:
    """The core's ADVICE as the command that helps, and others by when they do instead."""
    command, _, other = advice.partition("  # or, if ")
    when, _, instead = other.partition(": ")
    return command, {when: instead} if instead else {}


def is_called(entry: Entry, domain: str) -> bool:
    """Whether DOMAIN, a name or a UUID as libvirt takes one, is the guest of ENTRY."""
    return domain == entry.name or is_uuid(domain, entry.uuid)


def is_uuid(domain: str, uuid: str) -> bool:
    return domain.lower().replace("-", "") == uuid.replace("-", "")


def find(book: Journal, domain: str, source_uri: str | None) -> Entry | None:
    """The entry of the guest with this UUID, or with this name (and migrating from SOURCE_URI, if given), or
    None. Raises CommandError when there are several, or when the one that is meant cannot be used."""
    entries, errors = book.all()
    found = [
        entry
        for entry in entries
        if is_uuid(domain, entry.uuid) or (domain == entry.name and source_uri in (None, entry.source_uri))
    ]
    if len(found) > 1:
        names = ", ".join(f"{entry.uuid} from {entry.source_uri}" for entry in found)
        raise CommandError(f"several guests named {domain} migrate: name one of {names}")
    # A file that cannot be used may be the one that is asked for.
    for error in errors if not found else []:
        if f"{domain.lower()}{journal.SUFFIX}" in str(error):
            raise CommandError(str(error))
        say(f"pcmig: note: {error}", sys.stderr)
    return found[0] if found else None


def tell(entry: Entry) -> bool:
    """Asks the process that looks after ENTRY to look at the journal. Returns whether there is one that can
    be asked so: a `pcmig` that catches the signal, which would end it otherwise."""
    keeper = entry.keeper
    if keeper is None or entry.caller.get("program") != PROGRAM or not _catches(keeper.pid, LOOK):
        return False
    try:
        os.kill(keeper.pid, LOOK)
    except OSError:  # gone, or another user's
        return False
    return True


def _catches(pid: int, number: signal.Signals) -> bool:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(mask, 16) >> (number - 1) & 1)
