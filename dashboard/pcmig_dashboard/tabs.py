# SPDX-License-Identifier: Apache-2.0
"""The tab Live Migration of an instance."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from horizon import tabs
from novaclient import exceptions as nova

from pcmig_dashboard import compute, figures

REFRESH_S = 2  # PCMIG_REFRESH_S in Horizon's settings is another one
REST = "api/pcmig/servers/%s/"


def look(request: Any, server_id: str) -> dict[str, Any]:
    """The panel as it is now (figures.panel); what cannot be found out is told in it."""
    try:
        answer = compute.show(request, server_id)
        return figures.panel(answer.get("migration"), answer.get("way_back"))
    except nova.Unauthorized:
        raise
    except compute.NoFilter:
        return figures.unknown(
            str(_("The Compute API has no filter of pcmig, which would tell how far a live migration is."))
        )
    except Exception as error:
        return figures.unknown(compute.reason(error))


def turn_back_words() -> list[tuple[str, Any]]:
    """What the user can vouch for, by the Compute API's names, and the boxes' labels."""
    return [
        ("destination_is_dead", _("The destination's host is off")),
        ("guest_is_nowhere_else", _("No other host has the instance: I have looked")),
    ]


class MigrationTab(tabs.Tab):  # type: ignore[misc]  # Horizon has no types
    name = _("Live Migration")
    slug = "pcmig"
    template_name = "pcmig_dashboard/migration.html"
    preload = False  # an instance's other tabs do not wait for this one
    # Who sees live migrations with their hosts by Nova's rules, which Horizon knows; the API has its own.
    policy_rules = (("compute", "os_compute_api:servers:migrations:show"),)

    def get_context_data(self, request: Any) -> dict[str, Any]:
        server_id = self.tab_group.kwargs["instance"].id
        panel = look(request, server_id)
        return {
            "panel": panel,
            "rows": [(key, label, panel["values"][key]) for key, label in figures.labels()],
            "url": settings.WEBROOT + REST % server_id,
            "interval_ms": int(getattr(settings, "PCMIG_REFRESH_S", REFRESH_S) * 1000),
            "title": self.name,
            "turn_back": _("Turn Back"),
            "turn_back_words": turn_back_words(),
            "turn_back_confirm": _(
                "The instance goes on at its source host from the moment of the switch. What it did at the "
                "destination since then is undone. If that host still runs it, the instance runs twice and "
                "breaks its disks: turn that host off first. Go on?"
            ),
            "lost": _("Horizon does not answer; these figures are old."),
            "expired": _("Your session has ended; log in again to go on watching."),
        }
