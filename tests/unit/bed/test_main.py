# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bed`: which bed is meant, and that nobody's bed is taken by mistake."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.bed import bed as bed_module
from tests.bed import network
from tests.bed.__main__ import main
from tests.bed.procs import ProcessId


@pytest.fixture
def beds(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder of beds, on a machine without namespaces."""
    folder = tmp_path / "beds"
    folder.mkdir()
    (folder / ".coming").mkdir()  # another process makes it just now
    monkeypatch.setattr(bed_module, "BEDS", folder)
    monkeypatch.setattr(network, "namespaces_present", lambda: [])
    return folder


def leave(
    beds: pathlib.Path, bed_id: str, *, owned: bool = False, kept: bool = False, alive: bool = False
) -> None:
    """The state folder of a bed. Its processes are this one where it is alive, and gone elsewhere."""
    us = ProcessId.of(os.getpid())
    assert us is not None
    living, gone = [us.pid, us.start_ticks], [us.pid, us.start_ticks + 1]
    content = {
        "stack": "forky",
        "rate_mbit": 100,
        "keep": kept,
        "owner": living if owned else gone,
        "processes": [living if alive else gone],
    }
    (beds / bed_id).mkdir()
    (beds / bed_id / "bed.json").write_text(json.dumps(content))


def present(beds: pathlib.Path) -> list[str]:
    return sorted(path.name for path in beds.iterdir() if path.name != ".coming")


def test_clean_takes_crashed_beds_alone(beds: pathlib.Path) -> None:
    leave(beds, "crashed")
    leave(beds, "inuse", owned=True)
    leave(beds, "kept", kept=True, alive=True)
    leave(beds, "keptdead", kept=True)
    assert main(["clean"]) == 0
    assert present(beds) == ["inuse", "kept"]
    assert (beds / ".coming").exists()


def test_clean_takes_namespaces_without_a_bed(beds: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = ["pcmig-inuse-a", "pcmig-lost-a"]
    monkeypatch.setattr(network, "namespaces_present", lambda: list(namespaces))
    monkeypatch.setattr(network, "remove_namespace", namespaces.remove)
    leave(beds, "inuse", owned=True)
    assert bed_module.clean() == ["pcmig-lost-a"]
    assert namespaces == ["pcmig-inuse-a"]


def test_down_of_several_asks_which(beds: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(beds, "one", kept=True)
    leave(beds, "two", kept=True)
    assert main(["down"]) == 1
    assert "--bed one or two" in capsys.readouterr().err
    assert main(["down", "--bed", "two"]) == 0
    assert present(beds) == ["one"]


def test_down_of_a_bed_in_use_is_refused(beds: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(beds, "inuse", owned=True)
    assert main(["down", "--bed", "inuse"]) == 1
    assert "in use" in capsys.readouterr().err
    assert present(beds) == ["inuse"]


def test_no_bed_says_how_to_have_one(beds: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a", "true"]) == 1
    assert "tests.bed up" in capsys.readouterr().err
    assert main(["status"]) == 0


def test_status_shows_how_to_reach_the_hosts(beds: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(beds, "kept", kept=True, alive=True)
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert "bed kept: up, stack forky, 100 Mb/s" in shown
    assert f"socket={beds}/kept/a/run/libvirt/libvirt-sock" in shown
