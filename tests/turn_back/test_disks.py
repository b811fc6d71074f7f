# SPDX-License-Identifier: Apache-2.0
"""A guest with a disk that is a journal of its own writes: where each host has a copy of its own it goes on,
and its disk fits its memory; where both share it, that takes a word once the guest has written to it."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bed import BedError, Host
from tests.cases.scene import firmware_guest
from tests.functional.scene import RATE_MBIT, Command, Run, Scene
from tests.functional.test_lost import end_qemu, status

NAME = "counter"
SECTORS = 128
# 64 MiB of its memory are no zeroes (counter.S): at 1 MiB/s post-copy lasts for a minute.
SLOW_MBIT = 20


@pytest.fixture(scope="module")
def boot_sector(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("counter")
    source = pathlib.Path(__file__).with_name("counter.S")
    for words in (
        ["gcc", "-c", "-o", str(folder / "o"), str(source)],
        ["objcopy", "-O", "binary", "-j", ".text", str(folder / "o"), str(folder / "bin")],
    ):
        subprocess.run(words, check=True)
    code = (folder / "bin").read_bytes()
    assert len(code) == 512
    return code


class Disk:
    """The guest's disk as seen from outside."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def make(self, code: bytes) -> None:
        self.path.write_bytes(code + bytes((1 << 20) - len(code)))

    def numbers(self) -> list[int]:
        """Of each sector; one that is torn fails."""
        data = self.path.read_bytes()
        found = []
        for sector in range(1, SECTORS + 1):
            words = struct.unpack("<128I", data[sector * 512 : sector * 512 + 512])
            assert len(set(words)) == 1, f"sector {sector} is torn"
            found.append(words[0])
        return found

    def newest(self) -> int:
        """While somebody writes to it."""
        data = self.path.read_bytes()
        return max(int(struct.unpack_from("<I", data, sector * 512)[0]) for sector in range(1, SECTORS + 1))

    def check(self, count: int) -> None:
        """It has all that was written up to COUNT, where it belongs, and nothing after it but what is under
        way."""
        numbers = self.numbers()
        newest = max(numbers)
        assert count <= newest <= count + 1, (count, newest)
        for number in range(max(1, newest - SECTORS + 1), newest + 1):
            assert numbers[number % SECTORS] == number, number


def count(host: Host) -> int:
    """The last number that the disk has taken, as the guest has it in its memory."""
    said = host.virsh("qemu-monitor-command", NAME, "--hmp", "xp /1wx 0x8000")
    return int(re.findall(r": (0x[0-9a-f]+)", said)[0], 16)


@contextlib.contextmanager
def guest(scene: Scene, path: str) -> Iterator[tuple[Host, Host]]:
    source, destination = scene.bed.hosts
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
    )
    (source.state / "run/pcmig/counter.xml").write_text(firmware_guest(NAME, devices=disk))
    source.virsh("create", "/run/pcmig/counter.xml")
    scene.bed.network.limit(SLOW_MBIT)
    try:
        scene.wait_for(lambda: count(source) > 20, "it counts")
        yield source, destination
    finally:
        scene.bed.network.limit(RATE_MBIT)
        for host in scene.bed.hosts:
            with contextlib.suppress(BedError):
                host.virsh("destroy", NAME)
        scene.wait_for(lambda: not any(host.qemu_pids() for host in scene.bed.hosts), "all QEMUs are gone")


def migration(scene: Scene, source: Host, destination: Host, *options: str) -> Command:
    return scene.start(
        *("migrate", NAME, destination.remote_uri, "--connect", source.uri),
        *("--migrateuri", destination.migrate_uri, "--postcopy-bandwidth", "1", "--no-progress", *options),
        host=source,
        report=True,
    )


def lost_in_postcopy(scene: Scene, source: Host, destination: Host, disk: Disk, *options: str) -> Command:
    """The guest switches, writes on to DISK, and its destination dies. Returns the command, which saw it.
    (Until it has moved libvirt there holds back who asks for its number.)"""
    command = migration(scene, source, destination, "--policy", "immediate", "--turn-back", "ask", *options)
    scene.wait_for(
        lambda: "post-copy" in (destination.domain_state(NAME) or "") or command.process.poll() is not None,
        "it is in post-copy",
        60,
    )
    assert command.process.poll() is None, command.wait(1)
    before = disk.newest()
    scene.wait_for(lambda: disk.newest() > before + 10, "it writes on at the destination")
    end_qemu(destination, signal.SIGKILL)
    scene.wait_for(lambda: "can turn back" in status(scene, source).out, "the source knows", patience_s=60)
    return command


