# SPDX-License-Identifier: Apache-2.0
"""Evacuations of guests whose live migration is on record.

Nova evacuates a server only where the service of its host is down, and whoever asks for it vouches that the
host itself is: its guest cannot run there any more. So an evacuation settles what the two hosts of a live
migration cannot tell. It counts when it is younger than the migration.
"""

from __future__ import annotations

import datetime
from typing import Any

from nova import context as nova_context
from nova.objects import fields
from nova.objects import migration as migrations
from oslo_log import log as logging

from pcmig.nova import records

LOG = logging.getLogger(__name__)

COMES = ("accepted", "pre-migrating")  # it is under way
GONE = ("done", "completed")  # the server runs where it was evacuated to


def comes_to(host: str, record: records.Record) -> Any:
    """The evacuation of the guest to HOST that is under way; None when there is none."""
    return next((each for each in _of(record, COMES) if each.dest_compute == host), None)


def left(host: str, record: records.Record) -> Any:
    """The evacuation after which the guest runs on another host than HOST; None when there was none."""
    return next((each for each in _of(record, GONE) if each.dest_compute != host), None)


def _of(record: records.Record, statuses: tuple[str, ...]) -> list[Any]:
    """Newest first."""
    try:
        found = migrations.MigrationList.get_by_filters(
            nova_context.get_admin_context(),
            {
                "instance_uuid": record.entry.uuid,
                "migration_type": fields.MigrationType.EVACUATION,
                "status": list(statuses),
            },
        )
    except Exception as err:  # the conductor, its database or the bus between: nobody's word is known then
        LOG.warning(
            "Whether guest %(uuid)s was evacuated is not known: %(err)s",
            {"uuid": record.entry.uuid, "err": err},
        )
        return []
    started = datetime.datetime.fromisoformat(record.entry.started)
    younger = [each for each in found if each.created_at >= started.replace(microsecond=0)]
    return sorted(younger, key=lambda each: each.id, reverse=True)
