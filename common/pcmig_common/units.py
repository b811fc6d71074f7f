# SPDX-License-Identifier: Apache-2.0
"""Figures as the command prints them. Sizes and rates are in binary units, as virsh's bandwidths are
(MiB/s)."""

from __future__ import annotations

MIB = 1024 * 1024

# What libvirt's dirty rate counts: pages of the guest. 4 KiB on x86 and on every other architecture that
# libvirt migrates with QEMU's defaults.
PAGE_BYTES = 4096


def size(value_bytes: int) -> str:
    """1610612736 -> "1.5 GiB", 125829120 -> "120 MiB", 65536 -> "64 KiB"."""
    value = float(max(value_bytes, 0))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:
            return f"{value:.0f} {unit}" if unit in ("B", "KiB") or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def rate(value_bps: float) -> str:
    """Bytes per second -> "11.2 MiB/s"."""
    return f"{max(value_bps, 0) / MIB:.1f} MiB/s"


def seconds(value_ms: int) -> str:
    """12345 -> "12.3s", as the plain lines begin."""
    return f"{value_ms / 1000:.1f}s"


def clock(value_ms: int) -> str:
    """12345 -> "0:12", 3725000 -> "1:02:05"."""
    total = max(value_ms, 0) // 1000
    hours, minutes, secs = total // 3600, total // 60 % 60, total % 60
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
