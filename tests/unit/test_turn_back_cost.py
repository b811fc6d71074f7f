# SPDX-License-Identifier: Apache-2.0
"""What a way back would cost a guest, by its disks and by QEMU."""

from __future__ import annotations

import pytest

from pcmig import mounts, turn_back_cost
from pcmig.guest import GuestXmlError

QEMU_10, QEMU_9 = 10_000_002, 9_002_000
VDA = "<disk type='file' device='disk'><source file='/a'/><target dev='vda'/></disk>"
VDB = "<disk type='network' device='disk'><source protocol='rbd' name='b'/><target dev='vdb'/></disk>"
SHARED = "<disk device='disk'><source dev='/dev/c'/><target dev='vdc'/><shareable/></disk>"
READ_ONLY = "<disk device='disk'><source file='/d'/><target dev='vdd'/><readonly/></disk>"
CD = "<disk type='file' device='cdrom'><source file='/e'/><target dev='sda'/></disk>"
FLOPPY = "<disk type='file' device='floppy'><source file='/f'/><target dev='fda'/></disk>"
SCSI = "<hostdev type='scsi' mode='subsystem'><source/></hostdev>"
EMPTY = "<disk type='file' device='disk'><target dev='vde'/></disk>"


def guest(*disks: str) -> str:
    return f"<domain type='kvm'><name>g</name><devices>{''.join(disks)}</devices></domain>"


@pytest.mark.parametrize(
    ("disks", "copied", "qemu", "kind", "named"),
    [
        ((), False, QEMU_10, "seconds", ()),
        ((), False, QEMU_9, "seconds", ()),
        ((READ_ONLY, CD, EMPTY), False, QEMU_9, "seconds", ()),
        ((VDA,), False, QEMU_10, "shared-disks", ("vda",)),
        ((VDA,), False, 0, "shared-disks", ("vda",)),
        ((VDA,), True, QEMU_10, "seconds", ()),
        ((VDA,), True, QEMU_9, "not-possible", ("vda",)),
        ((VDA, VDB), ["vda"], QEMU_10, "shared-disks", ("vdb",)),
        ((VDA, VDB), ["vda", "vdb"], QEMU_10, "seconds", ()),
        ((VDA, SHARED), True, QEMU_10, "shared-disks", ("vdc",)),
        ((VDA, SHARED), ["vda", "vdc"], QEMU_10, "shared-disks", ("vdc",)),  # another guest may write to it
        ((VDA, SCSI), True, QEMU_10, "shared-disks", ("a SCSI device of the host",)),
        ((VDA, FLOPPY), ["vda"], QEMU_10, "shared-disks", ("fda",)),
        ((VDA, VDB), [], QEMU_10, "shared-disks", ("vda", "vdb")),
    ],
)
def test_cost(
    disks: tuple[str, ...], copied: bool | list[str], qemu: int, kind: str, named: tuple[str, ...]
) -> None:
    found = turn_back_cost.cost(guest(*disks), copied=copied, qemu_version=qemu)
    assert (found.kind, found.disks) == (kind, named)
    assert all(name in found.text for name in named)


def test_the_firmware_s_variables_are_a_disk_of_each_host() -> None:
    xml = guest().replace("<devices>", "<os><nvram>/n</nvram></os><devices>")
    assert turn_back_cost.cost(xml, copied=False, qemu_version=QEMU_10).kind == "seconds"
    assert turn_back_cost.cost(xml, copied=False, qemu_version=QEMU_9).disks == ("nvram",)


@pytest.mark.parametrize(
    "nvram",
    [
        "<nvram>/on/nfs/n</nvram>",
        "<nvram type='file'><source file='/on/nfs/n'/></nvram>",
        "<nvram type='network'><source protocol='iscsi' name='n'/></nvram>",
        "<nvram type='block'><source dev='/dev/n'/></nvram>",
    ],
)
def test_the_firmware_s_variables_on_shared_storage_are_both_hosts(
    monkeypatch: pytest.MonkeyPatch, nvram: str
) -> None:
    monkeypatch.setattr(mounts, "shared", lambda path: path.startswith("/on/nfs/"))
    xml = guest().replace("<devices>", f"<os>{nvram}</os><devices>")
    assert turn_back_cost.cost(xml, copied=True, qemu_version=QEMU_10).disks == ("nvram",)


MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:40 / /mnt/with\040space rw shared:7 - nfs4 server:/x rw
24 22 0:41 / /mnt/f rw - fuse.glusterfs server:/x rw
25 24 8:2 / /mnt/f/local rw - xfs /dev/sdb1 rw
26 22 0:42 / /mnt/over rw - nfs server:/y rw
27 22 8:3 / /mnt/over rw - ext4 /dev/sdc1 rw
nonsense
""".replace(r"\\", "\\")


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/var/n", False),
        ("/mnt/with space/a/n", True),
        ("/mnt/with space2/n", False),
        ("/mnt/f/n", True),
        ("/mnt/f/local/n", False),
        ("/mnt/over/n", False),
    ],
)
def test_storage_that_hosts_share(path: str, shared: bool) -> None:
    assert mounts.shared(path, MOUNTS) is shared


def test_without_post_copy_there_is_nothing_to_lose() -> None:
    found = turn_back_cost.cost(guest(VDA), copied=False, qemu_version=QEMU_9, post_copy=False)
    assert found.as_dict()["cost"] == "nothing"


def test_what_is_no_guest() -> None:
    with pytest.raises(GuestXmlError):
        turn_back_cost.cost("<network/>", copied=False, qemu_version=QEMU_10)
