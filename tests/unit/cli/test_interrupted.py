# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at any moment of a short call: one line, exit code 130, no traceback."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from pcmig.cli import __main__ as entry
from pcmig.cli.base import ExitCode
from pcmig.journal import Entry, Journal
from tests.unit.cli.conftest import ROOT
from tests.unit.patience import NEVER_S, PATIENCE_S

# Sends SIGINT to itself at the import number N after the entry's first line, wherever that is; 'end': when
# the command is done and Python ends.
PRELUDE = """
import os, signal, sys
when, seen = sys.argv.pop(1), None
def at_import(event, arguments):
    global seen
    if event == "import":
        seen = 0 if arguments[0] == "pcmig.cli.main" else seen + 1 if seen is not None else None
        if str(seen) == when:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(at_import)
if when == "end":
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
from pcmig.cli.__main__ import main
sys.exit(main())
"""
WAITS = "import sys; from pcmig.cli.__main__ import main; sys.exit(main())"


def run(when: int | str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE, str(when), "flags", "--json", "LIVE"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [0, 1, 2, 4, 7, 11, 18, 30, 50, 80])
def test_while_it_imports(number: int) -> None:
    done = run(number)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "pcmig: interrupted\n"), done.stderr


def test_when_the_command_is_done_its_exit_code_stands() -> None:
    done = run("end")
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")
    assert '"ok": true' in done.stdout


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As a shell's background job has it."""
    done = run(7, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")


def test_while_a_command_waits(tmp_path: pathlib.Path) -> None:
    """KeyboardInterrupt in the command itself: it reads a trace that nobody writes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", WAITS, "replay", str(pipe)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        writer = os.open(pipe, os.O_WRONLY)  # returns when the command opens it
        sleeps = 0
        while sleeps < 5:  # then it is in its read()
            time.sleep(0.02)
            state = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
            sleeps = sleeps + 1 if state.split()[0] == "S" else 0
        process.send_signal(signal.SIGINT)
        assert process.wait() == ExitCode.INTERRUPTED
        os.close(writer)
        assert process.stderr is not None and process.stderr.read() == "pcmig: interrupted\n"


def test_the_entry_imports_nothing_before_it_is_quiet() -> None:
    code = (
        "import sys; before = set(sys.modules); import pcmig.cli.__main__; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"pcmig", "pcmig.cli", "pcmig.cli.__main__", "_signal", "os", "sys"}


def test_the_code_is_that_of_the_table() -> None:
    assert entry.INTERRUPTED == ExitCode.INTERRUPTED


def test_while_an_error_is_told(tmp_path: pathlib.Path) -> None:
    """Ctrl-C while libvirt is waited for shows when that is over: often in the handler of its error."""
    code = (
        "import sys; from pcmig.cli import __main__ as entry, main\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "main.complain = interrupted\n"
        "sys.exit(entry.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "replay", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "pcmig: interrupted\n")


def test_resume_of_hosts_that_do_not_answer_is_left_at_the_first_ctrl_c(tmp_path: pathlib.Path) -> None:
    """Nobody knows what there is to cancel, and nobody would ever confirm it."""
    uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f"
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"qemu+tcp://127.0.0.1:{server.getsockname()[1]}/system"
        engine = {"flags": 3, "policy": "auto", "params": {}, "connect_timeout_ms": 300}
        entry = Entry(uuid, "g1", silent, silent, engine, "2026-11-21T10:00:00Z", caller={"program": "pcmig"})
        Journal(tmp_path).write(entry)
        command = [sys.executable, "-u", "-c", WAITS, "resume", "g1"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PCMIG_JOURNAL_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if f"{silent} does not answer; it is asked until it does" in line:
                break
        process.send_signal(signal.SIGINT)
        text = process.communicate()[0]
    assert process.returncode == ExitCode.NEEDS_OPERATOR
    assert "no host has said how the migration stands: leaving it as it is" in text
    assert "type:\n  pcmig status g1\n" in text
    assert Journal(tmp_path).read(uuid) is not None


@pytest.mark.parametrize(
    ("command", "order", "says"),
    [
        ("abort", "job_abort", "libvirt was asked to cancel the migration of g1, and may yet do it"),
        ("switch", "job_switch", "libvirt was asked to switch g1 to post-copy, and may yet do it"),
        ("abort", "job_status", ""),
        ("wake", "job_status", ""),
    ],
)
def test_a_host_that_does_not_answer_is_not_waited_for(command: str, order: str, says: str) -> None:
    """libvirt's calls return when they like, and Python hears of Ctrl-C when they do: ORDER takes longer than
    is waited for here, and no signal ends it."""
    code = (
        "import ctypes, importlib, sys, time\n"
        "from pcmig.cli.__main__ import main\n"
        "from pcmig.cli import job, turn_back\n"
        "from tests.unit.cli import fake_core as fake\n"
        f"module = importlib.import_module('pcmig.cli.{command}')\n"
        "module._core = job._core = turn_back._core = fake\n"
        "fake.jobs[:] = [fake.job('precopy')]\n"
        "c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)\n"
        "c.pthread_mutex_lock(lock)\n"
        "def waits(*_):\n"
        "    print('waits', flush=True)\n"
        f"    c.pthread_mutex_timedlock(lock, (ctypes.c_long * 2)(int(time.time()) + {NEVER_S:.0f}, 0))\n"
        f"fake.{order} = waits\n"
        f"sys.argv[1:] = ['{command}', 'g1']\n"
        "sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "waits\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == ExitCode.INTERRUPTED
        finally:
            process.kill()
        said = process.stderr.read()
    assert said.startswith("pcmig: interrupted") and says in said and said.count("pcmig watch") == bool(says)
