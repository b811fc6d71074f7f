# SPDX-License-Identifier: Apache-2.0
"""What a guest's libvirt XML says about post-copy: pure, XML text in, obstacles out.

QEMU refuses most of these itself, but only when the migration has been set up on both hosts, and in words
of its own; here they are found before anything is started. Each rule names the source of its claim.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Iterator

from pcmig import mounts

MAX_XML_CHARS = 4 * 1024 * 1024  # libvirt's own limit of a string over RPC

# Backings of /dev/pts and the like are not our business; a DOCTYPE is what entity expansion needs, and
# libvirt never writes one.
_DOCTYPE = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class GuestXmlError(ValueError):
    """The text is not a domain XML of libvirt."""


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """One thing in the guest that does not go with post-copy."""

    element: str  # as an operator finds it in `virsh dumpxml`
    reason: str
    remedy: str
    blocks: bool  # False: post-copy may work, with what `reason` says in mind


def obstacles(xml: str, unplugged: Collection[str] = ()) -> list[Obstacle]:
    """All obstacles in XML, in the order of the rules. Raises GuestXmlError.

    UNPLUGGED: MAC addresses, in lower case, of interfaces that somebody takes out before the guest migrates.
    """
    root = parse(xml)
    devices = root.find("./devices")
    if devices is not None and unplugged:
        for interface in devices.findall("./interface"):
            if _mac(interface).strip().lower() in unplugged:
                devices.remove(interface)
    return [obstacle for rule in RULES for obstacle in rule(root)]


def parse(xml: str) -> ET.Element:
    """The root of a domain XML. Raises GuestXmlError, also for a document type: no entities are expanded."""
    if len(xml) > MAX_XML_CHARS:
        raise GuestXmlError(
            f"the guest's XML has {len(xml)} characters, more than libvirt sends ({MAX_XML_CHARS})"
        )
    if _DOCTYPE.search(xml):
        raise GuestXmlError("the guest's XML has a document type declaration, which libvirt never writes")
    try:
        root = ET.fromstring(xml)
    except (ET.ParseError, ValueError) as err:
        raise GuestXmlError(f"the guest's XML cannot be read: {err}") from err
    if root.tag != "domain":
        raise GuestXmlError(f"the guest's XML is a <{root.tag}>, not a <domain>")
    return root


# Of QEMU, of RHEL (whose 9.2.0 is QEMU's 7.2) and of Ubuntu.
_OLD_MACHINE = re.compile(
    r"-([1-7]\.\d+|rhel[78]\.[\d.]+|rhel9\.[0-3]\.\d+|(?:xenial|bionic|focal|jammy)(?:-.*)?)$"
)


def early_page_channel(xml: str) -> str | None:
    """The guest's machine type, if QEMU makes the connection of pages that are asked for in post-copy at the
    very beginning with it, as before 8.0: among those of VIR_MIGRATE_PARALLEL, which the destination then
    takes for each other, and pre-copy stops for good. Raises GuestXmlError."""
    element = parse(xml).find("./os/type")
    machine = element.get("machine", "") if element is not None else ""
    return machine if _OLD_MACHINE.search(machine) else None


def identity(xml: str) -> tuple[str, str]:
    """UUID and name. Raises GuestXmlError."""
    root = parse(xml)
    uuid, name = root.findtext("uuid"), root.findtext("name")
    if not uuid or not name:
        raise GuestXmlError("the guest's XML has no UUID or no name")
    return uuid, name


def not_copied(xml: str, targets: Iterable[str]) -> str | None:
    """Why one of the TARGETS that are to be copied cannot be; None when all can. libvirt passes over
    a name that the guest does not have, and calls the rest unsafe. Raises GuestXmlError."""
    found = {_target(disk).strip(): disk for disk in parse(xml).iterfind("./devices/disk")}
    there = ", ".join(name for name in found if name) or "none"
    for target in targets:
        disk = found.get(target)
        if disk is None:
            return f"the guest has no disk {target}: it has {there}"
        if disk.find("source") is None:
            return f"{target} is an empty drive, with nothing to copy: leave it out"
        if disk.find("readonly") is not None:
            return f"{target} is read-only, and libvirt copies no such disk: leave it out, and have it there"
    return None


@dataclasses.dataclass(frozen=True)
class WrittenDisk:
    target: str  # "vda"; "nvram" for the firmware's variables
    shareable: bool  # several guests write to it: libvirt copies no such disk


def written_disks(xml: str) -> list[WrittenDisk]:
    """What the guest may write to: disks and floppies with something in them that are not read-only, and the
    firmware's variables. Raises GuestXmlError."""
    root = parse(xml)
    found = [
        WrittenDisk(_target(disk).strip() or "a disk", disk.find("shareable") is not None)
        for disk in root.iterfind("./devices/disk")
        if disk.find("source") is not None
        and disk.find("readonly") is None
        and disk.get("device", "disk") != "cdrom"
    ]
    found += [
        WrittenDisk("a SCSI device of the host", True)
        for device in root.iterfind("./devices/hostdev")
        if device.get("type") in ("scsi", "scsi_host") and device.find("readonly") is None
    ]
    variables = root.find("./os/nvram")
    if variables is not None:
        found.append(WrittenDisk(NVRAM, _both_have(variables)))
    return found


