# SPDX-License-Identifier: Apache-2.0
"""Tests of Horizon's plugin in Horizon itself, without a cloud: run by the Python that has Horizon.

Horizon is loaded here, before anything of it is imported.
"""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.dashboard.settings"

import django
import django.urls

django.setup()
django.urls.reverse("horizon:admin:instances:index")  # panels and their templates are found with the URLs
