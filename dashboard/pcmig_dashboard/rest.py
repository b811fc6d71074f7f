# SPDX-License-Identifier: Apache-2.0
"""What the tab asks every few seconds: GET api/pcmig/servers/ID/, JSON as figures.panel makes it."""

from __future__ import annotations

from typing import Any

from django.views import generic
from openstack_dashboard.api.rest import urls
from openstack_dashboard.api.rest import utils as rest_utils

from pcmig_dashboard import tabs


@urls.register
class Migration(generic.View):  # type: ignore[misc]  # Django has no types
    url_regex = "^" + tabs.REST.removeprefix("api/") % r"(?P<server_id>[0-9a-fA-F-]{1,64})" + "$"

    @rest_utils.ajax()  # type: ignore[untyped-decorator]
    def get(self, request: Any, server_id: str) -> dict[str, Any]:
        return tabs.look(request, server_id)
