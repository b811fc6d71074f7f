# SPDX-License-Identifier: Apache-2.0
"""The journal: one JSON file for each migration in flight, so that whoever comes after a process that died
knows what was under way, from where to where, and with which arguments.

A file is written before the guest is touched and removed when its fate is settled. Each has at most one
owner, a process; an owner that is gone leaves the entry to the next. Files are replaced as a whole and reach
the disk before a call returns. Calls block for as long as the disk does, and for no other process longer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from pcmig import _core

# Grows when a field changes its meaning or goes away. One that is added is for those alone who know it: any
# other pcmig refuses the file, unless the field is among MAY_IGNORE (doc/refer/versions.rst).
SCHEMA = 1
SUFFIX = ".json"
ENVIRONMENT = "PCMIG_JOURNAL_DIR"
SYSTEM_FOLDER = pathlib.Path("/var/lib/pcmig/migrations")
NOVA_FOLDER = pathlib.Path("/var/lib/nova/pcmig/migrations")  # of a nova-compute as it is packaged

# Keyword arguments of _core.Migration that a migration needs to be adopted, and what they are.
ENGINE: dict[str, type | tuple[type, ...]] = {
    "flags": int,
    "migrate_uri": str,
    "policy": str,
    "params": dict,
    "bandwidth_mib": int,
    "postcopy_bandwidth_mib": int,
    "dest_name": str,
    "disks": list,
    "listen_address": str,
    "disks_uri": str,
    "connect_timeout_ms": int,
    "dest_xml": str,
    "persist_xml": str,
    "parallel_connections": int,
    "tls_destination": str,
    "destination_optional": bool,
    "recover": bool,
    "resume_uris": list,
    "tunnel_control": str,
    "autostart": bool,
    "count_faults": bool,
}

# What a pcmig that does not know it may do without, as a name of a field, or engine.NAME, or
# engine.params.NAME: it measures, or is shown, and nobody does anything wrong to the guest without it.
MAY_IGNORE = frozenset({"engine.count_faults", "recovery"})

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class JournalError(Exception):
    """A file or folder of the journal cannot be used; the text names it. UUID: the guest's whose file is
    there, and of no use."""

    def __init__(self, text: str, uuid: str | None = None) -> None:
        super().__init__(text)
        self.uuid = uuid


class FolderError(JournalError):
    """What is in the folder is not known."""


class HeldError(JournalError):
    """Another process looks after the migration."""

    def __init__(self, owner: Owner, entry: Entry) -> None:
        super().__init__(
            f"process {owner.pid} looks after the migration of {entry.name} to {entry.dest_uri}, "
            f"since {entry.owned or entry.started}"
        )
        self.owner = owner
        self.entry = entry


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process, told apart from one that got its number later."""

    pid: int
    start_ticks: int  # since boot, as field 22 of /proc/PID/stat has it
    boot: str  # /proc/sys/kernel/random/boot_id

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """The process PID; None when there is none."""
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # A zombie looks after nothing any more.
        return None if stat[0] in "ZX" else cls(pid, int(stat[19]), boot)

    @property
    def alive(self) -> bool:
        return Owner.of(self.pid) == self


@dataclasses.dataclass(frozen=True)
class Entry:
    """One migration. Times are UTC, ISO 8601."""

    uuid: str  # as libvirt writes it
    name: str  # of the guest at the source
    source_uri: str
    dest_uri: str
    engine: dict[str, Any]  # keyword arguments of Migration, see ENGINE
    started: str
    owner: Owner | None = None  # None: left to itself
    owned: str | None = None  # since when
    # The destination's own UUID, as its libvirt had it when the migration began (Migration's status): an
    # address may be mistyped, or change hands. Of another host "absent" says nothing.
    dest_host: str | None = None
    crossed: bool = False  # the switch to post-copy was issued: the source's memory may be the older
    # It is certain that no instruction of the guest ran at the destination (Migration's status).
    unrun: bool = False
    # After the switch the destination's libvirt saw the process with the half end (Migration's status).
    dest_ended: bool = False
    crossed_at: str | None = None  # when the switch was seen to be issued
    turned_back: dict[str, Any] | None = None  # it goes on at the source after the switch: pcmig/turn_back.py
    held: bool = False  # paused on request: not to be resumed until somebody asks for it
    recovery: dict[str, Any] | None = None  # an interrupted post-copy, as its owner told of it last
    tunnel: dict[str, Any] | None = (
        None  # its way through the tunnel (tunnel/passage.py); None: not through it
    )
    caller: dict[str, Any] = dataclasses.field(default_factory=dict)  # the caller's own; opaque here
    # What another pcmig wrote and this one may ignore, by names as in MAY_IGNORE: it is written again.
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def keeper(self) -> Owner | None:
        """The process that looks after it; None when there is none (any more)."""
        return self.owner if self.owner is not None and self.owner.alive else None