def _both_have(variables: ET.Element) -> bool:
    """Whether the firmware's VARIABLES are the same for both hosts: on the network, a device, or in a file on
    storage that hosts share, as far as this host has it."""
    if variables.get("type", "file") != "file":
        return True
    source = variables.find("source")
    path = (variables.text or "").strip() or (source.get("file", "") if source is not None else "")
    return bool(path) and mounts.shared(path)


NVRAM = "nvram"


def own_and_shared(xml: str, copied: bool | Collection[str]) -> tuple[list[str], list[str]]:
    """The names of what the guest may write to, by whose it is while it migrates: each host's own, or both
    hosts'. COPIED: whether the migration copies disks, or the names of those that it copies.

    What is marked as shareable is nobody's own, copied or not: another guest may write to it. The firmware's
    variables are in a file of each host's own, as a rule, and go with the guest's memory. Raises
    GuestXmlError."""
    own: list[str] = []
    shared: list[str] = []
    for disk in written_disks(xml):
        listed = copied if isinstance(copied, bool) else disk.target in copied
        mine = (listed or disk.target == NVRAM) and not disk.shareable
        (own if mine else shared).append(disk.target)
    return own, shared


def _transient(device: ET.Element) -> bool:
    """Whether the device is unplugged for a migration."""
    teaming = device.find("teaming")
    return teaming is not None and teaming.get("type") == "transient"


