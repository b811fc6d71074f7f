# SPDX-License-Identifier: Apache-2.0
"""nova-compute's figures for Prometheus: in a file for node_exporter, and on a port where one is set."""

from __future__ import annotations

import collections
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from oslo_log import log as logging

from pcmig.metrics import account, exposition, live
from pcmig.metrics.account import Increments
from pcmig.metrics.families import NOVA
from pcmig.metrics.meter import EVERY_S, Meter, Where
from pcmig.metrics.store import REMEMBERED
from pcmig.metrics.view import view
from pcmig.nova import releases

if TYPE_CHECKING:
    from prometheus_client import Metric

LOG = logging.getLogger(__name__)

STOP_S = 5.0  # so long the end of the service waits for figures that are being written

COUNTED = ("completed", "failed", "needs-operator")


class Metering:
    """JOURNAL is the folder of nova-compute's, FOLDER that of what is counted. ROWS makes rows
    (metrics/live.py) of the migrations that this process drives, SITUATIONS tells of the others what was seen
    of them last."""

    def __init__(
        self,
        where: Where,
        folder: pathlib.Path | str,
        journal: str,
        rows: Callable[[], list[live.Row]],
        situations: Callable[[], Mapping[str, str]],
    ) -> None:
        self._where = where
        self._rows = rows
        self._situations = situations
        # What goes wrong may be told off the hub, where no log is to be written.
        self._said: collections.deque[str] = collections.deque()
        self._meter = Meter(NOVA, folder, journal, where.textfiles, self._said.append)
        # What ended, and is not counted yet: a lock, a disk or a file system that hangs is waited for by the
        # thread of this, and by no migration. Should it hang for so long, the oldest are lost.
        self._ended: collections.deque[tuple[str, Increments]] = collections.deque(maxlen=REMEMBERED)
        self._news = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Before requests are served."""
        if self._where.port:
            self._listen()
        if self._where.textfiles is not None:
            LOG.info("Metrics for node_exporter are written in %s", self._where.textfiles)
        self._thread = threading.Thread(target=self._write, name="pcmig-metrics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as err:  # no thread is to be had
            self._thread = None
            _warn(f"metrics are not written: {err}")

    def stop(self) -> None:
        """What runs goes on without this process, which knows no more of it. What ended before is counted
        yet, if that can be done soon."""
        self._stopping = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def ended(
        self,
        migration: str,
        *,
        policy: str,
        outcome: str | None,
        ledger: Callable[[], Mapping[str, Any]],
        decisions: Callable[[], list[Any]],
    ) -> None:
        """The engine has said how MIGRATION, by Nova's UUID of it, ended. One that it was to leave has not
        ended. Counted soon; waits for nothing, and never raises."""
        if outcome not in COUNTED:
            return
        try:
            more = account.increments(
                outcome=outcome,
                policy=policy,
                ledger=ledger(),
                decisions=decisions(),
                gated=True,  # its status is saved before the switch, at least
            )
        except Exception:  # a defect of ours ends no migration
            LOG.exception("Live migration %s is not counted", migration)
            return
        self._count(f"{migration} {outcome}", more)

    def activated(self, migration: str, seconds: float) -> None:
        """All ports of MIGRATION's guest are bound to the destination, so long after it stopped here."""
        more = Increments()
        more.observe("pcmig_port_activation_seconds", value=seconds)
        self._count(f"{migration} ports", more)

    def _count(self, name: str, more: Increments) -> None:
        self._ended.append((name, more))
        self._news.set()

    def _write(self) -> None:
        while not self._stopping:
            self._look(self._rows)
            self._news.wait(EVERY_S)
            self._news.clear()
        self._look(list)

    def _look(self, rows: Callable[[], list[live.Row]]) -> None:
        try:
            while self._ended:
                releases.off_hub(self._meter.ended, *self._ended.popleft())
            # Rows are made here, as what they are made of is eventlet's.
            releases.off_hub(self._meter.publish, rows(), self._situations())
        except Exception:  # a defect of ours, which is not to end all figures
            LOG.exception("Metrics are not written")
        while self._said:
            _warn(self._said.popleft())

    def _listen(self) -> None:
        where = f"{self._where.address}:{self._where.port}"
        try:
            from prometheus_client import start_http_server

            start_http_server(
                self._where.port, addr=self._where.address, registry=exposition.registry(self._families)
            )
        except ImportError as err:
            _warn(exposition.MISSING.format(err))
        except OSError as err:
            _warn(f"[pcmig] metrics_port: metrics are not on {where}: {err.strerror or err}")
        else:
            LOG.info("Metrics for Prometheus are on %s", where)

    def _families(self) -> Iterator[Metric]:
        found = view(
            NOVA, self._meter.store, self._meter.book, rows=self._rows(), situations=self._situations()
        )
        return exposition.families([found])


def _warn(text: str) -> None:
    LOG.warning("%s", text)
