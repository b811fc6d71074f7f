# SPDX-License-Identifier: Apache-2.0
"""Daemons that die and networks that break. On a bed of its own, as it is left in pieces."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Host
from tests.functional.scene import RATE_MBIT, SLOW_MBIT, Command, Scene, SceneError, scene_on


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_on(Bed("forky", RATE_MBIT, keepalive_s=2), tmp_path_factory.mktemp("faults")) as scene:
        scene.bed.network.set_tcp_retries(3)  # gives up after three seconds
        yield scene


@pytest.fixture
def fault(broken: Scene) -> Scene:
    broken.prepare()
    return broken


def test_the_destinations_libvirtd_is_killed_in_pre_copy(fault: Scene) -> None:
    source = fault.source
    destination = fault.bed.other(source)
    command = fault.in_precopy(source)
    destination.kill_libvirtd()
    run = command.wait(60)
    run.expect(1, "runs on at the source")
    assert fault.states()[source.name] == "running (migration canceled)" or "running" in (
        fault.states()[source.name] or ""
    )
    destination.start_libvirtd()
    fault.expect_at(source, run)


def test_the_sources_libvirtd_is_killed_in_pre_copy(fault: Scene) -> None:
    """The guest runs on meanwhile; the daemon that comes back cancels what it finds."""
    source = fault.source
    command = fault.in_precopy(source)
    source.kill_libvirtd()
    fault.wait_for(lambda: source.libvirtd() is None, "it is gone")
    source.start_libvirtd()
    run = command.wait(60)
    run.expect(1, "runs on at the source")
    fault.expect_at(source, run)


@pytest.mark.parametrize("end", ["source", "destination"])
def test_libvirtd_restarts_in_post_copy(fault: Scene, end: str) -> None:
    """QEMU goes on by itself; so does the verdict wait for the daemon to come back."""
    source = fault.source
    destination = fault.bed.other(source)
    command = fault.in_postcopy(destination)
    (source if end == "source" else destination).kill_libvirtd()
    (source if end == "source" else destination).start_libvirtd()
    run = command.wait(90)
    run.expect(0, "done: ")
    fault.expect_at(destination, run)


def test_pcmig_is_killed_in_post_copy(fault: Scene) -> None:
    """Peer to peer: the migration does not need us."""
    source = fault.source
    destination = fault.bed.other(source)
    command = fault.in_postcopy(destination)
    command.end()
    # The pace of that moment stays in force: nobody is there to open it.
    source.virsh("migrate-setspeed", fault.name, "1000", "--postcopy")
    fault.bed.network.limit(RATE_MBIT)
    fault.ask("watch", source).expect(0, "done: ")
    fault.expect_at(destination)


def test_pcmig_has_a_defect_in_post_copy(fault: Scene) -> None:
    """It lets go, with a pace that needs no steering: nobody has to open it by hand."""
    source = fault.source
    destination = fault.bed.other(source)
    broken = (
        "import sys; from pcmig.cli import follow, main\n"
        "def look(self, seen=follow.Follower._look):\n"
        "    status = seen(self)\n"
        "    return status if status['phase'] != 'postcopy' else 1 / 0\n"
        "follow.Follower._look = look\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    fault.bed.network.limit(SLOW_MBIT)
    words = ["migrate", fault.name, destination.remote_uri, "-c", source.uri, "--policy", "immediate"]
    argv = [sys.executable, "-c", broken, *words, "--migrateuri", destination.migrate_uri]
    run = Command(words, source.command(argv), None, fault.journal).wait()
    run.expect(70, "internal error: ZeroDivisionError", "goes on without pcmig", "pcmig watch")
    fault.ask("watch", source, "--dest", destination.remote_uri).expect(0, "done: .*as that host says")
    fault.expect_at(destination, run)


def resume_as_told(scene: Scene, source: Host, text: str) -> str:
    """Types the command that was printed into a shell on the source host; returns the command."""
    match = re.search(r"^\s+(virsh .*--postcopy-resume.*)$", text, re.M)
    assert match is not None, text
    # The host knows its libvirt by another path than the machine does.
    typed = match[1].replace(source.uri, "qemu:///system")
    subprocess.run(source.inside(["sh", "-c", typed]), check=True, timeout=90, stdin=subprocess.DEVNULL)
    return match[1]


def test_post_copy_is_interrupted(fault: Scene) -> None:
    source = fault.source
    destination = fault.bed.other(source)
    command = fault.in_postcopy(destination, "--no-resume")
    source.virsh("domjobabort", fault.name, "--postcopy")
    run = command.wait(60)
    run.expect(3, "needs an operator", "keep both halves|nothing is lost", "--postcopy-resume")
    for host in fault.bed.hosts:
        assert len(host.qemu_pids()) == 1, fault.states()
    for host in fault.bed.hosts:
        fault.ask("abort", host).expect(3)
    fault.ask("watch", source).expect(3, "nobody resumes it", "pcmig resume -c")
    fault.migration(source=source).wait().expect(1, "is not over", "pcmig resume -c")
    fault.bed.network.limit(RATE_MBIT)
    resume_as_told(fault, source, run.out + run.err)
    fault.expect_at(destination, run)


def test_post_copy_of_a_persistent_guest_is_interrupted(fault: Scene) -> None:
    """The definition moves with the resumed guest: nobody can start a second copy at the source."""
    source = fault.source
    destination = fault.bed.other(source)
    (source.state / "run/pcmig/defined.xml").write_text(source.virsh("dumpxml", fault.name))
    source.virsh("define", "/run/pcmig/defined.xml")
    try:
        assert "yes" in persistent(source, fault.name)
        command = fault.in_postcopy(destination, "--no-resume")
        source.virsh("domjobabort", fault.name, "--postcopy")
        run = command.wait(60)
        run.expect(3, "needs an operator", "--postcopy-resume")
        fault.bed.network.limit(RATE_MBIT)
        typed = resume_as_told(fault, source, run.out + run.err)
        assert "--persistent" in typed and "--undefinesource" in typed, typed
        # It runs there, with every page whole; and the source does not know it any more, not even by name.
        fault.expect_at(destination, run)
        assert fault.name not in source.virsh("list", "--all", "--name").split()
        assert "yes" in persistent(destination, fault.name)
    finally:
        # The other tests want it transient.
        for host in fault.bed.hosts:
            if fault.name in host.virsh("list", "--all", "--name").split():
                host.virsh("undefine", fault.name)


def persistent(host: Host, name: str) -> str:
    """The line of `virsh dominfo` on whether the guest is defined there."""
    return next(line for line in host.virsh("dominfo", name).splitlines() if line.startswith("Persistent:"))


def test_the_link_goes_down_in_pre_copy(fault: Scene) -> None:
    source = fault.source
    command = fault.in_precopy(source)
    fault.bed.network.link_down()
    try:
        run = command.wait(100)
    except SceneError:
        fault.bed.network.link_up()
        raise
    run.expect(1, "runs on at the source")
    fault.bed.network.link_up()
    fault.expect_at(source, run)


def test_the_source_qemu_dies_in_pre_copy(fault: Scene) -> None:
    """The guest is lost, and pcmig does not claim otherwise."""
    import os
    import signal

    source = fault.source
    command = fault.in_precopy(source)
    os.kill(source.qemu_pids()[0], signal.SIGKILL)
    run = command.wait(100)
    run.expect(3, "on neither host")
    fault.wait_for(lambda: not any(host.qemu_pids() for host in fault.bed.hosts), "nothing is left")
