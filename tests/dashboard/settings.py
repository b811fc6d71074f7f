# SPDX-License-Identifier: Apache-2.0
"""Horizon's own settings, with the plugin enabled as its file says, and nothing else of an operator's."""

import pathlib
import tempfile

import openstack_dashboard.local.enabled as local_enabled

import pcmig_dashboard

# What copying the file does; Horizon looks for modules in this package's folders.
local_enabled.__path__.append(str(pathlib.Path(pcmig_dashboard.__file__).parent / "enabled"))

from openstack_dashboard.settings import *  # noqa: E402, F403

ALLOWED_HOSTS = ["testserver"]
SECRET_KEY = "of these tests"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STATIC_ROOT = tempfile.gettempdir()
COMPRESS_ENABLED = False
OPENSTACK_KEYSTONE_URL = "http://127.0.0.1:9/v3"
