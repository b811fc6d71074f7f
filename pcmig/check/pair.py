# SPDX-License-Identifier: Apache-2.0
"""Rows on two hosts together, and on the guest."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING

from pcmig import turn_back_cost
from pcmig.check.capabilities import capabilities, domain_type, memory_blocks
from pcmig.check.model import Facts, Row
from pcmig.check.network import guest_interfaces
from pcmig.check.versions import (
    QEMU_POSTCOPY,
    QEMU_POSTCOPY_EXPERIMENTAL,
    QEMU_TCG_FIXED,
    QEMU_TCG_LOSES_WITH_POSTCOPY,
    TCG_LOSES_BEYOND_FIRST_BLOCK,
    TCG_LOSES_WITH_POSTCOPY,
    release,
    show,
)
from pcmig.guest import GuestXmlError, obstacles

if TYPE_CHECKING:
    from pcmig._core import HostFacts


def peer_userfaultfd(f: Facts) -> Row | None:
    if f.peer is None:
        return None
    return Row(
        "peer",
        "userfaultfd",
        "unknown",
        "libvirt does not tell",
        "usable by QEMU",
        "the destination is the one that needs it; 'pcmig migrate' finds a refusal before the guest is "
        "touched",
        "run 'pcmig check' there",
    )


def peer_encryption(f: Facts) -> Row | None:
    if f.peer is None or f.peer.facts is None or f.peer.facts["secure"] is None:
        return None
    if f.peer.facts["secure"]:
        return Row("peer", "connection", "ok", "encrypted or local")
    return Row(
        "peer",
        "connection",
        "warn",
        "neither encrypted nor local",
        "qemu+tls:// or qemu+ssh://",
        "guests' definitions and commands travel in the clear; whether memory does is another matter "
        "(VIR_MIGRATE_TLS)",
        "use a URI such as qemu+tls://HOST/system",
    )


def both(f: Facts) -> tuple[HostFacts, HostFacts] | None:
    if f.peer is None or f.here.facts is None or f.peer.facts is None:
        return None
    return f.here.facts, f.peer.facts


def different_hosts(f: Facts) -> Row | None:
    if (pair := both(f)) is None:
        return None
    here, peer = (facts["host_uuid"] for facts in pair)
    names = [facts["hostname"] for facts in pair]
    if here is not None and here == peer:
        return Row(
            "both",
            "different hosts",
            "fail",
            f"both have the host UUID {here}",
            "two UUIDs",
            "libvirt refuses to migrate a guest to the same host; cloned machines share a UUID, too",
            "name another host, or give each a host_uuid of its own in /etc/libvirt/libvirtd.conf "
            "(virtqemud.conf)",
        )
    if names[0] is not None and names[0] == names[1]:
        return Row(
            "both",
            "different hosts",
            "fail",
            f"both are called {names[0]}",
            "two names",
            "libvirt compares host names, too, and refuses",
            "give the hosts different names",
        )
    return Row("both", "different hosts", "ok", " and ".join(name or "?" for name in names))


def same_architecture(f: Facts) -> Row | None:
    if (pair := both(f)) is None:
        return None
    here, peer = (capabilities(facts).arch for facts in pair)
    if here is None or peer is None:
        return Row("both", "architecture", "unknown", f"{here or '?'} and {peer or '?'}", "the same")
    if here != peer:
        return Row(
            "both",
            "architecture",
            "fail",
            f"{here} and {peer}",
            "the same",
            "a guest under KVM cannot go on with another processor",
            "name a host of the same architecture",
        )
    return Row("both", "architecture", "ok", here)


def version_order(f: Facts) -> Row | None:
    if (pair := both(f)) is None:
        return None
    here, peer = pair
    found = "; ".join(f"libvirt {show(x['libvirt_version'])}, QEMU {show(x['qemu_version'])}" for x in pair)
    pairs = (
        ("libvirt", here["libvirt_version"], peer["libvirt_version"]),
        ("QEMU", here["qemu_version"], peer["qemu_version"]),
    )
    older = [what for what, ours, theirs in pairs if release(theirs) < release(ours)]
    if older:
        return Row(
            "both",
            "versions",
            "warn",
            found,
            "the peer's not older",
            f"an older {' and '.join(older)} may not know the guest's machine type or devices",
            "upgrade the peer first, or migrate guests that were started there",
        )
    return Row("both", "versions", "ok", found)


def client_library(f: Facts) -> Row | None:
    pair = [side.facts for side in (f.here, f.peer) if side is not None and side.facts is not None]
    if not pair:
        return None
    client, newest = pair[0]["client_version"], max(facts["libvirt_version"] for facts in pair)
    if release(client) >= release(newest):
        return Row("both", "client library", "ok", show(client))
    return Row(
        "both",
        "client library",
        "ok",
        f"{show(client)}, older than {show(newest)} of a daemon",
        why="flags that are newer than the library cannot be used from here",
    )


def migrate_host(f: Facts) -> Row | None:
    """A peer-to-peer migration without a migrate URI goes to the name that the peer calls itself by."""
    if f.peer is None or f.peer.facts is None or f.peer_addresses is None:
        return None
    name = f.peer.facts["hostname"] or "?"
    fix = (
        "give 'pcmig migrate --migrateuri tcp://ADDRESS', set migrate_host in the peer's qemu.conf, or make "
        "the name known here"
    )
    why = "QEMU connects to the name that the peer calls itself by, unless a migrate URI says otherwise"
    if not f.peer_addresses:
        return Row("both", "peer's name", "warn", f"{name} is not known here", "an address", why, fix)
    if any(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in f.peer_addresses):
        return Row(
            "both",
            "peer's name",
            "warn",
            f"{name} is {', '.join(f.peer_addresses)} here: this machine",
            "the peer's address",
            why,
            fix,
        )
    return Row("both", "peer's name", "ok", f"{name} is {', '.join(f.peer_addresses)}")


def guest_known(f: Facts) -> Row | None:
    if f.domain is None:
        return None
    guest = f.here.facts["guest"] if f.here.facts else None
    if guest is None:
        return Row(
            "guest",
            "guest",
            "fail" if f.here.facts else "unknown",
            f.domain_error or "libvirt does not answer",
            f"{f.domain} on {f.here.uri}",
            "only a guest of this host can be moved from it",
            "see 'virsh -c URI list --all'",
        )
    if guest["state"] != "running":
        return Row(
            "guest",
            "guest",
            "fail",
            f"{guest['name']}: {guest['state']}",
            "running",
            "post-copy moves running guests only",
            "virsh resume or virsh start",
        )
    return Row("guest", "guest", "ok", f"{guest['name']}: running")


def guest_emulation(f: Facts) -> Row | None:
    if f.here.facts is None or f.here.facts["guest"] is None:
        return None
    kind = domain_type(f.here.facts["guest"]["xml"])
    version = f.here.facts["qemu_version"]
    if kind is None:
        return Row(
            "guest",
            "emulation",
            "unknown",
            "the guest's XML cannot be read",
            "KVM, or QEMU 9.0 or newer",
            fix="see 'virsh dumpxml'",
        )
    if kind != "qemu":
        return Row("guest", "emulation", "ok", kind)
    if version >= QEMU_TCG_LOSES_WITH_POSTCOPY:
        return Row(
            "guest",
            "emulation",
            "warn",
            f"emulated (TCG) by QEMU {show(version)}",
            "KVM, or QEMU 10.0",
            TCG_LOSES_WITH_POSTCOPY,
            "start it with KVM for what matters",
        )
    if version >= QEMU_TCG_FIXED and (blocks := memory_blocks(f.here.facts["guest"]["xml"])) > 1:
        return Row(
            "guest",
            "emulation",
            "warn",
            f"emulated (TCG) by QEMU {show(version)}, {blocks} blocks of memory",
            "KVM, or one block: no NUMA cells but one, no memory devices",
            TCG_LOSES_BEYOND_FIRST_BLOCK,
            "start it with KVM for what matters",
        )
    if version >= QEMU_TCG_FIXED:
        return Row("guest", "emulation", "ok", f"emulated (TCG) by QEMU {show(version)}")
    return Row(
        "guest",
        "emulation",
        "fail",
        f"emulated (TCG) by QEMU {show(version)}",
        "KVM, or QEMU 9.0 or newer",
        "QEMU before 9.0 misses dirty pages of emulated guests: memory arrives corrupted, by pre-copy too",
        "shut the guest down and start it with KVM or a newer QEMU",
    )


def guest_capability(f: Facts) -> Row | None:
    """QEMU's own name for post-copy, without a monitor command (which would taint the guest)."""
    if f.here.facts is None or f.here.facts["guest"] is None:
        return None
    version = f.here.facts["qemu_version"]
    wanted, found = "postcopy-ram", f"QEMU {show(version)}"
    if not version:
        return Row("guest", "QEMU capability", "unknown", "QEMU's version is not known", wanted)
    if version < QEMU_POSTCOPY:
        name = "x-postcopy-ram (experimental)" if version >= QEMU_POSTCOPY_EXPERIMENTAL else "none"
        return Row("guest", "QEMU capability", "fail", f"{name}, {found}", wanted, fix="upgrade QEMU")
    return Row("guest", "QEMU capability", "ok", f"postcopy-ram, {found}")


