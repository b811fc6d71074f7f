# SPDX-License-Identifier: Apache-2.0
"""Rows on userfaultfd: in the kernel, usable by QEMU's user, with what QEMU asks of it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pcmig.check.model import HERE, Facts, Row
from pcmig.check.qemuconf import NODE
from pcmig.check.versions import LIBVIRT_GRANTS_NODE, QEMU_OPENS_NODE, show

if TYPE_CHECKING:
    from pcmig._core import DeviceNode, HostProbe, UffdTry

SYSCTL_FILE = "/etc/sysctl.d/60-pcmig-userfaultfd.conf"
UDEV_FILE = "/etc/udev/rules.d/60-pcmig-userfaultfd.rules"

NEEDED_IOCTLS = ("register", "unregister", "wake", "copy", "zeropage")
FEATURES = {"missing-hugetlbfs": "huge pages (hugetlbfs)", "missing-shmem": "shared memory (shmem, memfd)"}


def userfaultfd_syscall(f: Facts) -> Row | None:
    """Compiled in at all. That it is denied is another row's matter."""
    if f.probe is None:
        return None
    attempt = f.probe["uffd"]["syscall"]
    sysctl = f.probe["sysctl"]["vm.unprivileged_userfaultfd"]
    setting = "no such sysctl" if sysctl is None else f"vm.unprivileged_userfaultfd = {sysctl}"
    if attempt["errno"] == errno.ENOSYS:
        return Row(
            HERE,
            "userfaultfd in the kernel",
            "fail",
            "no",
            "yes",
            "QEMU cannot wait for missing pages without it, so no guest can arrive by post-copy",
            "use a kernel with CONFIG_USERFAULTFD=y",
        )
    return Row(HERE, "userfaultfd in the kernel", "ok", f"yes, {setting}")


def userfaultfd_node(f: Facts) -> Row | None:
    if f.probe is None:
        return None
    node = f.probe["node"]
    if node is None:
        return Row(
            HERE,
            "userfaultfd node",
            "warn",
            f"no {NODE}",
            f"{NODE} (Linux 6.1 or newer)",
            "without it, QEMU that is not privileged needs vm.unprivileged_userfaultfd = 1",
            "boot Linux 6.1 or newer; in a container, pass the node in",
        )
    where = f"mode {node['mode']:04o}, owner {node['uid']}:{node['gid']}"
    if not node["device"]:
        return Row(
            HERE,
            "userfaultfd node",
            "fail",
            f"{NODE} is no character device",
            "a device node",
            "something else was put in its place",
            f"rm {NODE} && udevadm trigger --name-match=userfaultfd",
        )
    return Row(HERE, "userfaultfd node", "ok", where)


def userfaultfd_qemu(f: Facts) -> Row | None:
    """Usable by QEMU's user, by whichever way this QEMU and this libvirt can go."""
    if f.probe is None or f.probe["uffd"]["syscall"]["errno"] == errno.ENOSYS:
        return None
    name, wanted = "userfaultfd for QEMU", "one way that works"
    user = f.probe["user"]
    if user is None:
        return Row(HERE, name, "unknown", "no user to try as", wanted, fix="give --qemu-user USER")
    who = f"user {user['name']}"
    if user["uffd"] is None:
        return Row(
            HERE,
            name,
            "unknown",
            f"cannot try as {who}: {error_name(user['errno'])}",
            wanted,
            "only root can take on another user's rights",
            "run 'pcmig check' as root",
        )
    if user["uffd"]["syscall"]["ok"]:
        return Row(HERE, name, "ok", f"{who}: by the system call")
    works, text = node_way(f, f.probe["node"], user["uffd"]["node"])
    if works:
        return Row(HERE, name, "ok", f"{who}: {text}")
    found = f"{who}: system call {error_name(user['uffd']['syscall']['errno'])}; {text}"
    if works is None:
        return Row(HERE, name, "unknown", found, wanted, fix="make libvirt answer, then check again")
    return Row(
        HERE,
        name,
        "warn" if f.peer else "fail",
        found,
        wanted,
        'no guest can arrive here by post-copy (QEMU: "Postcopy is not supported", "Userfaultfd not '
        'available"); leaving works',
        userfaultfd_fix(f, user["name"]),
    )


