# SPDX-License-Identifier: Apache-2.0
"""What `pcmig watch` knows of one migration: looks and events over connections that stay open, what pcmig's
own processes tell beside it, and the rates of the last minute."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from pcmig import _core
from pcmig.cli.job import POLL_S, Job
from pcmig.ledgers.document import true_rate
from pcmig.shadow import Shadow
from pcmig_common import phases, units

if TYPE_CHECKING:
    from pcmig.journal import Entry

SCHEMA = 1  # of the objects of --json: grows when a field changes its meaning or goes away

# What a sparkline shows.
HISTORY_S = 60.0

# Looks no more often than that, also where the policy would: libvirt and QEMU have other things to do.
LOOK_MIN_S = 0.1

# A destination that does not answer, or broke, is asked again.
DESTINATION_AGAIN_S = 5.0


class Rates(NamedTuple):
    t_s: float
    dirty_bps: int
    send_bps: int


class Watched(Job):
    """A job that is followed over a connection of its own, events included."""

    def __init__(self, uri: str, domain: str, seen: Shadow | None = None, dest: str | None = None) -> None:
        super().__init__(uri, domain, seen)
        self.dest = dest
        self.rates: collections.deque[Rates] = collections.deque()
        self._watch = _core.JobWatch(uri, domain)
        self._there: Destination | None = None

    def ask(self) -> _core.Job:
        return self._watch.look()

    def heard(self, answer: _core.Job) -> list[str]:
        lines = self._watch.take()
        if self.dest and self._there is None and answer["uuid"]:
            self._there = Destination(self.dest, answer["uuid"])
        if self._there is not None:
            lines += self._there.take(self._watch.now_us())
        figures = answer["sample"]
        if figures is not None:
            now_s = time.monotonic()
            dirty = figures.get("dirty_pages_ps", 0) * (figures.get("page_size_bytes") or units.PAGE_BYTES)
            sent = true_rate(answer["state"], figures.get("memory_bps", 0))
            self.rates.append(Rates(now_s, dirty, sent))
            while self.rates[0].t_s < now_s - HISTORY_S:
                self.rates.popleft()
        return sorted(lines, key=lambda line: int(line.partition(" ")[0]))

    def patience_s(self, closely: bool) -> float:
        """Until the next look. CLOSELY: when the policy would want one, within reason."""
        due_us = self.seen.look()["due_us"] if closely else None
        if due_us is None:
            return POLL_S
        return max(LOOK_MIN_S, min(POLL_S, (due_us - self._watch.now_us()) / 1e6))

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # another thread looks, and closes it with its end
            self._watch.close()
        if self._there is not None:
            self._there.close()


class Destination:
    """Events of the guest where it goes to. Connects on a thread of its own: a host that hangs delays
    nobody."""

    def __init__(self, uri: str, uuid: str) -> None:
        self._watch = _core.JobWatch(uri, uuid, source=False)
        self._ended = threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(_core.LibvirtError, ValueError):
                self._watch.look()
            self._ended.wait(DESTINATION_AGAIN_S)

    def take(self, now_us: int) -> list[str]:
        """What is new, on the clock that says NOW_US now."""
        try:
            lines = self._watch.take()
        except ValueError:  # it looks just now: they stay for the next time
            return []
        return [shifted(line, now_us - self._watch.now_us()) for line in lines]

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(ValueError):
            self._watch.close()


def shifted(line: str, by_us: int) -> str:
    t_us, _, rest = line.partition(" ")
    return f"{max(0, int(t_us) + by_us)} {rest}"


class Beside(NamedTuple):
    """What pcmig's own processes tell of a migration."""

    turn: _core.Turn | None = None
    entry: Entry | None = None


