# SPDX-License-Identifier: Apache-2.0
"""Guests that crash meanwhile, post-copy that breaks again and again, failures that must leave nothing, and
two migrations at once."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import pytest

from tests.bed import Bed
from tests.cases import told
from tests.cases.scene import CaseScene, firmware_guest
from tests.functional.scene import BUSY, IDLE, Command, Run, scene_on

SLOW_MBIT = 40
TRICKLE_MBIT = 8  # post-copy takes minutes, however slow the test is


def in_postcopy(scene: CaseScene, *options: str) -> Command:
    """The guest that is told, from a to b."""
    a, b = scene.bed.hosts
    scene.bed.network.limit(SLOW_MBIT)
    command = scene.start(
        *("migrate", "-c", a.uri, "--migrateuri", b.migrate_uri, "--policy", "immediate", "--no-progress"),
        *options,
        *(told.NAME, b.remote_uri),
        host=a,
    )
    scene.wait_for(lambda: "post-copy" in (b.domain_state(told.NAME) or ""), "it is in post-copy")
    return command


@pytest.mark.parametrize(
    "on_crash, code, told_how, left",
    [
        ("preserve", 0, "done: {} moved to .*, and has crashed", "crashed (panicked)"),
        ("destroy", 3, "{} needs an operator", "shut off (crashed)"),
    ],
    ids=["preserve", "destroy"],
)
def test_a_guest_that_crashes_in_post_copy(
    scene: CaseScene, on_crash: str, code: int, told_how: str, left: str
) -> None:
    """Where its definition has it kept, for whoever looks for the cause, the rest of its memory arrives."""
    a, b = scene.bed.hosts
    told.start(scene, a, on_crash)
    command = in_postcopy(scene)
    told.tell(b, "crash")
    time.sleep(1)
    print(a.domain_state(told.NAME), b.domain_state(told.NAME))
    run = command.wait(100)
    print(a.domain_state(told.NAME), b.domain_state(told.NAME))
    run.expect(code, told_how.format(told.NAME))
    assert b.domain_state(told.NAME) == left
    if code == 0:
        assert a.domain_state(told.NAME) is None and scene.entries() == []


def test_a_guest_that_crashes_in_pre_copy(scene: CaseScene) -> None:
    """Whatever it is then, it is on one host alone."""
    a, b = scene.bed.hosts
    told.start(scene, a, "preserve")
    command = scene.start(
        *("migrate", "-c", a.uri, "--migrateuri", b.migrate_uri, "--policy", "manual", "--no-progress"),
        *(told.NAME, b.remote_uri),
        host=a,
    )
    scene.wait_for(lambda: "None" not in a.virsh("domjobinfo", told.NAME), "the migration goes on")
    time.sleep(2)
    told.tell(a, "crash")
    print(a.domain_state(told.NAME), b.domain_state(told.NAME))
    run = command.wait(100)
    # libvirt sends a guest that has stopped so on, lets it run there, and tells nobody.
    run.expect(0, "done: ")
    assert a.domain_state(told.NAME) is None


def test_qemu_is_killed_in_post_copy(scene: CaseScene) -> None:
    told.start(scene, scene.bed.a, "destroy")
    command = in_postcopy(scene)
    for pid in scene.bed.b.qemu_pids():
        os.kill(pid, signal.SIGKILL)
    command.wait(150).expect(3, f"{told.NAME} needs an operator", "half of the guest is gone")
    # What is left is kept for whoever wants to look at it.
    assert "post-copy failed" in (scene.bed.a.domain_state(told.NAME) or "")


def test_broken_again_after_each_resume(scene: CaseScene) -> None:
    guest = scene.prepare(BUSY)
    source, destination = scene.bed.a, scene.bed.b
    scene.bed.network.limit(SLOW_MBIT)
    command = scene.migration("--policy", "immediate", source=source)
    scene.wait_postcopy(destination)
    scene.bed.network.limit(TRICKLE_MBIT)
    for _ in range(10):
        time.sleep(0.3)
        source.virsh("domjobabort", guest.name, "--postcopy")
        scene.wait_for(lambda: "failed" in (destination.domain_state(guest.name) or ""), "it is interrupted")
        scene.wait_for(
            lambda: destination.domain_state(guest.name) in ("running (post-copy)", "running (migrated)"),
            "it goes on",
            60,
        )
    scene.bed.network.limit(SLOW_MBIT)
    run = command.wait(120)
    run.expect(0, "done: ")
    scene.expect_at(destination, run)


STALL_S = 12


def test_the_guests_clock_after_a_stall(scene: CaseScene) -> None:
    """It runs on: a vCPU that waits for a page is not a guest that is stopped."""
    guest = scene.prepare(BUSY)
    source, destination = scene.bed.a, scene.bed.b
    before = guest.heartbeats()[-1]
    command = scene.in_postcopy(destination)
    time.sleep(1)
    scene.ask("pause", source).expect(0)
    time.sleep(STALL_S)
    scene.ask("resume", source)
    run = command.wait(120).expect(0, "done: ")
    scene.expect_at(destination, run)
    after = guest.heartbeats()[-1]
    behind_s = (after.time_s - before.time_s) - (after.guest_ms - before.guest_ms) / 1000
    print(f"behind by {behind_s:.2f} s after a stall of {STALL_S} s")
    # By the downtime of the switch, long on a busy machine; a guest that was stopped, by the whole stall.
    assert behind_s < STALL_S / 2


def test_resume_where_nothing_is_interrupted(scene: CaseScene) -> None:
    """The exit codes of the man page: 1 there is nothing to resume, 4 another process looks after it."""
    scene.prepare(BUSY)
    source, destination = scene.bed.a, scene.bed.b
    ends = [scene.name, destination.remote_uri]

    def resume() -> Run:
        return scene.run("resume", "-c", source.uri, *ends, host=source)

    resume().expect(1, "nothing to resume", "running")
    scene.bed.network.limit(SLOW_MBIT)
    command = scene.migration("--policy", "manual", source=source)
    scene.wait_precopy(source)
    resume().expect(4, "looks after the migration")
    scene.ask("switch", source).expect(0)
    scene.wait_postcopy(destination)
    resume().expect(4, "looks after the migration")
    assert command.process.poll() is None
    run = command.wait(90).expect(0, "done: ")
    resume().expect(1, "nothing to resume")
    scene.expect_at(destination, run)


def capabilities(scene: CaseScene) -> str:
    return scene.bed.a.virsh("qemu-monitor-command", scene.name, "--hmp", "info migrate_capabilities")


def test_a_cancelled_migration_leaves_nothing(scene: CaseScene, tmp_path: pathlib.Path) -> None:
    """QEMU's capabilities are as before, and the guest can be saved, restored and moved."""
    scene.prepare(IDLE)
    a, b = scene.bed.hosts
    before = capabilities(scene)
    scene.bed.network.limit(10)
    command = scene.in_precopy(a)
    scene.ask("abort", a).expect(0, "cancelled")
    command.wait().expect(1)
    scene.bed.network.limit(200)
    assert capabilities(scene) == before
    a.virsh("save", scene.name, "/run/pcmig/saved", timeout_s=120)
    a.virsh("restore", "/run/pcmig/saved", timeout_s=120)
    assert scene.guest is not None
    scene.guest.wait_heartbeats(5)
    run = scene.migrate("--policy", "immediate").expect(0, "done: ")
    scene.expect_at(b, run)


