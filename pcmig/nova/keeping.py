# SPDX-License-Identifier: Apache-2.0
"""Keeps the ledgers of nova-compute's migrations with post-copy, those that it adopted among them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from pcmig import _core
from pcmig.ledgers import keeping
from pcmig.ledgers.store import LedgerError, Store
from pcmig.nova import releases

LOG = logging.getLogger(__name__)


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
    ) -> None:
        self._instance = instance
        self._begun = begun
        self._adopted = adopted
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
        except (_core.Error, TypeError, ValueError) as err:  # of an entry that another release noted
            LOG.warning("The ledger of the live migration will not be kept: %s", err, instance=self._instance)

    def look(self, status: Mapping[str, Any]) -> None:
        self._keeping.look(status)

    def end(
        self, engine: _core.Migration, status: Mapping[str, Any], tunnel: Mapping[str, Any] | None
    ) -> None:
        """Hosts that have not told their facts by now are not waited for: Nova goes on."""
        try:
            path = releases.off_hub(
                functools.partial(self._keeping.end, engine, status, tunnel=tunnel, patience_s=0.0)
            )
        except (LedgerError, _core.Error) as err:
            LOG.warning("The ledger of the live migration is lost: %s", err, instance=self._instance)
            return
        if path is not None:
            LOG.info(
                "The ledger of the live migration is kept; to see it: pcmig report %(path)s",
                {"path": path},
                instance=self._instance,
            )
