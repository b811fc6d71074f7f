# SPDX-License-Identifier: Apache-2.0
"""Versioned notifications of what Nova has none for: the switch to post-copy, its interruption, and that it
goes on.

They are Nova's own in all but the name: payload InstanceActionPayload, publisher nova-compute:HOST, and sent
where its are. Nova's objects take no name that is not in its list (nova/objects/fields.py), so they are put
together here as NotificationBase.emit() does it.

Not on the thread that looks after the migration: while the bus is away, oslo.messaging waits for it, by
default for ever ([oslo_messaging_notifications] retry).
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from nova import rpc
from nova.notifications.objects import instance as instance_notification
from oslo_log import log as logging

from pcmig.nova.work_queue import WorkQueue
from pcmig_common import phases

LOG = logging.getLogger(__name__)

SWITCHOVER = "instance.live_migration_switchover"
INTERRUPTED = "instance.live_migration_interrupted"
RESUMED = "instance.live_migration_resumed"

# One thread for all migrations of the process: a bus that is away costs no more than that, and each
# migration's news stay in order.
_SENDER = WorkQueue("pcmig-notify", "Notifications of live migrations", 200)


@rpc.if_notifications_enabled  # type: ignore[untyped-decorator]  # Nova has no types
def send(context: Any, instance: Any, host: str, event_type: str) -> None:
    """Waits for nobody."""
    # What it is now; and what the payload still loads is not put into an object that other threads use.
    now = copy.deepcopy(instance)
    _SENDER.do(functools.partial(_send, context, now, host, event_type))


def _send(context: Any, instance: Any, host: str, event_type: str) -> None:
    try:
        payload = instance_notification.InstanceActionPayload(context=context, instance=instance, fault=None)
        payload.obj_reset_changes(recursive=False)
        notifier = rpc.get_versioned_notifier(publisher_id=f"nova-compute:{host}")
        notifier.info(context, event_type=event_type, payload=payload.obj_to_primitive())
    except Exception as err:  # the database, Neutron, the bus: only news are lost
        _cannot(event_type, err, instance)


def _cannot(event_type: str, err: Exception, instance: Any) -> None:
    LOG.warning(
        "Cannot send the notification %(what)s: %(err)s",
        {"what": event_type, "err": err},
        instance=instance,
    )


class Notifications:
    """Of one live migration from HOST. CROSSED: its switch was issued, and told, before it was adopted."""

    def __init__(self, context: Any, instance: Any, host: str, *, crossed: bool = False) -> None:
        self._context = context
        self._instance = instance
        self._host = host
        self._begun = self._ended = crossed
        self._interrupted = False

    def look(self, status: Any) -> None:
        """STATUS is the engine's."""
        flows = status["phase"] == "postcopy" or status["outcome"] == "completed"
        if not self._begun and (status["crossed"] or status["phase"] in phases.POSTCOPY):
            self._begun = True
            self._send(f"{SWITCHOVER}.start")
        if self._begun and not self._ended and flows:
            self._ended = True
            self._send(f"{SWITCHOVER}.end")
        interrupted = status["recovery"] is not None
        if interrupted and not self._interrupted:
            self._interrupted = True
            self._send(INTERRUPTED)
        elif self._interrupted and not interrupted and flows:
            self._interrupted = False
            self._send(RESUMED)

    def _send(self, event_type: str) -> None:
        try:
            send(self._context, self._instance, self._host, event_type)
        except Exception as err:  # only news are lost
            _cannot(event_type, err, self._instance)