def turn_back(scene: Scene, host: Host, *words: str) -> Run:
    return scene.run("turn-back", *words, NAME, host=host)


def stopped(scene: Scene, host: Host) -> int:
    """Stops it for a look at its disk while nothing is under way: its number."""
    host.virsh("qemu-monitor-command", NAME, "--hmp", "stop")
    time.sleep(0.2)
    return count(host)


def test_disks_of_its_own(scene: Scene, boot_sector: bytes) -> None:
    disks = [Disk(host.state / "lib/counter.raw") for host in scene.bed.hosts]
    for disk in disks:
        disk.make(boot_sector)
    here, there = disks
    with guest(scene, "/var/lib/libvirt/counter.raw") as (source, destination):
        command = lost_in_postcopy(scene, source, destination, there, "--copy-storage-all")
        at_switch = count(source)
        here.check(at_switch)
        assert there.newest() > at_switch + 1, "it had gone on there"
        command.wait(60).expect(3, "one half of the guest is gone")
        # libvirt at the destination saw its QEMU end: no word is asked for.
        run = turn_back(scene, source).expect(0, "done: ")
        print(f"it went on within {run.elapsed_s:.2f} s of the request")
        scene.wait_for(lambda: count(source) > at_switch + 50, "it counts on at the source")
        here.check(stopped(scene, source))
        # What was stopped goes on by the same command, from where it stands.
        number = count(source)
        turn_back(scene, source).expect(0, "something stopped it", "done: ")
        scene.wait_for(lambda: count(source) > number + 50, "it counts on")
        here.check(stopped(scene, source))


def test_a_disk_that_both_share_takes_a_word(
    scene: Scene, boot_sector: bytes, tmp_path: pathlib.Path
) -> None:
    disk = Disk(tmp_path / "counter.raw")
    disk.make(boot_sector)
    with guest(scene, str(disk.path)) as (source, destination):
        lost_in_postcopy(scene, source, destination, disk, "--unsafe").wait(60).expect(3)
        at_switch = count(source)
        newest = disk.newest()
        assert newest > at_switch + 1, "what it wrote there is on the disk"
        turn_back(scene, source).expect(3, "vda: not copied by the migration", "--accept-newer-disks")
        assert "paused" in (source.domain_state(NAME) or "") and disk.newest() == newest
        turn_back(scene, source, "--accept-newer-disks").expect(0, "done: ")
        scene.wait_for(lambda: count(source) > newest + SECTORS, "it has written every sector anew", 120)
        disk.check(stopped(scene, source))


def test_a_disk_that_both_share_takes_none_where_the_guest_never_ran(
    scene: Scene, boot_sector: bytes, tmp_path: pathlib.Path
) -> None:
    """It is proven that nobody wrote to the disk since: the guest goes on by itself."""
    disk = Disk(tmp_path / "counter.raw")
    disk.make(boot_sector)
    with guest(scene, str(disk.path)) as (source, destination):
        libvirtd = destination.libvirtd()
        assert libvirtd is not None
        command = migration(scene, source, destination, "--policy", "manual", "--unsafe")
        scene.wait_for(lambda: source.processed_bytes(NAME) > 0, "memory flows")
        libvirtd.signal(signal.SIGSTOP)
        try:
            command.process.send_signal(signal.SIGUSR1)  # at once: libvirt misses the other one after 25 s
            scene.wait_for(
                lambda: "post-copy" in (source.domain_state(NAME) or ""), "the source has switched"
            )
            disk.check(at_switch := count(source))
            time.sleep(0.5)
            end_qemu(destination, signal.SIGKILL)
            disk.check(at_switch)
        finally:
            libvirtd.signal(signal.SIGCONT)
        run = command.wait(60).expect(1, "the destination died before the guest ran there", "nothing is lost")
        assert run.report is not None
        facts = run.report["turned_back"]["facts"]
        assert (facts["unrun"], facts["disks"], facts["accept_newer_disks"]) == (True, "shared", False)
        scene.wait_for(lambda: count(source) > at_switch + 50, "it counts on at the source")
        disk.check(stopped(scene, source))
