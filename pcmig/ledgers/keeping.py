# SPDX-License-Identifier: Apache-2.0
"""Follows one migration that the engine drives, and keeps its ledger when it has ended."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pcmig import _core
from pcmig.huge_pages import HugePages
from pcmig.ledgers.document import Facts, Samples, arrived_by_postcopy, document, utc_now
from pcmig.ledgers.store import LedgerError, Store


class Accounts(Protocol):
    """What of a migration that has ended is kept: a _core.Migration has it, or whoever took it from one."""

    def ledger(self) -> Mapping[str, Any]: ...

    def decisions(self) -> Sequence[Mapping[str, Any]]: ...


class Keeping:
    """To be told that it begins, each status as it is seen, and that it has ended. BY says who asked for the
    migration, {"program": ...}; ASK asks a URI for its host's facts, see document.Facts."""

    def __init__(
        self,
        store: Store,
        by: Mapping[str, Any],
        ask: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self.store = store
        self.by = dict(by)
        self._ask = ask
        self._samples = Samples()
        self._about: dict[str, Any] = {}
        self._facts: Facts | None = None

    def begin(
        self,
        *,
        name: str,
        uuid: str,
        source_uri: str,
        dest_uri: str,
        begun: str | None = None,
        adopted: bool = False,
        flags: Sequence[str] | None = None,
        arguments: Mapping[str, Any],
    ) -> None:
        """ARGUMENTS are the engine's, whose flags are FLAGS. BEGUN: when the migration began, if it
        was adopted."""
        started = utc_now()
        if flags is None:
            flags = _core.flags_from_bits(int(arguments.get("flags") or 0)).names
        self._about = {
            "name": name,
            "uuid": uuid,
            "begun": begun or started,
            "started": started,
            "adopted": adopted,
            "policy": str(arguments.get("policy") or "auto"),
            "params": dict(arguments.get("params") or {}),
            "flags": list(flags),
            "bandwidth_mib": int(arguments.get("bandwidth_mib") or 0),
            "postcopy_bandwidth_mib": int(arguments.get("postcopy_bandwidth_mib") or 0),
        }
        self._facts = Facts(source_uri, dest_uri, self._ask)
        if self.store.kept > 0:
            self._facts.begin()

    def look(self, status: Mapping[str, Any]) -> None:
        self._samples.add(status)

    def end(
        self,
        migration: Accounts,
        status: Mapping[str, Any],
        *,
        words: str | None = None,
        tunnel: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        patience_s: float = 1.0,
        ended: str | None = None,
        huge_pages: HugePages | None = None,
    ) -> pathlib.Path | None:
        """It has ended with STATUS, in WORDS; ENDED: when, if that is not now. HUGE_PAGES of a guest that
        moved by post-copy are kept as far as they are known by then. Returns where its ledger is;
        None when none is to be kept. PATIENCE_S: so long a host that has not told its facts yet is waited
        for. Raises LedgerError."""
        if self.store.kept <= 0 or self._facts is None:
            return None
        try:
            ledger = migration.ledger()
            arrived = arrived_by_postcopy(status["outcome"], ledger)
            found = document(
                **self._about,
                by=self.by,
                ended=ended or utc_now(),
                hosts=self._facts.take(patience_s),
                status=status,
                ledger=ledger,
                decisions=migration.decisions(),
                samples=self._samples,
                words=words,
                tunnel=tunnel,
                more=more,
                huge_pages=huge_pages.document() if huge_pages is not None and arrived else None,
            )
        except (KeyError, TypeError, ValueError) as err:
            raise LedgerError(f"the ledger cannot be kept: {type(err).__name__}: {err}") from err
        return self.store.add(found)
