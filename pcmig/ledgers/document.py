# SPDX-License-Identifier: Apache-2.0
"""The document of one ended migration: what was asked for, what was decided and seen, how it ended.

The figures are the engine's own: its ledger, its decisions, its status over time. Nothing is counted here.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pcmig import _core

FORMAT = "pcmig-ledger"
VERSION = 1  # grows when a field changes its meaning or goes away; fields may be added without

# Points of a plot over time; a page is not wider.
SAMPLES_MAX = 600
STEP_MS = 100
# The pace changes once a second for as long as post-copy lasts; other decisions are few.
DECISIONS_MAX = 1000

# Columns of the samples, each with the field of the status that it has; "t_ms" is since the start.
COLUMNS = {
    "t_ms": "elapsed_ms",
    "phase": "phase",
    "passes": "passes",
    "remaining_bytes": "memory_remaining_bytes",
    "processed_bytes": "memory_processed_bytes",
    "dirty_pages_ps": "dirty_pages_ps",
    "send_bps": "send_bps",
    "requests": "postcopy_requests",
    "requests_ps": "requests_ps",
    "pace_mib": "pace_mib",
    "queue_bytes": "queue_bytes",
}

Row = dict[str, Any]


def true_rate(phase: str, told_bps: int) -> int:
    """QEMU goes on telling its last rate where post-copy is interrupted, and nothing is sent: what the engine
    corrects (pcmig_ledger_send_bps), traces and older ledgers have as it was told."""
    return 0 if phase == "paused" else told_bps


class Samples:
    """The status over time, thinned to no more than SAMPLES_MAX rows, however long it takes. The first row of
    each phase stays as long as there is room."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._latest: Row | None = None
        self._step_ms = STEP_MS

    def add(self, status: Mapping[str, Any]) -> None:
        row = {column: status[name] for column, name in COLUMNS.items()}
        if row["phase"] != "finished":
            self.add_row(row)

    def add_row(self, row: Row) -> None:
        """ROW has the names of COLUMNS."""
        self._latest = row
        before = self._rows[-1] if self._rows else None
        if (
            before is not None
            and row["phase"] == before["phase"]
            and row["t_ms"] - before["t_ms"] < self._step_ms
        ):
            return
        self._rows.append(row)
        if len(self._rows) >= SAMPLES_MAX:
            self._thin()

    def columns(self) -> dict[str, list[Any]]:
        """A list for each column; all are as long as each other."""
        rows = self._rows
        if self._latest is not None and rows[-1] is not self._latest:
            rows = [*rows, self._latest]
        return {column: [row[column] for row in rows] for column in COLUMNS}

    def _thin(self) -> None:
        self._step_ms *= 2
        kept: list[Row] = []
        for row in self._rows:
            before = kept[-1] if kept else None
            if (
                before is None
                or row["phase"] != before["phase"]
                or row["t_ms"] - before["t_ms"] >= self._step_ms
            ):
                kept.append(row)
        if len(kept) > SAMPLES_MAX * 3 // 4:  # it was interrupted every moment
            kept = kept[::2]
        self._rows = kept