def default_folder() -> pathlib.Path:
    """Where the command keeps it: $PCMIG_JOURNAL_DIR, or /var/lib/pcmig/migrations as root, or
    $XDG_STATE_HOME/pcmig/migrations."""
    if given := os.environ.get(ENVIRONMENT):
        return pathlib.Path(given)
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    state = os.environ.get("XDG_STATE_HOME")
    return (pathlib.Path(state) if state else pathlib.Path.home() / ".local/state") / "pcmig" / "migrations"


def default_folders() -> list[pathlib.Path]:
    """Where migrations of this host may be on record: the command's own folder, and as root that of
    nova-compute, if there is one; the one of $PCMIG_JOURNAL_DIR alone."""
    folders = [default_folder()]
    if not os.environ.get(ENVIRONMENT) and os.geteuid() == 0 and NOVA_FOLDER.is_dir():
        folders.append(NOVA_FOLDER)
    return folders


def naming(text: str, folder: pathlib.Path | str, found: Iterable[pathlib.Path]) -> str:
    """TEXT, in which `pcmig forget` and `pcmig turn-back` name the journal in FOLDER unless that is among
    those FOUND without."""
    if pathlib.Path(folder) in found:
        return text
    for command in ("pcmig forget ", "pcmig turn-back "):
        text = text.replace(command, f"{command}--journal {shlex.quote(str(folder))} ")
    return text


def engine_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of Migration's keyword ARGUMENTS that an entry keeps."""
    return {name: value for name, value in arguments.items() if name in ENGINE and value is not None}


