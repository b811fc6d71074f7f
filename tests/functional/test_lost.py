# SPDX-License-Identifier: Apache-2.0
"""Guests that are lost, or off, in the middle of a migration: what is printed is typed as it stands."""

from __future__ import annotations

import os
import re
import shlex
import signal

from tests.bed import Host
from tests.functional.scene import Run, Scene


def commands(run: Run) -> list[str]:
    """The lines to be typed."""
    return re.findall(r"^  ((?:pcmig|virsh) .*)$", run.out + run.err, re.M)


def status(scene: Scene, host: Host) -> Run:
    return scene.run("status", "--connect", host.uri, host=host)


def type_(scene: Scene, host: Host, line: str) -> str:
    """What LINE prints, typed on HOST, word by word as a shell takes it. (Only the hosts have virsh.)"""
    said = ""
    for command in line.split(" && "):
        program, *words = shlex.split(command)
        if program == "pcmig":
            run = scene.run(*words, host=host).expect(0)
            said += run.out + run.err
        else:
            assert (program, words[0]) == ("virsh", "-c"), line
            there = host if words[1] == host.uri else scene.bed.other(host)
            assert words[1] == there.uri or words[1] == there.remote_uri, line
            said += there.virsh(*words[2:])
    return said


def end_qemu(host: Host, number: signal.Signals) -> None:
    pids = host.qemu_pids()
    assert pids
    for pid in pids:
        os.kill(pid, number)


def test_a_half_that_is_lost_is_forgotten_by_word(scene: Scene) -> None:
    """The source's power goes in post-copy, pcmig's with it: nothing brings the memory back."""
    source = scene.source
    destination = scene.bed.other(source)
    try:
        command = scene.in_postcopy(destination)
        held = scene.run("forget", "--accept-loss", scene.name, host=source)
        held.expect(1, rf"process {command.process.pid} \(.*pcmig migrate", "pcmig watch")
        command.kill()
        scene.run("forget", "--accept-loss", scene.name, host=source).expect(
            1, "is in post-copy", "pcmig watch"
        )
        end_qemu(source, signal.SIGKILL)
        scene.wait_for(lambda: "half lost" in status(scene, source).out, "the half is lost")
        [advised] = commands(status(scene, source).expect(3, "cannot be saved"))
        assert advised.startswith("pcmig forget ")
        refused = scene.run("forget", scene.name, host=source).expect(3, "--accept-loss", "record ")
        assert scene._state(destination), "nothing was touched"
        [word] = commands(refused)
        rest = [line for line in type_(scene, source, word).splitlines() if line.startswith("  virsh")]
        assert len(rest) == 1 and scene._state(destination), "nothing was touched"
        status(scene, source).expect(0, "no migrations")
        type_(scene, source, rest[0].strip())
        scene.wait_for(lambda: not destination.qemu_pids(), "the rest is gone")
    finally:
        scene.remove()


def test_a_guest_that_is_shut_down_in_post_copy_is_not_called_lost(scene: Scene) -> None:
    """QEMU ends at the destination as libvirt sees it end when the guest powers itself off."""
    source = scene.source
    destination = scene.bed.other(source)
    try:
        command = scene.in_postcopy(destination)
        end_qemu(destination, signal.SIGTERM)
        run = command.wait(60).expect(3, "was shut down at the destination, and nothing is lost")
        [line] = commands(run)
        assert scene._state(source), "nothing was touched"
        assert "forgotten: " in type_(scene, source, line)
        assert not source.qemu_pids() and not destination.qemu_pids()
        status(scene, source).expect(0, "no migrations")
    finally:
        scene.remove()
