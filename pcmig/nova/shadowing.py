# SPDX-License-Identifier: Apache-2.0
"""[pcmig] shadow: Nova drives its live migrations as ever, and what pcmig would have decided is logged and
kept. The migration is looked at from beside, on a thread of its own; nothing that goes wrong here reaches
it."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Mapping
from typing import Any

from oslo_log import log as logging

from pcmig import _core
from pcmig.huge_pages import HugePages
from pcmig.ledgers.document import Facts, Samples, arrived_by_postcopy, document, utc_now
from pcmig.ledgers.store import LedgerError, Store
from pcmig.nova import releases
from pcmig.shadow import Shadow

LOG = logging.getLogger(__name__)

# Between two looks: no longer than that, and no shorter where the policy wants one sooner.
LOOK_S = 0.5
LOOK_MIN_S = 0.1


class Shadowing:
    """A context in which Nova migrates a server. POLICY and PARAMS are those that pcmig would have taken."""

    def __init__(
        self,
        instance: Any,
        source_uri: str,
        dest_uri: str,
        policy: str,
        params: Mapping[str, int],
        store: Store,
        by: Mapping[str, Any],
        huge_pages: HugePages | None = None,
    ) -> None:
        self._huge_pages = huge_pages
        self._instance = instance
        self._uris = (source_uri, dest_uri)
        self._policy, self._params = policy, dict(params)
        self._store, self._by = store, {"program": "nova-compute", **by}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pcmig-shadow", daemon=True)

    def __enter__(self) -> Shadowing:
        try:
            self._thread.start()
        except RuntimeError as err:  # no thread is to be had
            LOG.warning("Shadow: nothing is seen of it: %s", err, instance=self._instance)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # nobody waits for it: it is not to hold up Nova

    def join(self, timeout_s: float) -> bool:
        """Whether all is written."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            Looks(self).run()
        except Exception as err:  # Nova's migration has nothing to do with it
            LOG.warning(
                "Shadow: %(kind)s: %(err)s",
                {"kind": type(err).__name__, "err": err},
                instance=self._instance,
            )


class Looks:
    """What is seen until Nova is done with it, and what becomes of that."""

    def __init__(self, of: Shadowing) -> None:
        self._of = of
        self._seen = Shadow(of._policy, of._params)
        self._samples = Samples()
        self._began = False
        self._started = utc_now()
        self._elapsed_ms = 0

    def run(self) -> None:
        of = self._of
        watch = _core.JobWatch(of._uris[0], str(of._instance.uuid))
        if of._huge_pages is not None and of._store.kept > 0:
            of._huge_pages.begin()
        try:
            while not of._stop.wait(self._pause_s(watch)):
                self._look(watch)
            self._look(watch)
        finally:
            releases.off_hub(watch.close)  # it waits for libvirt, too
        if self._began:
            LOG.info("Shadow: %s", self._seen.words(), instance=of._instance)
            self._keep()

    def _pause_s(self, watch: _core.JobWatch) -> float:
        due_us = self._seen.look()["due_us"]
        if not self._began or due_us is None:
            return LOOK_S
        return max(LOOK_MIN_S, min(LOOK_S, (due_us - watch.now_us()) / 1e6))

    def _look(self, watch: _core.JobWatch) -> None:
        answer: _core.Job | None = None
        # It has moved, or libvirt does not answer: the events that came are heard all the same.
        with contextlib.suppress(_core.LibvirtError):
            answer = releases.off_hub(watch.look)
        lines = watch.take()
        if answer is not None and answer["sample"] is not None:
            self._began = True
        if not self._began:
            return  # the time of these lines is not yet that of the migration
        self._seen.feed(lines)
        if answer is not None:
            self._seen.saw(answer["state"])
            if answer["sample"] is not None:
                self._note(answer["sample"])

    def _note(self, figures: Mapping[str, Any]) -> None:
        judged = self._seen.look()
        if self._of._huge_pages is not None:
            # Nova's own work afterwards takes seconds: it ended when its job was last seen.
            self._of._huge_pages.ended()
        self._elapsed_ms = self._seen.t_us // 1000
        self._samples.add_row(
            {
                "t_ms": self._elapsed_ms,
                "phase": judged["phase"],
                "passes": judged["passes"],
                "remaining_bytes": figures["memory_remaining_bytes"],
                "processed_bytes": figures["memory_processed_bytes"],
                "dirty_pages_ps": figures["dirty_pages_ps"],
                "send_bps": judged["send_bps"],
                "requests": figures["postcopy_requests"],
                "requests_ps": judged["requests_ps"],
                "pace_mib": None,
                "queue_bytes": figures["queue_bytes"],
            }
        )

    def _keep(self) -> None:
        of, judged = self._of, self._seen.look()
        if of._store.kept <= 0:
            return
        done = judged["progress_permille"] == 1000
        outcome, ledger = "completed" if done else "failed", self._seen.ledger()
        pages = of._huge_pages if arrived_by_postcopy(outcome, ledger) else None
        facts = Facts(*of._uris, functools.partial(releases.off_hub, _core.host_facts)).begin()
        found = document(
            name=str(of._instance.name),
            uuid=str(of._instance.uuid),
            by=of._by,
            begun=self._started,
            started=self._started,
            ended=utc_now(),
            hosts=facts.take(),
            policy=of._policy,
            params=of._params,
            flags=[],
            status={
                "elapsed_ms": self._seen.t_us // 1000,
                "outcome": outcome,
                "error": None if done else "it ended at the source",
                "operator_command": None,
                "link_bps": judged["link_bps"],
                "stream_peer": None,
                "quickack": "off",
            },
            ledger=ledger,
            decisions=self._seen.decisions,
            samples=self._samples,
            words=self._seen.words(),
            steered=False,
            more={"shadow": self._seen.told()},
            huge_pages=None if pages is None else pages.document(),
        )
        try:
            path = releases.off_hub(of._store.add, found)
            LOG.info("Shadow: the ledger is kept; to see it: pcmig report %s", path, instance=of._instance)
        except LedgerError as err:
            LOG.warning("Shadow: the ledger is lost: %s", err, instance=of._instance)
            return
        if pages is None or path is None:
            return
        try:
            pages.follow(
                lambda more: releases.off_hub(of._store.amend, path, {"huge_pages": more}), time.sleep
            )
        except LedgerError as err:
            LOG.warning("Shadow: huge pages are missing in a ledger: %s", err, instance=of._instance)
