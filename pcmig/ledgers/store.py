# SPDX-License-Identifier: Apache-2.0
"""The folder in which the ledgers of ended migrations are kept: one file each, bounded in number and age.

A file is written as a whole, and put in the place of the one before where more is known later. One that
cannot be read is named, and keeps nobody from the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pcmig import journal
from pcmig.ledgers.document import FORMAT, VERSION

ENVIRONMENT = "PCMIG_LEDGERS_DIR"
SUFFIX = ".json"
NOVA_FOLDER = journal.NOVA_FOLDER.parent / "ledgers"  # of a nova-compute as it is packaged

KEPT = 1000
DAYS = 365

# How the name of a file begins that is being written; one so old is written by nobody any more.
NEW = ".new-"
LEFT_S = 3600

# 20261129T202011123Z-UUID.json, by the time of the end: names sort by age.
_NAME = re.compile(r"(\d{8}T\d{9})Z-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)?\.json")
_TIME = "%Y%m%dT%H%M%S%f"


class LedgerError(Exception):
    """A file or folder of kept ledgers cannot be used; the text names it."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """One document and the file that has it."""

    path: pathlib.Path
    document: dict[str, Any]


def default_folder() -> pathlib.Path:
    """Where the command keeps them: $PCMIG_LEDGERS_DIR, else beside the journal, which is
    /var/lib/pcmig/ledgers as root; in the journal's own folder where $PCMIG_JOURNAL_DIR names that."""
    if given := os.environ.get(ENVIRONMENT):
        return pathlib.Path(given)
    if os.environ.get(journal.ENVIRONMENT):
        return journal.default_folder() / "ledgers"
    return journal.default_folder().parent / "ledgers"


def default_folders() -> list[pathlib.Path]:
    """Where ledgers of this host may be: the command's own folder, and as root that of nova-compute, if there
    is one."""
    folders = [default_folder()]
    named = os.environ.get(ENVIRONMENT) or os.environ.get(journal.ENVIRONMENT)
    if not named and os.geteuid() == 0 and NOVA_FOLDER.is_dir():
        folders.append(NOVA_FOLDER)
    return folders


