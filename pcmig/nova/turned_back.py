# SPDX-License-Identifier: Apache-2.0
"""Nova's books of a server that turned back (turning.py): it stays at the source, and everything of the
destination goes. Nova's own rollback asks the destination, which may be dead, and cannot be repeated: each
step here can, or is done once (once.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nova import objects
from nova.compute import task_states
from oslo_log import log as logging
from oslo_utils import timeutils

from pcmig.nova import ending, once, records, volumes
from pcmig.nova.away import patient
from pcmig_common import turned_back

LOG = logging.getLogger(__name__)

STATUS = "failed"
EVENT = "turned back: goes on at its host from before the live migration, whose destination was lost"

# What is not to be repeated.
VOLUME = "turned back, volume "
DESTINATION = "turned back, destination"


class TurnedBack(ending.Ending):
    """MIGRATE_DATA is Nova's, PORTS_COME_BACK binds the ports here again, DEST_ANSWERS tells whether nova-
    compute at the destination does. TEXT is what it undid."""

    WAITS = "The guest has turned back, but that cannot be written down yet"

    def __init__(
        self,
        *arguments: Any,
        migrate_data: Any,
        ports_come_back: Callable[[], None],
        dest_answers: Callable[[], bool],
        text: str,
    ) -> None:
        super().__init__(*arguments)
        self._migrate_data = migrate_data
        self._ports_come_back = ports_come_back
        self._dest_answers = dest_answers
        self._text = text
        self._dest = str(self.migration.dest_compute)

    def _carry_out(self) -> None:
        answers = self._dest_answers()
        self._once_known()
        self._all(
            self._ports_first,
            self._allocations,
            functools.partial(self._volumes, answers),
            functools.partial(self._clear_destination, answers),
        )
        self._write_down()

    def _all(self, *steps: Callable[[], None]) -> None:
        """Each of STEPS, whoever does not answer another one: the guest runs. Raises the first error that is
        worth waiting for, or else the first."""
        failed: list[Exception] = []
        for step in steps:
            try:
                step()
            except Exception as err:
                LOG.info("A server that turned back: %s", err, instance=self.instance)
                failed.append(err)
        if failed:
            raise next((err for err in failed if patient(err)), failed[0])

    def _ports_first(self) -> None:
        """Nobody reaches the guest where they are bound to the destination. What Neutron refuses is told, and
        keeps nothing else from being written down."""
        self.ports_first(self._ports_come_back)

    def _once_known(self) -> None:
        """Before anything else: nova-api refuses by it what libvirt would not do."""
        if turned_back.since(self.instance.system_metadata) is None:
            self.instance.system_metadata[turned_back.KEY] = records.now()
            self.instance.save()

    def _allocations(self) -> None:
        """Those of the migration are the server's at the source."""
        ending.revert_allocation(self._manager, self._context, self.instance, self.migration)

    def _volumes(self, answers: bool) -> None:
        bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(self._context, self.instance.uuid)
        for bdm in volumes.of_destination(bdms, self._source_bdms):
            if answers and self._acts is not None:
                self._acts.once(
                    f"{VOLUME}{bdm.volume_id}",
                    functools.partial(
                        self._manager.compute_rpcapi.remove_volume_connection,
                        self._context,
                        self.instance,
                        bdm.volume_id,
                        self._dest,
                    ),
                    f"lsblk on {self._dest} says whether volume {bdm.volume_id} is still connected there",
                    only_here=False,
                )
        volumes.come_back(self._manager, self._context, self.instance, self._source_bdms)

    def _clear_destination(self, answers: bool) -> None:
        """A destination that does not answer does it when it comes back (keeper.py)."""
        if not answers or self._acts is None:
            return
        clean, disks = self._manager._live_migration_cleanup_flags(
            self._migrate_data, migr_ctxt=self.instance.migration_context
        )
        if not clean:
            return
        self._acts.once(
            DESTINATION,
            functools.partial(
                self._manager.compute_rpcapi.rollback_live_migration_at_destination,
                self._context,
                self.instance,
                self._dest,
                destroy_disks=disks,
                migrate_data=self._migrate_data,
            ),
            f"on {self._dest} something of the guest may be left",
            only_here=False,
        )

    def _write_down(self) -> None:
        instance = self.instance
        instance.task_state = None
        instance.progress = 0
        instance.drop_migration_context()
        instance.save(expected_task_state=[task_states.MIGRATING])
        self._manager._set_migration_status(self.migration, STATUS)
        self._tell()
        if self._acts is not None:
            self._acts.mark(records.BOOKS, once.DONE)
        LOG.warning(
            "The server turned back and is written down so; until it is powered off once it cannot be "
            "migrated, suspended or given devices: openstack server reboot --hard %s",
            instance.uuid,
            instance=instance,
        )

    def _tell(self) -> None:
        """One of the server's events, in the action of the live migration."""
        uuid = self.instance.uuid
        event = objects.InstanceActionEvent(
            self._context,
            event=EVENT,
            host=self.migration.source_compute,
            start_time=timeutils.utcnow(),
            details=self._text,
        )
        try:
            event.create(uuid, self._context.request_id)
            objects.InstanceActionEvent.event_finish(self._context, uuid, EVENT, want_result=False)
        except Exception as err:  # only news are lost
            LOG.warning("Cannot add to the server's events: %s", err, instance=self.instance)


def clear(instance: Any) -> None:
    """It was powered off."""
    if turned_back.since(instance.system_metadata) is not None:
        del instance.system_metadata[turned_back.KEY]
        instance.save()
