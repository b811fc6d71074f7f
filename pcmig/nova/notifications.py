# SPDX-License-Identifier: Apache-2.0
"""Versioned notifications of what Nova has none for: the switch to post-copy, its interruption, and that it
goes on.

They are Nova's own in all but the name: payload InstanceActionPayload, publisher nova-compute:HOST, and sent
where its are. Nova's objects take no name that is not in its list (nova/objects/fields.py), so they are put
together here as NotificationBase.emit() does it.
"""

from __future__ import annotations

from typing import Any

from nova import rpc
from nova.notifications.objects import instance as instance_notification
from oslo_log import log as logging

from pcmig_common import phases

LOG = logging.getLogger(__name__)

SWITCHOVER = "instance.live_migration_switchover"
INTERRUPTED = "instance.live_migration_interrupted"
RESUMED = "instance.live_migration_resumed"


@rpc.if_notifications_enabled  # type: ignore[untyped-decorator]  # Nova has no types
def send(context: Any, instance: Any, host: str, event_type: str) -> None:
    payload = instance_notification.InstanceActionPayload(context=context, instance=instance, fault=None)
    payload.obj_reset_changes(recursive=False)
    notifier = rpc.get_versioned_notifier(publisher_id=f"nova-compute:{host}")
    notifier.info(context, event_type=event_type, payload=payload.obj_to_primitive())


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
        except Exception as err:  # the database, Neutron, the bus: only news are lost
            LOG.warning(
                "Cannot send the notification %(what)s: %(err)s",
                {"what": event_type, "err": err},
                instance=self._instance,
            )
