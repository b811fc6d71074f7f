# SPDX-License-Identifier: Apache-2.0
"""A guest with a disk: with copies of its own at each host it goes on, and its disk fits its memory; with one
that both share it takes a word."""

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
from tests.functional.scene import Run, Scene
from tests.functional.test_lost import end_qemu, status

NAME = "counter"
SECTORS = 1024
DISK = "/var/lib/libvirt/counter.raw"
# Of pages that are all zero post-copy sends 9 bytes each: so many last for some seconds.
MEMORY_MIB = 3072


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
    """The guest's disk at one host."""

    def __init__(self, host: Host) -> None:
        self.path = host.state / "lib" / pathlib.Path(DISK).name

    def make(self, code: bytes) -> None:
        self.path.write_bytes(code + bytes(512 * SECTORS * 2 - 512))

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
        return max(self.numbers())

    def check(self, count: int) -> None:
        """It has all that was written up to COUNT, where it belongs, and nothing after it but what is under
        way."""
        numbers = self.numbers()
        newest = max(numbers)
        assert count <= newest <= count + 1, (count, newest)
        for number in range(max(1, newest - SECTORS + 1), newest + 1):
            assert numbers[number % SECTORS] == number, number


def count(host: Host) -> int:
    """The guest's own number, in its memory."""
    said = host.virsh("qemu-monitor-command", NAME, "--hmp", "xp /1wx 0x8000")
    return int(re.findall(r": (0x[0-9a-f]+)", said)[0], 16)


@contextlib.contextmanager
def guest(scene: Scene, code: bytes) -> Iterator[tuple[Host, Host]]:
    source, destination = scene.bed.hosts
    for host in scene.bed.hosts:
        Disk(host).make(code)
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{DISK}'/><target dev='vda' bus='virtio'/></disk>"
    )
    xml = firmware_guest(NAME, devices=disk, memory_mib=MEMORY_MIB)
    (source.state / "run/pcmig/counter.xml").write_text(xml)
    source.virsh("create", "/run/pcmig/counter.xml")
    try:
        scene.wait_for(lambda: count(source) > 20, "it counts")
        yield source, destination
    finally:
        for host in scene.bed.hosts:
            with contextlib.suppress(BedError):
                host.virsh("destroy", NAME)
        scene.wait_for(lambda: not any(host.qemu_pids() for host in scene.bed.hosts), "all QEMUs are gone")


def lost_in_postcopy(scene: Scene, source: Host, destination: Host, *options: str) -> None:
    """The guest switches, runs on, and its destination dies."""
    command = scene.start(
        *("migrate", NAME, destination.remote_uri, "--connect", source.uri),
        *("--migrateuri", destination.migrate_uri, "--policy", "immediate", "--postcopy-bandwidth", "1"),
        *("--no-progress", *options),
        host=source,
    )
    scene.wait_for(lambda: "post-copy" in (destination.domain_state(NAME) or ""), "it is in post-copy", 60)
    before = count(destination)
    scene.wait_for(lambda: count(destination) > before + 10, "it counts on at the destination")
    end_qemu(destination, signal.SIGKILL)
    command.kill()
    scene.wait_for(lambda: "can turn back" in status(scene, source).out, "the source knows", patience_s=60)


def turn_back(scene: Scene, host: Host, *words: str) -> Run:
    return scene.run("turn-back", *words, NAME, host=host)


def test_disks_of_its_own(scene: Scene, boot_sector: bytes) -> None:
    with guest(scene, boot_sector) as (source, destination):
        lost_in_postcopy(scene, source, destination, "--copy-storage-all")
        at_switch = count(source)
        Disk(source).check(at_switch)
        assert Disk(destination).newest() > at_switch + 1, "it had gone on there"
        turn_back(scene, source).expect(0, "done: ")
        scene.wait_for(lambda: count(source) > at_switch + 50, "it counts on at the source")
        source.virsh("qemu-monitor-command", NAME, "--hmp", "stop")
        time.sleep(0.2)
        Disk(source).check(count(source))


def test_a_disk_that_both_share_takes_a_word(scene: Scene, boot_sector: bytes) -> None:
    """(The file is each host's own on this bed: what libvirt takes for shared, on a word, is enough.)"""
    with guest(scene, boot_sector) as (source, destination):
        lost_in_postcopy(scene, source, destination, "--unsafe")
        turn_back(scene, source).expect(3, "vda: not copied by the migration", "--accept-newer-disks")
        at_switch = count(source)
        assert "paused" in (source.domain_state(NAME) or "")
        turn_back(scene, source, "--accept-newer-disks").expect(0, "done: ")
        scene.wait_for(lambda: count(source) > at_switch + 50, "it counts on at the source")
