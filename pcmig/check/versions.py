# SPDX-License-Identifier: Apache-2.0
"""Versions that matter, as major * 1000000 + minor * 1000 + micro, and reading such numbers."""

LIBVIRT_MIN = 8_000_000
LIBVIRT_GRANTS_NODE = 10_001_000  # NEWS of 10.1.0: "Add support for /dev/userfaultfd"
LIBVIRT_RESUMES = 8_005_000  # VIR_MIGRATE_POSTCOPY_RESUME is of 8.5.0
# NEWS of 11.4.0: "introduced in libvirt-11.2.0"; measured with 11.3.0; 9.0 and 12.8 resume.
LIBVIRT_RESUME_BROKEN = (11_002_000, 11_004_000)
LIBVIRT_PREEMPTS = 10_000_000  # sets QEMU's capability postcopy-preempt where both sides have it
LIBVIRT_NAMES_HOST_TO_DISKS = 10_003_000  # NEWS of 10.3.0: "TLS hostname verification failure"
# NEWS of 11.5.0: since 11.0.0 virDomainGetXMLDesc "might timeout for incoming migration".
LIBVIRT_XML_WAITS = (11_000_000, 11_005_000)
# NEWS of 11.6.0: priority strings "to workaround a current bug in GNUTLS", which crashes the source's QEMU.
LIBVIRT_TLS_PRIORITY = 11_006_000
LIBVIRT_KNOWS_QEMU_11 = 12_009_000  # 12.8.0 does not know the state "postcopy-device"
# The oldest that csrc was written for: the words of query-migrate are known from there on
# (csrc/core/qemu_migration.h), and after a resume it asks again for the pages that the guest waits for
# ("migration: Sync requested pages after postcopy recovery"). max-postcopy-bandwidth and migrate-recover
# are of 3.0.
QEMU_MIN = 5_002_000
QEMU_POSTCOPY_EXPERIMENTAL = 2_005_000  # as capability "x-postcopy-ram"
QEMU_POSTCOPY = 2_006_000  # as capability "postcopy-ram"
QEMU_OPENS_NODE = 8_000_000
QEMU_TCG_FIXED = 9_000_000  # "physmem: Fix migration dirty bitmap coherency with TCG memory access"
# Measured with 11.1.2, see doc/operate/check.rst for the cause; 10.0.2 does not. Between the two nothing
# was tried.
QEMU_TCG_LOSES_WITH_POSTCOPY = 11_000_000
QEMU_PREEMPTS = 7_001_000  # capability postcopy-preempt
QEMU_POSTCOPY_DEVICE = 10_002_000  # QAPI: "postcopy-device: ... (since 10.2)"

TCG_LOSES_WITH_POSTCOPY = (
    "QEMU 11 loses writes of an emulated (TCG) guest while post-copy is enabled, also when the migration "
    "ends in pre-copy: its data is one write behind, or its kernel crashes"
)
TCG_LOSES_BEYOND_FIRST_BLOCK = (
    "QEMU loses writes of an emulated (TCG) guest to all but the first block of its memory, in pre-copy too"
)


def show(version: int) -> str:
    """8002001 as libvirt means it: "8.2.1"."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}" if version else "unknown"


def release(version: int) -> int:
    """Without the last part, which changes no interface."""
    return version // 1000


def version_of(text: str) -> tuple[int, int] | None:
    """(6, 18) of "6.18.44-amd64"."""
    major, _, rest = text.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return None
    return (int(major), int(minor)) if max(len(major), len(minor)) < 6 else None
