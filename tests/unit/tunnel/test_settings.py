# SPDX-License-Identifier: Apache-2.0
"""The daemon's settings: the file, the command line, what they come to."""

from __future__ import annotations

import os
import pathlib
import re

import pytest

from pcmig.tunnel import client, settings
from pcmig.tunnel.settings import SettingsError

ETC = pathlib.Path(__file__).parents[3] / "etc"
SAMPLE = ETC / "pcmig" / "tunnel.conf.sample"


def read(folder: pathlib.Path, text: str) -> dict[str, object]:
    path = folder / "tunnel.conf"
    path.write_text(text)
    return settings.read_file(str(path), required=True)


def test_the_sample_has_every_setting_and_changes_none() -> None:
    assert settings.read_file(str(SAMPLE), required=True) == {}
    text = SAMPLE.read_text()
    for row in settings.ROWS:
        match = re.search(rf"^#{row.name} =(.*)$", text, re.MULTILINE)
        assert match is not None, row.name
        value = match[1].strip()
        if row.default in (None, []):
            assert value == "", row.name
        else:
            assert settings.parse_value(row, value) == row.default, row.name


def test_every_setting_is_understood(tmp_path: pathlib.Path) -> None:
    found = read(
        tmp_path,
        "[tunnel]\nlisten = 10.0.0.1, [::1]:16600\nallow = *.example.org, 10.0.0.?\nworkers=2\n"
        "dead_after = 2.5\nplaintext = yes\nmemory_in_clear = on\ncertificates = /etc/pki/x/\n",
    )
    assert found == {
        "listen": ["10.0.0.1:16516", "[::1]:16600"],
        "allow": ["*.example.org", "10.0.0.?"],
        "workers": 2,
        "dead_after": 2.5,
        "plaintext": True,
        "memory_in_clear": True,
        "certificates": "/etc/pki/x",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("listen = x", r"line 1 stands in no section; all settings stand in \[tunnel\]"),
        ("[tunnel]\nlistne = x\n", "did you mean listen"),
        ("[tunnel]\nzzz = x\n", "there are listen, "),
        ("[other]\nlisten = x\n", r"\[other\] is not known"),
        ("[tunnel]\nlisten = b:99999\n", "no port from 1 to 65535"),
        ("[tunnel]\nlisten =\n", "names no address"),
        ("[tunnel]\nlisten = a, a:16516\n", "names a:16516 twice"),
        ("[tunnel]\nlisten = a b c d e f g h i\n", "names 9 addresses; 8 is the most"),
        ("[tunnel]\nworkers = -1\n", "'-1' is no whole number"),
        ("[tunnel]\nworkers = 9\n", "'9' is more than 8; 0 is one for each core"),
        ("[tunnel]\ndead_after = 0.4\n", "'0.4' is less than 0.5 seconds"),
        ("[tunnel]\nidle_drop = 59\n", "'59' is less than 60 seconds"),
        ("[tunnel]\ndead_after = 0\n", "no number of seconds above 0"),
        ("[tunnel]\nplaintext = perhaps\n", "neither yes nor no"),
        ("[tunnel]\nkey = relative\n", "no absolute path"),
        ("[tunnel]\nkey =\n", "is empty"),
        ("[tunnel]\nallow = a b|c\n", "no name or address"),
        ("[tunnel]\nkey = /x\nkey = /y\n", "already exists"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: pathlib.Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(tmp_path, text)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "none")
    assert settings.read_file(path, required=False) == {}
    with pytest.raises(SettingsError, match="No such file"):
        settings.read_file(path, required=True)
    with pytest.raises(SettingsError, match="Is a directory"):
        settings.read_file(str(tmp_path), required=False)


def test_clear_text_takes_two_words() -> None:
    for one in ("plaintext", "memory_in_clear"):
        with pytest.raises(SettingsError, match="says both"):
            settings.settle({one: True})
    both = settings.settle({"plaintext": True, "memory_in_clear": True, "group": "0", "user": "root"})
    assert both.arguments()["plaintext"] is True
    assert settings.settle({"group": "0", "user": "root"}).arguments()["plaintext"] is False


def test_whom_qemu_runs_as(tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "qemu.conf"
    conf.write_text('user = "nobody"\ngroup = "+12"\n')
    found = settings.settle({}, str(conf))
    assert (found.socket_uid, found.owner_gid) == (
        None,
        12,
    )  # a guest may have another user than qemu.conf says
    conf.write_text('user = "root"\n')
    assert settings.settle({}, str(conf)).owner_gid == 0
    found = settings.settle({"user": "+7", "group": "nogroup", "control_group": "+9"}, str(conf))
    assert (found.socket_uid, found.control_gid) == (7, 9)
    for name, value in (("user", "nosuch"), ("group", "nosuch"), ("control_group", "nosuch")):
        with pytest.raises(SettingsError, match=f"{name}: there is no"):
            settings.settle({"user": "root", "group": "0"} | {name: value}, str(conf))
    with pytest.raises(SettingsError, match="user: there is no user 'nosuch'"):
        settings.settle({"user": "nosuch"}, str(conf))
    conf.write_text('user = "nosuch"\n')  # which nobody has typed here
    with pytest.raises(SettingsError, match=f"group: there is no group 'nosuch', .* {conf}.*: give 'group'"):
        settings.settle({}, str(conf))


def test_certificates() -> None:
    given = {"user": "root", "group": "0"}
    with pytest.raises(SettingsError, match="belong together"):
        settings.settle(given | {"key": "/x"})
    files = settings.settle(given | {"certificates": "/nowhere"}).files
    assert (files.ca, files.key) == ("/nowhere/ca.pem", "/nowhere/host-key.pem")
    files = settings.settle(given | {"certificate": "/c", "key": "/k", "ca": "/ca"}).files
    assert (files.ca, files.client) == ("/ca", ("/c", "/k"))
    found = settings.settle(given | {"client_certificate": "/c", "client_key": "/k"})
    assert found.files.client == ("/c", "/k")
    assert "certificates in" in found.files_from or "libvirt" in found.files_from


def test_the_unit_starts_the_command() -> None:
    unit = (ETC / "systemd/pcmig-tunnel.service").read_text()
    assert "\nExecStart=pcmig tunnel\n" in unit and "\nType=notify\n" in unit
    made = (ETC / "tmpfiles.d/pcmig-tunnel.conf").read_text()
    assert f"\nd {settings.RUN_DIR} 3733 pcmig pcmig -\n" in made and "\nUser=pcmig\n" in unit
    assert f"\nBindPaths={os.path.dirname(settings.RUN_DIR)}\n" in unit  # all that is there of /run
    assert os.path.dirname(client.CONTROL) == os.path.dirname(settings.RUN_DIR)
