# SPDX-License-Identifier: Apache-2.0
"""The Compute API, as far as pcmig's filter extends it (doc/operate/asking.rst).

Errors are novaclient's, which Horizon knows; an answer that is none of the filter's is one of them as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novaclient import exceptions
from openstack_dashboard.api import _nova

# What Horizon itself asks live migrations with.
MICROVERSION = "2.30"


class NoFilter(exceptions.ClientException):  # type: ignore[misc]  # novaclient has no types
    """The Compute API is Nova's alone: pcmig's filter is not installed there."""


def show(request: Any, server_id: str) -> Mapping[str, Any]:
    """What GET /servers/{id}/os-pcmig says; NoFilter if nobody answers it."""
    try:
        _, body = _client(request).get(f"/servers/{server_id}/os-pcmig")
    except exceptions.NotFound as error:
        if server_id in (error.message or ""):  # the server is gone; Nova says no such thing of a path
            raise
        raise NoFilter(error.code, error.message) from error
    if not isinstance(body, dict) or not isinstance(body.get("pcmig"), dict):
        raise NoFilter(404, "os-pcmig is answered by something else than pcmig's filter")
    answer: Mapping[str, Any] = body["pcmig"]
    return answer


def live_migrate(
    request: Any, server_id: str, host: str | None, *, block_migration: bool, post_copy: bool
) -> None:
    """Ask for a live migration that says whether it is to use post-copy."""
    action = {"host": host, "block_migration": block_migration, "post_copy": post_copy}
    _client(request).post(f"/servers/{server_id}/action", body={"os-migrateLive": action})


def turn_back(request: Any, server_id: str, words: Mapping[str, bool]) -> None:
    """Have a server go on at its source whose destination was lost in post-copy. WORDS: what the user vouches
    for."""
    action = {"os-pcmigTurnBack": dict(words)}
    _client(request).post(f"/servers/{server_id}/action", body=action)


def reason(error: Exception) -> str:
    """The API's own words where it gave some, without request id and class names."""
    if isinstance(error, exceptions.ClientException) and error.message:
        return str(error.message)
    return str(error) or type(error).__name__


def _client(request: Any) -> Any:
    return _nova.novaclient(request, MICROVERSION).client
