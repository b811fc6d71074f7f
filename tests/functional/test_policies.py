# SPDX-License-Identifier: Apache-2.0
"""Every policy, on a guest for which it matters."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from typing import Any

import pytest

from tests.bed import BedError
from tests.functional.scene import BUSY, IDLE, SLOW_MBIT, Run, Scene
from tests.functional.test_bad_input import other_xml


def test_a_paused_guest_moves_in_pre_copy_and_stays_paused(scene: Scene) -> None:
    """Whatever the policy: a host with paused guests can be emptied."""
    source = scene.source
    destination = scene.bed.other(source)
    source.virsh("suspend", scene.name)
    run = scene.migration("--policy", "immediate", source=source).wait()
    try:
        run.expect(0, "the guest is paused: it moves in pre-copy", f"{scene.name} is paused, as it was, at")
        assert "switch" not in run.actions
        assert (destination.domain_state(scene.name) or "").startswith("paused")
        assert source.domain_state(scene.name) is None
    finally:
        destination.virsh("resume", scene.name)
    scene.expect_at(destination)


def test_a_guest_that_starts_with_its_host_does_so_where_it_went(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    (source.state / "run/pcmig/other.xml").write_text(other_xml())
    source.virsh("define", "/run/pcmig/other.xml")
    source.virsh("autostart", "other")
    source.virsh("start", "other")
    try:
        scene.migration("--policy", "never", source=source, domain="other").wait().expect(
            0, "done: other runs"
        )
        assert "enable" in destination.virsh("dominfo", "other").partition("Autostart:")[2].splitlines()[0]
        assert source.domain_state("other") is None
    finally:
        for host in (source, destination):
            for word in ("destroy", "undefine"):
                with contextlib.suppress(BedError):
                    host.virsh(word, "other")
    scene.expect_at(source)


def test_auto_takes_a_busy_guest_to_post_copy(scene: Scene) -> None:
    source = scene.source
    scene.bed.network.limit(SLOW_MBIT)
    run = scene.migrate().expect(0, r"switch", rf"done: {scene.name} runs at qemu\+tcp://")
    assert "switch" in run.actions
    verdict = scene.expect_at(scene.bed.other(source), run)
    assert verdict.switch_silence_ms is not None


def test_auto_lets_an_idle_guest_finish_in_pre_copy(forky: Scene) -> None:
    forky.prepare(IDLE)
    source = forky.source
    run = forky.migrate().expect(0, r"done: ")
    assert "switch" not in run.actions, run.decisions
    assert run.report is not None
    assert run.report["status"]["postcopy_requests"] == 0
    forky.expect_at(forky.bed.other(source), run)


def _switched(run: Run) -> dict[str, Any]:
    """The first decision on the switch that was about anything but the link's queue."""
    wanted = [
        decision
        for decision in run.decisions
        if decision["reason"] not in ("drained", "drain-timeout", "drain-blind")
    ]
    return next(decision for decision in wanted if decision["action"] in ("drain", "switch"))


@pytest.mark.parametrize(("policy", "passes"), [("first-pass", 1), ("passes=2", 2)])
def test_a_number_of_passes(scene: Scene, policy: str, passes: int) -> None:
    source = scene.source
    run = scene.migrate("--policy", policy).expect(0, "done: ")
    decision = _switched(run)
    assert (decision["reason"], decision["a"]) == ("passes-done", passes), run.decisions
    assert run.report is not None
    # What the guest has in its memory was sent that often: the worker's pages alone are 32 MiB.
    assert run.report["status"]["memory_processed_bytes"] >= passes * (32 << 20)
    scene.expect_at(scene.bed.other(source), run)


def test_a_deadline(scene: Scene) -> None:
    source = scene.source
    run = scene.migrate("--deadline", "1.5").expect(0, "done: ")
    decision = _switched(run)
    assert decision["reason"] == "deadline", run.decisions
    assert 1500 <= decision["t_us"] / 1000 <= 2000, decision
    scene.expect_at(scene.bed.other(source), run)


def test_immediate(scene: Scene) -> None:
    source = scene.source
    run = scene.migrate("--policy", "immediate").expect(0, "done: ")
    assert _switched(run)["reason"] == "immediate", run.decisions
    scene.expect_at(scene.bed.other(source), run)


@pytest.mark.parametrize("how", ["pcmig switch", "SIGUSR1", "virsh migrate-postcopy"])
def test_manual(scene: Scene, how: str) -> None:
    """It stays in pre-copy until told, by whomever."""
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.migration("--policy", "manual")
    scene.wait_precopy(source, mib=16)
    if how == "pcmig switch":
        scene.ask("switch", source).expect(0, f"post-copy: {scene.name} runs at the destination")
    elif how == "SIGUSR1":
        command.process.send_signal(signal.SIGUSR1)
    else:
        source.virsh("migrate-postcopy", scene.name)
    run = command.wait().expect(0, "done: ")
    assert ("switch" in run.actions) == (how == "SIGUSR1"), run.decisions
    assert run.report is not None
    assert run.report["status"]["postcopy_requests"] > 0
    scene.expect_at(destination, run)


def test_never_is_given_up_after_its_time(scene: Scene) -> None:
    source = scene.source
    run = scene.migrate("--policy", "never", "--abort-after", "3")
    run.expect(1, r"failed after|cancelled after", "runs on at the source")
    assert "abort" in run.actions and "switch" not in run.actions
    assert 3 <= run.elapsed_s < 8
    scene.expect_at(source, run)


def test_never_moves_an_idle_guest_without_post_copy(forky: Scene) -> None:
    forky.prepare(IDLE)
    source = forky.source
    run = forky.migrate("--policy", "never").expect(0, "done: ")
    assert "VIR_MIGRATE_POSTCOPY" not in run.report["flags"] if run.report else False
    forky.expect_at(forky.bed.other(source), run)


def test_there_and_back_three_times(scene: Scene) -> None:
    for _ in range(3):
        for _ in range(2):
            source = scene.source
            run = scene.migrate("--policy", "first-pass", "-q").expect(0)
            assert run.out == "" and run.err == "", run
            scene.expect_at(scene.bed.other(source), run)


def test_the_definition_of_a_persistent_guest_moves(forky: Scene) -> None:
    forky.prepare(dataclasses.replace(BUSY, persistent=True))
    source = forky.source
    destination = forky.bed.other(source)
    run = forky.migrate("--policy", "first-pass").expect(0, "done: ")
    forky.expect_at(destination, run)
    assert "Persistent:     yes" in destination.virsh("dominfo", forky.name)
    assert forky.name not in source.virsh("list", "--all", "--name")
