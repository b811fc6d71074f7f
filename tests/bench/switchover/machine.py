# SPDX-License-Identifier: Apache-2.0
"""What the figures depend on besides the code: the machine, and how busy others kept it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import re
from typing import Any

from tests.bed import Host, layer
from tests.bed.network import LINK

CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


def facts(stacks: list[str]) -> dict[str, Any]:
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    return {
        "cores": os.cpu_count(),
        "cpu": model[1].strip() if model else platform.machine(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "congestion": CONGESTION.read_text().strip(),
        "python": platform.python_version(),
        "stacks": {stack: layer.versions(layer.ensure(stack)) for stack in stacks},
    }


@dataclasses.dataclass(frozen=True)
class CpuTimes:
    """/proc/stat's first line, in ticks of all cores."""

    total: int
    idle: int
    steal: int

    @classmethod
    def now(cls) -> CpuTimes:
        return cls.parse(pathlib.Path("/proc/stat").read_text())

    @classmethod
    def parse(cls, text: str) -> CpuTimes:
        user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in text.split()[1:9])
        return cls(user + nice + system + idle + iowait + irq + softirq + steal, idle + iowait, steal)

    def shares_since(self, before: CpuTimes) -> dict[str, float]:
        """Percent of all cores: busy with anything, and taken away by the machine below."""
        total = max(1, self.total - before.total)
        busy = total - (self.idle - before.idle)
        steal = self.steal - before.steal
        return {"busy_percent": round(100 * busy / total, 1), "steal_percent": round(100 * steal / total, 1)}


def bytes_sent(host: Host) -> int:
    """By a host over the migration link so far, whatever for, headers included."""
    assert host.holder is not None
    return parse_net_dev(pathlib.Path(f"/proc/{host.holder.pid}/net/dev").read_text(), LINK)


def parse_net_dev(text: str, interface: str) -> int:
    for line in text.splitlines():
        name, colon, counters = line.partition(":")
        if colon and name.strip() == interface:
            return int(counters.split()[8])
    raise ValueError(f"no interface {interface} in /proc/net/dev")