def test_a_refused_post_copy_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """userfaultfd is denied at the destination; what needs none of it works afterwards."""
    bed = Bed("forky", 200)
    bed.b.qemu_user = "nobody"
    with scene_on(bed, tmp_path) as scene:
        scene.prepare(IDLE)
        before = bed.a.virsh("qemu-monitor-command", scene.name, "--hmp", "info migrate_capabilities")
        scene.migrate("--policy", "immediate").expect(
            1, "userfaultfd", "/dev/userfaultfd", "vm.unprivileged", "runs on"
        )
        after = bed.a.virsh("qemu-monitor-command", scene.name, "--hmp", "info migrate_capabilities")
        assert after == before
        bed.a.virsh(
            *("migrate", "--live", "--p2p", scene.name, bed.b.remote_uri, "--migrateuri", bed.b.migrate_uri),
            timeout_s=90,
        )
        run = scene.migrate("--policy", "immediate").expect(0, "done: ")  # back, where it is allowed
        scene.expect_at(bed.a, run)
        run = scene.migrate("--policy", "never").expect(0, "done: ")
        scene.expect_at(bed.b, run)


def both(*commands: Command) -> list[Run]:
    return [command.wait(120) for command in commands]


def begin(scene: CaseScene, name: str, forth: bool, journal: pathlib.Path | None = None) -> Command:
    source, destination = scene.bed.hosts if forth else (scene.bed.b, scene.bed.a)
    words = ["migrate", "-c", source.uri, "--migrateuri", destination.migrate_uri, "--no-progress"]
    kept = scene.journal
    scene.journal = journal or kept
    try:
        return scene.start(*words, name, destination.remote_uri, host=source)
    finally:
        scene.journal = kept


