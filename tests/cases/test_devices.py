# SPDX-License-Identifier: Apache-2.0
"""Drives that hold nothing or cannot be copied, memory of unusual kinds, and what is plugged in meanwhile."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from tests.bed import BedError
from tests.cases.scene import CaseScene, firmware_guest

DISK = """<disk type='file' device='disk'><driver name='qemu' type='raw'/>
  <source file='/var/lib/libvirt/case.raw'/><target dev='vda' bus='virtio'/></disk>"""
CDROM = "<disk type='file' device='cdrom'>{}<target dev='hda' bus='ide'/><readonly/></disk>"


def disks(scene: CaseScene, mib: int = 8) -> None:
    for host in scene.bed.hosts:
        with (host.state / "lib/case.raw").open("wb") as file:
            file.truncate(mib << 20)


@pytest.fixture
def iso(scene: CaseScene) -> Iterator[pathlib.Path]:
    """On host a alone."""
    path = scene.bed.a.state / "lib/case.iso"
    path.write_bytes(b"\0" * (1 << 20))
    yield path
    for host in scene.bed.hosts:
        (host.state / "lib/case.iso").unlink(missing_ok=True)


def test_an_empty_drive_named_to_be_copied(scene: CaseScene) -> None:
    disks(scene)
    scene.define(scene.bed.a, firmware_guest(devices=DISK + CDROM.format("")))
    before = scene.definition(scene.bed.a, "other")
    for named in ("vda,hda", "hda", "vdz", "vda,vdz"):
        run = scene.move("other", "--copy-storage-all", "--migrate-disks", named)
        assert run.code in (1, 2), run
        run.expect(run.code, named.split(",")[-1])
        scene.expect_untouched("other", before)
    scene.move("other", "--copy-storage-all").expect(0, "done: other")
    scene.expect_moved("other", scene.bed.b, persistent=True)


def test_an_iso_that_the_destination_lacks(scene: CaseScene, iso: pathlib.Path) -> None:
    """Each try ends alike, and the medium stays in the drive."""
    source = "<source file='/var/lib/libvirt/case.iso'/>"
    scene.define(scene.bed.a, firmware_guest(devices=CDROM.format(source)))
    before = scene.definition(scene.bed.a, "other")
    for _ in range(2):
        run = scene.move("other")
        run.expect(1, r"case\.iso", "No such file", "the destination that cannot", "startupPolicy", "runs on")
        scene.expect_untouched("other", before)
        assert "case.iso" in scene.bed.a.virsh("domblklist", "other")
    (scene.bed.b.state / "lib/case.iso").write_bytes(iso.read_bytes())
    scene.move("other").expect(0, "done: other")
    assert "case.iso" in scene.bed.b.virsh("domblklist", "other")


def test_an_iso_that_may_be_missing(scene: CaseScene, iso: pathlib.Path) -> None:
    source = "<source file='/var/lib/libvirt/case.iso' startupPolicy='optional'/>"
    scene.define(scene.bed.a, firmware_guest(devices=CDROM.format(source)))
    scene.move("other").expect(0, "done: other")
    assert "case.iso" not in scene.bed.b.virsh("domblklist", "other")


def test_a_dimm_plugged_in_during_pre_copy(scene: CaseScene) -> None:
    """libvirt refuses it while the migration goes on, which is not disturbed."""
    guest = firmware_guest(
        maximum="<maxMemory slots='4' unit='MiB'>1024</maxMemory>",
        cpu="<numa><cell id='0' cpus='0' memory='96' unit='MiB'/></numa>",
        devices=DISK,
    )
    disks(scene, 64)
    scene.define(scene.bed.a, guest)
    (scene.bed.a.state / "run/pcmig/dimm.xml").write_text(
        "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    )
    source, destination = scene.bed.a, scene.bed.b
    command = scene.start(
        *("migrate", "-c", source.uri, "--migrateuri", destination.migrate_uri, "--no-progress"),
        *("--copy-storage-all", "--bandwidth", "4", "--policy", "immediate", "other", destination.remote_uri),
        host=source,
    )
    scene.wait_for(lambda: "None" not in source.virsh("domjobinfo", "other"), "the migration begins")
    with pytest.raises(BedError):
        source.virsh("attach-device", "other", "/run/pcmig/dimm.xml", "--live", timeout_s=50)
    assert command.process.poll() is None, command.said()
    command.wait(120).expect(0, "done: other")
    scene.expect_moved("other", destination, persistent=True)
    destination_xml = destination.state / "run/pcmig/dimm.xml"
    destination_xml.write_text((source.state / "run/pcmig/dimm.xml").read_text())
    destination.virsh("attach-device", "other", "/run/pcmig/dimm.xml", "--live")
    scene.move("other", "--copy-storage-all", source=destination).expect(0, "done: other")


HUGE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@contextlib.contextmanager
def huge_pages(scene: CaseScene, mib: int) -> Iterator[None]:
    """So many more of the machine's, and a mount of them in both hosts."""
    before = int(HUGE.read_text())
    try:
        HUGE.write_text(str(before + mib // 2))
        assert int(HUGE.read_text()) == before + mib // 2, "the machine has no memory for huge pages"
        yield
    finally:
        HUGE.write_text(str(before))


def test_huge_pages(scene: CaseScene) -> None:
    """Too few for a second guest: QEMU's refusal is passed on. Enough: it moves, page by page."""
    backing = "<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>"
    guest = firmware_guest(extra=backing)
    with huge_pages(scene, 104):
        scene.define(scene.bed.a, guest)
        before = scene.definition(scene.bed.a, "other")
        run = scene.move("other", "--policy", "immediate")
        run.expect(1, "annot allocate memory", "huge pages", "runs on")
        scene.expect_untouched("other", before)
        with huge_pages(scene, 104):
            done = scene.start(
                *("migrate", "-c", scene.bed.a.uri, "--migrateuri", scene.bed.b.migrate_uri),
                *("--policy", "immediate", "other", scene.bed.b.remote_uri),
                host=scene.bed.a,
                report=True,
            ).wait(60)
            done.expect(0, "done: other")
            scene.expect_moved("other", scene.bed.b, persistent=True)
            assert done.report is not None
            print(done.report["ledger"])
            scene.bed.b.virsh("destroy", "other")


def test_file_backed_memory_by_hand(scene: CaseScene, tmp_path: pathlib.Path) -> None:
    """Of qemu:commandline, on a file system where missing pages cannot be caught: QEMU refuses, no hang."""
    arguments = """<qemu:commandline>
      <qemu:arg value='-object'/>
      <qemu:arg value='memory-backend-file,id=m0,size=96M,mem-path=/var/lib/libvirt/memory,share=on'/>
      <qemu:arg value='-machine'/><qemu:arg value='memory-backend=m0'/>
    </qemu:commandline>"""
    xml = firmware_guest().replace(
        "<domain type='qemu'>", "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
    )
    xml = xml.replace("</domain>", f"{arguments}</domain>")
    scene.define(scene.bed.a, xml)
    before = scene.definition(scene.bed.a, "other")
    run = scene.move("other", "--policy", "immediate")
    run.expect(1, "TMPFS|tmpfs|memory-backend-file", "runs on")
    scene.expect_untouched("other", before)
    scene.move("other", "--policy", "never").expect(0, "done: other")
