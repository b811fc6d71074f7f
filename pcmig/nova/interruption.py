# SPDX-License-Identifier: Apache-2.0
"""An interrupted post-copy as users of Nova see it: the migration's status and the server's events.

Nova matches on few statuses, and only by equality: "running (post-copy)" is what its event handler and its
timeout look for (nova/compute/manager.py, handle_lifecycle_event; nova/virt/libvirt/migration.py), "running"
is what its API aborts and forces. A sentence is none of them, so nothing is switched, cut off or cancelled
while it stands there; and the resource tracker, which counts every migration as under way whose status is
none of the final ones, goes on counting it (nova/db/main/api.py).

Both are shown to the server's owner: pcmig.nova.words has the texts. What the engine says of hosts and of
libvirt's errors goes into the log and into the events' details, which administrators see.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nova import objects
from oslo_log import log as logging
from oslo_utils import timeutils

from pcmig.nova import words

LOG = logging.getLogger(__name__)

# The event handler must find the status of healthy post-copy, which it looks for right after the switch.
AFTER_SWITCH_S = 2.0
SAVE_S = 5.0  # before a save that failed is tried again
MAX_EVENTS = 20  # in the list of the server's events; the migration's status has every attempt


class Interruption:
    """Tells what is done about an interruption, and puts the status back when it is over."""

    def __init__(
        self, context: Any, instance: Any, record: Any, save_status: Callable[[str], bool], healthy: str
    ) -> None:
        self._context = context
        self._instance = instance
        self._record = record
        self._save_status = save_status
        self._healthy = healthy
        self._switched_s = float("-inf")
        self._saved_s = float("-inf")
        # The record's status is ours; it may be of one before us.
        self._changed = str(record.status).startswith(words.INTERRUPTED)
        self._event: str | None = None  # under way
        self._events = 0
        self._explained = False  # the engine has said what it does about this interruption
        self._key: tuple[str, int] | None = None  # of what was told last

    def switched(self) -> None:
        """Post-copy begins now."""
        self._switched_s = time.monotonic()

    def look(self, status: Any) -> None:
        """STATUS is the engine's."""
        recovery = status["recovery"]
        unexplained = False
        if status["phase"] != "paused":
            self._explained = False
        elif recovery is not None:
            self._explained = True
        else:
            unexplained = not self._explained and status["outcome"] is None
        if recovery is None and not unexplained:
            self._over()
            return
        text = words.interruption(status)
        explained = text if recovery is None else str(recovery["text"])
        key = ("unexplained", 0)
        if recovery is not None:
            key = (str(recovery["state"]), int(recovery["attempts"]))
        news = key != self._key
        if news:
            level = LOG.warning if key[0] == "held" or self._key is None else LOG.info
            level("Live migration: %s", explained, instance=self._instance)
            self._key = key
            self._start_event(text, explained)
        now_s = time.monotonic()
        if (
            self._record.status != text
            and now_s - self._switched_s >= AFTER_SWITCH_S
            and (news or not self._changed or now_s - self._saved_s >= SAVE_S)
        ):
            self._saved_s = now_s
            self._changed = self._save_status(text) or self._changed

    def _over(self) -> None:
        if self._key is not None:
            LOG.info("Live migration: post-copy goes on", instance=self._instance)
            self._key = None
            self._finish_event()
        if self._changed and time.monotonic() - self._saved_s >= min(1.0, SAVE_S):
            self._saved_s = time.monotonic()
            self._changed = not self._save_status(self._healthy)

    def end(self) -> None:
        """The migration is over."""
        self._finish_event()

    def _start_event(self, text: str, explained: str) -> None:
        self._finish_event()
        if self._events >= MAX_EVENTS:
            return
        self._events += 1
        if self._tell(text, lambda: self._create(text, explained)):
            self._event = text

    def _create(self, text: str, explained: str) -> None:
        """Nova's own event_start() takes no details."""
        event = objects.InstanceActionEvent(
            self._context,
            event=text,
            host=self._record.source_compute,
            start_time=timeutils.utcnow(),
            details=explained,
        )
        event.create(self._instance.uuid, self._context.request_id)

    def _finish_event(self) -> None:
        text, self._event = self._event, None
        if text is not None:
            finish = objects.InstanceActionEvent.event_finish
            self._tell(text, lambda: finish(self._context, self._instance.uuid, text, want_result=False))

    def _tell(self, text: str, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as err:  # the conductor, its database or the bus between: only news are lost
            LOG.warning(
                "Cannot add to the server's events: %(text)s (%(err)s)",
                {"text": text, "err": err},
                instance=self._instance,
            )
            return False
        return True
