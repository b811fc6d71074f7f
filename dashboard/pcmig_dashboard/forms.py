# SPDX-License-Identifier: Apache-2.0
"""The form Live Migrate, with a box for post-copy and one line that explains it, or says why not."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from horizon import exceptions, forms, messages
from novaclient import exceptions as nova

from pcmig_dashboard import compute

TEMPLATE = "pcmig_dashboard/live_migrate.html"
FIELD = "post_copy"
AUTO = "AUTO_SCHEDULE"  # how Horizon's list of hosts says: any


@dataclasses.dataclass(frozen=True)
class Offer:
    """How the box is shown."""

    note: Any  # the line below it
    open: bool = False  # it can be ticked
    ticked: bool = False


def offer(answer: Mapping[str, Any]) -> Offer:
    """The box for a server of which the API says ANSWER ("post_copy" of os-pcmig)."""
    if answer.get("forbidden"):
        return Offer(_("Not possible: %(reason)s") % {"reason": answer["forbidden"]})
    if answer.get("required"):
        return Offer(_("Always used here: %(reason)s") % {"reason": answer["required"]}, ticked=True)
    if not answer.get("may_ask"):
        return Offer(_("Not possible: your roles do not let you ask for it."))
    return Offer(
        _(
            "The guest goes on at its new host and fetches its memory as it needs it, so that even a busy "
            "guest arrives."
        ),
        open=True,
    )


def offer_here(request: Any, server_id: str) -> Offer:
    """As the API says it now. What hinders that closes the box, and never the form."""
    try:
        return offer(compute.show(request, server_id).get("post_copy") or {})
    except nova.Unauthorized:
        raise
    except compute.NoFilter:
        return Offer(
            _("Not possible: the Compute API has no filter of pcmig, which would take this choice to Nova.")
        )
    except Exception as error:
        why = compute.reason(error)
        return Offer(_("Not possible now: the Compute API does not say whether it is: %s") % why)


class PostCopyForm:
    """What is added to Horizon's form."""

    fields: dict[str, Any]
    is_bound: bool
    data: Any

    def __init__(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)  # type: ignore[call-arg]  # Horizon's form
        server_id = (kwargs.get("initial") or {}).get("instance_id")
        found = offer_here(request, server_id) if server_id else Offer(_("Not possible now."))
        self.post_copy_note = found.note
        # A tick that was sent counts, whatever could be found out now: the API judges it.
        sent = self.is_bound and FIELD in self.data
        self.fields[FIELD] = forms.BooleanField(
            label=_("Post-copy"),
            required=False,
            initial=found.ticked,
            disabled=not (found.open or sent),
            widget=forms.CheckboxInput(attrs={"aria-describedby": f"id_{FIELD}_note"}),
        )

    def handle(self, request: Any, data: Mapping[str, Any]) -> Any:
        if not data.get(FIELD) or self.fields[FIELD].disabled:
            return super().handle(request, data)  # type: ignore[misc]  # Horizon's form
        host = None if data["host"] == AUTO else data["host"]
        try:
            compute.live_migrate(
                request, data["instance_id"], host, block_migration=data["block_migration"], post_copy=True
            )
        except Exception as error:
            why = compute.reason(error)
            if host:
                said = _('Failed to live migrate instance to host "%(host)s" with post-copy: %(why)s')
            else:
                said = _("Failed to live migrate instance with post-copy: %(why)s")
            # Horizon hides details behind a link; the reason is what it is all about.
            index = reverse("horizon:admin:instances:index")
            exceptions.handle(request, said % {"host": host, "why": why}, redirect=index, details="")
            return False
        messages.info(
            request,
            _(
                "The instance is preparing the live migration with post-copy. Its tab Live Migration shows "
                "how far it is."
            ),
        )
        return True


def with_post_copy(base: type) -> type:
    """BASE, Horizon's form, with the box."""
    if issubclass(base, PostCopyForm):
        return base
    return types.new_class(base.__name__, (PostCopyForm, base), exec_body=_in_this_module)


def _in_this_module(namespace: dict[str, Any]) -> None:
    namespace["__module__"] = __name__
