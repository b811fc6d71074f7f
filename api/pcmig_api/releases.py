# SPDX-License-Identifier: Apache-2.0
"""What differs between the releases of Nova's API that the filter works with: 31 to 34."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nova.api.openstack import api_version_request
from nova.api.openstack.compute import server_migrations
from nova.api.validation import parameter_types, validators
from nova.policies import servers_migrations as rules

INDEX, SHOW = rules.POLICY_ROOT % "index", rules.POLICY_ROOT % "show"
_INDEX_HOST = rules.POLICY_ROOT % "index:host"  # since 32: who may list need not see hosts

# Nova's microversions of server migrations.
_LISTED, _UUID, _USER_PROJECT = "2.23", "2.59", "2.80"


def lists_server_migrations(req: Any) -> bool:
    """Whether the request's microversion has server migrations at all."""
    return bool(api_version_request.is_supported(req, _LISTED))


def server_migration(req: Any, migration: Any, *, index: bool, can: Callable[[str], bool]) -> dict[str, Any]:
    """MIGRATION as Nova's own list (INDEX) or answer has it, for this request's microversion; CAN tells
    whether the caller passes a rule."""
    words: dict[str, bool] = {
        "include_uuid": api_version_request.is_supported(req, _UUID),
        "include_user_project": api_version_request.is_supported(req, _USER_PROJECT),
    }
    if index and "include_host" in inspect.signature(server_migrations.output).parameters:
        words["include_host"] = can(_INDEX_HOST)
    found: dict[str, Any] = server_migrations.output(migration, **words)
    return found


def check_boolean(name: str, value: Any) -> None:
    """Raises Nova's ValidationError, in its words, for a VALUE that its schemas do not take for a boolean."""
    schema = {"type": "object", "properties": {name: parameter_types.boolean}}
    validators._SchemaValidator(schema).validate({name: value})
