# SPDX-License-Identifier: Apache-2.0
"""A bed's programs find nothing of the caller's shell but what is meant for them."""

from __future__ import annotations

import os

import pytest

from tests.bed import environment

ASTRAY = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LIBVIRT_DEFAULT_URI",
    "VIRSH_DEFAULT_CONNECT_URI",
    "OS_CLOUD",
    "OS_AUTH_URL",
    "OS_NOVA_DISABLE_EVENTLET_PATCHING",
    "LANG",
    "LANGUAGE",
    "LC_MESSAGES",
    "XDG_CONFIG_HOME",
    "OVS_RUNDIR",
    "QEMU_AUDIO_DRV",
    "MYSQL_HOME",
    "PCMIG_JOURNAL_DIR",
    "CEPH_CONF",
    "TZ",
]


@pytest.mark.parametrize("name", ASTRAY)
def test_what_leads_astray_is_dropped(name: str) -> None:
    assert name not in environment.clean({name: "x"})


@pytest.mark.parametrize(
    "name",
    [
        "http_proxy",
        "NO_PROXY",
        "PIP_INDEX_URL",
        "SSL_CERT_FILE",
        "TERM",
        "PCMIG_CACHE",
        "PYTEST_XDIST_WORKER",
    ],
)
def test_what_is_meant_for_them_stays(name: str) -> None:
    assert environment.clean({name: "x"})[name] == "x"


def test_path_and_language_are_those_of_the_bed() -> None:
    cleaned = environment.clean({"PATH": "/home/me/bin", "LC_ALL": "tr_TR.UTF-8", "HOME": "/home/me"})
    assert cleaned["PATH"] == environment.PATH
    assert cleaned["LC_ALL"] == "C.UTF-8"
    assert cleaned["HOME"] == "/root"


def test_the_process_itself_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PYTHONPATH": "/nowhere", "TERM": "dumb"})
    environment.drop_the_callers()
    assert "PYTHONPATH" not in os.environ
    assert os.environ["TERM"] == "dumb"
