# SPDX-License-Identifier: Apache-2.0
"""Keeps the ledgers of nova-compute's migrations with post-copy, those that it adopted among them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oslo_log import log as logging

from pcmig import _core
from pcmig.huge_pages import HugePages
from pcmig.ledgers import keeping
from pcmig.ledgers.document import arrived_by_postcopy, utc_now
from pcmig.ledgers.store import LedgerError, Store
from pcmig.nova import releases
from pcmig.nova.work_queue import WorkQueue

LOG = logging.getLogger(__name__)

# Nova goes on with the server as soon as its migration has ended: a disk that is slow, or another process
# that prunes the folder, holds up neither that nor another migration.
_WRITER = WorkQueue("pcmig-ledgers", "Ledgers of live migrations", 100)


@dataclasses.dataclass(frozen=True)
class Taken:
    """Of an engine, which may be gone when it is written. Is a keeping.Accounts."""

    its_ledger: Mapping[str, Any]
    its_decisions: Sequence[Mapping[str, Any]]

    def ledger(self) -> Mapping[str, Any]:
        return self.its_ledger

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        return self.its_decisions


class Keeping:
    """One migration's. BEGUN tells, once it begins, when it was put on record. Nothing that goes wrong here
    reaches the migration."""

    def __init__(
        self,
        store: Store,
        instance: Any,
        by: Mapping[str, Any],
        connect_timeout_ms: int,
        *,
        begun: Callable[[], str | None] = lambda: None,
        adopted: bool = False,
        huge_pages: HugePages | None = None,
    ) -> None:
        self._huge_pages = huge_pages
        self._path: pathlib.Path | None = None  # where it is kept
        self._instance = instance
        self._begun = begun
        self._adopted = adopted
        self._look_failed = False
        ask = functools.partial(
            releases.off_hub, functools.partial(_core.host_facts, timeout_ms=connect_timeout_ms)
        )
        self._keeping = keeping.Keeping(store, {"program": "nova-compute", **by}, ask)

    def begin(self, uuid: str, source_uri: str, dest_uri: str, arguments: Mapping[str, Any]) -> None:
        try:
            self._keeping.begin(
                name=str(self._instance.name),
                uuid=uuid,
                source_uri=source_uri,
                dest_uri=dest_uri,
                begun=self._begun(),
                adopted=self._adopted,
                arguments=arguments,
            )
            if self._huge_pages is not None and self._keeping.store.kept > 0:
                self._huge_pages.begin()
        except Exception as err:  # of an entry that another release noted, or a defect of ours
            LOG.warning("The ledger of the live migration will not be kept: %s", err, instance=self._instance)

    def look(self, status: Mapping[str, Any]) -> None:
        """Told once if it goes wrong: this comes many times a second."""
        try:
            self._keeping.look(status)
        except Exception as err:  # a defect of ours, of which the curves suffer alone
            if not self._look_failed:
                LOG.warning(
                    "The ledger of the live migration will lack figures over time: %s",
                    f"{type(err).__name__}: {err}",
                    instance=self._instance,
                )
            self._look_failed = True

    def end(
        self,
        engine: _core.Migration,
        status: Mapping[str, Any],
        tunnel: Mapping[str, Any] | None,
        *,
        at_once: bool = False,
    ) -> None:
        """What there is to write is taken now. AT_ONCE: it is written now as well."""
        try:
            taken = Taken(engine.ledger(), engine.decisions())
            write = functools.partial(self._write, taken, dict(status), tunnel, utc_now())
            if at_once:
                write()
                return
            pages = self._huge_pages
            if not arrived_by_postcopy(status["outcome"], taken.its_ledger):
                pages = None
            if pages is not None:
                pages.ended()
            _WRITER.do(write)
        except Exception as err:  # a defect of ours; the tunnel and Nova's record are still to be settled
            self._lost(err)
            return
        if pages is not None and self._keeping.store.kept > 0:
            try:
                threading.Thread(
                    target=self._follow, args=(pages,), name="pcmig-huge-pages", daemon=True
                ).start()
            except RuntimeError:  # no thread is to be had: so it is not known
                return

    def _follow(self, pages: HugePages) -> None:
        """Until 30 s after the end, on a thread of its own; what is known by then goes into the ledger."""
        try:
            pages.follow(lambda found: _WRITER.do(functools.partial(self._amend, found)), time.sleep)
        except Exception as err:  # a defect of ours; it is not known then
            LOG.warning("Huge pages: %s: %s", type(err).__name__, err, instance=self._instance)

    def _amend(self, found: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        try:
            releases.off_hub(self._keeping.store.amend, self._path, {"huge_pages": found})
        except LedgerError as err:
            LOG.warning("Huge pages are missing in a ledger: %s", err, instance=self._instance)

    def _write(
        self, taken: Taken, status: Mapping[str, Any], tunnel: Mapping[str, Any] | None, ended: str
    ) -> None:
        """Hosts that have not told their facts by now are not waited for."""
        try:
            path = releases.off_hub(
                functools.partial(
                    self._keeping.end,
                    taken,
                    status,
                    tunnel=tunnel,
                    patience_s=0.0,
                    ended=ended,
                    huge_pages=self._huge_pages,
                )
            )
        except Exception as err:  # the disk, or a defect of ours
            self._lost(err)
            return
        self._path = path
        if path is not None:
            LOG.info(
                "The ledger of the live migration is kept; to see it: pcmig report %(path)s",
                {"path": path},
                instance=self._instance,
            )

    def _lost(self, err: Exception) -> None:
        LOG.warning(
            "The ledger of the live migration is lost: %s",
            err if isinstance(err, LedgerError) else f"{type(err).__name__}: {err}",
            instance=self._instance,
        )