class Journal:
    """The files in one folder, which need not be there yet."""

    def __init__(self, folder: pathlib.Path | str | None = None) -> None:
        self.folder = default_folder() if folder is None else pathlib.Path(folder)

    def path(self, uuid: str) -> pathlib.Path:
        """Of the entry for this guest. Raises JournalError for what is no UUID."""
        if not _UUID.fullmatch(uuid):
            raise JournalError(f"{uuid!r} is no UUID of a guest")
        return self.folder / f"{uuid}{SUFFIX}"

    def read(self, uuid: str) -> Entry | None:
        """None when there is none. Raises JournalError when the file cannot be used."""
        return _read(self.path(uuid))

    def all(self) -> tuple[list[Entry], list[JournalError]]:
        """Every entry, oldest first; and what is wrong with those that cannot be used."""
        entries, errors = [], []
        try:
            paths = [self.folder / name for name in sorted(os.listdir(self.folder)) if name.endswith(SUFFIX)]
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as err:
            return [], [FolderError(f"the journal {self.folder} cannot be read: {err.strerror}")]
        for path in paths:
            try:
                entry = _read(path)
            except JournalError as err:
                errors.append(err)
                continue
            if entry is not None:  # removed since
                entries.append(entry)
        return sorted(entries, key=lambda entry: entry.started), errors

    def write(self, entry: Entry) -> None:
        """As it is, over what is there. Raises JournalError, also where that is not understood."""
        with self._locked():
            self.read(entry.uuid)
            self._write(entry)

    def claim(self, entry: Entry, since: str) -> Entry:
        """Writes ENTRY with this process as its owner from SINCE on, and returns it. Raises HeldError when
        another process that lives has it, JournalError when what is there, or the folder, cannot be used."""
        mine = dataclasses.replace(entry, owner=Owner.of(os.getpid()), owned=since)
        with self._locked():
            there = self.read(entry.uuid)
            if there is not None and there.keeper not in (None, mine.owner):
                assert there.owner is not None
                raise HeldError(there.owner, there)
            self._write(mine)
        return mine

    def update(self, uuid: str, **changes: Any) -> Entry | None:
        """The entry with CHANGES of its fields, written; None when there is none. Raises JournalError."""
        with self._locked():
            entry = self.read(uuid)
            if entry is not None:
                entry = dataclasses.replace(entry, **changes)
                self._write(entry)
        return entry

    def remove(self, uuid: str) -> None:
        """No error when there is none. Raises JournalError, also where what is there is not understood."""
        path = self.path(uuid)
        try:
            if not path.exists():
                return
        except OSError as err:
            raise JournalError(f"{path} cannot be removed: {err.strerror}") from err
        with self._locked():
            self.read(uuid)
            self._unlink(path)

    def remove_if(self, entry: Entry) -> None:
        """Removes ENTRY as long as it is that migration's and nobody looks after it. No error when there is
        none. Raises HeldError, or JournalError."""
        with self._locked():
            there = self.read(entry.uuid)
            if there is None:
                return
            if there.keeper is not None:
                raise HeldError(there.keeper, there)
            if (there.started, there.dest_uri) != (entry.started, entry.dest_uri):
                raise JournalError(f"{self.path(entry.uuid)} is of a newer migration by now: it stays")
            self._unlink(self.path(entry.uuid))

    def _unlink(self, path: pathlib.Path) -> None:
        try:
            path.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as err:
            raise JournalError(f"{path} cannot be removed: {err.strerror}") from err

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Between reading and writing, nobody else writes. The lock ends with the process, however that
        ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise JournalError(f"the journal {self.folder} cannot be written: {err.strerror}") from err
        try:
            try:
                hand_over(lock, self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as err:  # a file system without locks, or whose server is away
                raise JournalError(f"the journal {self.folder} cannot be locked: {err.strerror}") from err
            yield
        finally:
            os.close(lock)

    def _write(self, entry: Entry) -> None:
        path = self.path(entry.uuid)
        unknown = entry.engine.keys() - ENGINE.keys()
        if unknown:
            raise ValueError(f"engine: {sorted(unknown)} is not for the journal; see engine_arguments()")
        text = json.dumps(_as_data(entry), indent=2) + "\n"
        temporary = None
        try:
            # mkstemp makes it 0600: URIs and XML are nobody else's business.
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=self.folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                hand_over(handle, self.folder)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
            sync_folder(self.folder)
        except OSError as err:
            raise JournalError(f"{path} cannot be written: {err.strerror}") from err
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def hand_over(handle: int, folder: pathlib.Path) -> None:
    """What root makes in another user's journal is that user's: nova-compute has to read it, and to lock."""
    if os.geteuid() == 0 and (owner := os.stat(folder)).st_uid != 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)


