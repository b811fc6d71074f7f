# SPDX-License-Identifier: Apache-2.0
"""When things happened, by nova-compute's log and pcmig's trace: text in, moments out."""

from __future__ import annotations

import dataclasses
import datetime
import re

TIMEOUT = "Live migration not completed after"  # both drivers; the same function of Nova says it
STOCK_SWITCHED = "Switching to post-copy migration mode"  # once the call has returned

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (.*)")
_LATE = re.compile(r"Live migration: switched to post-copy, (\d+) us after the decision")
_TRACE = re.compile(r"(\d+) (decision|event) (\S+)")


def moment(log: str, text: str) -> float | None:
    """time.time() of the first line with that text, to the millisecond; None without one."""
    for line in log.splitlines():
        match = _LINE.match(line)
        if match and text in match[2]:
            return datetime.datetime.fromisoformat(match[1]).timestamp()
    return None


def late_us(log: str) -> int | None:
    """From pcmig's decision to switch to its call of start-postcopy, as the driver logs it."""
    match = _LATE.search(log)
    return int(match[1]) if match else None


@dataclasses.dataclass(frozen=True)
class Switch:
    """Of a trace, in microseconds of its clock.

    decided_us:  the policy wanted post-copy; from here on the link is drained and the record saved
    switched_us: the input came that was answered with the switch: link drained, record saved
    issued_us:   libvirt has accepted start-postcopy
    stopped_us:  libvirt says that the guest stands still at the source (SUSPENDED_POSTCOPY)
    """

    decided_us: int
    switched_us: int
    issued_us: int
    stopped_us: int


def switch_of(trace: str) -> Switch | None:
    """The switch that was carried out; None when there was none, or its end is not there."""
    decided_us: int | None = None
    switched_us: int | None = None
    issued_us: int | None = None
    stopped_us: int | None = None
    for line in trace.splitlines():
        match = _TRACE.match(line)
        if match is None:
            continue
        now_us = int(match[1])
        match match[2], match[3]:
            case "decision", "drain" if decided_us is None:
                decided_us = now_us
            case "decision", "undrain":
                decided_us = None
            case "decision", "switch" if issued_us is None:
                switched_us = now_us
            case "event", "switch-issued" if issued_us is None:
                issued_us = now_us
            case "event", "src-suspended-postcopy" if (
                stopped_us is None
            ):  # it may come before the call returns
                stopped_us = now_us
    if switched_us is None or issued_us is None or stopped_us is None:
        return None
    return Switch(switched_us if decided_us is None else decided_us, switched_us, issued_us, stopped_us)


def cpu_ticks(stat: str) -> int:
    """User and system time of /proc/PID/stat: of all threads, those that have ended included."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
