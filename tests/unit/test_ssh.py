# SPDX-License-Identifier: Apache-2.0
"""ssh, which libvirt starts for us: played by a program that says what it is given."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest

from pcmig import _core
from pcmig.check import gather, hosts
from tests.unit.patience import NEVER_MS


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    _core.set_connect_timeout(NEVER_MS)
    yield
    _core.set_connect_timeout(10_000)


BANNER = "Authorized users only. All activity is recorded.\r\n" * 12
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Host key verification failed.
"""


def ssh_that_says(folder: pathlib.Path, text: str) -> str:
    """A URI whose ssh prints TEXT on its standard error and ends, as soon as libvirt has asked something: of
    one that is gone before, on a busy machine, libvirt knows but that its socket is closed."""
    program = folder / "ssh"
    (folder / "text").write_text(text)
    program.write_text(
        f"#!/bin/sh\necho $$ > {folder}/pid\ncp /proc/$$/stat {folder}/stat\n"
        f"head -c 1 > /dev/null\ncat {folder}/text >&2\nexit 255\n"
    )
    program.chmod(0o755)
    return f"qemu+ssh://root@b/system?command={program}"


def test_it_has_a_session_of_its_own(tmp_path: pathlib.Path) -> None:
    """Or a Ctrl-C at our terminal would end it, and it would ask questions there."""
    with pytest.raises(_core.ConnectError):
        _core.host_facts(ssh_that_says(tmp_path, "Permission denied (publickey).\n"))
    fields = (tmp_path / "stat").read_text().rpartition(")")[2].split()
    group, session, terminal = (int(field) for field in fields[2:5])  # proc(5)
    pid = int((tmp_path / "pid").read_text())
    assert (group, session, terminal) == (pid, pid, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Host key verification failed.\r\n", "Host key verification failed.*known_hosts"),
        (CHANGED, "HAS CHANGED! @ IT IS POSSIBLE.*ssh-keygen -R"),
        ("root@b: Permission denied (publickey,password).\r\n", "Permission denied.*ssh-copy-id"),
        (
            BANNER + "root@b: Permission denied (publickey).\r\n",
            r"only\. .* \.\.\. .*Permission denied.*ssh-copy-id",
        ),
        ("ssh: Could not resolve hostname b: Name or service not known\r\n", "hostname b: .*/etc/hosts"),
        ("ssh: connect to host b port 22: Connection refused\r\n", "port 22: .*qemu.ssh://HOST:PORT"),
        ("sh: 1: nc: not found\n", "nc: not found.*virt-ssh-helper"),
    ],
)
def test_what_it_says_is_told_with_what_helps(tmp_path: pathlib.Path, text: str, told: str) -> None:
    uri = ssh_that_says(tmp_path, text)
    with pytest.raises(_core.ConnectError) as caught:
        _core.job_status(uri, "g1")
    said = str(caught.value)
    assert said.startswith(f"cannot connect to {uri}: ")
    assert "\n" not in said and "\r" not in said
    assert re.search(told, said), said


def test_check_says_what_helps_in_its_own_place(tmp_path: pathlib.Path) -> None:
    uri = ssh_that_says(tmp_path, "Host key verification failed.\r\n")
    row = hosts.connection("peer", gather.ask(uri, None))
    assert row.status == "fail"
    assert "Host key verification failed" in row.found and "known_hosts" not in row.found
    assert "known_hosts" in row.fix
    row = hosts.connection("peer", gather.ask(ssh_that_says(tmp_path, "What?\n"), None))
    assert "What?" in row.found and row.fix.startswith("start libvirtd")
