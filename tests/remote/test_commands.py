# SPDX-License-Identifier: Apache-2.0
"""The other commands of doc/operate as they are typed, as far as they take a URI."""

from __future__ import annotations

import re
import shlex
import time

import pytest

from tests.bed.procs import ProcessId
from tests.functional.scene import SLOW_MBIT
from tests.functional.tunnel_scene import running_daemons
from tests.remote.scene import HOME, RemoteScene, shell, uri

TRANSPORTS = pytest.mark.parametrize("transport", ["ssh", "tls"])


@TRANSPORTS
def test_check(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    run = scene.run("check", "--peer", uri(transport, scene.bed.other(source)), host=source)
    run.expect(
        0, "ok +peer +connection +encrypted or local", "ok +both +different hosts", "ok +both +peer's name"
    )


@TRANSPORTS
def test_watch_status_and_report(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    there = uri(transport, destination)
    command = scene.start("migrate", "--no-progress", "--policy", "manual", scene.name, there, host=source)
    scene.wait_precopy(source)
    ends = ["-c", uri(transport, source), scene.name, "--dest", there]
    watch = scene.start("watch", *ends, host=destination)
    scene.wait_for(lambda: "pre-copy" in watch.said(), "watch shows it")
    scene.run("status", host=source).expect(0, scene.name, re.escape(there))
    scene.run("switch", "-c", uri(transport, source), scene.name, host=destination).expect(0)
    watch.wait(120).expect(0, "post-copy", "done: ")
    run = command.wait(120).expect(0, "done: ")
    scene.expect_at(destination, run)
    scene.run("report", scene.name, "--html", f"{HOME}/report.html", host=source).expect(0, "report.html")
    scene.run("report", host=source).expect(0, scene.name)


@TRANSPORTS
def test_pause_and_resume(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    there = uri(transport, destination)
    words = ["migrate", "--no-progress", "--no-resume", "--policy", "immediate", scene.name, there]
    command = scene.start(*words, host=source)
    scene.wait_postcopy(destination)
    scene.run("pause", "-c", uri(transport, source), scene.name, host=destination).expect(0)
    command.wait().expect(3, "pcmig resume")
    scene.run("status", scene.name, host=source).expect(3, "interrupted", "pcmig resume")
    run = scene.run("resume", scene.name, host=source, timeout_s=120).expect(0, "done: ")
    scene.expect_at(destination, run)


@TRANSPORTS
def test_turn_back(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    scene.bed.network.limit(SLOW_MBIT)
    there = uri(transport, destination)
    words = ["migrate", "--no-progress", "--policy", "immediate", scene.name, there]
    command = scene.start(*words, host=source)
    scene.wait_postcopy(destination)
    scene.wait_for(lambda: "post-copy" in command.said(), "pcmig says so")
    time.sleep(1)  # the guest has run there
    for pid in destination.qemu_pids(scene.name):
        qemu = ProcessId.of(pid)
        assert qemu is not None
        qemu.end()
    run = command.wait(120).expect(3, "pcmig turn-back")
    typed = re.findall(r"^ +(pcmig turn-back .*)$", run.out + run.err, re.M)[0]
    scene.run(*shlex.split(typed)[1:], host=source).expect(0, "done: ")
    assert scene.guest is not None
    scene.guest.wait_heartbeats(5)
    assert scene.guest.host() == source.name


@TRANSPORTS
def test_the_tunnel(scene: RemoteScene, transport: str) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    with running_daemons(scene.bed, scene.folder / f"tunnel-{transport}"):
        words = ["migrate", "--no-progress", "--tunnel", "--policy", "immediate", scene.name]
        run = scene.run(*words, uri(transport, destination), host=source, timeout_s=120)
        run.expect(0, "done: ", f"tunnel to {destination.name}, memory: ")
    scene.expect_at(destination, run)


@pytest.mark.parametrize("persist", ["60", "no"])
def test_one_connection_for_all(scene: RemoteScene, persist: str) -> None:
    """ControlMaster."""
    source = scene.source
    destination = scene.bed.other(source)
    (scene.sshd[source.name].home / ".ssh/config").write_text(
        f"Host *\n  ControlMaster auto\n  ControlPath {HOME}/.ssh/%C\n  ControlPersist {persist}\n"
    )
    words = ["migrate", "--no-progress", "--policy", "immediate", scene.name, uri("ssh", destination)]
    run = scene.run(*words, host=source, timeout_s=120).expect(0, "done: ")
    for pid, (_, name) in source.processes().items():
        if name == "ssh":
            source.signal_process(pid, 15)
    shell(source, f"rm -f {HOME}/.ssh/config")
    scene.expect_at(destination, run)
