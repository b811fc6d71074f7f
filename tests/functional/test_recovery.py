"""An interrupted post-copy is resumed by itself. On a bed of its own, as networks break on it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host
from tests.functional.scene import RATE_MBIT, SLOW_MBIT, Command, Scene, scene_on

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_on(Bed("forky", RATE_MBIT, keepalive_s=2), tmp_path_factory.mktemp("recovery")) as scene:
        yield scene


@pytest.fixture
def scene(bed: Scene) -> Scene:
    bed.prepare()
    return bed


def in_postcopy(scene: Scene, destination: Host, *options: str) -> Command:
    """Post-copy that takes its time."""
    scene.bed.network.limit(SLOW_MBIT)
    command = scene.migration("--policy", "immediate", *options)
    scene.wait_postcopy(destination)
    scene.wait_for(lambda: "post-copy" in command.said(), "pcmig says so")
    return command


def test_somebody_breaks_the_stream(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = in_postcopy(scene, destination)
    source.virsh("domjobabort", scene.name, "--postcopy")
    run = command.wait(90)
    run.expect(0, "post-copy interrupted at [0-9]+ %", "resuming, attempt 1", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)


def test_the_network_is_cut_and_comes_back(scene: Scene) -> None:
    """Nobody tells QEMU: the silence is noticed, the stream paused, and resumed when that end answers."""
    source = scene.source
    destination = scene.bed.other(source)
    command = in_postcopy(scene, destination, "--set", "stall_ms=4000")
    scene.bed.network.link_down()
    scene.wait_for(lambda: "post-copy interrupted" in command.said(), "the silence is noticed", 40)
    time.sleep(10)
    scene.bed.network.link_up()
    scene.bed.network.limit(RATE_MBIT)
    run = command.wait(150)
    run.expect(0, "resuming, attempt", "post-copy goes on", "done: ")
    scene.expect_at(destination, run)
