# SPDX-License-Identifier: Apache-2.0
"""How much of a guest's memory the kernel holds in transparent huge pages: at the source before a migration,
and at the destination after it. Post-copy breaks them there, they come back slowly or not at all, and the
guest works slower until then.

Only the host itself can tell, of QEMU's process (smaps_rollup). `python -m pcmig.huge_pages destination UUID`
does, for whoever has to become another user, or go to another host, for it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pcmig_common import units

# After the end of the migration; an evaluation of the same has these times.
AT_S = (0, 10, 30)
LATE_MS = 1000

PROC = "/proc"
DENIED = "permission denied: another user's process"
NOT_HERE = "no QEMU of the guest is to be seen on this machine"
ADOPTED = "the migration was under way when it was taken over"
HUGETLBFS = "the guest's memory is in hugetlbfs, whose pages post-copy moves as a whole: none is broken"

_FIELD = re.compile(r"^(AnonHugePages|ShmemPmdMapped|Shared_Hugetlb|Private_Hugetlb):\s+(\d+) kB$", re.M)
_TRANSPARENT = ("AnonHugePages", "ShmemPmdMapped")


class Seen(NamedTuple):
    """One look. What is not known is None, and WHY not."""

    bytes: int | None
    why: str | None
    hugetlbfs: bool = False  # the guest has pages of the other kind


def unknown(why: str) -> Seen:
    return Seen(None, why)


def parse(rollup: str) -> Seen:
    """The text of a smaps_rollup."""
    found = {name: int(kib) * 1024 for name, kib in _FIELD.findall(rollup)}
    if _TRANSPARENT[0] not in found:
        return unknown("this kernel does not tell")
    hugetlbfs = any(size for name, size in found.items() if name not in _TRANSPARENT)
    return Seen(sum(found.get(name, 0) for name in _TRANSPARENT), None, hugetlbfs)


def understand(answer: Any) -> Seen:
    """Another host's word, which may be anything."""
    try:
        size, why, hugetlbfs = answer
    except (TypeError, ValueError):
        return unknown("its answer makes no sense")
    if type(size) is int and size >= 0:
        return Seen(size, None, hugetlbfs is True)
    return unknown(str(why)[:300])


def processes(uuid: str, proc: str = PROC) -> list[int]:
    """The QEMUs of a guest on this machine, oldest first: both halves where two hosts are one machine."""
    found: list[tuple[int, int]] = []
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"-uuid" not in words or uuid.encode() not in words:
                continue
            with open(f"{proc}/{pid}/stat", "rb") as file:
                started = int(file.read().rpartition(b")")[2].split()[19])
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        found.append((started, int(pid)))
    return [pid for _, pid in sorted(found)]