def node_way(f: Facts, node: DeviceNode | None, attempt: UffdTry) -> tuple[bool | None, str]:
    """Whether QEMU gets a userfaultfd from the device node, and how or why not; None: that depends on what is
    not known. ATTEMPT is that of QEMU's user, outside of QEMU's own /dev."""
    if node is None:
        return False, f"no {NODE}"
    if not node["device"]:
        return False, f"{NODE} is no character device"
    if f.here.facts is None or not f.here.facts["qemu_version"]:
        return None, f"whether QEMU gets to {NODE} depends on the versions of libvirt and QEMU"
    libvirt, qemu = f.here.facts["libvirt_version"], f.here.facts["qemu_version"]
    if qemu < QEMU_OPENS_NODE:
        return False, f"QEMU {show(qemu)} does not open {NODE}"
    if f.settings.mount_namespace:
        if not node_in_acl(f, libvirt):
            return False, f"{NODE} is not in QEMU's own /dev (cgroup_device_acl)"
        if libvirt >= LIBVIRT_GRANTS_NODE:
            return True, f"by {NODE}, which libvirt {show(libvirt)} grants to each guest"
    if attempt["ok"]:
        return True, f"by {NODE}"
    return False, f"{NODE} {error_name(attempt['errno'])}"


def node_in_acl(f: Facts, libvirt: int) -> bool:
    """Whether libvirt puts the node into QEMU's own /dev."""
    if f.settings.device_acl is None:
        return libvirt >= LIBVIRT_GRANTS_NODE
    return NODE in f.settings.device_acl


def userfaultfd_fix(f: Facts, user: str) -> str:
    """The least that has to change: who may use one node, rather than a setting for every user."""
    assert f.probe is not None and f.here.facts is not None
    libvirt, qemu = f.here.facts["libvirt_version"], f.here.facts["qemu_version"]
    if f.probe["sysctl"]["vm.unprivileged_userfaultfd"] == 1:
        return "the sysctl allows it: a seccomp filter or a security module denies it, look at the audit log"
    if f.probe["node"] is not None and qemu >= QEMU_OPENS_NODE:
        if f.settings.mount_namespace and libvirt >= LIBVIRT_GRANTS_NODE:
            return f'add "{NODE}" to cgroup_device_acl in qemu.conf, then restart libvirtd (or virtqemud)'
        if not f.settings.mount_namespace:
            return (
                f'put KERNEL=="userfaultfd", OWNER="{user}", MODE="0600" into {UDEV_FILE}, then: '
                "udevadm control --reload && udevadm trigger --name-match=userfaultfd"
            )
    return f"put vm.unprivileged_userfaultfd = 1 into {SYSCTL_FILE}, then: sysctl -p {SYSCTL_FILE}"


def userfaultfd_features(f: Facts) -> Row | None:
    """What QEMU's destination asks for (QEMU migration/postcopy-ram.c)."""
    if f.probe is None:
        return None
    best = best_try(f.probe)
    name, wanted = "userfaultfd features", ", ".join(NEEDED_IOCTLS)
    if best is None:
        return Row(HERE, name, "unknown", "no userfaultfd to ask", wanted, fix="run 'pcmig check' as root")
    if lacking := [ioctl for ioctl in NEEDED_IOCTLS if ioctl not in best["ioctls"]]:
        return Row(
            HERE,
            name,
            "fail",
            f"without {', '.join(lacking)}",
            wanted,
            "QEMU needs each of them to place pages",
            "boot a newer kernel",
        )
    if missing := [text for feature, text in FEATURES.items() if feature not in best["features"]]:
        return Row(
            HERE,
            name,
            "warn",
            f"not for {', '.join(missing)}",
            "these too",
            "guests with such memory cannot use post-copy here",
            "use a kernel with hugetlbfs and shmem (4.11 or newer)",
        )
    return Row(HERE, name, "ok", "also for huge pages and shared memory")


def best_try(probe: HostProbe) -> UffdTry | None:
    """The first attempt that came to an answer, this process's or the user's."""
    reports = [probe["uffd"]]
    if probe["user"] is not None and probe["user"]["uffd"] is not None:
        reports.append(probe["user"]["uffd"])
    attempts = [report[way] for report in reports for way in ("syscall", "node", "syscall_user_mode_only")]
    return next((attempt for attempt in attempts if attempt["ok"]), None)


def error_name(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")
