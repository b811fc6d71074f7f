# SPDX-License-Identifier: Apache-2.0
"""What a guest's XML says about post-copy."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmig.guest import GuestXmlError, Obstacle, early_page_channel, not_copied, obstacles

# As `virsh dumpxml` prints a guest of Nova, shortened where nothing is decided.
NOVA = """
<domain type='kvm' id='7'>
  <name>instance-0000002a</name>
  <uuid>5c8f3f6e-6a0f-4b5e-9a53-2a6d7a2c4f11</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>web</nova:name>
      <nova:flavor name="m1.small"><nova:memory>2048</nova:memory></nova:flavor>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  {memory_backing}
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
  <cpu mode='custom' match='exact'><model fallback='forbid'>Cascadelake-Server</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='writeback'/>
      <source protocol='rbd' name='vms/5c8f_disk'><host name='10.0.0.1' port='6789'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='fa:16:3e:11:22:33'/>
      <source bridge='br-int'/>
      <target dev='tap1b2c3d4e-5f'/>
      <model type='virtio'/>
    </interface>
    <memballoon model='virtio' freePageReporting='on'/>
    {devices}
  </devices>
  {more}
</domain>
"""


def found(devices: str = "", memory_backing: str = "", more: str = "") -> list[Obstacle]:
    return obstacles(NOVA.format(devices=devices, memory_backing=memory_backing, more=more))


def test_an_ordinary_guest_has_no_obstacle() -> None:
    assert found() == []


@pytest.mark.parametrize(
    "harmless",
    [
        "<hostdev mode='subsystem' type='pci'><teaming type='transient' persistent='ua-b'/></hostdev>",
        "<interface type='hostdev'><teaming type='transient' persistent='x'/></interface>",
        "<memory model='dimm'><target><size unit='KiB'>524288</size></target></memory>",
        "<memory model='virtio-mem'><target/></memory>",
        "<shmem name='s' role='master'><model type='ivshmem-plain'/></shmem>",
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
        "<redirdev bus='usb' type='spicevmc'/>",
        "<video><model type='virtio'/></video>",
    ],
)
def test_harmless_devices(harmless: str) -> None:
    assert found(harmless) == []


PCI = """<hostdev mode='subsystem' type='pci' managed='yes'>
  <driver name='vfio'/>
  <source><address domain='0x0000' bus='0xb1' slot='0x00' function='0x2'/></source>
  <address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>
</hostdev>"""
MDEV = """<hostdev mode='subsystem' type='mdev' managed='no' model='vfio-pci'>
  <source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source>
