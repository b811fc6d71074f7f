# SPDX-License-Identifier: Apache-2.0
"""What is typed at the terminal is for pcmig, and for no ssh that it depends on."""

from __future__ import annotations

import time

from tests.bed import Host
from tests.functional.scene import SLOW_MBIT
from tests.remote.scene import CTRL_C, RemoteScene, Terminal, uri


def from_elsewhere(scene: RemoteScene, source: Host, *options: str) -> Terminal:
    """`pcmig migrate` at a terminal of the destination, which reaches both hosts over ssh, as a third host
    would."""
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    ends = ["-c", uri("ssh", source), *options, scene.name, uri("ssh", destination)]
    return scene.at_terminal("migrate", *ends, host=destination)


def test_ctrl_c_in_pre_copy(scene: RemoteScene) -> None:
    source = scene.source
    command = from_elsewhere(scene, source, "--policy", "manual")
    scene.wait_precopy(source)
    command.strike(CTRL_C)
    run = command.wait().expect(1, "cancelled")
    scene.expect_at(source, run)


def test_ctrl_c_in_post_copy(scene: RemoteScene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = from_elsewhere(scene, source, "--policy", "immediate")
    scene.wait_postcopy(destination)
    scene.wait_for(lambda: "post-copy" in command.said(), "pcmig says so")
    command.strike(CTRL_C)
    run = command.wait().expect(4, "detached")
    scene.expect_at(destination, run)


def test_the_terminal_closes_in_post_copy(scene: RemoteScene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = from_elsewhere(scene, source, "--policy", "immediate")
    scene.wait_postcopy(destination)
    scene.wait_for(lambda: "post-copy" in command.said(), "pcmig says so")
    before = scene.own_ssh(destination)
    assert before
    command.close()
    time.sleep(1)
    after = scene.own_ssh(destination)
    assert before <= after or not after, "ssh ended with the terminal, and was begun again"
    assert command.process.wait(60) == 0
    scene.expect_at(destination)


def test_watch_is_left(scene: RemoteScene) -> None:
    source = scene.source
    there = scene.bed.other(source)
    command = from_elsewhere(scene, source, "--policy", "manual")
    scene.wait_precopy(source)
    watch = scene.at_terminal("watch", "-c", uri("ssh", source), scene.name, host=there)
    scene.wait_for(lambda: "pre-copy" in watch.said(), "watch shows it")
    watch.strike(CTRL_C)
    watch.wait().expect(4)
    scene.run("abort", "-c", uri("ssh", source), scene.name, host=there).expect(0, "cancelled")
    run = command.wait().expect(1)
    scene.expect_at(source, run)