def test_two_hosts_send_each_other_the_same_guest(scene: CaseScene, tmp_path: pathlib.Path) -> None:
    """A copy that was restored somewhere has its UUID: neither may end. Each host has its own journal."""
    a, b = scene.bed.hosts
    for host in (a, b):
        scene.create(host, firmware_guest())
    for run in both(begin(scene, "other", True), begin(scene, "other", False, tmp_path / "b")):
        run.expect(1, "already", "runs on")
    assert [(host.domain_state("other") or "").split()[0] for host in (a, b)] == ["running", "running"]


def test_two_guests_cross(scene: CaseScene) -> None:
    a, b = scene.bed.hosts
    scene.define(a, firmware_guest("one"))
    scene.define(b, firmware_guest("two"))
    for run in both(begin(scene, "one", True), begin(scene, "two", False)):
        run.expect(0, "done: ")
    scene.expect_moved("one", b, persistent=True)
    scene.expect_moved("two", a, persistent=True)


@pytest.mark.parametrize("apart_s", [0.0, 0.1, 0.4])
def test_two_that_do_not_know_each_other(scene: CaseScene, tmp_path: pathlib.Path, apart_s: float) -> None:
    """Of two users, each with a journal of his own: one moves the guest, undisturbed. In the moment between
    the look and libvirt's own lock both may find that it has moved."""
    a, b = scene.bed.hosts
    disk = """<disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/two.raw'/><target dev='vda' bus='virtio'/></disk>"""
    for host in (a, b):
        (host.state / "lib/two.raw").write_bytes(os.urandom(8 << 20))
    scene.define(a, firmware_guest(devices=disk))
    scene.bed.network.limit(20)  # for its disk alone the first one takes more than three seconds
    words = ["migrate", "-c", a.uri, "--migrateuri", b.migrate_uri, "--no-progress", "--copy-storage-all"]
    commands = []
    kept = scene.journal
    for journal in (kept, tmp_path / "mine"):
        scene.journal = journal
        commands.append(scene.start(*words, "other", b.remote_uri, host=a))
        time.sleep(apart_s)
    scene.journal = kept
    runs = both(*commands)
    for run in runs:
        print(run.code, run.out, run.err)
    assert sorted(run.code for run in runs) in ([0, 1], [0, 0])
    if apart_s > 0.3:
        runs[1].expect(1, "another migration of")
    scene.expect_moved("other", b, persistent=True)
