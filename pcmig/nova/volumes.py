# SPDX-License-Identifier: Apache-2.0
"""A server that stays where it was, or is back there: Nova's record of it names the source's attachments of
its volumes again, and Cinder has the destination's no more.

Nova's own code does that once. It goes on after an error of Cinder's, with the destination's attachment in
its record; and it cannot be repeated where it has deleted one in Cinder and not written that down.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nova import exception, objects
from oslo_log import log as logging

from pcmig.nova.away import refused

LOG = logging.getLogger(__name__)


def come_back(manager: Any, context: Any, instance: Any, source_bdms: Any) -> None:
    """SOURCE_BDMS: the block devices as they were at the source. May be repeated. Raises ServiceUnavailable
    where Cinder is away, and it is to be; what Cinder refuses is told, and left to an operator."""
    volumes = _of(context, instance)
    for bdm in of_destination(volumes, source_bdms):
        try:
            manager.volume_api.attachment_delete(context, bdm.attachment_id)
        except exception.VolumeAttachmentNotFound:  # deleted by an attempt that came no further
            pass
        except Exception as err:
            if not refused(err):
                raise exception.ServiceUnavailable(_left([bdm], instance, f": {err}")) from err
            # Without a service token (CVE-2023-2088), say. The guest uses the source's, whatever is left.
            LOG.error(
                "openstack volume attachment delete %(id)s: volume %(volume)s stays attached at the "
                "destination of a live migration that is over: %(err)s",
                {"id": bdm.attachment_id, "volume": bdm.volume_id, "err": err},
                instance=instance,
            )
        bdm.attachment_id = _by_volume(source_bdms)[bdm.volume_id].attachment_id
    manager._rollback_volume_bdms(context, volumes, source_bdms or [], instance)


def check(context: Any, instance: Any, source_bdms: Any) -> None:
    """Raises ServiceUnavailable where Nova's code left something to come_back()."""
    left = of_destination(_of(context, instance), source_bdms)
    if left:
        raise exception.ServiceUnavailable(_left(left, instance))


def _left(bdms: Iterable[Any], instance: Any, why: str = "") -> str:
    names = ", ".join(bdm.volume_id for bdm in bdms)
    return (
        f"volume {names} is still attached at the destination, by Nova's record of server "
        f"{instance.uuid}{why}"
    )


def of_destination(volumes: Iterable[Any], source_bdms: Any) -> list[Any]:
    """Those of VOLUMES whose attachment in Nova's record is the destination's."""
    source = _by_volume(source_bdms)
    return [
        bdm
        for bdm in volumes
        if (here := source.get(bdm.volume_id)) is not None
        and bdm.attachment_id is not None
        and here.attachment_id is not None
        and bdm.attachment_id != here.attachment_id
    ]


def _by_volume(source_bdms: Any) -> dict[str, Any]:
    return {bdm.volume_id: bdm for bdm in source_bdms or [] if bdm.is_volume}


def _of(context: Any, instance: Any) -> list[Any]:
    bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
    return [bdm for bdm in bdms if bdm.is_volume]
