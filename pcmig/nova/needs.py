# SPDX-License-Identifier: Apache-2.0
"""All of Nova that the driver overrides, guards or uses although it is private or may change: one table.

nova-compute compares it with its Nova before it loads the driver; see pcmig_common.needs. A row that a
release does not have yet says since when it is there.
"""

from __future__ import annotations

import logging
import sys

from pcmig_common.needs import (
    MESSAGES,
    NEWEST,
    Need,
    NotThisNova,
    called,
    check,
    guarded,
    mentions,
    overridden,
    release_of,
    replaced,
    there,
)

LOG = logging.getLogger(__name__)

_DRIVER = "nova.virt.libvirt.driver:LibvirtDriver"
_MANAGER = "nova.compute.manager:ComputeManager"

# Method of Nova's driver -> what it does to this host's half, by the core's name for it (csrc/core/guard.h).
# Nothing of it is done before the guard was asked (pcmig.nova.guard).
ACTS = {
    "spawn": "start",
    "power_on": "start",
    "resume": "start",
    "resume_state_on_host_boot": "start",
    "finish_migration": "start",
    "finish_revert_migration": "start",
    "unpause": "resume",
    "reboot": "reboot",
    "rescue": "reboot",
    "unrescue": "reboot",
    "power_off": "shutdown",
    "suspend": "shutdown",
    "migrate_disk_and_power_off": "shutdown",
    "destroy": "destroy",
    "_undefine_domain": "undefine",
    "cleanup": "delete-files",
    "confirm_migration": "delete-files",
    "delete_instance_files": "delete-files",
    "rollback_live_migration_at_destination": "rollback",
    "post_live_migration": "post-migration",
    "post_live_migration_at_source": "post-migration",
}

# Methods that the driver has in the place of Nova's -> their parameters.
OVERRIDDEN = {
    "__init__": "virtapi read_only",
    "_parse_migration_flags": "",
    "init_host": "host",
    "cleanup_host": "host",
    "check_can_live_migrate_destination": (
        "context instance src_compute_info dst_compute_info block_migration disk_over_commit"
    ),
    "check_can_live_migrate_source": "context instance dest_check_data block_device_info",
    "pre_live_migration": ("context instance block_device_info network_info disk_info migrate_data"),
    "_live_migration": ("context instance dest post_method recover_method block_migration migrate_data"),
    "_live_migration_operation": ("context instance dest block_migration migrate_data guest device_names"),
    "_live_migration_monitor": (
        "context instance guest dest post_method recover_method block_migration migrate_data _ disk_paths"
    ),
    "live_migration_force_complete": "instance",
    "live_migration_abort": "instance",
    "rollback_live_migration_at_source": "context instance migrate_data",
    "rollback_live_migration_at_destination": (
        "context instance network_info block_device_info destroy_disks migrate_data"
    ),
    "post_live_migration": "context instance block_device_info migrate_data",
    "post_live_migration_at_source": "context instance network_info",
    "post_live_migration_at_destination": ("context instance network_info block_migration block_device_info"),
    "cleanup": (
        "context instance network_info block_device_info destroy_disks migrate_data destroy_vifs "
        "destroy_secrets"
    ),
    "emit_event": "event",
    "get_available_resource": "nodename",
    "instance_on_disk": "instance",
    "process_instances_at_startup": "context instances",
    "pause": "instance",
    "power_off": "instance timeout retry_interval",
    "suspend": "context instance",
}

# Those that are not in every release.
SINCE = {"process_instances_at_startup": 34}

