"""What a nova-compute that is gone has left: live migrations in flight, or finished meanwhile.

The journal says what was under way and libvirt on both hosts how it stands. Nova's record is put back to a
migration that runs, the engine looks after what is there, and at the end Nova's own code is called as if
nova-compute had never been away.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import oslo_messaging
from nova import context as nova_context
from nova import exception, objects
from nova.compute import task_states, vm_states
from nova.conf import CONF
from nova.objects import base as objects_base
from oslo_log import log as logging

from pcmig.nova import guard, records, steer

LOG = logging.getLogger(__name__)

# Statuses of a migration whose end Nova has written down.
OVER = ("completed", "cancelled", "failed")
WITH = (
    "info_cache",
    "metadata",
    "system_metadata",
    "numa_topology",
    "flavor",
    "migration_context",
    "pci_devices",
    "pci_requests",
    "resources",
)
# Between attempts to tell the destination, and how often it may answer with an error before it is believed.
RETRY_S = (5, 10, 20, 30, 60)
ERRORS = 5


def noted(
    context: Any, dest: str, block_migration: Any, migrate_data: Any, source_bdms: Any
) -> dict[str, Any]:
    """What Nova's code needs to go on after a restart, as plain values. Tokens are left out."""
    return {
        "context": {
            "user_id": context.user_id,
            "project_id": context.project_id,
            "request_id": context.request_id,
        },
        "dest": dest,
        "block_migration": bool(block_migration),
        "migration": migrate_data.migration.uuid,
        "migrate_data": migrate_data.obj_to_primitive(),
        "source_bdms": None if source_bdms is None else source_bdms.obj_to_primitive(),
    }


@dataclasses.dataclass
class Adopted:
    """One migration as Nova knows it, from the journal and the database."""

    record: records.Record
    context: Any
    instance: Any
    migration: Any
    migrate_data: Any
    source_bdms: Any

    @property
    def dest(self) -> str:
        return str(self.record.nova["dest"])

    @property
    def block_migration(self) -> bool:
        return bool(self.record.nova["block_migration"])

    def post(self, manager: Any) -> Callable[[], Any]:
        """What Nova does when the guest has moved."""
        return functools.partial(
            manager._post_live_migration_update_host,
            self.context,
            self.instance,
            self.dest,
            self.block_migration,
            self.migrate_data,
            source_bdms=self.source_bdms,
        )

    def recover(self, manager: Any) -> Callable[..., Any]:
        """What Nova does when it has stayed."""
        return functools.partial(
            manager._rollback_live_migration,
            self.context,
            self.instance,
            self.dest,
            self.migrate_data,
            source_bdms=self.source_bdms,
        )


def recall(record: records.Record) -> Adopted | None:
    """RECORD with Nova's objects; None when the guest or its migration is no more."""
    nova = record.nova
    # Without a token: Nova's clients then use the service's own account.
    context = nova_context.RequestContext(
        user_id=nova["context"]["user_id"],
        project_id=nova["context"]["project_id"],
        request_id=nova["context"]["request_id"],
        is_admin=True,
        overwrite=False,
    )
    try:
        instance = objects.Instance.get_by_uuid(context, record.entry.uuid, expected_attrs=list(WITH))
        migration = objects.Migration.get_by_uuid(context, nova["migration"])
    except (exception.InstanceNotFound, exception.MigrationNotFound):
        return None
    migrate_data = objects_base.NovaObject.obj_from_primitive(nova["migrate_data"], context)
    migrate_data.migration = migration
    bdms = nova["source_bdms"]
    return Adopted(
        record,
        context,
        instance,
        migration,
        migrate_data,
        objects.BlockDeviceMappingList(objects=[])
        if bdms is None
        else objects_base.NovaObject.obj_from_primitive(bdms, context),
    )


def migrates(instance: Any) -> None:
    """Nova's record says (again) that the guest migrates: nothing else is done to it then."""
    if instance.task_state == task_states.MIGRATING and instance.vm_state != vm_states.ERROR:
        return
    if guard.insists(instance):
        return
    instance.task_state = task_states.MIGRATING
    if instance.vm_state == vm_states.ERROR:
        instance.vm_state = vm_states.ACTIVE
    instance.save()


def goes_on(adopted: Adopted) -> None:
    """So does the migration's own record."""
    migration = adopted.migration
    migrates(adopted.instance)
    if migration.status in ("error", *OVER):
        migration.status = steer.RUNNING
        migration.save()


def is_over(adopted: Adopted) -> bool:
    """Whether Nova has written all of it down."""
    if adopted.migration.status == "completed":
        return True
    return (
        adopted.migration.status in OVER
        and adopted.instance.host == adopted.migration.source_compute
        and adopted.instance.task_state is None
        and adopted.instance.vm_state != vm_states.ERROR
    )


def is_there(adopted: Adopted) -> bool:
    """Whether Nova's record has the guest at the destination already."""
    return str(adopted.instance.host) == adopted.dest and adopted.dest != CONF.host


def is_elsewhere(adopted: Adopted) -> bool:
    """Whether it has it on a third host: evacuated meanwhile."""
    return str(adopted.instance.host) not in (adopted.dest, str(adopted.migration.source_compute))


class Completion:
    """Tells Nova that a guest has moved, until it is written down."""

    def __init__(
        self, manager: Any, instance: Any, migration: Any, stopping: Callable[[float], bool]
    ) -> None:
        self._manager = manager
        self._instance = instance
        self._migration = migration
        self._stopping = stopping  # waits so many seconds; whether the service ends

    def run(self, post: Callable[[], Any], again: bool = False) -> bool:
        """POST is Nova's _post_live_migration_update_host, AGAIN whether it was begun before; whether all is
        written down. Raises what it raised when the destination answers, and goes on answering, with an
        error."""
        errors = 0
        for attempt in range(1 << 30):
            try:
                self._prepare(first=attempt == 0 and not again)
                post()
            except exception.InstanceNotFound:
                raise
            except Exception as err:
                errors += not patient(err)
                if self._manager is None or errors >= ERRORS:
                    raise
                pause_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                LOG.warning(
                    "The guest has moved, but that cannot be written down yet: %(err)s; again in %(pause)d s",
                    {"err": err, "pause": pause_s},
                    instance=self._instance,
                )
                if self._stopping(pause_s):
                    return False
            else:
                return True
        return False

    def _prepare(self, first: bool) -> None:
        """Nova's code wants a guest that migrates, whatever was done to its record meanwhile. After a failure
        all of it is done again, as every step of it can be."""
        if self._manager is None:
            return
        instance = self._instance
        instance.refresh()
        migrates(instance)
        if not first:
            # In this object only: the destination removes the ports' bindings of the host that it names.
            instance.host = self._migration.source_compute
            instance.obj_reset_changes(["host"])


def patient(err: Exception) -> bool:
    """Whether ERR only says that somebody could not be reached: the service there, the bus, the database."""
    if isinstance(err, oslo_messaging.MessagingException) and not isinstance(err, oslo_messaging.RemoteError):
        return True
    text = f"{type(err).__name__} {err}"
    return any(
        word in text for word in ("DBConnectionError", "MessagingTimeout", "ComputeServiceUnavailable")
    )


def wait(stopping: Any, seconds: float) -> bool:
    """Whether the service ends within SECONDS. STOPPING is a threading.Event."""
    deadline_s = time.monotonic() + seconds
    while not stopping.is_set() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return bool(stopping.is_set())
