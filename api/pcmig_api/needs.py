# SPDX-License-Identifier: Apache-2.0
"""All of Nova that the filter uses although it is private or may change: one table.

nova-api compares it with its Nova before it loads the filter; see pcmig_common.needs.
"""

from __future__ import annotations

from pcmig_common.needs import MESSAGES, Need, called, mentions, there

_WSGI = "nova.api.openstack.wsgi"

TABLE: tuple[Need, ...] = (
    there("nova.api.wsgi:Middleware", "is the filter's class"),
    called("nova.api.wsgi:Middleware.__init__", "self application"),
    mentions("nova.api.wsgi:Middleware.__init__", "application"),
    called(f"{_WSGI}:Request.set_api_version_request", "self"),
    called(f"{_WSGI}:Request.get_content_type", "self"),
    called(f"{_WSGI}:Request.best_match_content_type", "self"),
    mentions(f"{_WSGI}:Request.set_api_version_request", "api_version_request"),
    called(f"{_WSGI}:Fault", "exception"),
    called(f"{_WSGI}:ResourceExceptionHandler", ""),
    called(f"{_WSGI}:JSONDictSerializer.serialize", "self data"),
    there(f"{_WSGI}:API_VERSION_REQUEST_HEADER"),
    there(f"{_WSGI}:LEGACY_API_VERSION_REQUEST_HEADER"),
    called("nova.api.openstack.common:get_instance", "compute_api context instance_id expected_attrs="),
    called("nova.api.openstack.common:get_id_from_href", "href"),
    called("nova.api.openstack.api_version_request:is_supported", "req version"),
    called(
        "nova.api.openstack.compute.server_migrations:output",
        "migration include_uuid= include_user_project=",
    ),
    called(
        "nova.api.openstack.compute.server_migrations:output",
        "migration include_uuid= include_user_project= include_host=",
        since=32,
    ),
    there("nova.api.validation.parameter_types:boolean"),
    called("nova.api.validation.validators:_SchemaValidator", "schema"),
    called("nova.api.validation.validators:_SchemaValidator.validate", "self value"),
    called("nova.api.validation.extra_specs.base:ExtraSpecValidator", "name= description= value="),
    there("nova.policies.servers_migrations:POLICY_ROOT"),
    called("nova.compute.api:API", ""),
    mentions("nova.compute.api:API.__init__", "image_api volume_api"),
    called("nova.compute.flavors:get_flavor_by_flavor_id", "context flavor_id read_deleted="),
    called("nova.image.glance:API.get", "self context image_id"),
    called("nova.block_device:BlockDeviceDict.from_api", "device image_uuid_specified="),
    called("nova.block_device:get_bdm_image_metadata", "context image_api volume_api mapping legacy"),
    called("nova.context:RequestContext.can", "self rule target= fatal="),
    called("nova.policy:init", ""),
    there("nova.policy:_ENFORCER"),
    there("nova.exception:InvalidAPIVersionString"),
    there("nova.exception:InvalidContentType"),
    there("nova.exception:InvalidGlobalAPIVersion"),
    there("nova.exception:ValidationError"),
    there("nova.objects.fields:MigrationType.LIVE_MIGRATION"),
    called(
        "nova.objects.migration:MigrationList.get_by_filters",
        "context filters limit= sort_keys= sort_dirs=",
    ),
    *MESSAGES,
)
