# SPDX-License-Identifier: Apache-2.0
"""Rows on this host, from its kernel."""

from __future__ import annotations

from collections.abc import Callable

from pcmig.check import many
from pcmig.check.model import HERE, Facts, Row
from pcmig.check.neighbours import other_migrations
from pcmig.check.novadriver import nova_driver, nova_flags
from pcmig.check.novarights import nova_rights
from pcmig.check.userfaultfd import (
    userfaultfd_features,
    userfaultfd_node,
    userfaultfd_qemu,
    userfaultfd_syscall,
)
from pcmig.check.versions import LIBVIRT_NAMES_HOST_TO_DISKS, LIBVIRT_TLS_PRIORITY, show, version_of

TCP_RETRIES_LONG = 10


def probe_ran(f: Facts) -> Row | None:
    if f.probe_error is None:
        return None
    return Row(
        HERE,
        "probe",
        "fail",
        f.probe_error,
        "an existing user",
        "userfaultfd is tried as the user that QEMU runs as",
        "name it with --qemu-user USER",
    )


def elsewhere(f: Facts) -> Row | None:
    if f.probe is not None or f.probe_error is not None:
        return None
    return Row(
        f.subject,
        "userfaultfd",
        "unknown",
        f"{f.here.uri} is another machine",
        "usable by QEMU",
        "libvirt does not tell",
        "run 'pcmig check' there",
    )


def kernel(f: Facts) -> Row | None:
    if f.probe is None:
        return None
    release = f.probe["kernel"] or "unknown"
    version = version_of(release)
    if version is None:
        return Row(HERE, "kernel", "unknown", release, "4.11 or newer")
    if version < (4, 11):
        return Row(
            HERE,
            "kernel",
            "fail",
            release,
            "4.11 or newer",
            "userfaultfd came with 4.3, and with huge pages and shared memory in 4.11",
            "boot a newer kernel",
        )
    return Row(HERE, "kernel", "ok", release)


def tcp_retries(f: Facts) -> Row | None:
    """How soon QEMU sees that the network is gone."""
    if f.probe is None:
        return None
    retries = f.probe["sysctl"]["net.ipv4.tcp_retries2"]
    if retries is None:
        return Row(HERE, "TCP retries", "unknown", "net.ipv4.tcp_retries2 cannot be read")
    found = f"net.ipv4.tcp_retries2 = {retries}: a cut is noticed after about {span(tcp_timeout_s(retries))}"
    if retries < TCP_RETRIES_LONG:
        return Row(HERE, "TCP retries", "ok", found)
    return Row(
        HERE,
        "TCP retries",
        "warn",
        found,
        "5 (about 13 s) to 8 (about 102 s)",
        "QEMU waits for TCP to give up before post-copy counts as interrupted and can be resumed; the guest "
        "stalls meanwhile. The setting is for every TCP connection of the host",
        "put net.ipv4.tcp_retries2 = 8 into a file of /etc/sysctl.d, then: sysctl --system",
    )


def acknowledgements(f: Facts) -> Row | None:
    """csrc/edge/route.h says why. Measured, at 100 Mb/s: longest silence after the switch 103 ms with the
    delay, 44 ms without."""
    if f.probe is None:
        return None
    name, wanted = "quickack", "CAP_NET_ADMIN, or the option on the route to the destination"
    why = (
        "a page request of QEMU waits for the acknowledgement of the one before, which Linux delays by up to "
        "40 ms; pcmig sets the route option quickack for the time of post-copy, which needs CAP_NET_ADMIN"
    )
    fix = (
        "run 'pcmig migrate' as root or with CAP_NET_ADMIN, or let an administrator set it for good: "
        "ip route change ROUTE quickack 1"
    )
    if f.quickack:
        return Row(HERE, name, "ok", "the route to the peer has it")
    if f.net_admin:
        return Row(HERE, name, "ok", "can be set on the route while post-copy runs (CAP_NET_ADMIN)")
    if f.net_admin is None:
        return Row(HERE, name, "unknown", "the capabilities of this process cannot be read", wanted, why, fix)
    return Row(HERE, name, "warn", "cannot be set on a route: no CAP_NET_ADMIN", wanted, why, fix)


def confinement(f: Facts) -> Row | None:
    """Says when this process's own confinement may colour the answers."""
    if f.probe is None or not f.probe["seccomp"]:
        return None
    return Row(
        HERE,
        "seccomp",
        "warn",
        "pcmig runs under a seccomp filter",
        "none",
        "the rows on userfaultfd tell what this filter allows, which need not be what QEMU may do",
        "run 'pcmig check' outside the container",
    )


def tcp_timeout_s(retries: int) -> float:
    """What Linux makes of tcp_retries2 (ip-sysctl.rst): waits double from 0.2 s, up to 120 s each."""
    return sum(min(0.2 * 2.0**i, 120.0) for i in range(min(retries, 255) + 1))


def span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def native_tls(f: Facts) -> Row | None:
    """QEMU's own TLS, where qemu.conf speaks of it."""
    if not f.settings.migrates_with_tls or f.here.facts is None:
        return None
    version = f.here.facts["libvirt_version"]
    if version >= LIBVIRT_TLS_PRIORITY:
        return None
    why = (
        "a bug of GnuTLS is liable to crash the source's QEMU in long migrations with TLS; settings that "
        "work around it came to qemu.conf with 11.6"
    )
    if version < LIBVIRT_NAMES_HOST_TO_DISKS:
        why += "; and before 10.3 post-copy that copies disks fails (Certificate does not match the hostname)"
    return Row(
        f.subject,
        "QEMU's TLS",
        "warn",
        f"set up in qemu.conf, libvirt {show(version)}",
        "11.6 or newer",
        why,
        "use pcmig's tunnel for migrations (pcmig migrate --tunnel), or upgrade libvirt and set its TLS "
        "priorities",
    )


LOCAL: tuple[Callable[[Facts], Row | None], ...] = (
    probe_ran, elsewhere, kernel, userfaultfd_syscall, userfaultfd_node, userfaultfd_qemu,
    userfaultfd_features, tcp_retries, acknowledgements, other_migrations, confinement,
    nova_driver, nova_flags, nova_rights, many.workers, many.open_files,
    native_tls,
)  # fmt: skip
