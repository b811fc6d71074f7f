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
LEFT = "left before it was made"
IN_VAIN = "not looked again: the first look told nothing"
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
        self.find_source()
        if self._source_pid is None:
            return huge_pages.unknown(huge_pages.NOT_HERE)
        return huge_pages.of_process(self._source_pid)

    def find_source(self) -> None:
        if self._source_is_here and (found := huge_pages.processes(self._uuid)):
            self._source_pid = found[0]

    def destination(self) -> Seen:
        seen = huge_pages.at_destination(self._uuid, other_than=self._source_pid)
        if seen.why != huge_pages.NOT_HERE:
            return seen
        return huge_pages.unknown(
            "only the destination's own kernel can tell; on that host: "
            f"python3 -m pcmig.huge_pages destination {self._uuid}"
        )


def begin(uuid: str, source_uri: str, *, adopted: bool = False) -> HugePages:
    """ADOPTED: its migration is under way, and how it was before that nobody can see any more."""
    halves = Halves(uuid, source_uri)
    pages = HugePages(halves.source, lambda: _patiently(halves.destination), LATER, adopted=adopted)
    if adopted:
        halves.find_source()
    pages.begin()
    return pages


def _patiently(look: Callable[[], Seen]) -> Seen:
    """What comes later is not taken any more."""
    found: list[Seen] = []
    if not within(PATIENCE_S, lambda: found.append(look())):
        return huge_pages.unknown(slow())
    return found[0]


def slow() -> str:
    return f"no answer within {PATIENCE_S:g} s"


def look(pages: HugePages, *, asked: bool) -> bool:
    """The guest has arrived. Whether there is something to stay for, where somebody has ASKED for it."""
    pages.ended()
    pages.look()
    first = pages.document()["readings"][0]
    stays = asked and (first["bytes"] is not None or first["why"] == slow())
    if asked:
        pages.later = LEFT if stays else IN_VAIN
    return stays


def stay(pages: HugePages, begun: Callable[[], None], changed: Callable[[Mapping[str, Any]], None]) -> None:
    """Until the last look was made, or somebody has had enough; BEGUN is called as soon as that can be."""
    with SignalPipe(tuple(INTERRUPTS)) as signals:
        begun()

        def wait(seconds: float) -> bool:
            poller = select.poll()
            poller.register(signals.fileno(), select.POLLIN)
            poller.poll(seconds * 1000)
            return bool(signals.take())

        pages.follow(changed, wait)
