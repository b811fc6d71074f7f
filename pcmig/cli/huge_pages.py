# SPDX-License-Identifier: Apache-2.0
"""Huge pages of the guest that the command moves, where both halves are processes of this machine."""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping
from typing import Any

from pcmig import huge_pages
from pcmig.cli.background import within
from pcmig.cli.follow import INTERRUPTS
from pcmig.cli.signals import SignalPipe
from pcmig.huge_pages import HugePages, Seen
from pcmig.tunnel import peer

LATER = "not asked for: --huge-pages stays for it"
# Nothing of the migration waits by then; a host that swaps may take its time to walk page tables.
PATIENCE_S = 5.0


class Halves:
    """Both, as far as this machine sees them."""

    def __init__(self, uuid: str, source_uri: str) -> None:
        self._uuid = uuid
        self._source_is_here = peer.of_uri(source_uri) is None
        self._source_pid: int | None = None

    def source(self) -> Seen:
        if not self._source_is_here:
            return huge_pages.unknown("the source is another machine")
        found = huge_pages.processes(self._uuid)
        if not found:
            return huge_pages.unknown(huge_pages.NOT_HERE)
        self._source_pid = found[0]
        return huge_pages.of_process(found[0])

    def destination(self) -> Seen:
        seen = huge_pages.at_destination(self._uuid, other_than=self._source_pid)
        if seen.why != huge_pages.NOT_HERE:
            return seen
        return huge_pages.unknown(
            "only the destination's own kernel can tell; on that host: "
            f"python3 -m pcmig.huge_pages destination {self._uuid}"
        )


def begin(uuid: str, source_uri: str) -> HugePages:
    halves = Halves(uuid, source_uri)
    pages = HugePages(halves.source, halves.destination, LATER)
    pages.begin()
    return pages


def look(pages: HugePages) -> None:
    """The guest has arrived."""
    pages.ended()
    within(PATIENCE_S, pages.look)


def stay(pages: HugePages, changed: Callable[[Mapping[str, Any]], None]) -> None:
    """Until the last look was made, or somebody has had enough."""
    with SignalPipe(tuple(INTERRUPTS)) as signals:

        def wait(seconds: float) -> bool:
            poller = select.poll()
            poller.register(signals.fileno(), select.POLLIN)
            poller.poll(seconds * 1000)
            return bool(signals.take())

        pages.follow(changed, wait)