def of_process(pid: int, proc: str = PROC) -> Seen:
    try:
        with open(f"{proc}/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            return parse(file.read())
    except PermissionError:
        return unknown(DENIED)
    except OSError as err:
        return unknown(f"QEMU's process cannot be read: {err.strerror}")


def at_source(uuid: str, proc: str = PROC) -> Seen:
    """A half that a guest leaves is older than the one that it goes to."""
    found = processes(uuid, proc)
    return of_process(found[0], proc) if found else unknown(NOT_HERE)


def at_destination(uuid: str, proc: str = PROC, *, other_than: int | None = None) -> Seen:
    found = [pid for pid in processes(uuid, proc) if pid != other_than]
    return of_process(found[-1], proc) if found else unknown(NOT_HERE)


class HugePages:
    """Of one migration. SOURCE and DESTINATION look; they may take as long as they like, on threads of
    their own. LATER says why a look that nobody has made is missing. ADOPTED: its migration was under
    way, and what the source has by then is not what it had before."""

    def __init__(
        self,
        source: Callable[[], Seen],
        destination: Callable[[], Seen],
        later: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        adopted: bool = False,
    ) -> None:
        self._source = source
        self._destination = destination
        self.later = later
        self._clock = clock
        self._adopted = adopted
        self._before = unknown(ADOPTED if adopted else "nobody has looked before the migration")
        self._ended_s: float | None = None
        self._seen: list[tuple[int, Seen]] = []  # ms after the end

    def begin(self) -> None:
        """Looks at the source, in the background."""
        if self._adopted:
            return
        try:
            threading.Thread(target=self._look_before, name="pcmig-huge-pages", daemon=True).start()
        except RuntimeError:  # no thread is to be had: so it is not known
            return

    def _look_before(self) -> None:
        self._before = _safely(self._source)

    def ended(self) -> None:
        """From now on the times count, whatever was said before."""
        self._ended_s = self._clock()

    def look(self) -> None:
        """At the destination, once more."""
        assert self._ended_s is not None
        seen = _safely(self._destination)
        self._seen.append((round((self._clock() - self._ended_s) * 1000), seen))

    def follow(self, changed: Callable[[dict[str, Any]], None], wait: Callable[[float], object]) -> None:
        """Makes those looks that are missing, each at its time, and tells what is known by then. WAIT takes
        seconds, and says that it is over by something true."""
        assert self._ended_s is not None
        for at_s in AT_S[len(self._seen) :]:
            if wait(max(0.0, self._ended_s + at_s - self._clock())):
                return
            self.look()
            changed(self.document())
            if self._hugetlbfs:
                return

    @property
    def _hugetlbfs(self) -> bool:
        """All of its memory is: a guest that has them for a single cell has transparent ones, too."""
        looks = [seen for _, seen in self._seen]
        known = [self._before] if self._before.bytes is not None else looks
        return any(seen.hugetlbfs for seen in (self._before, *looks)) and not any(
            seen.bytes for seen in known
        )

    def document(self) -> dict[str, Any]:
        """As a kept ledger has it (doc/operate/report.rst)."""
        readings = []
        for place, at_s in enumerate(AT_S):
            t_ms, seen = self._seen[place] if place < len(self._seen) else (None, unknown(self.later))
            readings.append({"at_s": at_s, "t_ms": t_ms, "bytes": seen.bytes, "why": seen.why})
        known = any(reading["bytes"] is not None for reading in readings)
        return {
            "what": "hugetlbfs" if self._hugetlbfs else "read" if known else "unknown",
            "why": HUGETLBFS if self._hugetlbfs else None if known else readings[0]["why"],
            "before_bytes": self._before.bytes,
            "before_why": self._before.why,
            "readings": readings,
        }


def _safely(look: Callable[[], Seen]) -> Seen:
    try:
        return look()
    except Exception as err:  # another host, in whatever form; nothing depends on it
        return unknown(f"{type(err).__name__}: {err}")


def when(at_s: int, t_ms: int | None = None) -> str:
    """A look that was made at T_MS, and not when it was to be, says so."""
    if t_ms is not None and abs(t_ms - at_s * 1000) > LATE_MS:
        return f"{t_ms / 1000:.1f} s after the end"
    return f"{at_s} s after the end" if at_s else "at the end"


def size(value: int | None, why: str | None) -> str:
    return f"not known: {why}" if value is None else units.size(value)


def words(found: Mapping[str, Any] | None) -> str | None:
    """A sentence on what a document has; None where there is nothing to say."""
    if found is None:
        return None
    if found["what"] == "hugetlbfs":
        return f"huge pages: {found['why']}"
    before = found["before_bytes"]
    if found["what"] != "read":
        unknown_there = f"at the destination: not known: {found['why']}"
        if before is None:
            return f"huge pages {unknown_there}"
        return f"in huge pages: {units.size(before)} before, at the source; {unknown_there}"
    parts = [
        f"{'not known' if reading['bytes'] is None else units.size(reading['bytes'])} "
        f"{when(reading['at_s'], reading['t_ms'])}"
        for reading in found["readings"]
    ]
    had = "not known how much" if before is None else units.size(before)
    return f"in huge pages: {had} before, at the source; at the destination {', '.join(parts)}"


def main(argv: list[str]) -> int:
    """Prints what understand() takes."""
    look = {"source": at_source, "destination": at_destination}.get(argv[0]) if len(argv) == 2 else None
    if look is None:
        print("usage: python -m pcmig.huge_pages source|destination UUID", file=sys.stderr)
        return 2
    try:
        guest = str(uuid.UUID(argv[1]))
    except ValueError:
        why = f"'{argv[1]}' is no UUID of a guest; virsh domuuid GUEST prints it"
        print(f"python -m pcmig.huge_pages: {why}", file=sys.stderr)
        return 2
    print(json.dumps(look(guest)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