def sync_folder(folder: pathlib.Path) -> None:
    """A new name is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: pathlib.Path) -> Entry | None:
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise JournalError(f"{path} cannot be read: {err.strerror}", _uuid_of(path)) from err
    except ValueError as err:  # no UTF-8, no JSON
        raise _unusable(path, f"is no JSON ({err})") from err
    except RecursionError:
        raise _unusable(path, "is no JSON that pcmig wrote") from None
    return _parse(path, data)


def _unusable(path: pathlib.Path, what: str) -> JournalError:
    return JournalError(
        f"{path} {what}: look at it, and move it away if no migration of this guest needs it", _uuid_of(path)
    )


def _uuid_of(path: pathlib.Path) -> str | None:
    """The guest that the file PATH is about, by its name."""
    uuid = path.name.removesuffix(SUFFIX)
    return uuid if _UUID.fullmatch(uuid) else None


# Fields of an entry beside "schema": type, and whether null will do.
_FIELDS: dict[str, tuple[type, bool]] = {
    "uuid": (str, False),
    "name": (str, False),
    "source_uri": (str, False),
    "dest_uri": (str, False),
    "engine": (dict, False),
    "dest_host": (str, True),
    "started": (str, False),
    "owner": (dict, True),
    "owned": (str, True),
    "crossed": (bool, False),
    "unrun": (bool, False),
    "dest_ended": (bool, False),
    "crossed_at": (str, True),
    "turned_back": (dict, True),
    "held": (bool, False),
    "recovery": (dict, True),
    "tunnel": (dict, True),
    "caller": (dict, False),
}
_SAID_LATER = ("crossed", "unrun", "dest_ended")
# Of the file itself.
_OF_FILE = ("schema", "written_by", "may_ignore")


def _as_data(entry: Entry) -> dict[str, Any]:
    """ENTRY as its file has it."""
    data = dataclasses.asdict(entry)
    unknown = data.pop("unknown")
    for name, value in unknown.items():
        *places, key = name.split(".")
        place = data
        for each in places:
            place = place.setdefault(each, {})
        place.setdefault(key, value)
    ignored = {name for name in MAY_IGNORE if _has(data, name)} | unknown.keys()
    return {"schema": SCHEMA, "written_by": _core.VERSION, "may_ignore": sorted(ignored), **data}


def _has(data: dict[str, Any], name: str) -> bool:
    *places, key = name.split(".")
    for each in places:
        data = data.get(each) or {}
    return data.get(key) is not None


def _gone(name: str) -> bool:
    try:
        return bool(_core.gone_param(name))
    except UnicodeError:  # half of a character
        return False


def _take_unknown(data: dict[str, Any]) -> dict[str, Any]:
    """Takes out of DATA, and returns by names as MAY_IGNORE has them, what this pcmig does not know."""
    engine = data["engine"] if isinstance(data.get("engine"), dict) else {}
    params = engine["params"] if isinstance(engine.get("params"), dict) else {}
    rows = {row["name"] for row in _core.params()}
    unknown: dict[str, Any] = {}
    for before, place, known in (
        ("", data, {*_FIELDS, *_OF_FILE}),
        ("engine.", engine, ENGINE.keys()),
        # What an older pcmig had, and what takes its place now, is known of thresholds.
        ("engine.params.", params, {name for name in params if name in rows or _gone(name)}),
    ):
        for name in [name for name in place if name not in known]:
            unknown[before + name] = place.pop(name)
    return unknown


# A name that may be ignored, and that is found again when the file is written.
_PLACED = re.compile(r"(engine\.(params\.)?)?\w+")


def _newer(path: pathlib.Path, data: dict[str, Any], what: str) -> JournalError:
    """WHAT of a file is not known, and may matter to the guest."""
    by = data.get("written_by")
    named = isinstance(by, str) and by.isprintable()
    writer, install = (f", {by}", f"pcmig {by}") if named else ("", "that one")
    look = shlex.join(["pcmig", "status", "--journal", str(path.parent), path.name.removesuffix(SUFFIX)])
    return JournalError(
        f"{path} was written by a newer pcmig{writer} ({what}; this one is {_core.VERSION}): it may say "
        "which half of the guest is to be kept, so nothing is done by it, and it stays as it is. Install "
        f"{install}, or a later one, and then: {look}",
        _uuid_of(path),
    )


def _parse(path: pathlib.Path, data: Any) -> Entry:
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema < 1:
        raise _unusable(path, "is no entry of pcmig's journal (it has no schema)")
    if schema > SCHEMA:
        raise _newer(path, data, f"schema {schema}, and {SCHEMA} is known here")
    unknown = _take_unknown(data)
    ignored = data.get("may_ignore", [])
    if not isinstance(ignored, list):
        raise _unusable(path, "has no valid 'may_ignore'")
    for name in unknown:
        if name not in ignored or not _PLACED.fullmatch(name):
            raise _newer(path, data, f"{name!r} is not known here")
    for name, (kind, optional) in _FIELDS.items():
        # Entries of older releases have no word on the switch, nor on what followed it.
        value = data.setdefault(name, False) if name in _SAID_LATER else data.get(name)
        if not (optional and value is None) and type(value) is not kind:
            raise _unusable(path, f"has no valid {name!r}")
    if data["uuid"] + SUFFIX != path.name:
        raise _unusable(path, f"is about another guest, {data['uuid']!r}")
    for name, value in data["engine"].items():
        if not isinstance(value, ENGINE[name]) or (ENGINE[name] is int and type(value) is not int):
            raise _unusable(path, f"has no valid {name!r} in 'engine'")
    try:
        _core.parse_policy(data["engine"].get("policy", "auto"))
    except (_core.PolicyError, UnicodeError) as err:
        raise _newer(path, data, f"'engine.policy': {err}") from err
    owner = data["owner"]
    if owner is not None:
        try:
            owner = Owner(int(owner["pid"]), int(owner["start_ticks"]), str(owner["boot"]))
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise _unusable(path, "has no valid 'owner'") from err
    return Entry(**{name: data.get(name) for name in _FIELDS} | {"owner": owner, "unknown": unknown})
