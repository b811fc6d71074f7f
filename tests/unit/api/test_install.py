# SPDX-License-Identifier: Apache-2.0
"""What an operator installs: entry points, the policy sample, the lines for api-paste.ini."""

from __future__ import annotations

import configparser
import difflib
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

import pcmig_api
from pcmig_api import policies
from pcmig_common.needs import NotThisNova

ETC = pathlib.Path(__file__).parents[3] / "etc" / "nova"
POLICY_SAMPLE = ETC / "pcmig-policy.yaml.sample"
PASTE_SAMPLE = ETC / "api-paste.ini.sample"
REGENERATE = "oslopolicy-sample-generator --namespace pcmig --output-file etc/nova/pcmig-policy.yaml.sample"


@pytest.mark.parametrize(
    ("group", "what"),
    [("oslo.policy.policies", policies.list_rules), ("paste.filter_factory", pcmig_api.factory)],
)
def test_entry_points(group: str, what: object) -> None:
    (point,) = importlib.metadata.entry_points(group=group, name="pcmig")
    assert point.load() is what


def test_policy_sample_is_up_to_date(tmp_path: pathlib.Path) -> None:
    made = tmp_path / "made"
    command = "from oslo_policy.generator import generate_sample as g; g()"
    argv = [sys.executable, "-c", command, "--namespace", "pcmig", "--output-file", str(made)]
    subprocess.run(argv, check=True, capture_output=True)
    committed = POLICY_SAMPLE.read_text(encoding="utf-8")
    now = made.read_text(encoding="utf-8")
    difference = "".join(
        difflib.unified_diff(committed.splitlines(keepends=True), now.splitlines(keepends=True))
    )
    assert committed == now, f"regenerate it: {REGENERATE}\n{difference}"


def test_paste_sample_names_the_filter() -> None:
    sample = configparser.ConfigParser(interpolation=None)
    sample.read_string(PASTE_SAMPLE.read_text(encoding="utf-8"))
    place = sample["filter:pcmig"]["paste.filter_factory"]
    module, _, name = place.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name) is pcmig_api.factory
    pipelines = [section["keystone"].split() for section in sample.values() if "keystone" in section]
    assert len(pipelines) == 2
    for pipeline in pipelines:
        assert pipeline[-2:] == ["pcmig", "osapi_compute_app_v21"]
        assert pipeline.index("keystonecontext") < pipeline.index("pcmig")


def test_the_filter_does_not_load_without_what_it_needs_of_nova() -> None:
    with pytest.raises(NotThisNova) as caught:
        pcmig_api.factory({})
    start = "pcmig's filter does not start with Nova of unknown version: nova.api.wsgi.Middleware cannot be"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("known", "asks"),
    [
        (["context_is_admin"], "rule:context_is_admin"),  # Nova 31
        (["context_is_admin", "project_manager_or_admin"], "rule:project_manager_or_admin"),
    ],
)
def test_who_may_migrate_may_ask(known: list[str], asks: str) -> None:
    rules = {rule.name: rule.check_str for rule in policies.rules_beside(known)}
    # What shows hosts is for administrators.
    administrators = {policies.SHOW: "rule:context_is_admin", policies.TURN_BACK: "rule:context_is_admin"}
    assert rules == {policies.ASK: asks, **administrators}
