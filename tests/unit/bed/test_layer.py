# SPDX-License-Identifier: Apache-2.0
"""Finding the mirror that apt uses, and knowing a layer that is current."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.bed import layer
from tests.bed.errors import BedError

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
# another
URIs: http://mirror.example.org/debian/
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://old.example.org/debian
Suites: bookworm
Enabled: no

Types: deb-src
URIs: https://source.example.org/debian
Suites: bookworm
"""

ONE_LINE = """\
# deb http://commented.example.org/debian bookworm main
deb-src http://source.example.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/x.gpg arch=amd64] https://tools.example.org/apt cloud-sdk main
deb [ arch=amd64 ] http://mirror.example.net/debian bookworm main contrib
"""


@pytest.fixture
def etc(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.delenv("PCMIG_MIRROR", raising=False)
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    return tmp_path


def test_deb822_skips_sources_and_disabled_entries() -> None:
    assert list(layer.parse_deb822_sources(DEB822)) == [
        ("http://mirror.example.org/debian-security", ["bookworm-security"]),
        ("http://mirror.example.org/debian/", ["bookworm", "bookworm-updates"]),
    ]


def test_one_line_entries_with_and_without_options() -> None:
    assert list(layer.parse_one_line_sources(ONE_LINE)) == [
        ("https://tools.example.org/apt", ["cloud-sdk"]),
        ("http://mirror.example.net/debian", ["bookworm"]),
    ]


def test_mirror_from_deb822(etc: pathlib.Path) -> None:
    (etc / "apt/sources.list.d/debian.sources").write_text(DEB822)
    assert layer.find_mirror(etc) == "http://mirror.example.org/debian"


def test_mirror_from_one_line_entries(etc: pathlib.Path) -> None:
    (etc / "apt/sources.list").write_text(ONE_LINE)
    assert layer.find_mirror(etc) == "http://mirror.example.net/debian"


def test_named_mirror_wins(etc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCMIG_MIRROR", "http://mine.example.org/debian/")
    (etc / "apt/sources.list").write_text(ONE_LINE)
    assert layer.find_mirror(etc) == "http://mine.example.org/debian"


def test_no_mirror_says_what_to_do(etc: pathlib.Path) -> None:
    with pytest.raises(BedError, match="PCMIG_MIRROR"):
        layer.find_mirror(etc)


def test_security_archive_is_no_mirror() -> None:
    assert (
        layer.choose_mirror([("http://mirror.example.org/debian-security", ["stable"])], "bookworm") is None
    )


def test_unknown_stack_names_the_known_ones() -> None:
    with pytest.raises(BedError, match=r"use one of forky, .*backports, .*bookworm"):
        layer.ensure("woody")


def test_layer_of_the_same_recipe_is_used_as_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCMIG_CACHE", str(tmp_path))
    folder = tmp_path / "stacks/forky"
    folder.mkdir(parents=True)
    stamp = {"recipe": layer.STACKS["forky"].recipe(), "versions": {"qemu": "11.1.2"}}
    (folder / "pcmig-layer.json").write_text(json.dumps(stamp))
    assert layer.ensure("forky") == folder
    assert layer.versions(folder) == {"qemu": "11.1.2"}


def test_cache_that_cannot_be_made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCMIG_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(BedError, match="PCMIG_CACHE"):
        layer.ensure("forky")


def test_full_disk_is_told_before_the_download(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCMIG_CACHE", str(tmp_path))
    greedy = dataclasses.replace(layer.STACKS["forky"], needed_mib=1 << 40)
    monkeypatch.setitem(layer.LAYERS, "forky", greedy)
    with pytest.raises(BedError, match="MiB free"):
        layer.ensure("forky")
