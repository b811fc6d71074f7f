# SPDX-License-Identifier: Apache-2.0
"""Huge pages of a guest that leaves, or has arrived by post-copy: nova-compute reads those of its own
host, and asks the destination's for theirs (messages.HugePages)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from pcmig import huge_pages
from pcmig.huge_pages import Seen
from pcmig.nova import releases

LOG = logging.getLogger(__name__)

LATER = "nova-compute has not looked yet, or has ended before"

# Nova's privileged daemon has few workers, whom Nova itself needs.
_one_look_at_a_time = threading.Lock()


def at_source(uuid: str) -> Seen:
    return _look("source", huge_pages.at_source, uuid)


def at_destination(uuid: str) -> Seen:
    """On a thread of the message server, too."""
    return _look("destination", huge_pages.at_destination, uuid)


def _look(side: str, look: Callable[[str], Seen], uuid: str) -> Seen:
    """QEMU is another user's, and who may not read it has Nova's privileged daemon do it."""
    seen: Seen = releases.off_hub(look, uuid)
    if seen.why != huge_pages.DENIED:
        return seen
    try:
        from nova.virt.pcmig import privileged

        with _one_look_at_a_time:
            said = privileged.huge_pages(side, uuid)
        return huge_pages.understand(json.loads(said))
    except Exception as err:  # the daemon does not start, or is of another installation
        LOG.info("Huge pages of guest %(uuid)s are not known: %(err)s", {"uuid": uuid, "err": err})
        return huge_pages.unknown(f"Nova's privileged daemon did not look: {type(err).__name__}")


def watched(uuid: str, ask: Callable[[], Any], *, adopted: bool = False) -> huge_pages.HugePages:
    """Of a guest that leaves; ASK asks its destination. ADOPTED: its migration is under way."""
    return huge_pages.HugePages(
        lambda: at_source(uuid), lambda: huge_pages.understand(ask()), LATER, adopted=adopted
    )
