# SPDX-License-Identifier: Apache-2.0
"""watch, abort and switch, on answers of libvirt that are given here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pcmig.cli import abort, job, main, switch, watch, watch_all, watched
from tests.unit.cli import fake_core as fake
from tests.unit.cli.fake_core import job as answer

URI = "qemu:///system"


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (abort, job, switch, watch, watch_all, watched):
        monkeypatch.setattr(module, "_core", fake)
    monkeypatch.setitem(main.sys.modules, "pcmig._core", fake)  # type: ignore[attr-defined]
    clock = fake.Clock()
    for module in (job, watch):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(watched, "POLL_S", 0.01)
    monkeypatch.setattr(abort, "CONFIRM_S", 0.1)
    monkeypatch.setattr(switch, "CONFIRM_S", 0.1)
    monkeypatch.setattr(watch, "SILENT_S", 0.1)
    monkeypatch.setattr(watch, "CONFIRM_S", 0.1)
    monkeypatch.setattr(watch, "INTERRUPTED_S", 0.1)
    monkeypatch.setattr(watch, "INTERRUPTED_RUNNING_S", 0.2)
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    fake.Migration.calls.clear()
    yield


def run(
    capsys: pytest.CaptureFixture[str], command: str, *answers: Any, dest: tuple[Any, ...] = ()
) -> tuple[int, str]:
    fake.jobs[:] = answers
    fake.dest_jobs[:] = dest
    fake.asked.clear()
    code = main.main([command, "g1", *(["--dest", fake.DEST] if dest else [])])
    out, err = capsys.readouterr()
    return code, out + err


PRE = answer("precopy", memory_total_bytes=100, memory_remaining_bytes=50, postcopy_requests=0)
MOVED = answer("postcopy", "postcopy", postcopy_requests=10)
ARRIVES = answer("postcopy", "postcopy")
RUNS = answer("none")
SHUTOFF = answer("none", "absent")
FAILED = answer("paused", "postcopy-failed")
NEARLY = answer("precopy", memory_remaining_bytes=fake.MIB, memory_bps=4 * fake.MIB)
FULL = answer("precopy", memory_remaining_bytes=64 * fake.MIB, memory_bps=4 * fake.MIB)
BACKUP = {**RUNS, "other_job": "backup"}
GONE = fake.NoDomainError("Domain not found")


@pytest.mark.parametrize(
    ("command", "answers", "code", "words"),
    [
        ("watch", (PRE, MOVED, GONE), 0, "done: g1 has left qemu:///system"),
        ("watch", (PRE, MOVED, SHUTOFF), 0, "done: g1 has left"),
        ("watch", (PRE, fake.LibvirtError("unexpected status"), MOVED, GONE), 0, "done"),
        ("watch", (PRE, RUNS, RUNS, MOVED, GONE), 0, "done: g1 has left"),  # statistics failed twice
        ("watch", (PRE, answer("none", "migrating"), MOVED, GONE), 0, "done: g1 has left"),
        ("watch", (PRE, RUNS), 1, "g1 runs on at the source"),
        ("watch", (RUNS,), 1, "no migration of g1 is under way at qemu:///system (the guest is running)"),
        ("watch", (SHUTOFF,), 1, "(the guest is not running there)"),
        ("watch", (answer("none", "migrating"),), 1, "connect to the source host"),
        ("watch", (GONE,), 1, "Domain not found"),
        (
            "watch",
            (PRE, MOVED, GONE),
            0,
            "judged by: it was in post-copy, and then its half here ended; the d",
        ),
        (
            "watch",
            (NEARLY, GONE),
            0,
            "judged by: pre-copy had 1.0 MiB left at 4.0 MiB/s, when it was last seen",
        ),
        ("watch", (FULL, GONE), 3, "in the middle of pre-copy (64.0 MiB left at 4.0 MiB/s"),
        ("watch", (PRE, FAILED), 3, "has said so for 0 s"),
        (
            "watch",
            (PRE, FAILED),
            3,
            "pcmig resume -c qemu:///system g1 DESTURI",
        ),
        ("watch", (FAILED,), 3, "pcmig resume -c SOURCEURI g1 DESTURI"),
        (
            "watch",
            (PRE, MOVED, *[answer("none", "dead")] * 5, GONE),
            0,
            "done: g1 has left",
        ),  # it takes a moment
        ("switch", (PRE, answer("none", "dead"), MOVED), 0, "runs at the destination"),
        # The daemons' connection broke, the two QEMUs went on.
        ("watch", (PRE, MOVED, FAILED, FAILED, MOVED, GONE), 0, "done: g1 has left"),
        ("watch", (PRE, MOVED, FAILED, FAILED, GONE), 0, "done: g1 has left"),
        ("watch", (PRE, answer("none", "dead")), 3, "g1 is crashed or shutting down"),
        ("watch", (PRE, fake.ConnectError("refused")), 4, "does not answer (refused)"),
        ("watch", (PRE, answer("unknown")), 4, "QEMU of g1 does not answer libvirt at qemu:///system"),
        ("watch", (ARRIVES, ARRIVES, RUNS), 0, "runs at qemu:///system with all of its memory"),
        ("watch", (ARRIVES, GONE), 3, "g1 is not running there"),
        ("abort", (PRE, PRE, RUNS), 0, "cancelled: g1 runs on at the source"),
        ("abort", (RUNS,), 1, "no migration of g1"),
        ("abort", (GONE,), 1, "Domain not found"),
        ("abort", (MOVED,), 4, "runs at the destination already"),
        ("abort", (PRE, MOVED), 4, "runs at the destination already"),
        ("abort", (FAILED,), 3, "waits to be resumed"),
        ("abort", (PRE, GONE), 1, "had finished before"),
        ("abort", (PRE,), 1, "the migration still runs"),
        ("abort", (PRE, PRE, answer("none", "paused")), 3, "does not run at qemu:///system: it is paused;"),
        ("abort", (PRE, PRE, answer("none", "dead")), 3, "it is crashed or shutting down"),
        ("abort", (PRE, PRE, answer("none", "unknown")), 3, "it is in a state that could not be read"),
        ("switch", (PRE, PRE, MOVED), 0, "post-copy: g1 runs at the destination"),
        ("switch", (MOVED,), 0, "post-copy: g1 runs at the destination"),
        ("switch", (PRE, GONE), 0, "runs at the destination"),
        ("switch", (PRE, RUNS), 1, "ended before it could switch"),
        ("switch", (PRE,), 1, "still in pre-copy"),
        ("switch", (FAILED,), 3, "interrupted"),
        ("switch", (RUNS,), 1, "no migration"),
        *[
            (
                command,
                (BACKUP,),
                1,
                "no migration of g1 is under way at qemu:///system (the guest is running, an",
            )
            for command in ("abort", "switch", "watch")
        ],
        ("abort", (answer("unknown"),), 1, "libvirt at qemu:///system cannot tell"),
        # QEMU stands still: nothing is known to be cancelled.
        ("abort", (PRE, answer("unknown")), 1, "the migration still runs"),
    ],
)
def test_command(
    capsys: pytest.CaptureFixture[str], command: str, answers: tuple[Any, ...], code: int, words: str
) -> None:
    assert (lambda done: (done[0], words in done[1] or done[1]))(run(capsys, command, *answers)) == (
        code,
        True,
    )


@pytest.mark.parametrize(
    ("answers", "dest", "code", "words"),
    [
        ((FULL, GONE), (RUNS,), 0, f"done: g1 runs at {fake.DEST}, as that host says"),
        ((FULL, GONE), (answer("none", "paused"),), 0, f"done: g1 is at {fake.DEST}, paused there"),
        ((PRE, MOVED, GONE), (MOVED, GONE, RUNS), 0, "as that host says"),  # it takes a moment
        (
            (PRE, MOVED, GONE),
            (GONE,),
            3,
            f"g1 is gone from {URI}, and at {fake.DEST} it is not running there",
        ),
        ((PRE, MOVED, GONE), (fake.ConnectError("refused"),), 0, f"ended; {fake.DEST} could not be asked"),
        (
            (FULL, GONE),
            (fake.ConnectError("refused"),),
            3,
            f"virsh -c {fake.DEST} domstate --reason {fake.UUID}",
        ),
        ((PRE, FAILED), (FAILED,), 3, f"{fake.DEST} it is paused, because post-copy was interrupted"),
        ((PRE, FAILED), (FAILED,), 3, f"pcmig resume -c {URI} g1 {fake.DEST}"),
        ((PRE, FAILED), (MOVED,), 3, f"at {fake.DEST} it is in post-copy"),
        ((PRE, RUNS), (GONE,), 1, "g1 runs on at the source"),
    ],
)
def test_watch_asks_the_destination(
    capsys: pytest.CaptureFixture[str], answers: tuple[Any, ...], dest: tuple[Any, ...], code: int, words: str
) -> None:
    done, text = run(capsys, "watch", *answers, dest=dest)
    assert (done, words in text) == (code, True), text
    # By UUID: it may have another name there.
    assert {guest for uri, guest in fake.asked if uri == fake.DEST} <= {fake.UUID}


def test_two_halves_that_are_interrupted_need_no_patience(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "INTERRUPTED_S", 60.0)
    assert run(capsys, "watch", PRE, FAILED, dest=(FAILED,))[0] == 3
    assert len(fake.asked) < 10


def test_refusal_asks_libvirt_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "abort", MOVED)
    run(capsys, "switch", MOVED)
    assert fake.Migration.calls == []


def test_abort_that_libvirt_refuses_because_the_guest_has_moved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str, domain: str) -> None:
        raise fake.InvalidOperationError("cannot abort migration in post-copy mode")

    monkeypatch.setattr(fake, "job_abort", refuse)
    assert run(capsys, "abort", PRE, MOVED)[0] == 4
    assert run(capsys, "abort", PRE, PRE) == (1, "pcmig: cannot abort migration in post-copy mode\n")


def test_a_guest_is_called_what_libvirt_calls_it(capsys: pytest.CaptureFixture[str]) -> None:
    """An id, or a name that looks like one, may be another guest than whoever typed it meant."""
    fake.jobs[:] = PRE, PRE, RUNS
    fake.asked.clear()
    assert main.main(["abort", "3"]) == 0
    assert capsys.readouterr().out == "cancelled: g1 runs on at the source (qemu:///system)\n"
    first, *others = [guest for _, guest in fake.asked]
    assert (first, set(others)) == ("3", {fake.UUID})


def test_figures_reach_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    total = 256 * fake.MIB
    figures = answer(
        "precopy",
        memory_total_bytes=total,
        memory_remaining_bytes=total // 4,
        normal_pages=total // 4096 * 3 // 4,
        memory_bps=fake.MIB,
    )
    _, text = run(capsys, "watch", figures, RUNS)
    assert "pre-copy pass 1 37% sent 0 B left 64.0 MiB rate 1.0 MiB/s" in text
    assert "eta at least 1:03" in text
