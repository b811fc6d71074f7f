# SPDX-License-Identifier: Apache-2.0
"""Where the JSON report can go, and where not."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import threading

import pytest

from pcmig.cli import report
from pcmig.cli.base import UsageError


def test_replaces_a_file_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    report.check_writable(str(path))
    report.write(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_name_in_the_working_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report.check_writable("r.json")
    report.write("r.json", {})
    assert (tmp_path / "r.json").read_text() == "{}\n"


def test_link_keeps_being_a_link(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    link = tmp_path / "link"
    link.symlink_to(target)
    report.check_writable(str(link))
    report.write(str(link), {"b": 2})
    assert link.is_symlink() and json.loads(target.read_text()) == {"b": 2}


def test_named_pipe(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    report.check_writable(str(path))
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    report.write(str(path), {"c": 3})
    reader.join()
    assert json.loads(got[0]) == {"c": 3}


def test_refused_before_anything_starts(tmp_path: pathlib.Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "no" / "file")):
        with pytest.raises(UsageError, match="--json"):
            report.check_writable(path)


def test_failed_write_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        report.write(str(path), {"x": object()})
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    report.check_writable("-")
    report.write("-", {"d": 4})
    assert json.loads(capsys.readouterr().out) == {"d": 4}
