# SPDX-License-Identifier: Apache-2.0
"""Guests that work on their disks, and what they say of it (tests/cloud/guest/disk.c)."""

from __future__ import annotations

import dataclasses
import re
import time

from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec
from tests.cloud.server import Server

_SAID = re.compile(
    r"(?P<time_s>\d+\.\d+) (?P<host>\w+) (?:"
    r"DISK (?P<disk>\w+) (?P<number>\d+) (?P<verified>\d+) (?P<bad>\d+) (?P<errors>\d+)"
    r"|FOUND (?P<found_disk>\w+) (?P<found>\d+) (?P<found_bad>\d+))$"
)


@dataclasses.dataclass(frozen=True)
class DiskWork:
    """A disk worker's part of a disk, which nobody else writes to."""

    disk: str = "vda"
    start_mib: int = 1
    mib: int = 8
    writes_per_s: int = 20

    def __str__(self) -> str:
        return f"disk={self.disk}:{self.start_mib}:{self.mib}:{self.writes_per_s}"


@dataclasses.dataclass(frozen=True)
class StorageSpec(GuestSpec):
    """A guest that works on its disks as well."""

    disks: tuple[DiskWork, ...] = (DiskWork(),)

    def options(self) -> str:
        return " ".join([super().options(), *map(str, self.disks)])


@dataclasses.dataclass(frozen=True)
class DiskBeat:
    """How far a disk worker is; stamps as those of heartbeats."""

    time_s: float
    host: str
    disk: str
    number: int  # of its last write that was acknowledged
    verified: int
    bad: int
    errors: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What a disk worker found at its start, of an earlier boot."""

    time_s: float
    host: str
    disk: str
    number: int
    bad: int


def parse(said: str) -> list[DiskBeat | Found]:
    """All that the disk workers said, in the order of its arrival."""
    words: list[DiskBeat | Found] = []
    for line in said.splitlines():
        match = _SAID.match(line)
        if match is None:
            continue
        when, host = float(match["time_s"]), match["host"]
        if match["disk"]:
            numbers = (int(match[name]) for name in ("number", "verified", "bad", "errors"))
            words.append(DiskBeat(when, host, match["disk"], *numbers))
        else:
            words.append(Found(when, host, match["found_disk"], int(match["found"]), int(match["found_bad"])))
    return words


def disk_beats(server: Server, disk: str, since_s: float = 0.0) -> list[DiskBeat]:
    return [
        word
        for word in parse(server.said())
        if isinstance(word, DiskBeat) and word.disk == disk and word.time_s >= since_s
    ]


def found(server: Server, disk: str, since_s: float = 0.0) -> Found | None:
    """What its last boot found."""
    words = [word for word in parse(server.said()) if isinstance(word, Found)]
    return next((w for w in reversed(words) if w.disk == disk and w.time_s >= since_s), None)


def wait_writes(
    server: Server, disk: str, count: int = 20, since_s: float | None = None, patience_s: float = 60.0
) -> DiskBeat:
    """Wait until so many writes were acknowledged since a time; the last word of the worker."""
    since_s = time.monotonic() if since_s is None else since_s
    deadline_s = time.monotonic() + patience_s
    while True:
        beats = disk_beats(server, disk, since_s)
        if beats and beats[-1].number >= beats[0].number + count:
            return beats[-1]
        if time.monotonic() > deadline_s:
            last = beats[-1] if beats else "nothing"
            raise BedError(
                f"guest {server.name}: fewer than {count} writes to {disk} in {patience_s:.0f} s, but {last}"
            )
        time.sleep(0.1)
