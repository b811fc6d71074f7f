# SPDX-License-Identifier: Apache-2.0
"""The row on what the running nova-compute may do, from a /proc that is only files."""

from __future__ import annotations

import pathlib

import pytest

from pcmig.check import Facts, Side, novarights

ALL = "000001ffffffffff"


def process(root: pathlib.Path, pid: int, words: list[str], uid: int, effective: str) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{effective}\n")


def row(root: pathlib.Path) -> tuple[str, str] | None:
    found = novarights.nova_rights(
        Facts(here=Side("qemu:///system"), nova_rights=novarights.gather(str(root)))
    )
    return None if found is None else (found.status, found.found)


def test_where_none_runs_there_is_no_row(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 7, ["/usr/bin/python3", "/usr/bin/nova-conductor"], 0, ALL)
    process(tmp_path, 8, ["tail", "-f", "x", "/var/log/nova/nova-compute"], 0, ALL)
    assert row(tmp_path) is None


@pytest.mark.parametrize(
    "words", [["/usr/bin/nova-compute"], ["/v/bin/python", "/v/bin/nova-compute", "--x"]]
)
def test_an_ordinary_user(tmp_path: pathlib.Path, words: list[str]) -> None:
    process(tmp_path, 12, words, 65534, "0" * 16)
    assert row(tmp_path) == (
        "warn",
        "nova-compute (process 12) runs as nobody, which does not see QEMU's sockets",
    )


def test_root(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 12, ["/usr/bin/nova-compute"], 0, ALL)
    found = row(tmp_path)
    assert found is not None and found[0] == "ok"


def test_a_user_without_a_name(tmp_path: pathlib.Path) -> None:
    process(tmp_path, 12, ["/usr/bin/nova-compute"], 987654, "0" * 16)
    found = row(tmp_path)
    assert found is not None and "runs as +987654" in found[1]


def test_a_process_that_ends_meanwhile(tmp_path: pathlib.Path) -> None:
    (tmp_path / "proc" / "5").mkdir(parents=True)
    assert row(tmp_path) is None
