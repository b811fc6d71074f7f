# SPDX-License-Identifier: Apache-2.0
"""What /proc/PID/status tells of a process (proc(5))."""

from __future__ import annotations

import re

CAP_NET_ADMIN = 12  # linux/capability.h
CAP_SYS_PTRACE = 19


def has_capability(status: str, number: int) -> bool | None:
    """Whether capability NUMBER is in force, by the line CapEff; None when there is no such line."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return None if match is None else bool(int(match[1], 16) >> number & 1)
