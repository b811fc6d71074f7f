# SPDX-License-Identifier: Apache-2.0
"""What the tab asks every few seconds: GET api/pcmig/servers/ID/, JSON as figures.panel makes it; and what
its button does: POST."""

from __future__ import annotations

from typing import Any

from django.views import generic
from openstack_dashboard.api.rest import urls
from openstack_dashboard.api.rest import utils as rest_utils

from pcmig_dashboard import compute, tabs


@urls.register
class Migration(generic.View):  # type: ignore[misc]  # Django has no types
    url_regex = "^" + tabs.REST.removeprefix("api/") % r"(?P<server_id>[0-9a-fA-F-]{1,64})" + "$"

    @rest_utils.ajax()  # type: ignore[untyped-decorator]
    def get(self, request: Any, server_id: str) -> dict[str, Any]:
        return tabs.look(request, server_id)

    @rest_utils.ajax(data_required=True)  # type: ignore[untyped-decorator]
    def post(self, request: Any, server_id: str) -> None:
        """Has the instance turn back; the API's reason where it may not."""
        words = {name: bool(request.DATA.get(name)) for name, _ in tabs.turn_back_words()}
        compute.turn_back(request, server_id, words)