def merged(job: Job, beside: Beside, status: _core.Status | None = None) -> _core.Status:
    """The STATUS of JOB with what its driver tells, if that is pcmig."""
    status = status or job.status()
    turn = beside.turn
    if turn is not None:
        status["pace_mib"] = turn["pace_mib"]
        status["gate"], status["turn"] = turn["gate"], turn["turn"]
        status["waits_for"] = turn["waits_for"]
        if status["queue_bytes"] is None:
            status["queue_bytes"] = turn["queue_bytes"]
        if turn["phase"] == phases.PHASES["drain"] and status["phase"] == "precopy":
            status["phase"] = "drain"
        if turn["turn"] in ("bounded", "waiting") and status["phase"] in ("setup", "precopy"):
            # As the engine has it: what is sent meanwhile says nothing of what is to come.
            status["eta"] = {"outlook": "waits", "least_ms": None, "most_ms": None}
            status["eta_ms"] = None
    return status


def told(
    uri: str,
    job: Job,
    status: _core.Status,
    beside: Beside,
    *,
    shadow: bool,
    end: tuple[int, str] | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """One object of the stream of --json: a migration at a moment. END: exit code and last words. Without
    FIGURES this host has none of it."""
    entry, keeper = beside.entry, beside.entry.keeper if beside.entry else None
    page = job.figures.get("page_size_bytes") or units.PAGE_BYTES
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "command": "watch",
        "uri": uri,
        "uuid": job.uuid,
        "name": job.domain,
        "role": "source" if job.source else "destination",
        "phase": status["phase"] if end is None else "finished",
        "ended": end is not None,
        "exit_code": None if end is None else int(end[0]),
        "words": None if end is None else end[1],
    }
    found |= {name: status[name] for name in _SAME}  # type: ignore[literal-required]
    found |= {
        "eta_words": phases.eta_words(status["eta"]),
        "dirty_bps": status["dirty_pages_ps"] * page,
        "tunnel": "pcmig" if entry is not None and entry.tunnel is not None else None,
        "driver": None
        if keeper is None or entry is None
        else {"program": entry.caller.get("program"), "pid": keeper.pid},
        "recovery": recovery_of(entry) if keeper is not None else None,
        "shadow": job.seen.told() if shadow else None,
        "ledger": None if end is None or not figures else job.seen.ledger(),
    }
    if not figures:
        found |= dict.fromkeys(_FIGURES)
    return found


def recovery_of(entry: Entry | None) -> str | None:
    """How far the recovery of an interrupted post-copy is, as its owner noted it."""
    text = (entry.recovery or {}).get("text") if entry is not None else None
    return None if text is None else str(text)


_SAME = (
    "elapsed_ms",
    "passes",
    "pass_permille",
    "progress_permille",
    "eta",
    "downtime",
    "memory_total_bytes",
    "memory_processed_bytes",
    "memory_remaining_bytes",
    "disk_total_bytes",
    "disk_processed_bytes",
    "disk_remaining_bytes",
    "send_bps",
    "link_bps",
    "latency",
    "postcopy_requests",
    "requests_ps",
    "queue_bytes",
    "pace_mib",
    "gate",
    "turn",
    "waits_for",
)

# What only the source's libvirt tells, and that from the migrate call on. None is no figure, 0 is one.
_FIGURES = (
    "passes",
    "pass_permille",
    "progress_permille",
    "memory_total_bytes",
    "memory_processed_bytes",
    "memory_remaining_bytes",
    "disk_total_bytes",
    "disk_processed_bytes",
    "disk_remaining_bytes",
    "send_bps",
    "dirty_bps",
    "postcopy_requests",
    "requests_ps",
)


def bars(rates: Iterable[Rates], now_s: float, width: int) -> tuple[list[int], list[int], int]:
    """RATES of the last minute in WIDTH columns: dirty and send, the highest of each column, -1 where nothing
    was seen; and the highest of all."""
    dirty, send = [-1] * width, [-1] * width
    for rate in rates:
        column = width - 1 - int((now_s - rate.t_s) / HISTORY_S * width)
        if 0 <= column < width:
            dirty[column] = max(dirty[column], rate.dirty_bps)
            send[column] = max(send[column], rate.send_bps)
    return dirty, send, max([0, *dirty, *send])
