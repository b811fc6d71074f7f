# SPDX-License-Identifier: Apache-2.0
"""The destination's QEMU is killed at some moment of post-copy; memory is looked at as a whole."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.functional.scene import BUSY, Scene
from tests.functional.test_lost import end_qemu, status
from tests.turn_back.test_asking import expect_alone_and_whole, turn_back

# At 40 Mb/s post-copy of the busy guest takes more than 20 s.
SLOW_MBIT = 40
MOMENTS_S = [0.05, 1, 5, 20]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("after_s", MOMENTS_S)
def test_it_goes_on(scene: Scene, after_s: float) -> None:
    """Five tries of each moment: two with one QEMU, three with the other."""
    for number in range(2 + (MOMENTS_S.index(after_s) + (scene.bed.stack == "forky")) % 2):
        one_try(scene, after_s, number)
        scene.remove()


def one_try(scene: Scene, after_s: float, number: int) -> None:
    """In the first nobody is left who saw the destination's QEMU end: that takes a word."""
    scene.prepare(BUSY)
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    command = scene.migration(
        *("--policy", "immediate", "--postcopy-bandwidth", "2"),
        *("--turn-back", ("never", "ask")[number % 2]),
    )
    scene.wait_postcopy(destination)
    time.sleep(after_s)
    if number == 0:
        command.kill()
    end_qemu(destination, signal.SIGKILL)
    killed_s = time.monotonic()
    scene.wait_for(lambda: "can turn back" in status(scene, source).out, "its end is known")
    if number > 0:
        scene.wait_for(lambda: "--destination-is-dead" not in status(scene, source).out, "its end was seen")
        command.kill()
    assert "paused" in (scene._state(source) or ""), "nothing happens without a request"
    words = ["--destination-is-dead"] if number == 0 else []
    if words:
        turn_back(scene, source).expect(3, "nobody saw its QEMU end", *words)
    run = turn_back(scene, source, *words).expect(0, "done: ", "what it did since the switch is undone")
    assert scene.guest is not None and scene.guest.wait_verified(time.monotonic()), "every page"
    expect_alone_and_whole(scene, source)
    print(
        f"{scene.bed.stack}, killed {after_s} s after the switch, asked {run.start_s - killed_s:.1f} s "
        f"later; went on within {run.elapsed_s:.2f} s"
    )


def test_two_copies_by_chance(scene: Scene) -> None:
    """Requests at random while the destination freezes, goes on, and loses its libvirt and gets it back: as
    long as it has a QEMU, none is granted."""
    scene.prepare(BUSY)
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    scene.migration("--policy", "immediate", "--postcopy-bandwidth", "1")
    scene.wait_postcopy(destination)
    for command in scene._commands:
        command.end()
    [qemu] = destination.qemu_pids()
    chance = random.Random(14)
    end_s = time.monotonic() + 60
    asked = 0
    while time.monotonic() < end_s and destination.qemu_pids() == [qemu] and source.qemu_pids():
        match chance.randrange(6):
            case 0:
                destination.signal_process(qemu, signal.SIGSTOP)
            case 1:
                destination.signal_process(qemu, signal.SIGCONT)
            case 2 if destination.libvirtd() is not None:
                destination.kill_libvirtd()
            case 3 if destination.libvirtd() is None:
                destination.start_libvirtd()
            case _:
                # Given for a host that does not answer, and lives, a word is wrong, and taken: not here.
                answers = destination.libvirtd() is not None
                words = ["--destination-is-dead", "--accept-newer-disks"] if answers else []
                run = turn_back(scene, source, *words)
                assert run.code in (1, 3), (run.out, run.err)
                asked += 1
        assert "running" not in (scene._state(source) or ""), "never two"
    assert asked > 5
