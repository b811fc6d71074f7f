# SPDX-License-Identifier: Apache-2.0
"""The connection that steers breaks in the middle; the migration itself has another one."""

from __future__ import annotations

import signal
import time

from tests.bed import Host
from tests.bed.procs import run
from tests.functional.scene import Scene


def admin(host: Host, *words: str) -> str:
    return run(host.inside(["virt-admin", "-c", "libvirtd:///system", *words]), f"virt-admin {words[0]}", 15)


def clients(host: Host) -> list[int]:
    """Numbers of libvirtd's clients in the order of their coming."""
    lines = admin(host, "client-list", "libvirtd").splitlines()
    return sorted(int(line.split()[0]) for line in lines if line.split() and line.split()[0].isdigit())


def test_steering_goes_on_over_a_new_connection(scene: Scene) -> None:
    source = scene.source
    destination = scene.bed.other(source)
    before = set(clients(source))
    command = scene.migration("--policy", "manual")
    scene.wait_precopy(source, mib=8)
    # In the order of their coming; over the third, opened anew with the first, QEMU is asked.
    steering, call, asking = (number for number in clients(source) if number not in before)
    admin(source, "client-disconnect", "libvirtd", str(steering))
    time.sleep(1)
    now = clients(source)
    assert steering not in now and call in now and max(now) > asking, (steering, call, asking, now)
    assert command.process.poll() is None, command.said()
    command.process.send_signal(signal.SIGUSR1)
    ended = command.wait().expect(0, "done: ")
    assert ended.report is not None
    assert ended.report["status"]["switch_late_us"] is not None, ended.decisions  # libvirt has accepted it
    assert ended.actions.count("switch") == 1
    scene.expect_at(destination, ended)