class Store:
    """The files in FOLDER, which need not be there yet. No more than KEPT stay, and none longer than DAYS."""

    def __init__(
        self, folder: pathlib.Path | str | None = None, *, kept: int = KEPT, days: int = DAYS
    ) -> None:
        self.folder = default_folder() if folder is None else pathlib.Path(folder)
        self.kept = kept
        self.days = days

    def paths(self) -> list[pathlib.Path]:
        """Of all files that are kept ledgers by their name, oldest first. Raises LedgerError."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as err:
            raise LedgerError(f"the kept ledgers in {self.folder} cannot be read: {err.strerror}") from err
        return [self.folder / name for name in names]

    def add(self, document: Mapping[str, Any]) -> pathlib.Path | None:
        """Writes DOCUMENT, and removes what is one too many or too old. Returns where it is; None when none
        is to be kept. Raises LedgerError."""
        if self.kept <= 0:
            return None
        text = _text(document)
        with self._locked():
            path = self._free_name(document)
            try:
                self._prune()  # first: on a full disk the old ones make room for this one
            finally:  # which is kept also beside one that cannot be removed
                self._write(path, text)
        return path

    def amend(self, path: pathlib.Path, parts: Mapping[str, Any]) -> None:
        """Puts PARTS into the document that PATH has, in the place of what it had of them. Nothing is done
        where it has been removed. Raises LedgerError."""
        with self._locked():
            if path.exists():
                self._write(path, _text({**read(path), **parts}))

    def newest(self, number: int) -> tuple[list[Kept], list[LedgerError]]:
        """The last NUMBER, oldest first; and what is wrong with files that are among them, or newer, and
        cannot be read."""
        found: list[Kept] = []
        errors: list[LedgerError] = []
        for path in reversed(self.paths()):
            if len(found) == number:
                break
            _take(path, found, errors)
        return found[::-1], errors

    def all(self) -> tuple[list[Kept], list[LedgerError]]:
        """Every one, oldest first; and what is wrong with those that cannot be read. Raises LedgerError."""
        return self.newest(-1)

    def of_guest(self, guest: str) -> tuple[list[Kept], list[LedgerError]]:
        """Those of the guest with this name or UUID, oldest first; what cannot be read may be one of them."""
        found, errors = self.all()
        uuid = guest.lower().replace("-", "")
        return [
            kept
            for kept in found
            if guest == kept.document["guest"]["name"]
            or uuid == str(kept.document["guest"]["uuid"]).replace("-", "")
        ], errors

    def _free_name(self, document: Mapping[str, Any]) -> pathlib.Path:
        ended = datetime.datetime.fromisoformat(document["ended"]).astimezone(datetime.UTC)
        stem = f"{ended:%Y%m%dT%H%M%S}{ended.microsecond // 1000:03}Z-{document['guest']['uuid']}"
        names = [f"{stem}{SUFFIX}", *(f"{stem}.{i}{SUFFIX}" for i in range(1, 100))]
        path = next((self.folder / name for name in names if not (self.folder / name).exists()), None)
        if path is None or not _NAME.fullmatch(path.name):
            raise LedgerError(f"{self.folder / names[0]} is no name for another ledger")
        return path

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else writes or removes meanwhile."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise LedgerError(f"the kept ledgers in {self.folder} cannot be written: {err.strerror}") from err
        try:
            journal.hand_over(lock, self.folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as err:
            raise LedgerError(f"the kept ledgers in {self.folder} cannot be written: {err.strerror}") from err
        finally:
            os.close(lock)

    def _write(self, path: pathlib.Path, text: str) -> None:
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(prefix=NEW, dir=self.folder)  # 0600
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                journal.hand_over(handle, self.folder)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
            journal.sync_folder(self.folder)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def _prune(self) -> None:
        """Leaves room for one more, and nothing that a process left which was killed while it wrote."""
        paths = self.paths()
        oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=self.days)
        old = [path for path in paths if _ended(path) < oldest]
        for path in sorted({*paths[: max(0, len(paths) - self.kept + 1)], *old}):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        for path in self.folder.glob(f"{NEW}*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - LEFT_S:
                    path.unlink()


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":")) + "\n"


def read(path: pathlib.Path | str) -> dict[str, Any]:
    """The document in the file PATH. Raises LedgerError."""
    try:
        data = json.loads(pathlib.Path(path).read_bytes())
    except OSError as err:
        raise LedgerError(f"{path} cannot be read: {err.strerror}") from err
    except ValueError as err:  # no UTF-8, no JSON
        raise LedgerError(f"{path} is no JSON, or only the beginning of it ({err})") from err
    except RecursionError:
        raise LedgerError(f"{path} is no JSON that pcmig wrote") from None
    return checked(path, data)


# What every document of this version has, and of which type; the schema says the rest.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "guest": dict,
    "by": dict,
    "steered": bool,
    "adopted": bool,
    "begun": str,
    "started": str,
    "ended": str,
    "elapsed_ms": int,
    "hosts": dict,
    "outcome": str,
    "words": str,
    "mode": str,
    "policy": str,
    "params": dict,
    "flags": list,
    "link": dict,
    "silences": list,
    "ledger": dict,
    "decisions": list,
    "samples": dict,
}
_PARTS: dict[str, tuple[str, ...]] = {
    "guest": ("name", "uuid"),
    "hosts": ("source", "destination"),
    "ledger": ("phases", "passes", "totals", "balance"),
}


def _writer(data: dict[str, Any]) -> str:
    """Which pcmig kept the ledger, behind a comma, where it says so as this version does."""
    try:
        by = data["hosts"]["source"]["pcmig"]
    except (KeyError, TypeError):
        return ""
    return f", {by}" if isinstance(by, str) and by.isprintable() else ""


def checked(path: pathlib.Path | str, data: Any) -> dict[str, Any]:
    """DATA, if it is a document of a version that is understood. Raises LedgerError."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise LedgerError(f'{path} is no kept ledger: it has no "format": "{FORMAT}"')
    number = data.get("version")
    if type(number) is not int or number < 1:
        raise LedgerError(f"{path} has no valid 'version': {number!r}")
    if number > VERSION:
        raise LedgerError(
            f"{path} was written by a newer pcmig{_writer(data)} (version {number}, and {VERSION} is known "
            "here): 'pcmig report FILE' of that one, or of a later one, shows it"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(data.get(name), kind):
            raise LedgerError(f"{path} has no valid {name!r}")
    for name, parts in _PARTS.items():
        for part in parts:
            if part not in data[name]:
                raise LedgerError(f"{path} has no {part!r} in {name!r}")
    return data


def _take(path: pathlib.Path, found: list[Kept], errors: list[LedgerError]) -> None:
    try:
        found.append(Kept(path, read(path)))
    except LedgerError as err:
        if path.exists():  # else removed since
            errors.append(err)


def _ended(path: pathlib.Path) -> datetime.datetime:
    """When the migration of the file PATH ended, by its name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    try:
        return datetime.datetime.strptime(match[1], _TIME).replace(tzinfo=datetime.UTC)
    except ValueError:  # a name that nobody wrote: it stays until there are too many
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)