def _address(device: ET.Element) -> str:
    """ " 0000:b1:00.2" of a PCI device, " UUID" of a mediated one, or ""."""
    address = device.find("./source/address")
    if address is None:
        return ""
    if uuid := address.get("uuid"):
        return f" {uuid}"
    try:
        domain, bus, slot, function = (
            int(address.get(key, "0"), 0) for key in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        return ""
    return f" {domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _mac(interface: ET.Element) -> str:
    mac = interface.find("mac")
    return "" if mac is None or not mac.get("address") else f" {mac.get('address')}"


def _target(device: ET.Element, attribute: str = "dev") -> str:
    target = device.find("target")
    return "" if target is None or not target.get(attribute) else f" {target.get(attribute)}"


# Why post-copy does not go with a device that does DMA past QEMU.
_MOUNTED = "QEMU refuses every migration while the guest has it mounted"
_VDPA = "vDPA pins the guest's memory, so pages that are still missing cannot be caught"
_VFIO = "QEMU does not combine post-copy with VFIO: the device writes to memory that may not be there yet"


def _hypervisor(root: ET.Element) -> Iterator[Obstacle]:
    """Post-copy is QEMU's; of libvirt's drivers only qemu:/// has it (libvirt, "Hypervisor support" of
    virDomainMigrateStartPostCopy)."""
    kind = root.get("type", "")
    if kind not in ("kvm", "qemu"):
        yield Obstacle(
            f"<domain type='{kind}'>",
            "post-copy exists only for guests that QEMU runs",
            "migrate it with the means of its hypervisor",
            True,
        )


def _vfio(root: ET.Element) -> Iterator[Obstacle]:
    """QEMU >= 8.2, hw/vfio/migration.c: "VFIO migration is not supported with postcopy migration". Before,
    a VFIO device could not migrate at all. A device with <teaming type='transient'/> is unplugged before
    (libvirt, qemu_migration.c, qemuMigrationSrcIsAllowedHostdev)."""
    for device in root.iterfind("./devices/hostdev"):
        if device.get("type") in ("pci", "mdev") and not _transient(device):
            kind = device.get("type")
            yield Obstacle(
                f"<hostdev type='{kind}'>{_address(device)}",
                _VFIO,
                "detach the device for the migration, or use --policy never if it can migrate in pre-copy",
                True,
            )
    for interface in root.iterfind("./devices/interface"):
        if interface.get("type") == "hostdev" and not _transient(interface):
            yield Obstacle(
                f"<interface type='hostdev'>{_mac(interface)}",
                _VFIO,
                "give it a standby and <teaming type='transient'/>, detach it, or use --policy never",
                True,
            )


def _vdpa(root: ET.Element) -> Iterator[Obstacle]:
    """vhost-vdpa pins all memory of the guest (Linux, drivers/vhost/vdpa.c), so that missing pages would be
    taken for present ones; libvirt without query of blockers: "vDPA devices cannot be migrated"."""
    for interface in root.iterfind("./devices/interface[@type='vdpa']"):
        yield Obstacle(
            f"<interface type='vdpa'>{_mac(interface)}",
            _VDPA,
            "detach the interface for the migration",
            True,
        )
    for disk in root.iterfind("./devices/disk[@type='vhostvdpa']"):
        yield Obstacle(
            f"<disk type='vhostvdpa'>{_target(disk)}",
            _VDPA,
            "move the disk to another kind of storage",
            True,
        )


def _vhost_user(root: ET.Element) -> Iterator[Obstacle]:
    """QEMU, hw/virtio/vhost-user.c: "vhost-user backend not capable of postcopy" unless the backend offers
    VHOST_USER_PROTOCOL_F_PAGEFAULT. DPDK does, Open vSwitch only with
    other_config:vhost-postcopy-support=true; virtiofsd and vhost-user-gpu do not."""
    for filesystem in root.iterfind("./devices/filesystem"):
        driver = filesystem.find("driver")
        if driver is not None and driver.get("type") == "virtiofs":
            yield Obstacle(
                f"<filesystem> with virtiofs{_target(filesystem, 'dir')}",
                "virtiofsd cannot fetch missing pages (no VHOST_USER_PROTOCOL_F_PAGEFAULT)",
                "unmount and detach the file system for the migration",
                True,
            )
    for video in root.iterfind("./devices/video"):
        driver = video.find("driver")
        if driver is not None and driver.get("name") == "vhostuser":
            yield Obstacle(
                "<video> with vhost-user",
                "the display's own process cannot fetch missing pages (no VHOST_USER_PROTOCOL_F_PAGEFAULT)",
                "use a video device that QEMU itself emulates",
                True,
            )
    for interface in root.iterfind("./devices/interface[@type='vhostuser']"):
        yield Obstacle(
            f"<interface type='vhostuser'>{_mac(interface)}",
            "the switch at the destination must be able to fetch missing pages",
            "with Open vSwitch and DPDK: ovs-vsctl set Open_vSwitch . "
            "other_config:vhost-postcopy-support=true, then restart it",
            False,
        )
    for disk in root.iterfind("./devices/disk[@type='vhostuser']"):
        yield Obstacle(
            f"<disk type='vhostuser'>{_target(disk)}",
            "its storage daemon at the destination must be able to fetch missing pages",
            "check that the daemon offers VHOST_USER_PROTOCOL_F_PAGEFAULT, or use --policy never",
            False,
        )


def _memory_devices(root: ET.Element) -> Iterator[Obstacle]:
    """nvdimm: QEMU since 3.0 disables post-copy with it (commit 469dd51bc664, "migration/ram: Add check and
    info message to nvdimm post copy"); Nova calls it vpmem. virtio-pmem: a file of the host, see
    _memory_backing."""
    for memory in root.iterfind("./devices/memory"):
        model = memory.get("model")
        if model == "nvdimm":
            yield Obstacle(
                "<memory model='nvdimm'>",
                "QEMU does not migrate persistent memory (vpmem) with post-copy",
                "use --policy never, or move the guest to a flavor without virtual persistent memory",
                True,
            )
        elif model == "virtio-pmem":
            yield Obstacle(
                "<memory model='virtio-pmem'>",
                "its file must be on tmpfs or hugetlbfs at the destination, or QEMU there refuses post-copy",
                "move the file to tmpfs, detach the device, or use --policy never",
                False,
            )


def _memory_backing(root: ET.Element) -> Iterator[Obstacle]:
    """QEMU >= 8.1, migration/postcopy-ram.c: "Host backend files need to be TMPFS or HUGETLBFS only".
    Shared memory as such is fine since Linux 4.11 (userfaultfd on shmem). Huge pages arrive whole (same
    file: a page's size is that of its block)."""
    backing = root.find("./memoryBacking")
    if backing is None:
        return
    source = backing.find("source")
    if source is not None and source.get("type") == "file":
        yield Obstacle(
            "<memoryBacking><source type='file'/>",
            "the destination's memory_backing_dir must be on tmpfs or hugetlbfs, or QEMU refuses post-copy",
            "set memory_backing_dir to a folder of /dev/shm in qemu.conf, or use <source type='memfd'/>",
            False,
        )
    for page in backing.iterfind("./hugepages/page"):
        size_kib = _kib(page.get("size"), page.get("unit", "KiB"))
        if size_kib is not None and size_kib >= 1024 * 1024:
            yield Obstacle(
                f"<hugepages> of {size_kib // (1024 * 1024)} GiB",
                "each page the guest misses is fetched whole: at 1 Gb/s it waits 9 s for one of 1 GiB",
                "use pages of 2 MiB, a faster link, or --policy never",
                False,
            )


def _confidential(root: ET.Element) -> Iterator[Obstacle]:
    """QEMU, target/i386/sev.c: "SEV: Migration is not implemented"; TDX and s390 protected guests have
    blockers of the same kind. No kind of live migration works for them."""
    security = root.find("./launchSecurity")
    if security is not None:
        kind = security.get("type", "")
        yield Obstacle(
            f"<launchSecurity type='{kind}'>",
            "QEMU cannot migrate a guest whose memory the host cannot read",
            "shut it down and start it at the destination",
            True,
        )


@dataclasses.dataclass(frozen=True)
class _Device:
    """A row of DEVICES: elements that are an obstacle by themselves, whatever else the guest has."""

    path: str  # as ElementTree's iterfind takes it
    shown: str  # how the obstacle names it; {what} is put in by `what`
    reason: str
    remedy: str
    blocks: bool
    counts: Callable[[ET.Element], bool] = lambda element: True
    what: Callable[[ET.Element], str] = lambda element: ""


def _driver(element: ET.Element, default: str) -> str:
    driver = element.find("driver")
    return default if driver is None else driver.get("type", default)


def _usb(device: ET.Element) -> str:
    """ " 046d:c31c" of a USB device by vendor and product."""
    vendor, product = device.find("./source/vendor"), device.find("./source/product")
    if vendor is None or product is None:
        return ""
    return f" {vendor.get('id', '').removeprefix('0x')}:{product.get('id', '').removeprefix('0x')}"


# Of libvirt, src/qemu/qemu_migration.c: qemuMigrationSrcIsAllowed and ...IsAllowedHostdev. With QEMU 6.0 and
# newer, libvirt of today asks QEMU for its reasons (query-migrate, blocked-reasons) and refuses no hostdev by
# kind.
DEVICES = (
    # QEMU, hw/usb/host-libusb.c, usb_host_post_load_bh: "emulate a surprise removal", then look for it here.
    _Device(
        "./devices/hostdev[@type='usb']",
        "<hostdev type='usb'>{what}",
        "the device stays behind: to the guest it is pulled out, and plugged in again only if the "
        "destination has one of the same vendor and product",
        "detach it for the migration (virsh detach-device), or have one like it at the destination",
        False,
        what=_usb,
    ),
    # Refused by libvirt before it asked QEMU; QEMU has no blocker: the unit's state is the target's.
    _Device(
        "./devices/hostdev[@type='scsi']",
        "<hostdev type='scsi'>",
        "libvirt at the destination takes what has the same adapter, bus, target and unit there, whatever it "
        "is; older ones refuse the migration",
        "see that it is the same unit at both hosts, or use a disk of type block with device='lun'",
        False,
    ),
    # QEMU, hw/scsi/vhost-scsi.c: "vhost-scsi does not support migration in all cases", unless migratable=on,
    # which libvirt cannot set.
    _Device(
        "./devices/hostdev[@type='scsi_host']",
        "<hostdev type='scsi_host'>",
        "QEMU does not migrate vhost-scsi: the state is in the host's kernel",
        "detach it for the migration, or use disks of another kind",
        True,
    ),
    _Device(
        "./devices/hostdev[@mode='capabilities']",
        "<hostdev mode='capabilities'>",
        "libvirt does not migrate a guest with it",
        "detach it for the migration",
        True,
    ),
    # QEMU, hw/9pfs/9p.c: "Migration is disabled when VirtFS export path ... is mounted in the guest".
    _Device(
        "./devices/filesystem",
        "<filesystem> with 9p{what}",
        _MOUNTED,
        "unmount it in the guest for the migration",
        False,
        counts=lambda filesystem: _driver(filesystem, "path") in ("path", "handle"),
        what=lambda filesystem: _target(filesystem, "dir"),
    ),
    # libvirt: "only shmem with role='master' can be migrated"; QEMU, hw/misc/ivshmem: a blocker for peers.
    _Device(
        "./devices/shmem",
        "<shmem>{what}",
        "QEMU and libvirt migrate shared memory only with role='master', as its other users stay behind",
        "detach it for the migration, or make this guest the master",
        True,
        counts=lambda shmem: shmem.get("role") != "master",
        what=lambda shmem: f" {shmem.get('name')}" if shmem.get("name") else "",
    ),
    # QEMU has no blocker for backends/tpm/tpm_passthrough.c, and libvirt none either.
    _Device(
        "./devices/tpm/backend[@type='passthrough']",
        "<tpm> with the host's own chip",
        "the chip stays behind, with all keys in it: nothing refuses the migration, and the guest finds "
        "another one",
        "do not migrate it while it needs its keys; an emulated TPM (type='emulator') goes with the guest",
        False,
    ),
    # libvirt carries the URIs along; QEMU at the destination connects by itself.
    _Device(
        "./devices/redirdev[@type='tcp']",
        "<redirdev type='tcp'>",
        "the redirected USB device is pulled out: the destination's QEMU makes a connection of its own",
        "detach it for the migration, or see that its server lets the destination in",
        False,
    ),
    # libvirt: "migration with transient disk is not supported".
    _Device(
        "./devices/disk/transient/..",
        "<disk> with <transient/>{what}",
        "libvirt does not migrate a guest whose disk forgets its changes",
        "shut it down and start it at the destination",
        True,
        what=_target,
    ),
)


def _devices(root: ET.Element) -> Iterator[Obstacle]:
    """The rows of DEVICES."""
    for row in DEVICES:
        for element in root.iterfind(row.path):
            if row.counts(element):
                shown = row.shown.format(what=row.what(element))
                yield Obstacle(shown, row.reason, row.remedy, row.blocks)


def _clock(root: ET.Element) -> Iterator[Obstacle]:
    """libvirt, qemuMigrationSrcIsAllowed: "domain has 'invtsc' CPU feature but TSC frequency is not
    specified"; QEMU has a blocker of the same kind."""
    wanted = ("force", "require", None)
    features = root.iterfind("./cpu/feature[@name='invtsc']")
    if not any(feature.get("policy") in wanted for feature in features):
        return
    if any(timer.get("frequency") for timer in root.iterfind("./clock/timer[@name='tsc']")):
        return
    yield Obstacle(
        "<feature name='invtsc'>",
        "QEMU and libvirt migrate an invariant TSC only when its frequency is written down",
        "add <timer name='tsc' frequency='HZ'/> to <clock>, and start the guest anew",
        True,
    )


_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
# What somebody may have added to QEMU's command line by hand: what an argument has in it; reason, remedy and
# blocks as in DEVICES.
COMMAND_LINE = (
    ("vfio-", _VFIO, "remove it, or use --policy never if it can migrate in pre-copy", True),
    ("vhost-vdpa", _VDPA, "remove it for the migration", True),
    ("vhost-scsi", "QEMU does not migrate vhost-scsi", "use disks of another kind", True),
    ("nvdimm", "QEMU does not migrate persistent memory with post-copy", "use --policy never", True),
    (
        "virtio-9p",
        _MOUNTED,
        "unmount it in the guest",
        False,
    ),
    (
        "memory-backend-file",
        "its file must be on tmpfs or hugetlbfs at the destination, or QEMU there refuses post-copy",
        "put the file on /dev/shm, use memory-backend-memfd, or use --policy never",
        False,
    ),
)
_IN_MEMORY = re.compile(r"mem-path=/dev/(shm|hugepages)(/|,|$)")


def _command_line(root: ET.Element) -> Iterator[Obstacle]:
    """Each row once: libvirt hands these arguments on without looking at them."""
    arguments = [argument.get("value", "") for argument in root.iterfind(f"./{_QEMU}commandline/{_QEMU}arg")]
    for fragment, reason, remedy, blocks in COMMAND_LINE:
        for argument in arguments:
            if fragment in argument and not _IN_MEMORY.search(argument):
                yield Obstacle(f"<qemu:commandline> with {fragment.rstrip('-')}", reason, remedy, blocks)
                break


RULES: tuple[Callable[[ET.Element], Iterable[Obstacle]], ...] = (
    _hypervisor,
    _vfio,
    _vdpa,
    _vhost_user,
    _memory_devices,
    _memory_backing,
    _confidential,
    _devices,
    _clock,
    _command_line,
)


# libvirt's units of <page size= unit=>, in bytes ("scaledInteger" of its schema).
_UNITS = {"b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 1000**2, "m": 1024**2, "mib": 1024**2}
_UNITS |= {"gb": 1000**3, "g": 1024**3, "gib": 1024**3, "tb": 1000**4, "t": 1024**4, "tib": 1024**4}


def _kib(size: str | None, unit: str) -> int | None:
    """SIZE in UNIT as KiB; None if either is not understood."""
    factor = _UNITS.get(unit.lower())
    if size is None or factor is None or not size.isascii() or not size.isdigit() or len(size) > 18:
        return None
    return int(size) * factor // 1024
