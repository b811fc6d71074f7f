# SPDX-License-Identifier: Apache-2.0
"""A connection that breaks in the middle: the guest ends whole on one host, and the last line says which."""

from __future__ import annotations

import signal

import pytest

from tests.bed import Host
from tests.functional.scene import SLOW_MBIT, Command
from tests.remote.scene import RemoteScene, uri

TRANSPORTS = pytest.mark.parametrize("transport", ["ssh", "tls"])


def migrate(scene: RemoteScene, source: Host, transport: str, *options: str) -> Command:
    scene.bed.network.limit(SLOW_MBIT)
    typed = uri(transport, scene.bed.other(source))
    return scene.start("migrate", "--no-progress", *options, scene.name, typed, host=source)


def test_own_ssh_ends_in_pre_copy(scene: RemoteScene) -> None:
    """libvirt's own goes on, and so does the migration; pcmig connects again, and steers."""
    source = scene.source
    destination = scene.bed.other(source)
    command = migrate(scene, source, "ssh", "--policy", "manual")
    scene.wait_precopy(source)
    found = scene.own_ssh(source)
    assert found
    for pid in found:
        source.signal_process(pid, signal.SIGTERM)
    scene.wait_for(lambda: scene.own_ssh(source) - found, "pcmig connects again")
    scene.run("switch", scene.name, host=source).expect(0)
    run = command.wait(120).expect(0, "done: ")
    scene.expect_at(destination, run)


def test_sshd_ends_its_sessions_in_pre_copy(scene: RemoteScene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = migrate(scene, source, "ssh", "--policy", "manual")
    scene.wait_precopy(source)
    scene.sshd[destination.name].cut()
    run = command.wait(120)
    run.expect(1, "runs on at the source")
    scene.expect_at(source, run)


def test_sshd_ends_its_sessions_in_post_copy(scene: RemoteScene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    command = migrate(scene, source, "ssh", "--policy", "immediate")
    scene.wait_postcopy(destination)
    scene.sshd[destination.name].cut()
    run = command.wait(120)
    run.expect(0, "done: ")
    scene.expect_at(destination, run)


def test_the_source_is_lost_in_post_copy(scene: RemoteScene) -> None:
    """The call that migrates goes over ssh, too, and ends with it."""
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    ends = ["-c", uri("ssh", source), "--policy", "immediate", scene.name, uri("ssh", destination)]
    command = scene.start("migrate", "--no-progress", *ends, host=destination)
    scene.wait_postcopy(destination)
    scene.sshd[source.name].cut()
    run = command.wait(120)
    run.expect(0, "done: ")
    scene.expect_at(destination, run)


@TRANSPORTS
def test_no_control_network_in_pre_copy(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    command = migrate(scene, source, transport, "--policy", "manual")
    scene.wait_precopy(source)
    scene.control_down()
    run = command.wait(120)
    scene.control_up()
    run.expect(1, "runs on at the source")
    scene.expect_at(source, run)
