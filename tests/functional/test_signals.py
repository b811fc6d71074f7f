# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, and the commands on a migration that somebody else started."""

from __future__ import annotations

import re
import shlex
import signal

import pytest

from tests.functional.scene import Scene


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_pre_copy_cancels(scene: Scene, number: signal.Signals) -> None:
    source = scene.source
    command = scene.in_precopy(source)
    command.process.send_signal(number)
    run = command.wait(15).expect(1, "cancelled after", f"{scene.name} runs on at the source")
    assert run.report is not None and run.report["interrupted"]
    scene.expect_at(source, run)


def test_an_interrupt_while_it_sets_up_cancels(scene: Scene) -> None:
    """Before there is a job to cancel."""
    source = scene.source
    command = scene.migration("--policy", "manual")
    scene.wait_for(lambda: "setting up" in command.said(), "it sets up")
    command.interrupt()
    run = command.wait(20).expect(1, f"{scene.name} (runs on|stays)|interrupted before")
    scene.expect_at(source, run)


def test_an_interrupt_in_post_copy_detaches_and_watch_sees_the_end(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    command.interrupt()
    left = command.wait(10).expect(4, "detached: the migration of", "goes on without pcmig")
    typed = re.search(r"^  pcmig (watch .*)$", left.out, re.M)
    assert typed is not None, left.out
    watched = scene.run(*shlex.split(typed[1]), host=source)
    watched.expect(0, f"done: {scene.name} has left")
    verdict = scene.expect_at(destination, left)
    assert verdict.switch_silence_ms is not None


def test_watch_at_the_destination(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    scene.ask("watch", destination).expect(0, f"done: {scene.name} runs at")
    run = command.wait().expect(0)
    scene.expect_at(destination, run)


def test_watch_leaves_the_migration_alone(scene: Scene) -> None:
    source = scene.source
    command = scene.in_precopy(source)
    watch = scene.start("watch", "-c", source.uri, scene.name)
    scene.wait_for(lambda: "pre-copy" in watch.said(), "watch shows it")
    watch.interrupt()
    watch.wait(10).expect(4, "goes on")
    assert command.process.poll() is None
    scene.ask("abort", source).expect(0, f"cancelled: {scene.name} runs on at the source")
    run = command.wait(15).expect(1, "runs on at the source")
    scene.expect_at(source, run)


def test_abort_is_refused_in_post_copy(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    for host in scene.bed.hosts:
        scene.ask("abort", host).expect(4, "only the two hosts together hold its memory", "pcmig watch")
    run = command.wait().expect(0, "done: ")
    scene.expect_at(destination, run)


def test_nothing_to_watch_abort_or_switch(scene: Scene) -> None:
    source = scene.source
    for command in ("watch", "abort", "switch"):
        scene.ask(command, source).expect(1, f"no migration of {scene.name} is under way")
    scene.expect_at(source)


def test_two_at_once_of_one_guest(scene: Scene) -> None:
    """The second is refused and does the first no harm."""
    source = scene.source
    first = scene.in_precopy(source)
    scene.migration("--policy", "manual", source=source).wait().expect(
        1, f"process {first.process.pid} looks after the migration of {scene.name}"
    )
    assert first.process.poll() is None, first.said()
    scene.ask("switch", source).expect(0)
    run = first.wait().expect(0, "done: ")
    scene.expect_at(scene.bed.other(source), run)
