# SPDX-License-Identifier: Apache-2.0
"""No switch before the guest's port forwards at the destination: a real guest, a real bridge on each host."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator

import pytest

from tests.bed import Host
from tests.bed.procs import run
from tests.functional.scene import BUSY, ROOT, SLOW_MBIT, Run, Scene

BRIDGE = "br0"
PLUGGED = dataclasses.replace(BUSY, bridge=BRIDGE)
FORWARD_DELAY_S = 4  # a port forwards twice as long after it was made


def bridge(host: Host, *words: str) -> None:
    run(host.command(["ip", "link", *words]), f"bridge of host {host.name}")


@pytest.fixture
def plugged(forky: Scene, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The busy guest on host a, with a network card; b is reached by an ssh that goes nowhere else."""
    a, b = forky.bed.hosts
    for host, stp in ((a, "0"), (b, "1")):
        options = ("stp_state", stp, "forward_delay", str(FORWARD_DELAY_S * 100))
        bridge(host, "add", BRIDGE, "type", "bridge", *options)
        bridge(host, "set", BRIDGE, "up")
    there = ["env", f"PYTHONPATH={ROOT}", f"PATH={pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"]
    ssh = tmp_path / "ssh"
    ssh.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n[ "$2" = root@b ] || exit 255\n'
        f'exec {shlex.join(b.inside([*there, "sh", "-c"]))} "$3"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PCMIG_SSH", str(ssh))
    forky.prepare(PLUGGED, on=a)
    forky.bed.network.limit(SLOW_MBIT)
    yield forky
    forky.remove()
    for host in (a, b):
        bridge(host, "delete", BRIDGE)


def migrate(scene: Scene, *options: str) -> Run:
    return scene.migration("--policy", "immediate", "--ports=root@b", *options).wait()


def test_the_switch_waits_for_spanning_tree(plugged: Scene) -> None:
    destination = plugged.bed.other(plugged.source)
    ended = migrate(plugged, "--ports-wait", "40").expect(
        0, "done: ", "br0 (listens|learns)", "all ports forward"
    )
    assert ended.report is not None
    ports = ended.report["ports"]
    assert [each["answer"] for each in ports["answers"]] == ["open"], ports
    levels = [each["level"] for each in ports["said"]]
    assert levels[-1] == "ready" and "blocked" in levels, ports
    # The port was made after the migration began: nothing may have been switched sooner than it takes.
    (switch,) = (each for each in ended.decisions if each["action"] == "switch")
    assert switch["t_us"] > 2 * FORWARD_DELAY_S * 1_000_000, ended.decisions
    assert ended.actions[0] == "ask", ended.decisions
    (drain,) = (each for each in ended.decisions if each["action"] == "drain")
    assert drain["reason"] == "gate-open" and drain["a"] >= ports["waited_ms"] - 100 > 1000, (drain, ports)
    plugged.expect_at(destination)


def test_a_port_that_never_forwards(plugged: Scene) -> None:
    """Cancelled, as was asked for: the guest stays where it can be reached."""
    source = plugged.source
    bridge(plugged.bed.other(source), "set", BRIDGE, "down")
    ended = migrate(plugged, "--ports-wait", "3", "--ports-then", "abort")
    ended.expect(1, "br0 is down; the switch waits", "waited 3.[0-9] s: cancelling")
    assert "switch" not in ended.actions and ended.actions[-1] == "abort", ended.decisions
    plugged.expect_at(source)
