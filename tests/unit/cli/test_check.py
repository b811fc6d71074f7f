# SPDX-License-Identifier: Apache-2.0
"""pcmig check, through the command line's own entry, the real core and libvirt's test driver."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys
from typing import Any

import pytest

from pcmig import _core, check
from pcmig.check import gather
from pcmig.cli import base, main

ROOT = pathlib.Path(__file__).parents[3]
NO_LIBVIRT = "qemu+unix:///system?socket=/nonexistent"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["check", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = run(capsys, "--json", *arguments)
    assert err == ""
    return code, json.loads(out)


def the_row(answer: dict[str, Any], subject: str, name: str) -> dict[str, str]:
    rows = [row for row in answer["rows"] if (row["subject"], row["name"]) == (subject, name)]
    assert len(rows) == 1
    found: dict[str, str] = rows[0]
    return found


def test_libvirt_that_does_not_answer_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "--connect", NO_LIBVIRT)
    assert code == base.ExitCode.FAILED
    assert answer["ok"] is False
    found = the_row(answer, "this host", "libvirt")
    assert found["status"] == "fail"
    assert "No such file or directory" in found["found"]
    assert answer["facts"]["probe"]["kernel"] == os.uname().release


def test_plain_text_says_how_to_fix(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--connect", NO_LIBVIRT, "--peer", "qemu+tcp://127.0.0.1:1/system")
    assert (code, err) == (base.ExitCode.FAILED, "")
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:3] == ["fail", "peer", "libvirt"])
    assert "Connection refused" in lines[at]
    assert [line.split(":")[0].strip() for line in lines[at + 1 : at + 4]] == ["wanted", "why", "fix"]
    assert "2 failures" in lines[-1]


def test_guest(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = run_json(capsys, "--connect", "test:///default", "--domain", "test")
    assert the_row(answer, "guest", "guest")["status"] == "ok"
    assert the_row(answer, "this host", "hypervisor")["status"] == "fail"  # the test driver is no QEMU


def test_unknown_guest(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "--connect", "test:///default", "--domain", "nobody")
    assert code == base.ExitCode.FAILED
    assert the_row(answer, "guest", "guest")["status"] == "fail"
    assert "nobody" in the_row(answer, "guest", "guest")["wanted"]
    assert the_row(answer, "this host", "libvirt")["status"] == "ok"


def test_same_host_twice(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "--connect", "test:///default", "--peer", "test:///default")
    assert code == base.ExitCode.FAILED
    assert the_row(answer, "both", "different hosts")["status"] == "fail"


def test_qemu_user_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = run_json(capsys, "--connect", NO_LIBVIRT, "--qemu-user", "nobody")
    assert answer["facts"]["probe"]["user"]["name"] == "nobody"
    code, answer = run_json(capsys, "--connect", NO_LIBVIRT, "--qemu-user", "no such user")
    assert code == base.ExitCode.FAILED
    assert the_row(answer, "this host", "probe")["found"] == "there is no user 'no such user' on this host"


def test_qemu_user_of_qemu_conf(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "qemu.conf"
    conf.write_text('user = "+4321"\ngroup = "+8765"\nnamespaces = []\nclear_emulator_capabilities = 0\n')
    _, answer = run_json(capsys, "--connect", NO_LIBVIRT, "--qemu-conf", str(conf))
    user = answer["facts"]["probe"]["user"]
    assert (user["uid"], user["gid"], user["capabilities"]) == (4321, 8765, True)
    assert answer["facts"]["settings"]["mount_namespace"] is False


def test_other_machine_is_not_probed(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = run_json(capsys, "--connect", "qemu+tcp://127.0.0.2:1/system")
    assert answer["facts"]["probe"] is None
    assert the_row(answer, "source", "userfaultfd")["status"] == "unknown"


@pytest.mark.parametrize("uri", ["x", "qemu://[", "no such scheme:///", "\u00e9", "qemu:///system\n"])
def test_odd_uris_are_rows(capsys: pytest.CaptureFixture[str], uri: str) -> None:
    code, answer = run_json(capsys, "--connect", "test:///default", "--peer", uri)
    assert code == base.ExitCode.FAILED
    assert the_row(answer, "peer", "libvirt")["status"] == "fail"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nothing",),
        ("x",),
        ("--peer",),
        ("--peer", ""),
        ("--connect", " "),
        ("--domain", ""),
        ("--qemu-user", ""),
    ],
)
def test_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["check", *arguments])
    assert caught.value.code == base.ExitCode.USAGE


def test_settings_that_cannot_be_read_are_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """Named by hand: libvirt's defaults in their place would be a wrong answer."""
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        code, out, err = run(capsys, "--connect", NO_LIBVIRT, "--qemu-conf", str(path))
        assert (code, out) == (base.ExitCode.USAGE, "")
        assert f"--qemu-conf '{path}': {why}" in err


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("test:///default", True),
        ("qemu+tcp://127.0.0.1/system", True),
        ("qemu+tcp://nova@[::1]:16509/system", True),
        ("qemu+tls://LocalHost/system", True),
        ("qemu+tcp://127.0.0.1.example/system", False),
        ("qemu+ssh://root@b/system", False),
        ("qemu+tcp://[2001:db8::1]:16509/system", False),
        ("qemu://[", False),
    ],
)
def test_local_uris(uri: str, local: bool) -> None:
    assert gather.is_local(uri) is local


def test_session_runs_qemu_as_the_caller() -> None:
    assert gather.default_user("qemu:///session") == f"+{os.getuid()}"
    assert gather.read_settings("/etc/libvirt/qemu.conf", "qemu:///session").mount_namespace is False


def test_names_are_resolved_here() -> None:
    assert gather.resolve("127.0.0.1") == ("127.0.0.1",)
    assert gather.resolve("no-such-name.invalid") == ()
    assert gather.resolve("a" * 300) == ()
    assert gather.resolve(None) == ()


def test_table_on_a_terminal() -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "pcmig.cli.main", "check", "--connect", NO_LIBVIRT],
        stdout=child,
        stderr=child,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    os.close(child)
    text = b""
    while True:
        try:
            data = os.read(parent, 65536)
        except OSError:  # EIO: the other end is closed
            break
        text += data
    os.close(parent)
    assert process.wait() == base.ExitCode.FAILED
    shown = text.decode()
    assert "\x1b[1;31mfail" in shown
    assert "this host: libvirt" in shown
    assert "fix: start libvirtd" in shown


def test_every_error_of_the_core_becomes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise _core.DeniedError("authentication failed")

    monkeypatch.setattr(_core, "host_facts", refuse)
    rows = check.run(gather.gather("qemu:///system", peer="qemu+tls://b/system", domain="g1"))
    assert [row.found for row in rows if row.name == "libvirt"] == ["authentication failed"] * 2
