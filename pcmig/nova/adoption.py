# SPDX-License-Identifier: Apache-2.0
"""What a nova-compute that is gone has left: live migrations in flight, or finished meanwhile.

The journal says what was under way and libvirt on both hosts how it stands. Nova's record is put back to a
migration that runs, the engine looks after what is there, and at the end Nova's own code is called as if
nova-compute had never been away.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from nova.compute import vm_states
from nova.conf import CONF
from nova.objects import base as objects_base
from nova.objects import fields
from oslo_log import log as logging

from pcmig.nova import ending, records, steer

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


NO_CINDER = (
    "pcmig: [cinder] has no auth_type: a live migration that ends after a restart of nova-compute leaves the "
    "source's attachments of the server's volumes in Cinder, and a multi-attach volume connected here; "
    "set [cinder] auth_type, auth_url, username, password, project_name and domains as in [placement]"
)


def lacks_cinder(conf: Any) -> bool:
    """Whether Nova's clients cannot talk to Cinder without the token of a request, which is not kept."""
    return not (conf.cinder.auth_type or conf.cinder.auth_section)


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
        "migrate_data": without_secrets(migrate_data).obj_to_primitive(),
        "source_bdms": None if source_bdms is None else source_bdms.obj_to_primitive(),
    }


def without_secrets(migrate_data: Any) -> Any:
    """A copy of MIGRATE_DATA without the values that Nova never logs, such as the vTPM's passphrase: the
    destination had them before the migration began, and what comes after asks only whether they are set."""
    copy = migrate_data.obj_clone()
    for name, field in copy.fields.items():
        if isinstance(field, fields.SensitiveStringField) and copy.obj_attr_is_set(name):
            setattr(copy, name, None if field.nullable else "")
    return copy


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


def context_of(record: records.Record) -> Any:
    """Without a token: Nova's clients then use the service's own account."""
    noted = record.nova["context"]
    return nova_context.RequestContext(
        user_id=noted["user_id"],
        project_id=noted["project_id"],
        request_id=noted["request_id"],
        is_admin=True,
        overwrite=False,
    )


def source_bdms(record: records.Record, context: Any) -> Any:
    """The server's block devices as they were at the source."""
    noted = record.nova["source_bdms"]
    if noted is None:
        return objects.BlockDeviceMappingList(objects=[])
    return objects_base.NovaObject.obj_from_primitive(noted, context)


def recall(record: records.Record) -> Adopted | None:
    """RECORD with Nova's objects; None when the guest or its migration is no more."""
    nova = record.nova
    context = context_of(record)
    try:
        instance = objects.Instance.get_by_uuid(context, record.entry.uuid, expected_attrs=list(WITH))
        migration = objects.Migration.get_by_uuid(context, nova["migration"])
    except (exception.InstanceNotFound, exception.MigrationNotFound):
        return None
    migrate_data = objects_base.NovaObject.obj_from_primitive(nova["migrate_data"], context)
    migrate_data.migration = migration
    return Adopted(record, context, instance, migration, migrate_data, source_bdms(record, context))


def comes_here(uuid: str) -> bool:
    """Whether Nova has a live migration of the guest to this host that is not over. It may take minutes until
    it begins, with the guest nowhere but at the source."""
    context = nova_context.get_admin_context()
    found = objects.MigrationList.get_in_progress_by_instance(
        context, uuid, migration_type=fields.MigrationType.LIVE_MIGRATION
    )
    return any(migration.dest_compute == CONF.host for migration in found)


def goes_on(adopted: Adopted) -> None:
    """So does the migration's own record."""
    migration = adopted.migration
    ending.migrates(adopted.instance)  # or its owner's request ends first
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
