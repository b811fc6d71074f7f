# SPDX-License-Identifier: Apache-2.0
"""What is counted, in a folder beside the journal, so that it outlives the processes that count.

`counts.json` has counters and histograms; it is replaced as a whole under a lock, and is on the disk before
anybody goes on. `live-PID.json` has the migrations that a process follows, and counts as long as that process
lives. `situations.json` has what the hosts said of migrations that nobody follows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pcmig import journal
from pcmig.metrics.account import Increments, Key
from pcmig.metrics.families import COUNTERS, HISTOGRAMS, Family

SCHEMA = 1  # grows when a field changes its meaning or goes away
COUNTS = "counts.json"
SITUATIONS = "situations.json"
LIVE = "live-"
NOVA_FOLDER = journal.NOVA_FOLDER.parent / "metrics"  # of a nova-compute as it is packaged

_FAMILIES = {family.name: family for family in (*COUNTERS, *HISTOGRAMS)}

# Of so many migrations that were counted last it is known that they were.
REMEMBERED = 500

AGAIN_S = 0.05  # how soon a lock that another process has is asked for again


class StoreError(Exception):
    """The folder, or a file in it, cannot be used; the text names it."""


class BusyError(StoreError):
    """Another process writes there."""


class UnusableError(StoreError):
    """The counts cannot be read, and will not be later."""


def beside(folder: pathlib.Path | str) -> pathlib.Path:
    """The folder for a journal in FOLDER: beside it, as that holds the journal's files alone."""
    return pathlib.Path(folder).parent / "metrics"


def default_folder() -> pathlib.Path:
    """The command's: beside the journal, /var/lib/pcmig/metrics as root; in the journal's own folder where
    $PCMIG_JOURNAL_DIR names that, as what is beside is not pcmig's then."""
    folder = journal.default_folder()
    return folder / "metrics" if os.environ.get(journal.ENVIRONMENT) else beside(folder)


@dataclasses.dataclass
class Histogram:
    """`buckets` are those of its family and the infinite one, each for itself, not for what is below it."""

    buckets: list[int]
    sum: float = 0.0


@dataclasses.dataclass
class Counts:
    since_s: float  # since 1970: when counting began
    counters: dict[Key, float] = dataclasses.field(default_factory=dict)
    histograms: dict[Key, Histogram] = dataclasses.field(default_factory=dict)
    ended: list[str] = dataclasses.field(default_factory=list)  # the migrations that were counted last

    @classmethod
    def fresh(cls) -> Counts:
        return cls(time.time())

    def add(self, more: Increments) -> None:
        for key, by in more.counters.items():
            self.counters[key] = self.counters.get(key, 0) + by
        for key, value in more.observations:
            bounds = _FAMILIES[key[0]].buckets
            histogram = self.histograms.setdefault(key, Histogram([0] * (len(bounds) + 1)))
            histogram.buckets[sum(bound < value for bound in bounds)] += 1
            histogram.sum += value
        for key, (buckets, total) in more.observed.items():
            bounds = _FAMILIES[key[0]].buckets
            histogram = self.histograms.setdefault(key, Histogram([0] * (len(bounds) + 1)))
            histogram.buckets = [old + new for old, new in zip(histogram.buckets, buckets, strict=True)]
            histogram.sum += total


