# SPDX-License-Identifier: Apache-2.0
"""`pcmig replay` as operators type it."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys

import pytest

from tests.unit import traces

ROOT = pathlib.Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "pcmig.cli.main", "replay"]


def run(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture
def lines() -> list[str]:
    return traces.recorded()


@pytest.fixture
def trace(lines: list[str], tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "trace"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_identical(trace: pathlib.Path) -> None:
    done = run(trace)
    assert done.returncode == 0, done.stderr
    out = done.stdout.splitlines()
    assert out[0].startswith("policy auto: ")
    assert out[1].split() == ["line", "time", "s", "action", "decision"]
    assert any(" switch " in line for line in out)
    assert out[-1].startswith("identical: ")


def test_different(trace: pathlib.Path, lines: list[str]) -> None:
    number = next(i for i, line in enumerate(lines) if " decision " in line)
    lines[number] = lines[number].replace(" pace_mib=", " pace_mib=7")
    trace.write_text("\n".join(lines) + "\n")
    done = run(trace)
    assert done.returncode == 1
    assert "recorded" in done.stdout and "replayed" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("different: 1 of ")
    assert f"the first in line {number + 1}: pace_mib was " in last


def test_missing_decision(trace: pathlib.Path, lines: list[str]) -> None:
    lines.remove(next(line for line in lines if " decision " in line))
    trace.write_text("\n".join(lines) + "\n")
    done = run(trace)
    assert done.returncode == 1
    assert "nothing" in done.stdout


@pytest.mark.parametrize("option", [("--policy", "never"), ("--set", "request_wait_ms=3")])
def test_what_if(trace: pathlib.Path, option: tuple[str, str]) -> None:
    done = run(trace, *option)
    assert done.returncode == 0, done.stderr
    assert " decisions would differ, from line " in done.stdout.splitlines()[-1]


def test_what_if_nothing(trace: pathlib.Path) -> None:
    done = run(trace, "--policy", "auto")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("nothing would change")


def test_json(trace: pathlib.Path) -> None:
    done = run(trace, "--json", "--ledger")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["identical"] and not report["what_if"]
    assert report["ledger"]["balance"]["balanced"]


def test_a_trace_that_is_cut_is_named_and_the_rest_is_shown(trace: pathlib.Path, lines: list[str]) -> None:
    trace.write_text(trace.read_text()[:-2])
    note = f"pcmig: note: {trace} ends within line {len(lines)}, as if its recording was cut off"
    done = run(trace, "--ledger")
    assert done.returncode == 0 and done.stderr.startswith(note)
    assert done.stdout.splitlines()[-1].startswith("identical: ")
    done = run(trace, "--json")
    assert done.returncode == 0 and done.stderr.startswith(note)
    assert json.loads(done.stdout)["cut"] == len(lines)


def test_ledger(trace: pathlib.Path) -> None:
    done = run(trace, "--ledger")
    assert "balance: balanced" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("identical: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "none: No such file or directory"),
        (("/",), "/: Is a directory"),
        (("setup.py",), "setup.py: line 2: "),
        (("TRACE", "--set", "request_wait_ms"), "write NAME=VALUE"),
        (("TRACE", "--set", "request_wait_ms=x"), "not a whole number"),
        (("TRACE", "--set", "request_wait_ms=0"), "out of bounds (1 to 90)"),
        (("TRACE", "--set", "speed=1"), "unknown parameter 'speed'"),
        (("TRACE", "--policy", "fast"), "fast"),
        ((), "TRACE"),
    ],
)
def test_usage(trace: pathlib.Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(*(str(trace) if word == "TRACE" else word for word in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_terminal(trace: pathlib.Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*COMMAND, str(trace), "--policy", "never"], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[" in text
    assert b"would differ" in text
