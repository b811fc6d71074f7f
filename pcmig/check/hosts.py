# SPDX-License-Identifier: Apache-2.0
"""Rows on one host, as its libvirt describes it."""

from __future__ import annotations

from collections.abc import Callable

from pcmig.check.capabilities import capabilities
from pcmig.check.model import Row, Side
from pcmig.check.versions import (
    LIBVIRT_KNOWS_QEMU_11,
    LIBVIRT_MIN,
    LIBVIRT_PREEMPTS,
    LIBVIRT_RESUME_BROKEN,
    LIBVIRT_RESUMES,
    LIBVIRT_XML_WAITS,
    QEMU_MIN,
    QEMU_POSTCOPY_DEVICE,
    QEMU_PREEMPTS,
    QEMU_TCG_FIXED,
    QEMU_TCG_LOSES_WITH_POSTCOPY,
    TCG_LOSES_WITH_POSTCOPY,
    show,
)


def connection(subject: str, side: Side) -> Row:
    if side.facts is None:
        return Row(
            subject,
            "libvirt",
            "fail",
            side.error or "no answer",
            f"an answer from {side.uri}",
            "every migration goes through libvirt",
            side.fix or "start libvirtd (or virtqemud), open its port, and try 'virsh -c URI version'",
        )
    return Row(subject, "libvirt", "ok", f"{side.facts['hostname'] or side.uri} answers")


def hypervisor(subject: str, side: Side) -> Row | None:
    if side.facts is None or side.facts["driver"] == "QEMU":
        return None
    return Row(
        subject,
        "hypervisor",
        "fail",
        side.facts["driver"] or "unknown",
        "QEMU",
        "post-copy is a matter of QEMU",
        "name a URI such as qemu:///system",
    )


def libvirt_version(subject: str, side: Side) -> Row | None:
    if side.facts is None:
        return None
    version = side.facts["libvirt_version"]
    if version < LIBVIRT_MIN:
        return Row(
            subject,
            "libvirt version",
            "fail",
            show(version),
            "8.0.0 or newer",
            "older ones lack events and flags that pcmig relies on",
            "upgrade libvirt",
        )
    return Row(subject, "libvirt version", "ok", show(version))


def postcopy_resume(subject: str, side: Side) -> Row | None:
    """Can an interrupted post-copy be resumed? The same versions are held by csrc/core/recovery.c."""
    if side.facts is None:
        return None
    version = side.facts["libvirt_version"]
    if LIBVIRT_MIN <= version < LIBVIRT_RESUMES:
        return Row(
            subject,
            "post-copy recovery",
            "warn",
            f"libvirt {show(version)}",
            "8.5.0 or newer, at both ends",
            "libvirt before 8.5 cannot resume an interrupted post-copy migration: the guest would wait, its "
            "memory spread over both hosts",
            "upgrade libvirt at both ends before you rely on recovery",
        )
    # Measured: 4 of 4 resumes crashed the destination's libvirtd 11.3.0.
    if not LIBVIRT_RESUME_BROKEN[0] <= version < LIBVIRT_RESUME_BROKEN[1]:
        return None
    return Row(
        subject,
        "post-copy recovery",
        "warn",
        f"libvirt {show(version)}",
        "a version other than 11.2 and 11.3",
        "resuming an interrupted post-copy migration crashes the destination's daemon (11.3.0, 4 of 4); "
        "9.0.0 and 12.8.0 resume",
        "upgrade libvirt on the destination before you rely on recovery",
    )


def qemu_version(subject: str, side: Side) -> Row | None:
    if side.facts is None or side.facts["driver"] != "QEMU":
        return None
    version = side.facts["qemu_version"]
    if not version:
        return Row(
            subject,
            "QEMU version",
            "fail",
            "libvirt found no QEMU",
            "5.2 or newer",
            "there is nothing to run guests with",
            "install QEMU for this architecture",
        )
    if version < QEMU_MIN:
        return Row(
            subject,
            "QEMU version",
            "fail",
            show(version),
            "5.2 or newer",
            "pcmig was written for QEMU from 5.2 on; before 3.0, post-copy has neither a bandwidth of its "
            "own nor a resume",
            "upgrade QEMU",
        )
    return Row(subject, "QEMU version", "ok", show(version))


