# SPDX-License-Identifier: Apache-2.0
"""Keeps a reboot from removing attachments of volumes that are needed, before the driver is asked for it.

In a live migration each volume has two attachments in Cinder, one for each host. Nova's record of the server
names the destination's alone, from before the migration begins until a rollback puts the source's back. Nova
begins every reboot by removing from Cinder what its record does not name: the source's. After the rollback
the record names what Cinder does not have; the next reboot takes that out of the record, and the server
starts without its volumes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nova import objects
from oslo_log import log as logging

from pcmig.nova import records

LOG = logging.getLogger(__name__)


def keep(manager: Any, known: records.Records, put_right: Callable[[str], None]) -> None:
    """From now on MANAGER, Nova's ComputeManager, removes none of a guest on record. PUT_RIGHT does at once
    what is left to do for one whose migration was forgotten."""
    tidy_up = manager._delete_dangling_bdms

    @functools.wraps(tidy_up)
    def unless_it_migrates(context: Any, instance: Any, bdms: Any) -> None:
        uuid = str(instance.uuid)
        if known.get(uuid) is not None:
            # Only tidiness is left undone: Nova does without it where Cinder does not answer, too.
            LOG.info("No attachment is removed: the server's live migration is not over", instance=instance)
            return
        put_right(uuid)
        # Nova read them before, and goes on with them: a rollback may have ended in between.
        bdms.objects = objects.BlockDeviceMappingList.get_by_instance_uuid(context, uuid).objects
        tidy_up(context, instance, bdms)

    manager._delete_dangling_bdms = unless_it_migrates
