# SPDX-License-Identifier: Apache-2.0
"""Horizon and its static files in one WSGI application, for serve.py."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "openstack_dashboard.settings"

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

application = StaticFilesHandler(get_wsgi_application())
