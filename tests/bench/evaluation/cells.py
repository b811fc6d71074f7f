# SPDX-License-Identifier: Apache-2.0
"""What is compared: loads of the guest, rates of the link, with or without the tunnel, ways to migrate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from tests.bed import BedError, GuestSpec
from tests.bench.evaluation.database import DatabaseSpec
from tests.bench.switchover.ways import Kind, Way, parse_way

# Of the guest's 4 KiB pages. What "heavy" writes is more than a link of 100 Mb/s carries (2,900 pages/s), and
# less than one of 1 Gb/s does, as far as the processor lets the guest.
DATABASE = "database"
LOADS: dict[str, GuestSpec] = {
    "idle": GuestSpec(write_pps=0, verify_pps=0),
    "medium": GuestSpec(write_pps=1_000, verify_pps=4_000),
    "heavy": GuestSpec(write_pps=10_000, verify_pps=10_000),
    DATABASE: DatabaseSpec(),
}
TRANSPORTS = ("plain", "tunnel")
PAGE_BYTES = 4096

# QEMU's own tests/migration-stress/guestperf switches after 0, 1, 5 and 20 of QEMU's iterations.
WAYS = {
    "pre-copy": Way("pre-copy", Kind.VIRSH_PRECOPY),
    **{
        name: Way(name, Kind.VIRSH_ITERATIONS, iterations=number)
        for number in (0, 1, 5, 20)
        if (name := f"post-copy-{number}")
    },
    "virsh": parse_way("virsh"),
    "pcmig": parse_way("pcmig"),
    "pcmig-never": parse_way("pcmig-never"),
    "pcmig-immediate": parse_way("pcmig-immediate"),
    "pcmig-passes=1": parse_way("pcmig-passes=1"),
    "pcmig-passes=5": parse_way("pcmig-passes=5"),
}
DEFAULT_WAYS = "pre-copy,post-copy-0,post-copy-1,post-copy-5,virsh,pcmig-immediate,pcmig"


@dataclasses.dataclass(frozen=True)
class Cell:
    load: str
    rate_mbit: float
    transport: str
    way: Way

    @property
    def name(self) -> str:
        return f"{self.load}, {self.rate_mbit:g} Mb/s, {self.transport}"


def cells(
    loads: Iterable[str], rates: Iterable[float], transports: Iterable[str], ways: Iterable[Way]
) -> Iterator[Cell]:
    """Load by load, as each needs a guest of its own; virsh knows no tunnel of ours."""
    rates, transports, ways = list(rates), list(transports), list(ways)
    for load in loads:
        for rate in rates:
            for transport in transports:
                for way in ways:
                    if transport == "plain" or way.kind is Kind.PCMIG:
                        yield Cell(load, rate, transport, way)


def parse_list(option: str, text: str, known: Iterable[str]) -> list[str]:
    """Names between commas, each once. Raises BedError that says what would be right."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = list(known)
    if wrong := [name for name in names if name not in known]:
        raise BedError(f"{option} {text}: {wrong[0]!r} is none of {', '.join(known)}")
    if not names:
        raise BedError(f"{option} {text!r} names none: use {', '.join(known)}")
    return names


def parse_rates(text: str) -> list[float]:
    """Mb/s between commas, 1 to 100000 each. Raises BedError."""
    rates = []
    for word in (word.strip() for word in text.split(",")):
        try:
            rate = float(word)
        except ValueError:
            rate = 0.0
        if not 1 <= rate <= 100_000:
            raise BedError(f"--rates {text}: {word!r} is no rate in Mb/s: use 1 to 100000, between commas")
        rates.append(rate)
    return list(dict.fromkeys(rates))