</hostdev>"""
SRIOV = "<interface type='hostdev' managed='yes'><mac address='fa:16:3e:44:55:66'/></interface>"
VDPA = (
    "<interface type='vdpa'><mac address='fa:16:3e:77:88:99'/><source dev='/dev/vhost-vdpa-0'/></interface>"
)
VDPA_DISK = "<disk type='vhostvdpa' device='disk'><source dev='/dev/vhost-vdpa-1'/><target dev='vdb'/></disk>"
NVDIMM = "<memory model='nvdimm' access='shared'><source><path>/dev/dax0.0</path></source></memory>"
VIRTIOFS = "<filesystem type='mount'><driver type='virtiofs' queue='1024'/><target dir='share'/></filesystem>"
GPU = "<video><driver name='vhostuser'/><model type='virtio'/></video>"
DPDK = "<interface type='vhostuser'><mac address='fa:16:3e:aa:bb:cc'/></interface>"
VHOST_DISK = "<disk type='vhostuser' device='disk'><source type='unix' path='/x'/><target dev='vdc'/></disk>"
PMEM = "<memory model='virtio-pmem' access='shared'><source><path>/tmp/virtio_pmem</path></source></memory>"


@pytest.mark.parametrize(
    ("devices", "element", "blocks"),
    [
        (PCI, "<hostdev type='pci'> 0000:b1:00.2", True),
        (MDEV, "<hostdev type='mdev'> c2177883-f1bb-47f0-914d-32a22e3a8804", True),
        (SRIOV, "<interface type='hostdev'> fa:16:3e:44:55:66", True),
        (VDPA, "<interface type='vdpa'> fa:16:3e:77:88:99", True),
        (VDPA_DISK, "<disk type='vhostvdpa'> vdb", True),
        (NVDIMM, "<memory model='nvdimm'>", True),
        (VIRTIOFS, "<filesystem> with virtiofs share", True),
        (GPU, "<video> with vhost-user", True),
        (DPDK, "<interface type='vhostuser'> fa:16:3e:aa:bb:cc", False),
        (VHOST_DISK, "<disk type='vhostuser'> vdc", False),
        (PMEM, "<memory model='virtio-pmem'>", False),
    ],
)
def test_devices(devices: str, element: str, blocks: bool) -> None:
    assert [(o.element, o.blocks) for o in found(devices)] == [(element, blocks)]


@pytest.mark.parametrize(
    ("devices", "element", "blocks"),
    [
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc31c'/>"
            "</source></hostdev>",
            "<hostdev type='usb'> 046d:c31c",
            False,
        ),
        (
            "<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>",
            "<hostdev type='usb'>",
            False,
        ),
        ("<hostdev mode='subsystem' type='scsi'><source/></hostdev>", "<hostdev type='scsi'>", False),
        (
            "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost'/></hostdev>",
            "<hostdev type='scsi_host'>",
            True,
        ),
        ("<hostdev mode='capabilities' type='misc'/>", "<hostdev mode='capabilities'>", True),
        ("<filesystem type='mount'><target dir='x'/></filesystem>", "<filesystem> with 9p x", False),
        (
            "<filesystem type='mount'><driver type='path'/><target dir='y'/></filesystem>",
            "<filesystem> with 9p y",
            False,
        ),
        ("<shmem name='s'><model type='ivshmem-plain'/></shmem>", "<shmem> s", True),
        ("<shmem name='s' role='peer'><model type='ivshmem-doorbell'/></shmem>", "<shmem> s", True),
        (
            "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
            "<tpm> with the host's own chip",
            False,
        ),
        (
            "<redirdev bus='usb' type='tcp'><source mode='connect'/></redirdev>",
            "<redirdev type='tcp'>",
            False,
        ),
        (
            "<disk type='file'><transient/><target dev='vdb'/></disk>",
            "<disk> with <transient/> vdb",
            True,
        ),
    ],
)
def test_devices_that_stay_behind(devices: str, element: str, blocks: bool) -> None:
    """Each that libvirt or QEMU refuses, or lets go without its other half."""
    (obstacle,) = found(devices)
    assert (obstacle.element, obstacle.blocks) == (element, blocks)
    assert obstacle.reason and obstacle.remedy


@pytest.mark.parametrize(
    ("arguments", "elements"),
    [
        (["-device", "vfio-pci,host=01:00.0"], [("<qemu:commandline> with vfio", True)]),
        (
            ["-object", "memory-backend-file,id=m,size=1G,mem-path=/var/lib/m,share=on"],
            [("<qemu:commandline> with memory-backend-file", False)],
        ),
        (["-object", "memory-backend-file,id=m,size=1G,mem-path=/dev/shm/m,share=on"], []),
        (["-object", "memory-backend-file,id=m,mem-path=/dev/hugepages"], []),
        (["-device", "virtio-9p-pci,fsdev=f"], [("<qemu:commandline> with virtio-9p", False)]),
        (["-device", "virtio-rng-pci", "-cpu", "host"], []),
        (["-device", "vfio-pci,a", "-device", "vfio-pci,b"], [("<qemu:commandline> with vfio", True)]),
    ],
)
def test_qemus_own_command_line(arguments: list[str], elements: list[tuple[str, bool]]) -> None:
    args = "".join(f"<q:arg value='{argument}'/>" for argument in arguments)
    line = f"<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>{args}</q:commandline>"
    assert [(obstacle.element, obstacle.blocks) for obstacle in found(more=line)] == elements


@pytest.mark.parametrize(
    ("cpu", "clock", "is_one"),
    [
        ("<feature policy='require' name='invtsc'/>", "", True),
        ("<feature policy='disable' name='invtsc'/>", "", False),
        ("<feature policy='require' name='invtsc'/>", "<timer name='tsc' frequency='2400000000'/>", False),
        ("<feature policy='require' name='invtsc'/>", "<timer name='hpet' present='no'/>", True),
    ],
)
def test_invariant_tsc(cpu: str, clock: str, is_one: bool) -> None:
    obstacles = found(more=f"<cpu>{cpu}</cpu><clock offset='utc'>{clock}</clock>")
    assert [obstacle.element for obstacle in obstacles] == (["<feature name='invtsc'>"] if is_one else [])


def test_all_are_found() -> None:
    names = found(PCI + MDEV + SRIOV + VDPA + NVDIMM + VIRTIOFS)
    assert len(names) == 6 and all(o.blocks for o in names)


@pytest.mark.parametrize(
    ("backing", "elements"),
    [
        ("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", []),
        ("<memoryBacking><hugepages/></memoryBacking>", []),
        ("<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>", []),
        (
            "<memoryBacking><hugepages><page size='1' unit='G' nodeset='0'/></hugepages></memoryBacking>",
            ["<hugepages> of 1 GiB"],
        ),
        (
            "<memoryBacking><hugepages><page size='1048576'/></hugepages></memoryBacking>",
            ["<hugepages> of 1 GiB"],
        ),
        (
            "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>",
            ["<memoryBacking><source type='file'/>"],
        ),
    ],
)
def test_memory_backing(backing: str, elements: list[str]) -> None:
    assert [o.element for o in found(memory_backing=backing)] == elements
    assert not any(o.blocks for o in found(memory_backing=backing))


@pytest.mark.parametrize("kind", ["sev", "sev-snp", "tdx", "s390-pv"])
def test_confidential_guests(kind: str) -> None:
    (obstacle,) = found(more=f"<launchSecurity type='{kind}'><policy>0x0001</policy></launchSecurity>")
    assert obstacle.blocks and kind in obstacle.element


DISKS = """<domain><devices>
  <disk type='file' device='disk'><source file='/a'/><target dev='vda'/></disk>
  <disk type='file' device='cdrom'><target dev='hda'/><readonly/></disk>
  <disk type='file' device='cdrom'><source file='/b'/><target dev='hdb'/><readonly/></disk>
