# SPDX-License-Identifier: Apache-2.0
"""Attachments of volumes that Nova's record of a server does not name while its live migration is on record.

In a live migration each volume has two attachments in Cinder, one for each host. Nova's record of the server
names the destination's alone, from before the migration begins until a rollback puts the source's back.

Nova begins every reboot, before the driver is asked for it, by removing from Cinder what its record does not
name: the source's. After the rollback the record names what Cinder does not have; the next reboot takes that
out of the record, and the server starts without its volumes.

Nova deletes with a server those that its record names. The source's would keep the volumes in use for ever.

Nova evacuates a server with attachments that it makes first and connects later. Cinder refuses that (409)
for a volume that has another one that is connected: the source's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from nova.objects import base as objects_base
from oslo_context import context as common_context
from oslo_log import log as logging

from pcmig.nova import adoption, records
from pcmig.nova.away import patient

LOG = logging.getLogger(__name__)


def keep(manager: Any, known: records.Records, put_right: Callable[[str], None]) -> None:
    """From now on MANAGER, Nova's ComputeManager, removes none of a guest on record. PUT_RIGHT does at once
    what is left to do for one whose migration was forgotten."""
    tidy_up = manager._delete_dangling_bdms

    @functools.wraps(tidy_up)
    def unless_it_migrates(context: Any, instance: Any, bdms: Any) -> None:
        uuid = str(instance.uuid)
        if known.get(uuid) is not None or known.unreadable(uuid) is not None:
            # Only tidiness is left undone: Nova does without it where Cinder does not answer, too.
            LOG.info("No attachment is removed: the server's live migration is not over", instance=instance)
            return
        put_right(uuid)
        # Nova read them before, and goes on with them: a rollback may have ended in between.
        bdms.objects = objects.BlockDeviceMappingList.get_by_instance_uuid(context, uuid).objects
        tidy_up(context, instance, bdms)

    manager._delete_dangling_bdms = unless_it_migrates


def give_up(manager: Any, record: records.Record, source: str) -> bool:
    """Deletes the source's of a server that is deleted, whose half at the source is SOURCE. What cannot be
    deleted is told. False: Cinder is away, or libvirt, and it is to be called again."""
    if source == "unknown":
        return False
    settled = True
    context = adoption.context_of(record)
    for bdm in adoption.source_bdms(record, context):
        if not bdm.is_volume or bdm.attachment_id is None:
            continue
        try:
            if source != "absent":
                raise exception.MigrationError(reason=f"its half at the source is {source}")
            manager.volume_api.attachment_delete(context, bdm.attachment_id)
        except exception.VolumeAttachmentNotFound:
            continue
        except Exception as err:  # Cinder's, too
            settled = settled and not patient(err)
            LOG.error(
                "openstack volume attachment delete %(id)s: volume %(volume)s stays in use by a server that "
                "was deleted in its live migration: %(err)s",
                {"id": bdm.attachment_id, "volume": bdm.volume_id, "err": err},
            )
    return settled


def remove_of_source(manager: Any, record: records.Record | None, instance: Any) -> None:
    """INSTANCE is evacuated to this host, so somebody vouches that its host is dead, which a live migration
    took it away from. RECORD is the destination's, None without one: whoever asks sees the attachments of a
    project of his own then. What cannot be deleted is told, and Cinder's next answer says what it misses."""
    try:
        # With the token of whoever asks for the evacuation, as Nova detaches the volumes.
        context = common_context.get_current() or nova_context.get_admin_context()
        bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid).objects
        named = {bdm.attachment_id for bdm in bdms if bdm.volume_id}
        if not named:
            return
        left = _of_source(record, context)
        left |= {each["id"] for each in manager.volume_api.attachment_get_all(context, str(instance.uuid))}
    except Exception as err:
        LOG.warning("Attachments of volumes at its dead host are not known: %s", err, instance=instance)
        return
    for attachment in sorted(left - named):
        try:
            manager.volume_api.attachment_delete(context, attachment)
        except exception.VolumeAttachmentNotFound:
            continue
        except Exception as err:
            LOG.error(
                "openstack volume attachment delete %(id)s: until then Cinder connects the volume nowhere "
                "else: %(err)s",
                {"id": attachment, "err": err},
                instance=instance,
            )
        else:
            LOG.warning(
                "Attachment %s of a volume is deleted: what it was made for, a live migration, is over",
                attachment,
                instance=instance,
            )


def _of_source(record: records.Record | None, context: Any) -> set[str]:
    """As Nova told the destination."""
    if record is None or record.nova.get("migrate_data") is None:
        return set()
    data = objects_base.NovaObject.obj_from_primitive(record.nova["migrate_data"], context)
    return set(data.old_vol_attachment_ids.values()) if "old_vol_attachment_ids" in data else set()
