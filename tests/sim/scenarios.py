# SPDX-License-Identifier: Apache-2.0
"""Guests and links as clouds have them, drawn from a seed; and those of the test bed."""

from __future__ import annotations

import math
import random

from tests.sim.program import Scenario

PAGE = 4096
# From the migrate call to the first page: the least of the bed's one to three seconds. What QEMU samples of
# the guest is there 1.1 s after the call: in traces of the bed within 0.1 s of the first page.
SETUP_MS = 1000
MIB = 1 << 20


def _log(dice: random.Random, low: float, high: float) -> float:
    return math.exp(dice.uniform(math.log(low), math.log(high)))


def draw(seed: int, link_mbps: float | None = None) -> dict[str, float | str]:
    """One scenario. Sizes and rates are drawn on a logarithmic scale, and in relation to each other: what a
    guest writes to what the link carries, its hot set to its memory."""
    dice = random.Random(seed)
    found: dict[str, float | str] = {"seed": seed}
    link = _log(dice, 100, 100_000)
    link = link if link_mbps is None else link_mbps
    bps = link * 1e6 / 8
    memory = min(_log(dice, 256, 4 << 20), bps * 400 / MIB)  # a pass takes 7 minutes at the most
    found["link_mbps"] = round(link, 1)
    found["memory_mib"] = round(memory)
    found["zero_permille"] = round(dice.choice((0, 0, dice.uniform(0, 700))))
    usable = memory * (1 - float(found["zero_permille"]) / 1000) * 0.9
    hot = min(memory * _log(dice, 0.002, 0.6), usable * 0.7)
    found["hot_mib"] = round(hot, 2)
    found["hot_wps"] = round(bps / PAGE * _log(dice, 0.01, 10), 1)
    if dice.random() < 0.5:
        found["warm_mib"] = round(min(memory * 0.2, usable * 0.2), 2)
        found["warm_wps"] = round(bps / PAGE * _log(dice, 0.001, 0.1), 1)
    found["reads_permille"] = round(dice.choice((0, 1000, 3000)))
    found["vcpus"] = dice.choice((1, 2, 4, 8, 16, 32))
    found["core_rw"] = round(_log(dice, 4, 60))
    found["core_ro"] = round(_log(dice, 8, 200))
    if dice.random() < 0.15:
        found["phase_ms"] = round(_log(dice, 200, 60_000))
        found["phase_busy_permille"] = round(dice.uniform(100, 900))
        found["quiet_permille"] = round(dice.choice((0, 50, 300)))
    if dice.random() < 0.15:
        pass_ms = memory * MIB / bps * 1000
        found["burst_mib"] = round(min(memory * _log(dice, 0.01, 0.3), usable * 0.1), 2)
        found["burst_at_ms"] = round(pass_ms * dice.uniform(0.3, 1.3))
        found["burst_ms"] = round(_log(dice, 50, 2000))
        found["burst_every_ms"] = dice.choice((0, 5000, 30_000))
    if dice.random() < 0.1:
        found["host_page_kib"] = 2048
    found["rtt_us"] = round(_log(dice, 30, 2000) if dice.random() < 0.9 else _log(dice, 2000, 40_000))
    # What a switch or a NIC's queue holds: 0.1 to 100 ms of the link, 64 KiB to 32 MiB.
    found["queue_kib"] = round(min(max(bps * _log(dice, 1e-4, 0.1) / 1024, 64), 32 << 10))
    found["fq"] = 1 if dice.random() < 0.2 else 0
    if dice.random() < 0.25:
        found["other_permille"] = round(dice.uniform(50, 700))
    if dice.random() < 0.15:
        found["other_flows"] = dice.choice((1, 2, 4))
    if dice.random() < 0.1:
        found["change_at_ms"] = round(memory * MIB / bps * 1000 * dice.uniform(0.2, 1.5))
        found["change_mbps"] = round(link * dice.choice((0.25, 0.5, 2.5)), 1)
    qemu = dice.choice((7, 10, 10, 11, 11))
    found["qemu"] = qemu
    found["preempt"] = 0 if qemu == 7 else 1
    found["multifd"] = dice.choice((1, 1, 1, 1, 4)) if qemu != 7 else 1
    found["switch_ms"] = round(_log(dice, 8, 60))
    found["fault_us"] = round(_log(dice, 20, 120))
    found["nova_steps"] = dice.choice((0, 1))
    found["setup_ms"] = SETUP_MS
    return found


# What grows with a link of another rate and a guest to go with it; times stay.
SCALED = (
    "link_mbps",
    "change_mbps",
    "memory_mib",
    "hot_mib",
    "hot_wps",
    "warm_mib",
    "warm_wps",
    "burst_mib",
    "queue_kib",
    "sndbuf_kib",
    "device_kib",
    "cpu_mbs",
)
DEFAULTS = {"sndbuf_kib": 4096.0, "device_kib": 512.0, "cpu_mbs": 2500.0}


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The same in another unit: all bytes and bytes per second FACTOR times as many."""
    whole = {**DEFAULTS, **scenario}
    return {
        name: value if isinstance(value, str) or name not in SCALED else value * factor
        for name, value in whole.items()
    }