def guest_devices(f: Facts) -> Row | None:
    """What pcmig.guest finds in the guest's XML, as one row."""
    if f.here.facts is None or f.here.facts["guest"] is None:
        return None
    name, wanted = "devices and memory", "nothing that post-copy cannot carry"
    try:
        found = obstacles(f.here.facts["guest"]["xml"])
    except GuestXmlError as err:
        return Row("guest", name, "unknown", str(err), wanted, fix="see 'virsh dumpxml'")
    if not found:
        return Row("guest", name, "ok", wanted)
    return Row(
        "guest",
        name,
        "fail" if any(obstacle.blocks for obstacle in found) else "warn",
        "; ".join(obstacle.element for obstacle in found),
        wanted,
        "; ".join(obstacle.reason for obstacle in found),
        "; ".join(obstacle.remedy for obstacle in found),
    )


def guest_way_back(f: Facts) -> Row | None:
    """What a destination that dies in post-copy would cost. Whether disks are copied, the migration says."""
    if f.here.facts is None or f.here.facts["guest"] is None:
        return None
    name, version = "way back", f.here.facts["qemu_version"]
    try:
        shared, copied = (
            turn_back_cost.cost(f.here.facts["guest"]["xml"], copied=copied, qemu_version=version)
            for copied in (False, True)
        )
    except GuestXmlError as err:
        return Row("guest", name, "unknown", str(err), fix="see 'virsh dumpxml'")
    if shared.kind == "not-possible":
        return Row(
            "guest",
            name,
            "warn",
            f"{shared.short} ({show(version)})",
            "QEMU 10.0 or newer",
            shared.text,
            "upgrade QEMU at this host, and start the guest anew",
        )
    found = shared.short
    if copied.kind != shared.kind:
        found += f"; {copied.short} if the migration copies its disks"
    return Row("guest", name, "ok", found, why=shared.text)


PAIR: tuple[Callable[[Facts], Row | None], ...] = (
    peer_userfaultfd, peer_encryption, different_hosts, same_architecture, version_order, client_library,
    migrate_host,
)  # fmt: skip
GUEST: tuple[Callable[[Facts], Row | None], ...] = (
    guest_known,
    guest_emulation,
    guest_capability,
    guest_devices,
    guest_interfaces,
    guest_way_back,
)