TABLE: tuple[Need, ...] = (
    *(guarded(f"{_DRIVER}.{name}") for name in ACTS),
    *(
        overridden(f"{_DRIVER}.{name}", parameters, since=SINCE.get(name, 0))
        for name, parameters in OVERRIDDEN.items()
    ),
    # Where Nova's driver keeps what is changed, and calls what is overridden.
    mentions(f"{_DRIVER}.__init__", "_host"),
    mentions("nova.virt.libvirt.host:Host.__init__", "_wrapped_conn_lock"),
    mentions(f"{_DRIVER}._parse_migration_flags", "_live_migration_flags _block_migration_flags"),
    mentions(f"{_DRIVER}.init_host", "_parse_migration_flags"),
    mentions(f"{_DRIVER}._live_migration_operation", "_live_migration_flags _block_migration_flags migrate"),
    mentions(f"{_DRIVER}.live_migration", "_live_migration"),
    mentions(f"{_DRIVER}._live_migration", "_live_migration_operation _live_migration_monitor"),
    # What the driver calls of itself.
    called(f"{_DRIVER}.cleanup_live_migration_destination_check", "self context data"),
    called(f"{_DRIVER}._clear_empty_migration", "self instance"),
    called(f"{_DRIVER}._get_vpmems", "self instance"),
    called(f"{_DRIVER}._live_migration_data_gb", "self instance disk_paths"),
    called(f"{_DRIVER}._live_migration_uri", "dest"),
    called(f"{_DRIVER}.plug_vifs", "self instance network_info"),
    called(f"{_DRIVER}.unplug_vifs", "self instance network_info"),
    called(f"{_DRIVER}._uri", ""),
    there("nova.virt.libvirt.driver:libvirt", "has libvirt's errors"),
    called("nova.virt.libvirt.host:Host.get_connection", "self"),
    called("nova.virt.libvirt.host:Host.get_guest", "self instance"),
    replaced(
        "nova.virt.libvirt.guest:Guest.migrate",
        "destination migrate_uri migrate_disks destination_xml flags bandwidth parallel",
        "is done by the engine",
    ),
    called("nova.virt.libvirt.guest:Guest.get_xml_desc", "self"),
    called("nova.virt.libvirt.guest:Guest.is_active", "self"),
    there("nova.virt.libvirt.guest:Guest.uuid"),
    called(
        "nova.virt.libvirt.guest:JobInfo",
        "memory_total= memory_processed= memory_remaining= disk_total= disk_processed= disk_remaining=",
    ),
    called("nova.virt.libvirt.migration:downtime_steps", "data_gb"),
    called("nova.virt.libvirt.migration:update_downtime", "guest instance downtime steps elapsed"),
    called("nova.virt.libvirt.migration:should_trigger_timeout_action", "instance elapsed timeout status"),
    called("nova.virt.libvirt.migration:save_stats", "instance migration info remaining"),
    called("nova.virt.libvirt.utils:get_instance_path", "instance"),
    called("nova.virt.block_device:get_volume_id", "connection_info"),
    called("nova.virt.driver:block_device_info_get_mapping", "block_device_info"),
    # The service around it.
    mentions("nova.compute.manager:ComputeVirtAPI.__init__", "_compute"),
    called(
        f"{_MANAGER}._post_live_migration_update_host",
        "self context instance dest block_migration= migrate_data= source_bdms=",
    ),
    called(
        f"{_MANAGER}._rollback_live_migration",
        "self context instance dest migrate_data= migration_status= source_bdms=",
    ),
    called(f"{_MANAGER}._delete_allocation_after_move", "self context instance migration"),
    called(f"{_MANAGER}._revert_allocation", "self context instance migration"),
    called(f"{_MANAGER}._rollback_volume_bdms", "self context bdms original_bdms instance"),
    called(f"{_MANAGER}._set_migration_status", "migration status"),
    called(f"{_MANAGER}._set_instance_obj_error_state", "self instance clean_task_state="),
    # What a reboot removes before it asks the driver (attachments.py), and where an evacuation asks before it
    # does.
    overridden(f"{_MANAGER}._delete_dangling_bdms", "context instance bdms"),
    mentions(f"{_MANAGER}._reboot_instance", "_delete_dangling_bdms"),
    mentions(f"{_MANAGER}._do_rebuild_instance", "instance_on_disk"),
    called("nova.volume.cinder:API.attachment_delete", "self context attachment_id"),
    called("nova.volume.cinder:API.attachment_get_all", "self context instance_id"),
    # A server that turned back.
    called(f"{_MANAGER}._live_migration_cleanup_flags", "self migrate_data migr_ctxt="),
    called(
        f"{_MANAGER}.rollback_live_migration_at_destination",
        "self context instance= destroy_disks= migrate_data=",
    ),
    mentions(f"{_MANAGER}.__init__", "compute_rpcapi network_api volume_api"),
    called(
        "nova.compute.rpcapi:ComputeAPI.rollback_live_migration_at_destination",
        "self context instance host destroy_disks= migrate_data=",
    ),
    called("nova.compute.rpcapi:ComputeAPI.remove_volume_connection", "self context instance volume_id host"),
    called(
        "nova.scheduler.client.report:SchedulerReportClient.get_allocs_for_consumer", "self context consumer"
    ),
    mentions("nova.virt.libvirt.guest:Guest.__init__", "_domain"),
    called("nova.network.neutron:get_client", "context admin="),
    mentions("nova.network.neutron:ClientWrapper.__init__", "base_client"),
    # Comes after ours, and finds all ports active.
    mentions(f"{_MANAGER}.handle_lifecycle_event", "migrate_instance_start"),
    there("nova.virt.event:EVENT_LIFECYCLE_POSTCOPY_STARTED"),
    there("nova.virt.event:EVENT_LIFECYCLE_RESUMED"),
    there("nova.virt.event:EVENT_LIFECYCLE_STARTED"),
    there("nova.virt.event:EVENT_LIFECYCLE_STOPPED"),
    called("nova.virt.event:LifecycleEvent.get_instance_uuid", "self"),
    called("nova.virt.event:LifecycleEvent.get_transition", "self"),
    called(
        "nova.network.neutron:API.setup_instance_network_on_host", "self context instance host migration="
    ),
    called("nova.network.neutron:API.setup_networks_on_host", "self context instance host= teardown="),
    called("nova.network.model:NetworkInfo", "vifs"),
    there("nova.network.model:NIC_NAME_LEN"),
    there("nova.network.model:VIF_DETAILS_OVS_HYBRID_PLUG"),
    there("nova.network.model:VIF_TYPE_OVS"),
    there("nova.network.model:VIF_TYPE_VHOSTUSER"),
    called("nova.network.model:VIF.fixed_ips", "self"),
    called("nova.network.model:VIF.is_hybrid_plug_enabled", "self"),
    called("nova.objects.migrate_data:VIFMigrateData.get_dest_vif", "self"),
    there("nova.network.model:VNIC_TYPE_MACVTAP"),
    there("nova.network.model:VNIC_TYPE_VDPA"),
    there("nova.network.model:VNIC_TYPE_NORMAL"),
    there("nova.network.model:VNIC_TYPES_DIRECT_PASSTHROUGH"),
    called("nova.compute.utils:add_instance_fault_from_exc", "context instance error exc_info"),
    called("nova.notifications.objects.instance:InstanceActionPayload", "context= instance= fault="),
    called("nova.rpc:get_versioned_notifier", "publisher_id="),
    called("nova.rpc:if_notifications_enabled", "f"),
    called("nova.context:get_admin_context", ""),
    called("nova.context:RequestContext", "user_id= project_id= request_id= is_admin= overwrite="),
    *MESSAGES,
    called("nova.privsep:sys_admin_pctxt.entrypoint", "function"),
    # Options of Nova's.
    there("nova.conf:CONF.cinder.auth_section"),
    there("nova.conf:CONF.cinder.auth_type"),
    there("nova.conf:CONF.host"),
    there("nova.conf:CONF.libvirt.live_migration_completion_timeout"),
    there("nova.conf:CONF.libvirt.live_migration_downtime"),
    there("nova.conf:CONF.libvirt.live_migration_inbound_addr"),
    there("nova.conf:CONF.libvirt.live_migration_permit_auto_converge"),
    there("nova.conf:CONF.libvirt.live_migration_permit_post_copy"),
    there("nova.conf:CONF.libvirt.live_migration_timeout_action"),
    there("nova.conf:CONF.state_path"),
    # States, errors and records.
    there("nova.compute.task_states:DELETING"),
    there("nova.compute.task_states:MIGRATING"),
    there("nova.compute.task_states:SOFT_DELETING"),
    there("nova.compute.vm_states:ACTIVE"),
    there("nova.compute.vm_states:DELETED"),
    there("nova.compute.vm_states:ERROR"),
    there("nova.compute.vm_states:PAUSED"),
    there("nova.compute.vm_states:SOFT_DELETED"),
    there("nova.exception:InstanceNotFound"),
    there("nova.exception:InternalError"),
    there("nova.exception:MigrationError"),
    there("nova.exception:MigrationNotFound"),
    there("nova.exception:MigrationPreCheckError"),
    there("nova.exception:NovaException"),
    there("nova.exception:PortBindingDeletionFailed"),
    there("nova.exception:ServiceUnavailable"),
    there("nova.exception:UnexpectedTaskStateError"),
    there("nova.exception:VolumeAttachmentNotFound"),
    there("nova.objects.base:NovaObject.obj_from_primitive"),
    there("nova.objects.fields:MigrationType.EVACUATION"),
    there("nova.objects.fields:MigrationType.LIVE_MIGRATION"),
    there("nova.objects.fields:SensitiveStringField"),
    called("nova.objects.block_device:BlockDeviceMappingList.get_by_instance_uuid", "context uuid"),
    called("nova.objects.instance:Instance.get_by_uuid", "context uuid expected_attrs="),
    called("nova.objects.instance:InstanceList", "context objects="),
    called("nova.objects.instance_action:InstanceActionEvent.create", "self uuid request_id"),
    there("nova.objects.instance_action:InstanceActionEvent.details"),
    called("nova.objects.instance_action:InstanceActionEvent.event_finish", "context uuid name want_result="),
    called("nova.objects.migration:Migration.get_by_uuid", "context uuid"),
    called("nova.objects.service:Service.get_by_host_and_binary", "context host binary"),
    called("nova.objects.migration:MigrationList.get_by_filters", "context filters"),
    called(
        "nova.objects.migration:MigrationList.get_in_progress_by_instance", "context uuid migration_type="
    ),
)


def start() -> None:
    """Before the driver is loaded: ends nova-compute with one line where something is missing."""
    try:
        version = check(TABLE, "compute driver")
    except NotThisNova as err:
        LOG.error("%s", err)
        sys.exit(f"nova-compute: {err}")
    if release_of(version) > NEWEST:
        LOG.warning(
            "pcmig has not been tried with Nova %s, but with releases up to %s; all that it needs is there",
            version,
            NEWEST,
        )
