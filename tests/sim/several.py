# SPDX-License-Identifier: Apache-2.0
"""Several guests that leave a host at once: those of tests/bench/many, whoever steers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from tests.sim import bed, program
from tests.sim.program import Scenario

SEEDS = (1, 2, 3)
COUNTS = (3, 4, 8)
MANY: Scenario = {
    **bed.GUEST,
    "memory_mib": 128,
    "hot_mib": 32,
    "hot_wps": 3000,
    "scan_pps": 3000,
    "setup_ms": 1500,
}
WAYS: dict[str, Scenario] = {
    "virsh": {"way": "virsh"},
    "turns=0": {"way": "pcmig", "turns": 0},
    "auto": {"way": "pcmig"},
    "immediate": {"way": "pcmig", "policy": "immediate"},
}
FIGURES = ("total_ms", "arrival_ms", "silence_ms")


def medians(scenario: Scenario) -> dict[str, float]:
    found = program.run([{**scenario, "seed": seed} for seed in SEEDS])
    return {name: statistics.median(float(result[name]) for result in found) for name in FIGURES}


def table(counts: tuple[int, ...] = COUNTS) -> Iterator[str]:
    """Of each way: total time, mean arrival (both also of virsh's), worst silence at the switch."""
    yield f"{'':<12}" + "".join(f"{way:>28}" for way in WAYS)
    for count in counts:
        for qemu, stack in bed.STACKS.items():
            told: Scenario = {**MANY, **stack, "guests": count}
            found = {way: medians({**told, **words}) for way, words in WAYS.items()}
            cells = []
            for figures in found.values():
                total, arrival, silence = (figures[name] for name in FIGURES)
                of = (total / found["virsh"]["total_ms"], arrival / found["virsh"]["arrival_ms"])
                cells.append(f"{total / 1000:.1f} s {of[0]:.2f} {of[1]:.2f} {silence:.0f} ms")
            yield f"{f'{count}, QEMU {qemu}':<12}" + "".join(f"{cell:>28}" for cell in cells)
