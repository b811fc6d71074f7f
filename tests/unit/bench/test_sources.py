# SPDX-License-Identifier: Apache-2.0
"""What is read from virsh, from /proc and from commands."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests.bed import BedError
from tests.bench import program
from tests.bench.program import read, write
from tests.bench.switchover import commands, plot
from tests.bench.switchover.__main__ import check, main, make_parser
from tests.bench.switchover.events import Event, first, parse_line
from tests.bench.switchover.machine import CpuTimes, parse_net_dev
from tests.bench.switchover.poll_client import WHEN

NET_DEV = """\
Inter-|   Receive                                 |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier
    lo:    1       0    0    0    0     0          0         0     2       0    0    0    0     0       0
  mig0:  516       6    0    0    0     0          0         0   777       6    0    0    0     0       0
"""


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("event 'lifecycle' for domain 'g1': Resumed Post-copy", ("g1", "Resumed Post-copy")),
        ("11:13:24.784+0000: event 'lifecycle' for domain g1: Stopped Migrated", ("g1", "Stopped Migrated")),
        ("event 'lifecycle' for domain 'g1': Shutdown Finished after", ("g1", "Shutdown Finished after")),
        ("event 'job-completed' for domain 'g1':", None),
        ("events received: 3", None),
        ("", None),
    ],
)
def test_lines_of_virsh_event(line: str, event: tuple[str, str] | None) -> None:
    assert parse_line(line) == event


def test_first_event_after_the_start() -> None:
    seen = [
        Event(1.0, "b", "Resumed Migrated"),
        Event(2.0, "a", "Resumed Migrated"),
        Event(3.0, "b", "Resumed Migrated"),
    ]
    assert first(seen, "b", "Resumed Migrated", 1.5) == 3.0
    assert first(seen, "b", "Stopped Migrated", 0.0) is None


def test_bytes_sent() -> None:
    assert parse_net_dev(NET_DEV, "mig0") == 777
    with pytest.raises(ValueError, match="no interface mig1"):
        parse_net_dev(NET_DEV, "mig1")


def test_cpu_shares() -> None:
    before = CpuTimes.parse("cpu  100 0 50 800 40 0 10 0 0 0\ncpu0 1 2 3")
    after = CpuTimes.parse("cpu  150 0 75 860 40 0 15 10 0 0\ncpu0 1 2 3")
    assert after.shares_since(before) == {"busy_percent": 60.0, "steal_percent": 6.7}
    assert before.shares_since(before)["steal_percent"] == 0.0


def test_this_machine_s_cpu_times() -> None:
    assert 0 < CpuTimes.now().idle <= CpuTimes.now().total


def stats(**more: int) -> dict[str, int]:
    return {
        "memory_iteration": 1,
        "memory_total": 40960,
        "memory_normal": 4,
        "memory_constant": 5,
        "memory_page_size": 4096,
    } | more


def test_when_the_poll_switches() -> None:
    assert not WHEN["iteration"](stats())
    assert WHEN["iteration"](stats(memory_iteration=2))
    assert not WHEN["pass"](stats(memory_iteration=460))
    assert WHEN["pass"](stats(memory_normal=5))
    assert not WHEN["pass"](stats(memory_total=0))
    assert WHEN["pass"](stats(memory_normal=5, memory_page_size=0))


def test_a_command_that_ends_well() -> None:
    ran = commands.run([sys.executable, "-I", "-S", "-c", "print('hello')"])
    assert (ran.code, ran.said, ran.error) == (0, "hello\n", None)
    assert ran.cpu_s > 0
    assert ran.start_s < ran.end_s


def test_a_command_that_fails() -> None:
    ran = commands.run(["sh", "-c", "echo one; echo two >&2; exit 3"])
    assert ran.error == "exit status 3: two"
    assert commands.run(["false"]).error == "exit status 1: it said nothing"
    assert commands.run(["sh", "-c", "kill -9 $$"]).code == -9


def test_poll_client_has_libvirt_s_words_for_a_failure() -> None:
    program = str(commands.POLL_CLIENT)
    words = ["--connect", "qemu+unix:///system?socket=/nowhere/sock", "--domain", "g1", "--when", "pass"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", program, *words, "--period-ms", "100"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "poll client: " in done.stderr
    assert "/nowhere/sock" in done.stderr
    assert "Traceback" not in done.stderr


# The command line


@pytest.mark.parametrize(
    "words",
    [
        ["--rounds", "0"],
        ["--rate", "0.1"],
        ["--traces", "/nowhere"],
        ["--json", "/nowhere/file"],
        ["--ways", "virtsh"],
    ],
)
def test_what_cannot_be_is_told_before_anything_is_measured(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("bench: ")


def test_check_takes_the_defaults() -> None:
    check(make_parser().parse_args([]))


CONTENT = {
    "schema": 1,
    "rate_mbit": 100.0,
    "machine": {
        "cores": 2,
        "cpu": "a CPU",
        "memory_mib": 1024,
        "kernel": "6.1",
        "python": "3.11",
        "stacks": {
            "forky": {"qemu": "11.1.2", "libvirt": "12.8.0"},
            "backports": {"qemu": "10", "libvirt": "11"},
        },
    },
    "rounds": [],
}


def one_round(way: str, silence_ms: float, **more: object) -> dict[str, object]:
    return {
        "stack": "forky",
        "way": way,
        "round": 1,
        "error": None,
        "guest_switch_silence_ms": silence_ms,
        "guest_later_silence_ms": 100.0,
        "baseline_pps": 19_000,
        "work_pages": 500_000,
        "work_elapsed_s": 32.0,
        "work_before_switch_pages": 10_000,
        "work_before_switch_elapsed_s": 12.0,
        "complete_s": 30.0,
        "command_s": 31.0,
        "switch_s": 2.0,
        "bytes": 1_000_000,
        "cpu_ms": 300.0,
        "cpu_after_start_ms": None,
        "switch_late_us": 800 if way.startswith("pcmig") else None,
        "settle": {"waited_s": 3.5, "disturbed": None},
        "busy_percent": 50.0,
        "steal_percent": 0.5,
    } | more


def test_a_recorded_file_is_shown(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    rounds = [
        one_round("virsh", 2000.0, baseline_pps=9000),
        one_round("pcmig", 200.0),
        one_round("pcmig", 300.0),
        one_round("poll", 1.0, settle={"waited_s": 60.0, "disturbed": "a heartbeat took 300 ms"}),
    ]
    write(file, CONTENT | {"rounds": rounds})
    assert main(["--from", str(file)]) == 0
    out = capsys.readouterr().out
    assert "QEMU 11.1.2, libvirt 12.8.0" in out
    assert "250 (200-300)" in out
    assert "0.12" in out  # 250 / 2000
    assert "reached" in out
    assert "disturbed before: poll, round 1: a heartbeat took 300 ms" in out
    assert "disturbed before: virsh, round 1: 9000 pages/s of work, and 19000 in another round" in out
    assert "QEMU 10" not in out  # no round of it


def test_a_failed_round_shows_in_the_exit_status(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    write(file, CONTENT | {"rounds": [one_round("virsh", 2000.0, error="exit status 1: no")]})
    assert main(["--from", str(file)]) == 1
    assert "left out: virsh, round 1: exit status 1: no" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', "null"])
def test_a_file_of_something_else(tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(BedError, match=r"bench\.json"):
        read(file, "rounds")


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BedError, match="No such file"):
        read(tmp_path / "none.json", "rounds")


def test_a_file_of_another_bench(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "bench.json", CONTENT)
    with pytest.raises(BedError, match="not of this bench"):
        read(tmp_path / "bench.json", "seconds")


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "bench.json", CONTENT)
    assert read(tmp_path / "bench.json", "rounds") == json.loads(json.dumps(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_nothing_to_draw(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BedError, match=r"nothing to draw|needs matplotlib"):
        plot.draw(CONTENT, tmp_path / "plot.svg")


def test_tables_do_not_wrap_in_a_file() -> None:
    assert program.make_console().width >= program.WIDTH_MIN
