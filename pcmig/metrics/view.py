# SPDX-License-Identifier: Apache-2.0
"""What there is to tell of one program's migrations now: from the store of counts, and from the journal."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pcmig.journal import Entry, Journal
from pcmig.metrics.exposition import View
from pcmig.metrics.live import cannot_resume
from pcmig.metrics.store import Counts, Store, StoreError, UnusableError

# Situations (core/situation.h) in which the guest waits until post-copy goes on; "held": as somebody wants.
INTERRUPTED = ("interrupted", "held", "cut-off")
HALF_LOST = "half-lost"


def unattended(entries: Iterable[Entry], followed: Iterable[str] = ()) -> list[Entry]:
    """Those of ENTRIES that nobody looks after. Of a guest that turned back nothing is needed but its next
    power cycle, and a destination of Nova's has nothing to do."""
    busy = set(followed)
    return [
        entry
        for entry in entries
        if entry.uuid not in busy
        and entry.keeper is None
        and (entry.turned_back or {}).get("done") is not True
        and _nova(entry).get("side") != "destination"
    ]


def _nova(entry: Entry) -> Mapping[str, Any]:
    noted = entry.caller.get("nova")
    return noted if isinstance(noted, dict) else {}


def view(
    program: str,
    store: Store,
    book: pathlib.Path | str,
    *,
    rows: list[dict[str, Any]] | None = None,
    situations: Mapping[str, str] | None = None,
) -> View:
    """BOOK is the folder of the program's journal. ROWS and SITUATIONS: those of the store, unless somebody
    knows better. Raises StoreError."""
    rows = store.live() if rows is None else rows
    known = store.situations() if situations is None else situations
    left = unattended(Journal(book).all()[0], (str(row["instance_uuid"]) for row in rows))
    with contextlib.suppress(StoreError):  # who may only read needs no file to do so
        store.begin()
    try:
        counts = store.counts()
    except UnusableError:  # moved aside, and told, by the next that counts something
        counts = Counts(store.unusable_since_s())
    return View(
        program=program,
        counts=counts,
        rows=list(rows),
        unattended=len(left),
        interrupted=sum(_is_interrupted(entry, known.get(entry.uuid)) for entry in left),
        half_lost=sum(known.get(entry.uuid) == HALF_LOST for entry in left),
        resume_impossible=sum(cannot_resume(entry.recovery) for entry in left),
        written_s=time.time(),
    )


def _is_interrupted(entry: Entry, situation: str | None) -> bool:
    """By what both hosts said, or else by what the process that followed it said last."""
    return entry.recovery is not None if situation is None else situation in INTERRUPTED
