# SPDX-License-Identifier: Apache-2.0
"""Puts the form into Horizon when it starts."""

from __future__ import annotations

import importlib
import logging

from django.apps import AppConfig

LOG = logging.getLogger(__name__)

VIEWS = "openstack_dashboard.dashboards.admin.instances.views"


class PcmigDashboard(AppConfig):  # type: ignore[misc]  # Django has no types
    name = "pcmig_dashboard"
    verbose_name = "pcmig"

    def ready(self) -> None:
        # Horizon has no hook for this form, but its view takes whatever form class it has. The one that is
        # there is kept as the base: another plugin may have been here before.
        from pcmig_dashboard import forms, rest  # noqa: F401  # rest makes its URL known

        try:
            view = importlib.import_module(VIEWS).LiveMigrateView
            view.form_class = forms.with_post_copy(view.form_class)
            view.template_name = forms.TEMPLATE
        except (ImportError, AttributeError) as error:
            LOG.error("pcmig: this Horizon has no form of live migrations to extend: %s", error)
