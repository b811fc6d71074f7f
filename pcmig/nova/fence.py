# SPDX-License-Identifier: Apache-2.0
"""Whether somebody vouches that the destination of a live migration is dead, by what Nova knows.

Whoever forces a service down says that its host is fenced; so does whoever evacuates a server from there. No
live migration goes to a host that is forced down, so the word is younger than the migration; of an evacuation
its age is compared. A service that is merely down says nothing: that is silence.
"""

from __future__ import annotations

import datetime

from nova import context as nova_context
from nova import objects
from nova.objects import fields
from nova.objects import migration as migrations
from oslo_log import log as logging

from pcmig.nova import records

LOG = logging.getLogger(__name__)


def word(record: records.Record) -> str | None:
    """Whose word it is, for the log; None: nobody's, or Nova does not say."""
    host = record.dest
    if not host:
        return None
    context = nova_context.get_admin_context()
    try:
        service = objects.Service.get_by_host_and_binary(context, host, "nova-compute")
        if service is not None and service.forced_down:
            return f"the service of {host} is forced down"
        evacuations = migrations.MigrationList.get_by_filters(
            context, {"source_compute": host, "migration_type": fields.MigrationType.EVACUATION}
        )
    except Exception as err:  # the conductor, its database or the bus between: nobody's word is known then
        LOG.info("Whether %(host)s is fenced is not known: %(err)s", {"host": host, "err": err})
        return None
    started = datetime.datetime.fromisoformat(record.entry.started)
    if any(each.created_at >= started.replace(microsecond=0) for each in evacuations):
        return f"servers are evacuated from {host}"
    return None
