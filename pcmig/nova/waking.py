# SPDX-License-Identifier: Apache-2.0
"""Has a destination notice that its stream is dead, which sends nothing as it waits for a page, and so never
learns it.

The source's engine knocks from outside (csrc/edge/knock.h) where it sees the migration's connections, which
nova-compute's user may not everywhere. The destination's nova-compute can have its own kernel reset them:
what `pcmig wake` does, which leaves a stream alone that flows, and a guest that is not in post-copy. Nova's
privileged daemon types it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from pcmig.nova.work_queue import WorkQueue

LOG = logging.getLogger(__name__)

# As long as a stream has to have been silent there; and between two requests at first, as one may come too
# early, or not arrive.
AGAIN_S = 10.0

# Each may take a minute of one of the few workers that Nova's privileged daemon has, whom Nova itself needs:
# one at a time, and the source asks again where the news were dropped.
_WAKER = WorkQueue("pcmig-wake", "Requests to look at streams that may be dead", 200)


class Waking:
    """Of one migration, at its source. ASK sends one request, and waits for nothing."""

    def __init__(self, ask: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._since_s: float | None = None  # when the interruption was seen first
        self._next_s = 0.0

    def look(self, status: Any) -> None:
        """STATUS is the engine's."""
        now_s = self._clock()
        if status["recovery"] is None or status["outcome"] is not None:
            self._since_s = None
        elif self._since_s is None:
            self._since_s, self._next_s = now_s, now_s + AGAIN_S
        elif now_s >= self._next_s:
            self._next_s = now_s + max(AGAIN_S, (now_s - self._since_s) / 2)
            try:
                self._ask()
            except Exception as err:  # the bus is not there (yet)
                LOG.info("The destination is not asked to look at its stream: %s", err)


def reset(uri: str, uuid: str) -> None:
    """At the destination: what brings nothing any more to the guest with UUID, which libvirt at URI has, is
    reset soon. Waits for nothing, raises nothing; one request at a time counts for a guest."""
    _WAKER.do(functools.partial(_reset, uri, uuid), key=uuid)


def _reset(uri: str, uuid: str) -> None:
    try:
        from nova.virt.pcmig import privileged

        said = privileged.wake(uri, uuid)
    except Exception as err:  # the daemon does not start, or is of another installation
        said = f"Nova's privileged daemon did not look ({type(err).__name__}: {err})"
    LOG.info("The stream of guest %(uuid)s: %(said)s", {"uuid": uuid, "said": said})
