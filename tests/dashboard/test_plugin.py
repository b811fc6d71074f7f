# SPDX-License-Identifier: Apache-2.0
"""Horizon takes the plugin in, and does without it where it must."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles import finders
from django.utils.module_loading import import_string
from openstack_dashboard.dashboards.admin.instances import forms as horizon_forms
from openstack_dashboard.dashboards.admin.instances import tabs as horizon_tabs
from openstack_dashboard.dashboards.admin.instances import views

import pcmig_dashboard
from pcmig_dashboard import apps as plugin
from pcmig_dashboard import forms, tabs

ROOT = pathlib.Path(__file__).parents[2]


def test_the_view_has_the_form_with_the_box() -> None:
    form = views.LiveMigrateView.form_class
    assert issubclass(form, forms.PostCopyForm) and issubclass(form, horizon_forms.LiveMigrateForm)
    assert views.LiveMigrateView.template_name == forms.TEMPLATE


def test_once_is_enough() -> None:
    form = views.LiveMigrateView.form_class
    apps.get_app_config("pcmig_dashboard").ready()
    assert views.LiveMigrateView.form_class is form


def test_a_horizon_without_the_view_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(views, "LiveMigrateView")
    apps.get_app_config("pcmig_dashboard").ready()
    assert "no form of live migrations to extend" in caplog.text
    monkeypatch.setattr(plugin, "VIEWS", "openstack_dashboard.dashboards.gone")
    apps.get_app_config("pcmig_dashboard").ready()


def test_the_tab_is_one_of_the_instance() -> None:
    group = horizon_tabs.AdminInstanceDetailTabs
    (added,) = settings.HORIZON_CONFIG["extra_tabs"][f"{group.__module__}.{group.__name__}"]
    assert import_string(added[1]) is tabs.MigrationTab


def test_the_script_is_found_and_in_every_page() -> None:
    assert "pcmig_dashboard/migration.js" in settings.HORIZON_CONFIG["js_files"]
    assert finders.find("pcmig_dashboard/migration.js")


def test_it_says_where_its_file_goes() -> None:
    argv = [sys.executable, "-m", "pcmig_dashboard"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT / "dashboard").stdout
    copy, source, target = said.split()
    assert copy == "cp"
    assert pathlib.Path(source).name == "_9010_pcmig.py" and pathlib.Path(source).is_file()
    assert target.endswith("openstack_dashboard/local/enabled/") and pathlib.Path(target).is_dir()


def test_nothing_of_pcmig_is_needed_here() -> None:
    folder = pathlib.Path(pcmig_dashboard.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) pcmig(?!_dashboard)", text, re.MULTILINE), path