class Facts:
    """What both hosts' libvirt say of themselves, asked in the background while the migration runs. ASK takes
    a URI; a host that cannot be asked, or has not answered when somebody wants to know, is unknown."""

    def __init__(
        self,
        source_uri: str,
        dest_uri: str,
        ask: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._uris = {"source": source_uri, "destination": dest_uri}
        self._ask = ask or _core.host_facts
        self._found: dict[str, Mapping[str, Any]] = {}
        self._threads: list[threading.Thread] = []

    def begin(self) -> Facts:
        for side in self._uris:
            thread = threading.Thread(target=self._look, args=(side,), name="pcmig-facts", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had: so it is not known
                continue
            self._threads.append(thread)
        return self

    def _look(self, side: str) -> None:
        try:
            self._found[side] = self._ask(self._uris[side])
        except Exception:  # the migration itself tells what is wrong with a host
            return

    def take(self, patience_s: float = 1.0) -> dict[str, dict[str, Any]]:
        """Both hosts as the document has them."""
        for thread in self._threads:
            thread.join(patience_s)
        return {side: host(uri, self._found.get(side)) for side, uri in self._uris.items()}


def host(uri: str, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A host as the document has it; FACTS as _core.host_facts() gives them."""
    facts = facts or {}
    return {
        "uri": uri,
        "hostname": facts.get("hostname"),
        "uuid": facts.get("host_uuid"),
        "libvirt": version(facts.get("libvirt_version")),
        "qemu": version(facts.get("qemu_version")),
        "pcmig": None,
    }


def version(number: int | None) -> str | None:
    """11003000 -> "11.3.0"; None for what is not known."""
    if not number:
        return None
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def utc_now() -> str:
    """2026-11-21T10:03:27.123Z"""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(
    *,
    name: str,
    uuid: str,
    by: Mapping[str, Any],
    begun: str,
    started: str,
    ended: str,
    hosts: Mapping[str, Mapping[str, Any]],
    policy: str,
    params: Mapping[str, int],
    flags: Sequence[str],
    status: Mapping[str, Any],
    ledger: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Any]],
    samples: Samples,
    words: str | None = None,
    adopted: bool = False,
    steered: bool = True,
    bandwidth_mib: int = 0,
    postcopy_bandwidth_mib: int = 0,
    tunnel: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    huge_pages: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of a migration that has ended with STATUS, in WORDS.

    BY says who asked for it, {"program": ...}. BEGUN is when the whole migration began, STARTED when the
    process that writes this took it over: parts that different processes looked after have the same UUID and
    BEGUN. Without STEERED somebody else drove it, and the decisions are what pcmig would have done. MORE are
    further parts that a program has of its own.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "guest": {"name": name, "uuid": uuid},
        "by": dict(by),
        "steered": steered,
        "adopted": adopted,
        "begun": begun,
        "started": started,
        "ended": ended,
        "elapsed_ms": status["elapsed_ms"],
        "hosts": {
            "source": {**hosts["source"], "pcmig": _core.VERSION},
            "destination": dict(hosts["destination"]),
        },
        "outcome": status["outcome"],
        "words": words or in_words(status),
        "error": status["error"],
        "operator_command": status["operator_command"],
        "mode": mode(ledger),
        "policy": policy,
        "params": dict(params),
        "flags": list(flags),
        "link": {
            "rate_bps": status["link_bps"],
            "stream_peer": status.get("stream_peer"),
            "quickack": status["quickack"],
            "bandwidth_mib": bandwidth_mib,
            "postcopy_bandwidth_mib": postcopy_bandwidth_mib,
            "tunnel": tunnel is not None,
        },
        "silences": silences(ledger),
        "ledger": dict(ledger),
        "decisions": thinned(decisions),
        "decisions_lost": max(0, len(decisions) - DECISIONS_MAX),
        "samples": samples.columns(),
        "tunnel": None if tunnel is None else dict(tunnel),
        "huge_pages": None if huge_pages is None else dict(huge_pages),
        "more": dict(more or {}),
    }


def in_words(status: Mapping[str, Any]) -> str:
    """How it ended, where nobody had better words."""
    outcome = str(status["outcome"])
    return f"{outcome}: {status['error']}" if status["error"] else outcome


def mode(ledger: Mapping[str, Any]) -> str:
    """ "postcopy" when pages crossed after the guest did; "none" when nothing was transferred."""
    phases = {row["phase"] for row in ledger["phases"]}
    if phases & {"postcopy", "paused"}:
        return "postcopy"
    return "precopy" if phases & {"precopy", "drain", "switchover"} else "none"


def arrived_by_postcopy(outcome: str | None, ledger: Mapping[str, Any]) -> bool:
    """Whether the guest's huge pages at the destination are post-copy's doing."""
    return outcome == "completed" and mode(ledger) == "postcopy"


def silences(ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    """When the guest, or a part of its memory, could not be had: for the switch, as libvirt measured it and
    as the events told; while post-copy was interrupted. Times that are not known are None."""
    totals = ledger["totals"]
    found: list[dict[str, Any]] = []
    reported, seen = totals["downtime_reported_ms"], totals["downtime_events_us"]
    if reported is not None:
        found.append({"what": "switch", "by": "libvirt", "start_us": None, "duration_us": reported * 1000})
    if seen is not None:
        starts = [row["start_us"] for row in ledger["phases"] if row["phase"] == "switchover"]
        start_us = starts[-1] if starts else None
        found.append({"what": "switch", "by": "events", "start_us": start_us, "duration_us": seen})
    found += [
        {
            "what": "interrupted",
            "by": "events",
            "start_us": row["start_us"],
            "duration_us": row["duration_us"],
        }
        for row in ledger["phases"]
        if row["phase"] == "paused"
    ]
    return found


def thinned(decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """No more than DECISIONS_MAX of them: changes of the pace make room first."""
    over = len(decisions) - DECISIONS_MAX
    if over <= 0:
        return [dict(decision) for decision in decisions]
    paces = [i for i, decision in enumerate(decisions) if decision["action"] == "set-pace"]
    count = min(over, len(paces))
    dropped = {paces[i * len(paces) // count] for i in range(count)}
    kept = [dict(decision) for i, decision in enumerate(decisions) if i not in dropped]
    return kept[:DECISIONS_MAX]
