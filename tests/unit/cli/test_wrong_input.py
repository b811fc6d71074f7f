# SPDX-License-Identifier: Apache-2.0
"""What is typed wrongly is usage, exit code 2, and said before any host is asked: here none answers."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from pcmig.cli import main

NOWHERE = ("--connect", "qemu+unix:///system?socket=/nonexistent")
POLICIES = "auto, first-pass, passes=N, deadline=SECONDS, immediate, manual, never"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str]:
    try:
        code: int | str | None = main.main([*words])
    except SystemExit as end:  # argparse's way
        code = end.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("--policy", "sometimes"), ("--policy", '"sometimes"', POLICIES)),
        (("--policy", ""), ("--policy", '""', POLICIES)),
        (("--policy", "passes=0"), ("--policy", '"0" is not a number of passes from 1')),
        (("--policy", "deadline=soon"), ("--policy", '"soon" is not a number of seconds')),
        (("--policy", "auto=3"), ("--policy", 'takes no value, but has "=3"')),
        (("--policy", "\udcff"), ("--policy",)),
        (("--deadline", "99999999"), ("--deadline", '"99999999" is not a number of seconds')),
        (
            ("--deadline", "0.0001"),
            ("--deadline", "'0.0001' is not a number of seconds from 0.001 to"),
        ),
        (("--abort-after", "0.0001"), ("--abort-after", "from 0.001 to 999999999")),  # 0 would mean: never
        (("--connect-timeout", "0.0001"), ("--connect-timeout", "from 0.001 to 999999999")),
        (("--connect-timeout", "1e9"), ("--connect-timeout", "from 0.001 to 999999999")),
        (("--set", "request_wait_ms=0"), ("--set request_wait_ms", "0 ms", "1 to 90")),
        (("--set", "request_wait=1"), ("unknown parameter 'request_wait'", "did you mean 'request_wait_ms'")),
        (("--set", "passes=1_0"), ("--set passes", "'1_0' is not a whole number", "1 to 1000000 passes")),
        (("--set", "passes=\u0663"), ("--set passes", "is not a whole number")),
        (("--set", "passes=5", "--set", "passes=6"), ("--set passes was given twice",)),
        (("--set", "passes=5", "--policy", "passes=3"), ("--policy and --set passes",)),
        (
            ("--set", "downtime_limit_ms=5", "--max-downtime", "7"),
            ("--max-downtime and --set downtime_limit_ms",),
        ),
        (("--flags", "BOGUS"), ("--flags", '"BOGUS" at character 1', "'pcmig flags' lists them")),
        (("--flags", "TUNNELLED"), ("VIR_MIGRATE_TUNNELLED", "own tunnel")),
        (("--migrate-disks", "vda"), ("--migrate-disks needs --copy-storage-all",)),
        (("--disks-uri", "tcp://b", "--flags", "LIVE"), ("--disks-uri needs --copy-storage-all",)),
        (("--migrate-disks", ",", "--copy-storage-all"), ("--migrate-disks", "names no disk")),
        (("--migrateuri", ""), ("--migrateuri", "the value is empty")),
        (("--migrateuri", "tcp://fd00::2"), ("--migrateuri", "in brackets: tcp://[fd00::2]")),
        (("--resume-uri", "tcp://fd00::2"), ("--resume-uri", "in brackets: tcp://[fd00::2]")),
        (("--connect", "qemu+tcp://fd00::1/system"), ("--connect", "qemu+tcp://[fd00::1]/system")),
        (("--dname", ""), ("--dname", "the value is empty")),
        (("--json", ""), ("--json", "the value is empty")),
        (("--json", "/nosuch/x"), ("--json '/nosuch/x'", "does not exist")),
        (("--trace", "/nosuch/x"), ("--trace '/nosuch/x'", "does not exist")),
        (("--trace", "/"), ("--trace '/' is a folder",)),
        (("--trace", "same", "--json", "same"), ("--trace and --json name the same file",)),
        (("--connect", ""), ("--connect", "the value is empty")),
    ],
)
def test_migrate(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    code, text = run(capsys, "migrate", "g1", "qemu+tcp://b/system", *NOWHERE, *words)
    assert code == 2, text
    assert "cannot connect" not in text
    for message in messages:
        assert message in text


@pytest.mark.parametrize("command", ["migrate", "watch", "abort", "switch"])
def test_guest_that_cannot_be(capsys: pytest.CaptureFixture[str], command: str) -> None:
    rest = ["d"] if command == "migrate" else []
    for name, message in (("", "DOMAIN: the value is empty"), ("g\udcff", "is not UTF-8")):
        code, text = run(capsys, command, name, *rest, *NOWHERE)
        assert (code, message in text) == (2, True), text
    code, text = run(capsys, command, "g1", *rest, *NOWHERE)
    assert (code, text.startswith("pcmig: cannot connect to qemu+unix:///system?")) == (1, True), text


@pytest.mark.parametrize("command", ["watch", "abort", "switch"])
def test_guest_that_is_not_there(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, text = run(capsys, command, "nosuch", "-c", "test:///default")
    assert (code, 'no guest "nosuch" on test:///default' in text) == (1, True), text


@pytest.mark.parametrize("words", ["report --list", "report --json", "metrics"])
@pytest.mark.parametrize(("where", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left")])
def test_an_output_that_takes_nothing(words: str, where: str, why: str, tmp_path: pathlib.Path) -> None:
    run = subprocess.run(
        f"{sys.executable} -m pcmig.cli.main {words} {where}",
        shell=True,
        env={**os.environ, "PCMIG_LEDGERS_DIR": str(tmp_path), "PCMIG_JOURNAL_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"pcmig: standard output cannot be written: {why}"), run.stderr


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF, errno.ENOSPC, errno.EPIPE])
def test_an_error_that_comes_from_elsewhere_is_not_the_outputs(number: int) -> None:
    """A socket, a descriptor: there is no name of a file in it."""
    fails = "\n".join(
        (
            "import sys",
            "from pcmig.cli import flags, main",
            "def take(*_):",
            "    print('half a line', end='')",
            f"    raise OSError({number}, 'elsewhere')",
            "flags.Flags.take_action = take",
            "sys.exit(main.main(['flags', 'LIVE']))",
        )
    )
    run = subprocess.run([sys.executable, "-c", fails], capture_output=True, text=True)
    assert run.returncode == 70, run.stderr
    assert "elsewhere" in run.stderr and "standard output" not in run.stderr
    assert run.stdout == "half a line"


def test_help_for_a_command_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for word, message in (("migarte", "did you mean 'migrate'"), ("zzz", "the commands are")):
        code, text = run(capsys, "help", word)
        assert (code, message in text) == (2, True), text
    assert run(capsys, "help", "migrate", "more")[0] == 2
