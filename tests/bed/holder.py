# SPDX-License-Identifier: Apache-2.0
"""First process of a test host: makes its view of the machine, then keeps it until its standard input ends.

Started by host.py as root, by path and with the standard library alone, in new mount, UTS and PID namespaces
and in the host's network namespace. As process 1 of the PID namespace it takes every process of the host with
it when it ends. It starts no program: the layer's C library need not suit those of the machine.

usage: holder.py NAME STATE_FOLDER LAYER_FOLDER GUEST_FOLDER lifeline|stay
"""

import ctypes
import os
import signal
import socket
import stat
import sys

MS_RDONLY, MS_BIND, MS_REC = 1, 4096, 16384  # linux/mount.h
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None):
        sys.exit(f"mounting {kind or source} on {target}: {os.strerror(ctypes.get_errno())}")


def bind(source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    mount(source, target, flags=MS_BIND | MS_REC)


def overlay(target: str, scratch: str) -> None:
    """A view of a folder whose changes vanish with the host, so that mount points can be made in it."""
    upper, work = (f"{scratch}/{part}{target}" for part in ("upper", "work"))
    os.makedirs(upper)
    os.makedirs(work)
    mount("pcmig", target, "overlay", data=f"lowerdir={target},upperdir={upper},workdir={work}")


# As Debian's packages make them: who QEMU runs as (libvirtd asks for it even where qemu.conf names another),
# who nova-compute runs as, and the group that may use libvirtd's socket.
QEMU = 64055
USERS = (
    f"libvirt-qemu:x:{QEMU}:{QEMU}::/var/lib/libvirt:/usr/sbin/nologin",
    "nova:*:64060:64060::/run/cloud/home:/bin/sh",
)
GROUPS = (f"libvirt-qemu:x:{QEMU}:", "nova:x:64060:", "libvirt:x:64059:nova")


def add_users() -> None:
    for path, entries in (("/etc/passwd", USERS), ("/etc/group", GROUPS)):
        with open(path, "r+") as file:
            present = {line.partition(":")[0] for line in file}
            file.writelines(f"{entry}\n" for entry in entries if entry.partition(":")[0] not in present)


def give_nodes(scratch: str) -> None:
    """To QEMU's user, as udev's rules do on a host, ours (etc/udev/rules.d) and Debian's for KVM. libvirt
    asks a QEMU anew what it can, for 10 s, each time it finds its user barred from a KVM that is there."""
    for name in ("userfaultfd", "kvm"):
        node, own = f"/dev/{name}", f"{scratch}/{name}"
        try:
            device = os.stat(node).st_rdev
        except OSError:  # a kernel may have none
            continue
        os.mknod(own, stat.S_IFCHR | 0o600, device)
        os.chown(own, QEMU, 0)
        mount(own, node, flags=MS_BIND)


def main() -> None:
    name, state, layer, guest, until = sys.argv[1:]
    pid = os.readlink("/proc/self")  # /proc still shows the machine, so this is our pid as the machine counts
    socket.sethostname(f"pcmig-{name}")

    # Before the overlays below, which would hide a layer that is kept in one of their folders.
    mount("pcmig", "/usr", "overlay", MS_RDONLY, f"lowerdir={layer}/usr:/usr")
    mount("pcmig", f"{state}/scratch", "tmpfs", data="mode=0755")
    for folder in ("/etc", "/var/lib", "/var/log", "/var/cache"):
        overlay(folder, f"{state}/scratch")
    for source, target in (("etc", "/etc/libvirt"), ("log", "/var/log/libvirt"), ("lib", "/var/lib/libvirt")):
        bind(f"{state}/{source}", target)
    add_users()
    give_nodes(f"{state}/scratch")
    os.makedirs("/var/cache/libvirt", exist_ok=True)
    os.makedirs("/etc/pki", exist_ok=True)
    # libvirt notes on files whose they are: each host has a view of its own, as each bed has its users.
    view, scratch = f"{state}/run/pcmig/guest", f"{state}/scratch/guest"
    for part in (view, f"{scratch}/upper", f"{scratch}/work"):
        os.makedirs(part, exist_ok=True)
    mount("pcmig", view, "overlay", data=f"lowerdir={guest},upperdir={scratch}/upper,workdir={scratch}/work")
    bind(f"{state}/run", "/run")
    # The processes and links of this host alone.
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")

    # The kernel then reaps what is orphaned to us: libvirtd waits until a QEMU that it ended is really gone.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(pid, flush=True)
    if until == "stay":
        signal.pause()
    while os.read(0, 4096):
        pass


main()
