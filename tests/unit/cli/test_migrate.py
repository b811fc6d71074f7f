# SPDX-License-Identifier: Apache-2.0
"""`pcmig migrate` from outside: exit codes, signals, output on pipes and terminals."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.unit.cli.conftest import MIGRATE, ROOT, RUN_FAKE, Start
from tests.unit.cli.fake_core import GO_ENVIRONMENT
from tests.unit.patience import NEVER_MS, PATIENCE_S, wait_for


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("quick", 0, "done: g1 runs at qemu+tcp://b/system after 33.7 s"),
        ("failed", 1, "connection refused\ng1 runs on at the source (qemu:///system)"),
        (
            "operator",
            3,
            "type:\n  pcmig resume -c qemu:///system g1 qemu+tcp://b/system\nor, without pcmig:\n  virsh",
        ),
    ],
)
def test_exit_code_and_verdict(start: Start, script: str, code: int, words: str) -> None:
    assert (lambda done: (done[0], words in done[1]))(start(script, *MIGRATE).finish()) == (code, True)


def test_plain_lines(start: Start) -> None:
    code, text = start("quick", *MIGRATE).finish()
    assert code == 0
    told, *lines = text.splitlines()
    assert told == "pcmig: way back: nothing or seconds"
    switched = "switch: pass 2 dirtied 31804 of 32768 pages (97 %)"
    at = next(number for number, line in enumerate(lines) if switched in line)
    before, after = lines[:at], lines[at + 1]
    precopy = (
        r"\d+\.\ds pre-copy pass 1 45% sent 120 MiB left 130 MiB rate 11\.8 MiB/s dirty 6\.1 MiB/s "
        r"eta 0:11-0:38"
    )
    assert before and all(re.fullmatch(precopy, line) for line in before)  # more than one where it takes long
    assert "post-copy 75%" in after
    assert "requests 1330 (412/s) pace 3 MiB/s queue 64 KiB eta 0:09-0:11" in after
    assert "\x1b" not in text


def test_quiet_prints_nothing_on_success(start: Start) -> None:
    assert start("quick", *MIGRATE, "-q").finish() == (0, "")


def test_no_progress_leaves_decisions_and_verdict(start: Start) -> None:
    code, text = start("quick", *MIGRATE, "--no-progress").finish()
    assert code == 0
    assert "rate" not in text and "switch: pass 2" in text and "done: g1" in text


def test_terminal_shows_bar_and_decisions(start: Start) -> None:
    code, text = start("quick", *MIGRATE, terminal=True).finish()
    assert code == 0
    assert "pre-copy" in text and "45%  pass 1" in text and "━" in text
    assert "75%" in text
    assert "requests\xa01330\xa0(412/s)" in text and "done: g1" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", text), "colours on a terminal"


def test_no_color(start: Start) -> None:
    _, text = start("quick", *MIGRATE, terminal=True, env={"NO_COLOR": "1"}).finish()
    assert "post-copy" in text
    assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", text)


def test_dumb_terminal_gets_plain_lines(start: Start) -> None:
    _, text = start("quick", *MIGRATE, terminal=True, env={"TERM": "dumb"}).finish()
    assert "\x1b" not in text and "pre-copy pass 1 45%" in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_precopy_cancels(start: Start, number: signal.Signals, terminal: bool) -> None:
    running = start("precopy", *MIGRATE, terminal=terminal)
    running.read_until("45%")
    running.send(number)
    code, text = running.finish()
    assert code == 1
    assert "cancelled after" in text and "g1 runs on at the source" in text
    assert "Traceback" not in text


def test_interrupt_in_postcopy_detaches(start: Start) -> None:
    running = start("postcopy", *MIGRATE, "-c", "qemu+ssh://a b/system")
    running.read_until("post-copy 75%")
    running.send(signal.SIGINT)
    code, text = running.finish()
    assert code == 4
    assert "detached" in text and "pcmig watch -c 'qemu+ssh://a b/system' g1" in text


def test_interrupt_that_comes_too_late_detaches(start: Start, tmp_path: pathlib.Path) -> None:
    go = tmp_path / "go"
    running = start("late", *MIGRATE, env={GO_ENVIRONMENT: str(go)})
    running.read_until("45%")
    running.send(signal.SIGINT)
    running.read_until("cancelling")
    go.touch()
    code, text = running.finish()
    assert code == 4
    assert "moved before the cancellation reached it" in text


def test_more_interrupts_while_cancelling_lose_nothing(start: Start) -> None:
    running = start("stubborn", *MIGRATE)
    running.read_until("45%")
    for words in ("cancelling: ", "Ctrl-C 2 times more", "Ctrl-C once more", "leaving without"):
        running.send(signal.SIGINT)
        running.read_until(words)
    code, text = running.finish()
    assert code == 4
    assert "pcmig watch -c qemu:///system g1" in text


def test_sigusr1_switches(start: Start) -> None:
    running = start("precopy", *MIGRATE, "--policy", "manual")
    running.read_until("45%")
    running.send(signal.SIGUSR1)
    running.read_until("post-copy 75%")
    running.send(signal.SIGINT)
    assert running.finish()[0] == 4


def test_hangup_goes_on_unseen(start: Start, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    go = tmp_path / "go"
    words = (*MIGRATE, "--json", str(report))
    running = start("long", *words, terminal=True, env={GO_ENVIRONMENT: str(go)})
    running.read_until("45%")
    running.send(signal.SIGHUP)
    running.stop_reading()
    go.touch()
    assert running.finish()[0] == 0
    assert json.loads(report.read_text())["outcome"] == "completed"


def test_reader_that_goes_away_does_not_end_the_migration(start: Start, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    go = tmp_path / "go"
    running = start("long", *MIGRATE, "--json", str(report), env={GO_ENVIRONMENT: str(go)})
    running.read_until("45%")
    running.stop_reading()
    go.touch()
    assert running.finish()[0] == 0
    assert json.loads(report.read_text())["exit_code"] == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN_FAKE, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_json_on_stdout_is_only_json() -> None:
    done = run("quick", *MIGRATE, "--json", "-", "--set", "request_wait_ms=3", "--max-downtime", "250")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["schema"] == 1
    assert result["outcome"] == "completed" and result["exit_code"] == 0
    assert result["params"] == {"request_wait_ms": 3, "downtime_limit_ms": 250}
    assert result["flags"] == ["LIVE", "PEER2PEER", "POSTCOPY", "PERSIST_DEST", "UNDEFINE_SOURCE"]
    assert result["status"]["phase"] == "finished" and result["decisions"][0]["action"] == "switch"
    assert "done: g1" in done.stderr


def test_json_tells_of_a_migration_that_was_not_started(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    done = run("quick", "migrate", "nosuch", "d", "--json", str(report))
    assert done.returncode == 1
    result = json.loads(report.read_text())
    assert result["outcome"] == "not-started" and result["exit_code"] == 1 and "nosuch" in result["error"]
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)


def test_a_defect_leaves_the_migration_to_itself(tmp_path: pathlib.Path) -> None:
    """It must not go on unsteered, with the pace of that moment."""
    report = tmp_path / "report.json"
    done = run("broken", *MIGRATE, "--json", str(report))
    assert done.returncode == 70
    assert "internal error: ZeroDivisionError" in done.stderr and "Traceback" not in done.stderr
    assert "goes on without pcmig" in done.stderr and "pcmig watch -c qemu:///system g1" in done.stderr
    result = json.loads(report.read_text())
    assert (result["outcome"], result["exit_code"]) == ("detached", 70)
    assert result["error"].startswith("internal error: ZeroDivisionError")


def test_a_defect_is_not_taken_for_a_full_standard_output() -> None:
    """Exit code 1 would say that the guest runs on at the source."""
    done = run("broken-io", *MIGRATE)
    assert done.returncode == 70
    assert "internal error: RuntimeError: OSError: [Errno 5] Input/output error" in done.stderr


def test_old_flag_name_chooses_the_policy_unless_one_was_given() -> None:
    old = (*MIGRATE, "--flags", "POSTCOPY_AFTER_PRECOPY", "--json", "-")
    assert json.loads(run("quick", *old).stdout)["policy"] == "first-pass"
    assert json.loads(run("quick", *old, "--policy", "auto").stdout)["policy"] == "auto"


def test_guest_that_cannot_do_postcopy_is_refused_unless_never() -> None:
    done = run("quick", "migrate", "vfio", "d")
    assert done.returncode == 1 and "--policy never" in done.stderr
    assert run("quick", "migrate", "vfio", "d", "--policy", "never").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("g1",), "DESTURI"),
        (("g1", "d", "--json", "/nosuch/x"), "does not exist"),
        (("g1", "d", "--flags", "BOGUS"), "BOGUS"),
        (("g1", "d", "--flags", "TUNNELLED"), "libvirt's tunnel does not carry post-copy"),
        (("g1", "d", "--set", "request_wait=3"), "did you mean 'request_wait_ms'"),
        (("g1", "d", "--deadline", "5", "--policy", "never"), "not allowed with"),
        (("g1", "d", "--deadl", "5"), "unrecognized arguments"),
        (("", "d"), "DOMAIN: the value is empty"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], words: str) -> None:
    done = run("quick", "migrate", *arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_waiting_costs_no_cpu(start: Start) -> None:
    running = start("precopy", *MIGRATE)
    running.read_until("45%")
    pid = running.process.pid

    def ticks() -> int:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def used() -> int:
        before = ticks()
        time.sleep(2.0)
        return ticks() - before

    # A slow start may not be over yet; what waits in the wrong way uses all of them each time.
    wait_for(lambda: used() <= 3, "rest")  # of 200


# For whatever is not told otherwise, a connection is waited for without end.
PATIENT = f"""
import sys
from pcmig import _core
from pcmig.cli.main import main
_core.set_connect_timeout({NEVER_MS})
sys.exit(main())
"""


@pytest.mark.parametrize("end", ["source", "destination"])
def test_no_connection_is_waited_for_longer_than_asked(end: str) -> None:
    """A port that accepts and never speaks: whichever connection of the command meets it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"qemu+tcp://127.0.0.1:{server.getsockname()[1]}/system"
        ends = (silent, silent) if end == "source" else ("test:///default", silent)
        for waits_s in ("0.3", "1.0", "5.0", "30.0"):
            words = ["-c", ends[0], "test", ends[1], "--policy", "never", "--connect-timeout", waits_s]
            done = subprocess.run(
                [sys.executable, "-c", PATIENT, "migrate", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            if "no answer from test:" not in done.stderr:  # on a busy machine that one is late too
                break
    assert done.returncode == 1 and f"no answer from {silent} within {waits_s} s" in done.stderr
