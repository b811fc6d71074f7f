# SPDX-License-Identifier: Apache-2.0
"""Takes a file for the document of one migration: a kept ledger, a trace, or what `--json` wrote."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from pcmig import _core
from pcmig.ledgers.document import Samples, document, host, true_rate
from pcmig.ledgers.store import Kept, LedgerError, checked

TRACE = b"pcmig-trace"
MADE_OF = "made_of"  # in `more`: what a document was made of that was not kept as one
LACKS = "lacks"  # in `more`: sentences on what it was made of that is not in it

_RATE_US = 500_000  # least time over which a trace's page requests make a rate


def open_file(path: str) -> Kept:
    """The document that PATH is, or that is made of it. Raises LedgerError, which names PATH."""
    try:
        data = pathlib.Path(path).read_bytes()
        written = os.stat(path).st_mtime
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise LedgerError(f"{path} cannot be read: {getattr(err, 'strerror', None) or err}") from err
    if data.lstrip().startswith((b"{", b"[")):
        return Kept(pathlib.Path(path), _of_json(path, data))
    if TRACE in data[:200]:
        return Kept(pathlib.Path(path), _of_trace(path, written))
    raise LedgerError(
        f"{path} is neither a kept ledger, nor a trace, nor what 'pcmig migrate --json' writes; 'pcmig "
        "report' alone lists the ledgers that are kept"
    )


def _of_json(path: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise LedgerError(f"{path} is no JSON, or only the beginning of it ({err})") from err
    if isinstance(found, dict) and "format" not in found and "schema" in found and "command" in found:
        return _of_result(path, found)
    return checked(path, found)


def _of_result(path: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Of the RESULT that a command wrote: all but the figures over time."""
    if result.get("schema") != 1:
        raise LedgerError(
            f"{path} was written by another pcmig ('schema': {result.get('schema')!r}, this one knows 1): "
            "use that one"
        )
    if not result.get("ledger"):
        raise LedgerError(
            f"{path} is of a migration that never began ({result.get('error')}): nothing is to show"
        )
    try:
        return document(
            name=result["name"] or result["domain"],
            uuid=result["uuid"] or "",
            by={"program": f"pcmig {result['command']}"},
            begun=result["started"],
            started=result["started"],
            ended=result["ended"],
            hosts={"source": host(result["source_uri"]), "destination": host(result["dest_uri"])},
            policy=result["policy"],
            params=result["params"],
            flags=result["flags"],
            status={**result["status"], "outcome": result["outcome"]},
            ledger=result["ledger"],
            decisions=result["decisions"],
            samples=Samples(),
            adopted=result["command"] == "resume",
            tunnel=result["tunnel"],
            more={MADE_OF: "what --json wrote"},
        )
    except (KeyError, TypeError) as err:
        raise LedgerError(f"{path} has no valid {err}") from err


def _of_trace(path: str, written: float) -> dict[str, Any]:
    """A trace knows everything but whose it is. WRITTEN: when it was, since the epoch."""
    try:
        ledger = _core.ledger_from_trace(path)
        replay = _core.replay(path)
    except (_core.TraceError, OSError) as err:
        raise LedgerError(f"{path}: {err}") from err
    lacks = not_whole(path, replay)
    decisions = [answer["recorded"] for answer in replay["decisions"] if answer["recorded"] is not None]
    total_us = int(ledger["totals"]["total_us"])
    end = datetime.datetime.fromtimestamp(written, datetime.UTC)
    begin = end - datetime.timedelta(microseconds=total_us)
    moved = ledger["balance"]["final"]
    status = {
        "elapsed_ms": total_us // 1000,
        "outcome": "completed" if moved else "unknown",
        "error": None,
        "operator_command": None,
        "link_bps": None,
        "quickack": "unknown",
    }
    return document(
        name=pathlib.Path(path).name,
        uuid="",
        by={"program": "unknown"},
        begun=_iso(begin),
        started=_iso(begin),
        ended=_iso(end),
        hosts={"source": host(""), "destination": host("")},
        policy=replay["policy"],
        params=replay["params"],
        flags=[],
        status=status,
        ledger=ledger,
        decisions=decisions,
        samples=_samples(path, ledger, decisions),
        words=None if moved else "a trace does not say how it ended",
        more={MADE_OF: "a trace", **({LACKS: lacks} if lacks else {})},
    )


def not_whole(path: str, replay: _core.Replay) -> list[str]:
    """What of the trace PATH is not in its REPLAY, in sentences."""
    sentences = []
    if replay["cut"] is not None:
        sentences.append(
            f"{path} ends within line {replay['cut']}, as if its recording was cut off: that line is left out"
        )
    if (left_out := replay["left_out"]) is not None:
        sentences.append(
            f"{path} was written by pcmig {replay['written_by']}, and this one is {_core.VERSION}: what it "
            f"does not know of {left_out['lines']} lines is left out, the first in line {left_out['first']} "
            f"({left_out['what']}), so a decision may differ for its sake"
        )
    return sentences


def _iso(when: datetime.datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _samples(path: str, ledger: Mapping[str, Any], decisions: list[Any]) -> Samples:
    """What the statistics in the trace PATH, which the core has read already, say over time."""
    samples = Samples()
    starts = [(row["start_us"], row["phase"]) for row in ledger["phases"]]
    pass_ends = [row["end_us"] for row in ledger["passes"] if row["complete"]]
    paces = [(decision["t_us"], decision["pace_mib"]) for decision in decisions if decision["pace_mib"] > 0]
    rate = _Rate()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) < 2 or words[1] != "sample" or not line.endswith("\n"):
                continue
            pairs = (word.partition("=") for word in words[2:])
            figures = {name: int(value) for name, _, value in pairs if value.isdecimal()}
            time_us, requests = int(words[0]), figures.get("postcopy_requests", 0)
            phase = _last(starts, time_us, "setup")
            if phase == "finished":
                continue
            samples.add_row(
                {
                    "t_ms": time_us // 1000,
                    "phase": phase,
                    "passes": sum(end_us <= time_us for end_us in pass_ends),
                    "remaining_bytes": figures.get("memory_remaining_bytes", 0),
                    "processed_bytes": figures.get("memory_processed_bytes", 0),
                    "dirty_pages_ps": figures.get("dirty_pages_ps", 0),
                    "send_bps": true_rate(phase, figures.get("memory_bps", 0)),
                    "requests": requests,
                    "requests_ps": rate.feed(time_us, requests),
                    "pace_mib": _last(paces, time_us, None) if phase in ("postcopy", "paused") else None,
                    "queue_bytes": figures.get("queue_bytes"),
                }
            )
    return samples


class _Rate:
    """Page requests a second."""

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None
        self._rate = 0

    def feed(self, time_us: int, count: int) -> int:
        if self._before is None or count < self._before[1]:
            self._before = (time_us, count)
        elif time_us - self._before[0] >= _RATE_US:
            self._rate = (count - self._before[1]) * 1_000_000 // (time_us - self._before[0])
            self._before = (time_us, count)
        return self._rate


def _last(changes: list[tuple[int, Any]], time_us: int, default: Any) -> Any:
    """What holds at TIME_US of CHANGES, which are in order."""
    found = default
    for at_us, value in changes:
        if at_us > time_us:
            break
        found = value
    return found
