# SPDX-License-Identifier: Apache-2.0
"""An interrupted post-copy is resumed by itself. On a bed of its own, as networks break on it."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host
from tests.bed.network import second_address
from tests.faults.wire import CONTROL, Wire
from tests.functional.scene import RATE_MBIT, SLOW_MBIT, Run, Scene, scene_on

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_on(Bed("forky", RATE_MBIT, keepalive_s=2), tmp_path_factory.mktemp("recovery")) as scene:
        yield scene


@pytest.fixture
def scene(bed: Scene) -> Scene:
    bed.prepare()
    return bed


def test_somebody_breaks_the_stream(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    source.virsh("domjobabort", scene.name, "--postcopy")
    run = command.wait(90)
    run.expect(0, "post-copy interrupted at [0-9]+ %", "resuming, attempt 1", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)


def test_the_network_is_cut_and_comes_back(scene: Scene) -> None:
    """Nobody tells QEMU: the silence is noticed, the stream paused, and resumed when that end answers."""
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination, "--set", "stall_ms=4000")
    scene.bed.network.link_down()
    scene.wait_for(lambda: "post-copy interrupted" in command.said(), "the silence is noticed", 40)
    time.sleep(10)
    scene.bed.network.link_up()
    scene.bed.network.limit(RATE_MBIT)
    run = command.wait(150)
    run.expect(0, "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)


def test_a_half_that_libvirt_keeps(scene: Scene, tmp_path: pathlib.Path) -> None:
    """libvirt's own connection breaks, and the stream flows on. Somebody types a resume, which waits for that
    connection; libvirt at the source then does not hear that all has crossed (12.8), and keeps its half."""
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination, "--postcopy-bandwidth", "2")
    wire = Wire(scene.bed.network, tmp_path)
    wire.breaker(CONTROL)()
    broken = "paused (post-copy failed)"
    scene.wait_for(lambda: source.domain_state(scene.name) == broken, "the source takes it for broken", 60)
    virsh = ["virsh", "--connect", source.inner_uri, "migrate", scene.name, destination.remote_uri]
    words = [*virsh, "--live", "--p2p", "--postcopy", "--postcopy-resume"]
    with subprocess.Popen(source.inside(words)) as resumption:
        try:
            there = "running (migrated)"
            scene.wait_for(lambda: destination.domain_state(scene.name) == there, "all has crossed", 60)
        finally:
            wire.mend()
            resumption.terminate()
    run = command.wait(150)
    run.expect(0, "libvirt at the source kept its half, paused, and that was ended", "done: ")
    scene.expect_at(destination, run)


def test_over_a_second_network(scene: Scene) -> None:
    """The first one never comes back. The hosts talk over the second one, which the stream takes when it has
    to."""
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.add_second()
    scene.bed.network.set_tcp_retries(4)  # the destination notices when its TCP gives up: minutes by default
    scene.bed.network.limit(SLOW_MBIT)
    there = second_address(destination.name)
    command = scene.start(
        *("migrate", scene.name, f"qemu+tcp://{there}/system", "--connect", source.uri),
        *("--migrateuri", destination.migrate_uri, "--resume-uri", f"tcp://{there}"),
        *("--policy", "immediate", "--set", "stall_ms=4000"),
        report=True,
    )
    scene.wait_postcopy(destination)
    # A destination that waits for a page whose request has arrived sends nothing, and never notices. So its
    # next requests get lost before the link does.
    scene.bed.network.silence(destination.name)
    time.sleep(1)
    scene.bed.network.link_down()
    run = command.wait(150)
    run.expect(0, "post-copy interrupted", "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)


def entries(scene: Scene) -> list[str]:
    """What the journal has."""
    return [path.name for path in scene.journal.glob("*.json")]


def status(scene: Scene, source: Host) -> Run:
    return scene.ask("status", source)


def resume(scene: Scene, source: Host, *options: str) -> Run:
    return scene.ask("resume", source, *options)


def test_killed_in_pre_copy(scene: Scene) -> None:
    source = scene.source
    scene.bed.network.limit(SLOW_MBIT)  # a guest slowed down by others leaves the switch nothing to do at 200
    command = scene.migration("--policy", "passes=3", "--set", "stall_ms=9000")
    scene.wait_precopy(source)
    command.kill()
    assert len(entries(scene)) == 1
    scene.migration(source=source).wait().expect(
        1, "is not over, and nobody looks after it", "pcmig resume -c"
    )
    run = resume(scene, source)
    run.expect(0, "pre-copy", "switch: ", "post-copy", "done: ")
    scene.expect_at(scene.bed.other(source), run)
    assert not entries(scene)


def test_killed_in_post_copy(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    command.kill()
    status(scene, source).expect(0, "post-copy", "nobody looks after it", "pcmig resume -c")
    run = resume(scene, source, "--json", "-")
    run.expect(0, '"outcome": "completed"', '"command": "resume"')
    scene.expect_at(destination, run)
    assert not entries(scene)


def test_pause_and_resume(scene: Scene) -> None:
    """Of a migration that somebody looks after."""
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    scene.ask("pause", source).expect(0, "paused: both halves of .* are kept", "pcmig resume -c")
    scene.wait_for(lambda: "paused on request until it is resumed" in command.said(), "it is held")
    held = status(scene, source).expect(0, "held", "paused on request", f"process {command.process.pid}")
    assert "needs an operator" not in held.out
    watch = scene.start("watch", "--connect", source.uri, scene.name, host=source)
    scene.wait_for(
        lambda: f"(process {command.process.pid} looks after it)" in watch.said(), "watch shows it"
    )
    assert "post-copy goes on" not in command.said()
    resume(scene, source).expect(4, "looks after the migration", "was asked to go on at once")
    run = command.wait(60).expect(0, "resuming was asked for", "post-copy goes on", "done: ")
    watch.wait().expect(0, "done: ")
    scene.expect_at(destination, run)


def test_killed_while_paused(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    scene.ask("pause", source).expect(0)
    command.kill()
    status(scene, source).expect(3, "held", "both", "nobody looks after it", "pcmig resume -c")
    run = resume(scene, source)
    run.expect(0, "post-copy interrupted(?: at [0-9]+ %)?, resuming, attempt 1", "done: ")
    scene.expect_at(destination, run)
    assert not entries(scene)


def test_what_the_journal_does_not_know(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = scene.in_postcopy(destination)
    command.kill()
    shutil.rmtree(scene.journal)
    scene.ask("pause", source).expect(0, "resume -c .* DESTURI")
    resume(scene, source).expect(2, "name DESTURI: the journal .* does not know where")
    run = resume(scene, source, destination.remote_uri, "--migrateuri", destination.migrate_uri)
    run.expect(0, "resuming, attempt 1", "done: ")
    scene.expect_at(destination, run)


def test_a_lost_half_is_said_and_the_other_left_alone(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    scene.in_postcopy(destination).kill()
    for pid in destination.qemu_pids():
        os.kill(pid, signal.SIGKILL)
    scene.wait_for(lambda: "post-copy" in (source.domain_state(scene.name) or ""), "the source says so")
    scene.wait_for(lambda: "can turn back" in status(scene, source).out, "its end is known")
    status(scene, source).expect(
        3, f"the half at {re.escape(source.uri)} is whole as it was then", "pcmig turn-back"
    )
    assert source.qemu_pids(), "the surviving half is kept"


def test_nothing_to_resume(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    resume(scene, source).expect(1, f"nothing to resume: no migration of {scene.name} is under way")
    resume(scene, source, destination.remote_uri).expect(1, "it is running at .* not running there at")
    scene.run("resume", "-c", source.uri, "nosuch", host=source).expect(
        1, "nothing to resume: no guest 'nosuch'"
    )
    scene.expect_at(source)
