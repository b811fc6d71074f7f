# SPDX-License-Identifier: Apache-2.0
"""The simulator held against the test bed: the medians of doc/refer/switchover.rst, with least and greatest.

Chosen so that the silences agree, since it cannot be known: how many pages a heartbeat needs (core_rw,
core_ro), how late it is on that machine anyway (late_ms), and how long QEMU takes to start the guest
(switch_ms; the traces tell it within 30 ms). setup_ms stands for the start of the programs, which the bed's
total time has in it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator

from tests.sim import program
from tests.sim.program import Scenario

SEEDS = 11

# tests/bench/switchover: 256 MiB, of which a quarter is zero; a worker that rewrites 128 MiB at random with
# 10,000 pages a second and reads as many in turn; one vCPU without KVM; a token bucket of 100 Mb/s that saves
# up 256 KiB and has a queue of 100 ms.
GUEST: Scenario = {
    "memory_mib": 256,
    "zero_permille": 270,
    "hot_mib": 128,
    "hot_wps": 10000,
    "scan_pps": 10000,
    "vcpus": 1,
    "kvm": 0,
    "link_mbps": 100,
    "queue_kib": 1475,
    "bucket_kib": 256,
    "sndbuf_kib": 2500,
    "rtt_us": 100,
    "fault_us": 80,
    "core_rw": 5,
    "core_ro": 320,
    "late_ms": 9,
    "setup_ms": 500,
}
# From the guest's stop to its start, without what is on the link: QEMU 11 waits for the destination to have
# loaded the devices.
STACKS: dict[int, Scenario] = {10: {"qemu": 10, "switch_ms": 25}, 11: {"qemu": 11, "switch_ms": 125}}

Spread = tuple[float, float, float]  # median, least, greatest


@dataclasses.dataclass(frozen=True)
class Measured:
    name: str
    qemu: int
    way: Scenario
    silence_ms: Spread
    later_ms: Spread
    total_s: float


def script(acts: str) -> Scenario:
    """What pcmig did, from the trace of a run: milliseconds from the first page on."""
    start_ms = GUEST["setup_ms"]
    assert isinstance(start_ms, int)
    steps = [step.split(":") for step in acts.split(",")]
    return {
        "way": "script",
        "script": ",".join(f"{int(at) + start_ms}:{act}:{mib}" for at, act, mib in steps),
    }


# The world is compared, not the steering of today: pcmig's acts are those of the time when the bed measured.
FIRST_PASS_10 = script(
    "16784:drain:1,16802:set-pace:2,17037:switch:0,18167:set-pace:3,19661:set-pace:4,"
    "20713:set-pace:3,22356:set-pace:2,26820:set-pace:3"
)
AUTO_10 = script(
    "27577:drain:1,27585:set-pace:2,27884:switch:0,30574:set-pace:3,31421:set-pace:5,"
    "32455:set-pace:3,34925:set-pace:2,36628:set-pace:3"
)
AUTO_11 = script("17207:drain:1,17215:set-pace:2,17364:switch:0,23892:set-pace:3")
IMMEDIATE_11 = script(
    "537:drain:1,565:set-pace:2,757:switch:0,6217:set-pace:3,14528:set-pace:4,"
    "15361:set-pace:7,15807:set-pace:9,17745:set-pace:10"
)

MEASURED = (
    Measured("QEMU 11, virsh", 11, {"way": "virsh"}, (3157, 2790, 3415), (246, 216, 308), 17.1),
    Measured("QEMU 11, auto", 11, AUTO_11, (180, 144, 190), (46, 44, 71), 27.1),
    Measured("QEMU 11, immediate", 11, IMMEDIATE_11, (253, 246, 303), (54, 48, 63), 18.7),
    Measured("QEMU 10, virsh", 10, {"way": "virsh"}, (1117, 921, 1222), (347, 196, 461), 28.7),
    Measured("QEMU 10, first-pass", 10, FIRST_PASS_10, (71, 55, 103), (49, 43, 138), 29.0),
    Measured("QEMU 10, auto", 10, AUTO_10, (100, 56, 106), (125, 92, 238), 39.9),
)


@dataclasses.dataclass(frozen=True)
class Compared:
    measured: Measured
    silence_ms: float
    later_ms: float
    total_s: float

    def off(self) -> dict[str, float]:
        """How far each figure is off, as a share of the measured median; 0 inside the measured spread."""
        return {
            "total time": abs(self.total_s / self.measured.total_s - 1),
            "silence at the switch": _off(self.silence_ms, self.measured.silence_ms),
            "later silence": _off(self.later_ms, self.measured.later_ms),
        }


def _off(value: float, spread: Spread) -> float:
    median, least, greatest = spread
    return 0.0 if least <= value <= greatest else abs(value / median - 1)


def compare() -> list[Compared]:
    """Medians over SEEDS runs, as the bench takes them over its rounds."""
    seeds = range(1, SEEDS + 1)
    scenarios = [{**GUEST, **STACKS[row.qemu], **row.way, "seed": seed} for row in MEASURED for seed in seeds]
    results = program.run(scenarios)
    found = []
    for index, row in enumerate(MEASURED):
        runs = results[index * SEEDS : (index + 1) * SEEDS]
        names = ("silence_ms", "later_ms", "total_ms")
        silence, later, total = (statistics.median(float(run[name]) for run in runs) for name in names)
        found.append(Compared(row, silence, later, total / 1000))
    return found


def table() -> Iterator[str]:
    yield f"{'':<24}{'total s':>18}{'silence ms':>18}{'later ms':>18}"
    yield f"{'':<24}{'bed   simulated':>18}{'bed   simulated':>18}{'bed   simulated':>18}"
    for row in compare():
        was = row.measured
        cells = (
            (was.total_s, row.total_s),
            (was.silence_ms[0], row.silence_ms),
            (was.later_ms[0], row.later_ms),
        )
        yield f"{was.name:<24}" + "".join(f"{bed:>9g}{sim:>9.4g}" for bed, sim in cells)
