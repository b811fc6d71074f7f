# SPDX-License-Identifier: Apache-2.0
"""By request, by itself, and never beside another copy; and what such a guest is afterwards."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time

from tests.bed import Host
from tests.functional.scene import Run, Scene
from tests.functional.test_lost import commands, end_qemu, status


def turn_back(scene: Scene, host: Host, *words: str) -> Run:
    return scene.run("turn-back", *words, scene.name, host=host)


def expect_alone_and_whole(scene: Scene, host: Host) -> None:
    """It runs at HOST and nowhere else, and every page that it looks at since is as it was written."""
    assert scene.guest is not None
    assert not scene.bed.other(host).qemu_pids(), "one copy"
    since_s = time.monotonic()
    scene.guest.wait_heartbeats(10, since_s=since_s, patience_s=60)
    beats = scene.guest.heartbeats(since_s)
    assert {(beat.host, beat.bad) for beat in beats} == {(host.name, beats[0].bad)}, beats[-1]


def test_what_it_is_afterwards(scene: Scene) -> None:
    scene.prepare()
    source = scene.source
    destination = scene.bed.other(source)
    try:
        command = scene.in_postcopy(destination)
        time.sleep(1)
        end_qemu(destination, signal.SIGKILL)
        run = command.wait(60).expect(3, "one half of the guest is gone")
        assert any(line.startswith("pcmig turn-back") for line in commands(run))
        status(scene, source).expect(3, "can turn back", "pcmig turn-back -c")
        assert "paused" in (scene._state(source) or ""), "nothing happens without a request"
        # libvirt there saw its QEMU end, and told: no word is asked for.
        done = turn_back(scene, source, "--json").expect(0, "done: ", "system_powerdown")
        print(f"it went on within {done.elapsed_s:.2f} s of the request")
        report = json.loads(done.out)
        assert report["nothing_lost"] is False and report["facts"]["disks"] == "none"
        assert 0 < report["facts"]["ran_at_most_s"] < 60
        expect_alone_and_whole(scene, source)

        # Whoever asks again changes nothing; what cannot work says why.
        turn_back(scene, source).expect(0, "done: ")
        status(scene, source).expect(0, "turned back", "running again", "cannot be migrated")
        scene.migrate().expect(1, "it turned back from a migration", "system_powerdown")
        scene.run("resume", scene.name, host=source).expect(1, "it turned back from a migration")
        source.restart_libvirtd()
        status(scene, source).expect(0, "turned back")
        expect_alone_and_whole(scene, source)

        # After a power cycle it is as any other.
        source.virsh("destroy", scene.name)
        status(scene, source).expect(0, "powered off since")
        status(scene, source).expect(0, "no migrations")
    finally:
        scene.remove()


def test_by_itself_where_it_never_ran(scene: Scene) -> None:
    """The destination's libvirt, stopped, never lets its QEMU run: it says so when it goes on."""
    scene.prepare()
    source = scene.source
    destination = scene.bed.other(source)
    libvirtd = destination.libvirtd()
    assert libvirtd is not None
    try:
        command = scene.in_precopy(source)
        libvirtd.signal(signal.SIGSTOP)
        scene.start("switch", "--connect", source.uri, scene.name, host=source)
        scene.wait_for(lambda: "post-copy" in (scene._state(source) or ""), "the source has switched")
        time.sleep(0.5)
        end_qemu(destination, signal.SIGKILL)
        libvirtd.signal(signal.SIGCONT)
        run = command.wait(60).expect(1, "the destination died before the guest ran there", "nothing is lost")
        assert run.report is not None and run.report["turned_back"]["facts"]["unrun"] is True
        expect_alone_and_whole(scene, source)
        status(scene, source).expect(0, "turned back")
    finally:
        libvirtd.signal(signal.SIGCONT)
        scene.remove()


def test_never_beside_a_half_that_can_run(scene: Scene) -> None:
    """The destination is frozen, mute, cut off, and back: whatever somebody says of a host that answers."""
    scene.prepare()
    source = scene.source
    destination = scene.bed.other(source)
    try:
        scene.in_postcopy(destination).kill()
        [qemu] = destination.qemu_pids()
        turn_back(scene, source).expect(3, "is in post-copy", "pcmig watch")
        turn_back(scene, source, "--destination-is-dead").expect(3, "is in post-copy")
        destination.signal_process(qemu, signal.SIGSTOP)
        source.virsh("domjobabort", scene.name, "--postcopy")
        for words in ([], ["--destination-is-dead", "--accept-newer-disks"]):
            turn_back(scene, source, *words).expect(3, "would run it twice", "pcmig resume")
        # Its libvirt is dead, its QEMU is not; then the network is, too: without a word, nothing.
        destination.kill_libvirtd()
        turn_back(scene, source).expect(3, "does not answer", "--destination-is-dead")
        destination.signal_process(qemu, signal.SIGCONT)
        turn_back(scene, source, "--accept-newer-disks").expect(3, "does not answer")
        # Back from the dead, it is believed.
        destination.start_libvirtd()
        turn_back(scene, source, "--destination-is-dead").expect(3, "would run it twice", "pcmig resume")
        assert destination.qemu_pids() == [qemu] and "paused" in (scene._state(source) or "")
        command = scene.start("resume", scene.name, host=source)
        if scene.bed.stack == "backports":  # its libvirtd would crash
            scene.wait_for(lambda: "crash when post-copy is resumed: upgrade" in command.said(), "it is held")
            command.interrupt()
            command.wait().expect(3, "leaving the guest as it is: both halves are kept")
            return
        scene.expect_at(destination, command.wait().expect(0, "done: "))
    finally:
        scene.remove()


def test_a_destination_that_answers_nobody_is_ended_by_hand(scene: Scene) -> None:
    """Its QEMU hangs, as one may that waits for a page with its lock held: no resume gets through. That is
    told, with what helps. Somebody types it, and the guest goes on at the source."""
    scene.prepare()
    source = scene.source
    destination = scene.bed.other(source)
    try:
        command = scene.in_postcopy(destination, "--set", "stall_ms=4000")
        [qemu] = destination.qemu_pids()
        destination.signal_process(qemu, signal.SIGSTOP)
        source.virsh("domjobabort", scene.name, "--postcopy")
        scene.wait_for(lambda: "interrupted" in command.said(), "pcmig says so")
        scene.wait_for(lambda: " destroy " in command.said(), "it is told what helps", 90)
        told = re.search(r"it hangs \(.*:\n\s*(virsh -c \S+ destroy \S+)$", command.said(), re.MULTILINE)
        assert told is not None, command.said()
        assert destination.qemu_pids() == [qemu] and "paused" in (scene._state(source) or "")
        turn_back(scene, source, "--destination-is-dead").expect(1, "looks after the migration")
        ended_s = time.monotonic()
        source.virsh(*shlex.split(told[1])[1:], timeout_s=60)
        command.wait(60).expect(3, "one half of the guest is gone", "pcmig turn-back")
        print(f"ended {time.monotonic() - ended_s:.1f} s after the word")
        # Whether somebody saw it end depends on whether libvirt there could still be asked.
        words = ["--destination-is-dead"] if "--destination-is-dead" in command.said() else []
        turn_back(scene, source, *words).expect(0, "done: ")
        expect_alone_and_whole(scene, source)
    finally:
        scene.remove()