</devices></domain>"""


@pytest.mark.parametrize(
    "targets, words",
    [
        (["vdz"], "no disk vdz: it has vda, hda, hdb"),
        (["vda", "hda"], "hda is an empty drive"),
        (["hdb"], "hdb is read-only"),
        (["vda"], None),
        ([], None),
    ],
)
def test_disks_that_cannot_be_copied(targets: list[str], words: str | None) -> None:
    why = not_copied(DISKS, targets)
    assert why is None if words is None else why is not None and words in why


def test_other_hypervisors() -> None:
    (obstacle,) = obstacles("<domain type='xen'><name>a</name></domain>")
    assert obstacle.blocks and "xen" in obstacle.element


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("<domain type='kvm'>", "cannot be read"),
        ("<network/>", "<network>, not a <domain>"),
        ("<domain type='kvm'>\0</domain>", "cannot be read"),
        ("<!DOCTYPE lolz [<!ENTITY a 'aaaa'>]><domain type='kvm'>&a;</domain>", "document type"),
        ("x" * (4 * 1024 * 1024 + 1), "more than libvirt sends"),
    ],
)
def test_what_is_no_domain_xml(text: str, words: str) -> None:
    with pytest.raises(GuestXmlError, match=words):
        obstacles(text)


TAGS = st.sampled_from(
    [
        "domain",
        "devices",
        "hostdev",
        "interface",
        "disk",
        "memory",
        "memoryBacking",
        "hugepages",
        "page",
        "source",
        "address",
        "driver",
        "filesystem",
        "video",
        "launchSecurity",
        "teaming",
        "mac",
        "target",
        "nothing",
    ]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        [
            "type",
            "model",
            "size",
            "unit",
            "domain",
            "bus",
            "slot",
            "function",
            "uuid",
            "address",
            "dev",
            "dir",
            "name",
        ]
    ),
    st.one_of(
        st.sampled_from(
            [
                "kvm",
                "pci",
                "mdev",
                "hostdev",
                "vdpa",
                "file",
                "nvdimm",
                "virtiofs",
                "vhostuser",
                "1",
                "GiB",
                "0x1f",
                "transient",
                "-1",
            ]
        ),
        st.text(max_size=12),
    ),
    max_size=4,
)
CHILDREN: st.SearchStrategy[Any] = st.recursive(
    st.tuples(TAGS, ATTRIBUTES, st.just([])),
    lambda inner: st.tuples(TAGS, ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=20,
)


def build(node: tuple[str, dict[str, str], list[object]]) -> ET.Element:
    tag, attributes, children = node
    element = ET.Element(tag, attributes)
    element.extend(build(child) for child in children)  # type: ignore[arg-type]
    return element


@settings(max_examples=300, deadline=None)
@given(st.lists(CHILDREN, max_size=5))
def test_any_xml_is_judged_or_refused(nodes: list[tuple[str, dict[str, str], list[object]]]) -> None:
    root = ET.Element("domain", type="kvm")
    root.extend(build(node) for node in nodes)
    try:
        judged = obstacles(ET.tostring(root, encoding="unicode"))
    except GuestXmlError:
        return
    for obstacle in judged:
        assert obstacle.element and obstacle.reason and obstacle.remedy


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_judged_or_refused(text: str) -> None:
    for candidate in (text, f"<domain type='kvm'>{text}</domain>"):
        with contextlib.suppress(GuestXmlError):
            obstacles(candidate)


@pytest.mark.parametrize(
    ("machine", "early"),
    [
        ("pc-i440fx-7.2", True),
        ("pc-q35-6.2", True),
        ("pc-q35-rhel9.2.0", True),
        ("pc-i440fx-rhel7.6.0", True),
        ("pc-q35-jammy", True),
        ("pc-i440fx-focal-hpb", True),
        ("pc-i440fx-8.0", False),
        ("pc-q35-10.1", False),
        ("pc-q35-rhel9.4.0", False),
        ("pc-q35-noble", False),
        ("s390-ccw-virtio-7.1", True),
        ("virt-9.2", False),
        ("", False),
    ],
)
def test_when_the_connection_of_pages_comes(machine: str, early: bool) -> None:
    found = early_page_channel(f"<domain><os><type machine='{machine}'>hvm</type></os></domain>")
    assert found == (machine if early else None)