class Store:
    """TELL is told, in a sentence, of what had to be moved aside."""

    def __init__(self, folder: pathlib.Path | str, tell: Callable[[str], None] = lambda _: None) -> None:
        self.folder = pathlib.Path(folder)
        self._tell = tell

    @contextlib.contextmanager
    def locked(self, wait_s: float | None = None, *, name: str = ".lock") -> Iterator[None]:
        """Nobody else writes meanwhile. The lock ends with the process, however that ends; one that is
        stopped keeps it. Raises BusyError when another one has it for longer than WAIT_S (None: waits for
        ever), StoreError also for an OSError of the caller's."""
        handle = -1
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            journal.hand_over(handle, self.folder)
            self._lock(handle, wait_s)
            yield
        except OSError as err:
            # The folder, not the file: that has another name each time, and what goes wrong is told once.
            raise StoreError(f"metrics cannot be written in {self.folder}: {err.strerror}") from err
        finally:
            if handle >= 0:
                os.close(handle)

    def _lock(self, handle: int, wait_s: float | None) -> None:
        if wait_s is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            return
        end_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end_s:
                    raise BusyError(
                        f"metrics cannot be written in {self.folder}: another process is at it, and does not "
                        "come to an end"
                    ) from None
            time.sleep(AGAIN_S)

    # Counts

    def add(self, migration: str, more: Increments, wait_s: float | None = None) -> bool:
        """Counts MORE for the ended MIGRATION, once: whether that was not done before. Raises StoreError."""
        unusable = ""
        with self.locked(wait_s):
            try:
                counts = self.counts()
            except UnusableError as err:
                unusable = f"{err}: it is kept as {self._put_aside()}, and counting begins anew"
                counts = Counts.fresh()
            new = migration not in counts.ended
            if new:
                counts.add(more)
                counts.ended = [*counts.ended, migration][-REMEMBERED:]
                self._write(COUNTS, _dumped(counts), durable=True)
        if unusable:  # without the lock: a log may let another of eventlet's threads run, which wants it
            self._tell(unusable)
        return new

    def begin(self) -> None:
        """Writes down when counting began, if nobody has. Waits for nobody: who else writes does it. Raises
        StoreError."""
        if os.path.exists(
            self.folder / COUNTS
        ):  # no pathlib: it raises where a folder may not be looked into
            return
        with self.locked(wait_s=0):
            if not os.path.exists(self.folder / COUNTS):
                self._write(COUNTS, _dumped(Counts.fresh()), durable=True)

    def unusable_since_s(self) -> float:
        """When the counts were written last, since 1970, of which nothing more can be said."""
        try:
            return (self.folder / COUNTS).stat().st_mtime
        except OSError:  # moved aside meanwhile
            return time.time()

    def counts(self) -> Counts:
        """As they are now; there need be none. Raises StoreError."""
        path = self.folder / COUNTS
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return Counts.fresh()
        except OSError as err:
            raise StoreError(f"{path} cannot be read: {err.strerror}") from err
        except (ValueError, RecursionError) as err:  # no UTF-8, no JSON
            raise UnusableError(f"{path} is no JSON that pcmig wrote ({err})") from err
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise UnusableError(f"{path} has schema {schema!r}, and this pcmig knows {SCHEMA}")
        try:
            return _parsed(data)
        except (KeyError, TypeError, ValueError) as err:
            raise UnusableError(f"{path} is not as pcmig writes it ({err})") from err

    def _put_aside(self) -> pathlib.Path:
        """The counts, over nothing that is there."""
        number = 1
        while (aside := self.folder / f"{COUNTS}.unusable-{number}").exists():
            number += 1
        os.replace(self.folder / COUNTS, aside)
        return aside

    # What runs

    def write_live(self, rows: list[dict[str, Any]], wait_s: float | None = None) -> None:
        """The migrations that this process follows; none: its file goes. Raises StoreError."""
        name = f"{LIVE}{os.getpid()}.json"
        with self.locked(wait_s):
            if rows:
                owner = journal.Owner.of(os.getpid())
                assert owner is not None
                self._write(name, {"owner": dataclasses.asdict(owner), "rows": rows})
            else:
                (self.folder / name).unlink(missing_ok=True)

    def live(self) -> list[dict[str, Any]]:
        """Of all processes that live. What another one has left is removed, if that may be."""
        rows: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob(f"{LIVE}*.json")):
            try:
                data = json.loads(path.read_bytes())
                alive = journal.Owner(**data["owner"]).alive
                # A row without its guest cannot be told apart from another one.
                found = [row for row in data["rows"] if isinstance(row, dict) and "instance_uuid" in row]
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue  # gone meanwhile; or nobody's
            if alive:
                rows += found
                continue
            with contextlib.suppress(OSError):
                path.unlink()
        return rows

    # What nobody follows

    def write_situations(self, situations: Mapping[str, str], wait_s: float | None = None) -> None:
        """As both hosts said, by the UUID of the guest. Raises StoreError."""
        with self.locked(wait_s):
            self._write(SITUATIONS, dict(situations))

    def situations(self) -> dict[str, str]:
        try:
            data = json.loads((self.folder / SITUATIONS).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(uuid): str(name) for uuid, name in data.items()} if isinstance(data, dict) else {}

    def _write(self, name: str, data: Any, *, durable: bool = False) -> None:
        """With the lock. A power cut leaves the old file or the new one, if DURABLE before this returns."""
        temporary: str | None = None
        try:
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=self.folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                journal.hand_over(handle, self.folder)
                json.dump(data, file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
            temporary = None
            if durable:
                journal.sync_folder(self.folder)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def _dumped(counts: Counts) -> dict[str, Any]:
    """Of each family a list, as JSON has no tuples for keys."""
    counters = [[name, list(labels), value] for (name, labels), value in sorted(counts.counters.items())]
    histograms = [
        [name, list(labels), list(_FAMILIES[name].buckets), found.buckets, found.sum]
        for (name, labels), found in sorted(counts.histograms.items())
    ]
    return {
        "schema": SCHEMA,
        "since": counts.since_s,
        "counters": counters,
        "histograms": histograms,
        "ended": counts.ended,
    }


def _parsed(data: dict[str, Any]) -> Counts:
    """Raises KeyError, TypeError, ValueError. Figures of a newer pcmig's are left out."""
    counts = Counts(_number(data["since"]), ended=[str(name) for name in data["ended"]])
    for name, labels, value in data["counters"]:
        if (family := _FAMILIES.get(name)) is not None:
            counts.counters[_key(family, labels)] = _number(value)
    for name, labels, bounds, buckets, total in data["histograms"]:
        if (family := _FAMILIES.get(name)) is None:
            continue
        if bounds != list(family.buckets) or len(buckets) != len(bounds) + 1:
            raise ValueError(f"{name} has other buckets")
        counts.histograms[_key(family, labels)] = Histogram(
            [int(_number(each)) for each in buckets], _number(total)
        )
    return counts


def _key(family: Family, labels: Any) -> Key:
    values = tuple(labels)
    if len(values) != len(family.labels) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{family.name} has the labels {labels!r}")
    return family.name, values


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} counts nothing")
    return float(value)