def emulation(subject: str, side: Side) -> Row | None:
    """The host cannot do anything but emulate; a single guest's kind is a row of its own."""
    if side.facts is None or side.facts["driver"] != "QEMU":
        return None
    kinds = capabilities(side.facts).guest_kinds
    if not kinds or "kvm" in kinds:
        return None
    version = side.facts["qemu_version"]
    if version >= QEMU_TCG_LOSES_WITH_POSTCOPY:
        return Row(
            subject,
            "emulation",
            "warn",
            f"no KVM, QEMU {show(version)}",
            "KVM, or QEMU 10.0",
            TCG_LOSES_WITH_POSTCOPY,
            "use emulated guests for tries only",
        )
    if version >= QEMU_TCG_FIXED:
        return Row(
            subject, "emulation", "ok", f"no KVM; QEMU {show(version)} migrates emulated guests intact"
        )
    return Row(
        subject,
        "emulation",
        "warn" if subject == "peer" else "fail",
        f"no KVM, QEMU {show(version)}",
        "KVM, or QEMU 9.0 or newer",
        "QEMU before 9.0 misses dirty pages of emulated (TCG) guests: memory arrives corrupted, by "
        "pre-copy too; guests that leave this host are hit",
        "make KVM work (/dev/kvm), or upgrade QEMU",
    )


def page_requests(subject: str, side: Side) -> Row | None:
    """A connection of their own for pages that the guest waits for needs both, at both ends."""
    if side.facts is None or side.facts["driver"] != "QEMU":
        return None
    qemu, libvirt = side.facts["qemu_version"], side.facts["libvirt_version"]
    if not qemu or (qemu >= QEMU_PREEMPTS and libvirt >= LIBVIRT_PREEMPTS):
        return None
    return Row(
        subject,
        "page requests",
        "warn",
        f"QEMU {show(qemu)} with libvirt {show(libvirt)}",
        "QEMU 7.1 and libvirt 10.0, or newer, at both ends",
        "they do not use QEMU's postcopy-preempt: a page that the guest waits for queues behind background "
        "pages on the one connection; pcmig's pace keeps that queue short",
        "upgrade both ends; until then choose a lower postcopy bandwidth where guests notice",
    )


def incoming_xml(subject: str, side: Side) -> Row | None:
    if side.facts is None:
        return None
    version = side.facts["libvirt_version"]
    if not LIBVIRT_XML_WAITS[0] <= version < LIBVIRT_XML_WAITS[1]:
        return None
    return Row(
        subject,
        "incoming guests",
        "warn",
        f"libvirt {show(version)}",
        "a version other than 11.0 to 11.4",
        "who asks for the XML of a guest that is on its way here (virsh dumpxml, monitoring) waits, and may "
        "get a timeout; pcmig asks for it with 'pcmig ports' and --ports alone: the switch then waits for "
        "no port",
        "upgrade libvirt, or have monitoring leave guests alone until they are here",
    )


def statistics(subject: str, side: Side) -> Row | None:
    if side.facts is None:
        return None
    qemu, libvirt = side.facts["qemu_version"], side.facts["libvirt_version"]
    if qemu < QEMU_POSTCOPY_DEVICE or libvirt >= LIBVIRT_KNOWS_QEMU_11:
        return None
    return Row(
        subject,
        "statistics",
        "warn",
        f"QEMU {show(qemu)} with libvirt {show(libvirt)}",
        "a newer libvirt",
        'job statistics fail around the switch ("unexpected migration status in postcopy-device"), and '
        "QEMU counts an iteration every 55 ms; pcmig goes by states and pages, other tools take it for a "
        "failure or switch at once",
        "nothing for pcmig; upgrade libvirt for other tools",
    )


def migration_support(subject: str, side: Side) -> Row | None:
    if side.facts is None or side.facts["driver"] != "QEMU":
        return None
    caps = capabilities(side.facts)
    found = ", ".join((["live"] if caps.live else []) + list(caps.transports)) or "nothing"
    if not caps.live or not {"tcp", "unix"} & set(caps.transports):
        return Row(
            subject,
            "migration features",
            "fail",
            found,
            "live, tcp",
            "the capabilities of this libvirt do not offer live migration",
            "use libvirt's QEMU driver",
        )
    return Row(subject, "migration features", "ok", found)


HOST: tuple[Callable[[str, Side], Row | None], ...] = (
    connection, hypervisor, libvirt_version, qemu_version, emulation, migration_support, postcopy_resume,
    page_requests, incoming_xml, statistics,
)  # fmt: skip
