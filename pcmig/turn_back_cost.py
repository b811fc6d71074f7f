# SPDX-License-Identifier: Apache-2.0
"""What it would cost a guest to turn back to its source after the destination was lost in post-copy, told
before it migrates (as its "way back"): pure, the guest's XML in, a kind and a sentence out.

The source's half has memory and devices as they were at the switch. Its disks are as old as that only where
the destination had copies of its own; a disk that both hosts write to may be newer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Literal

from pcmig.guest import own_and_shared

# QEMU gives a disk back to the half at the source with blockdev-set-active, which is of 10.0.
QEMU_TAKES_DISKS_BACK = 10_000_000

Kind = Literal["nothing", "seconds", "shared-disks", "not-possible"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """KIND: nothing to lose; at most what the guest did since the switch; likewise, as long as it did not
    write to disks that both hosts share; or there is no way back."""

    kind: Kind
    short: str
    text: str  # one sentence without a full stop
    disks: tuple[str, ...] = ()  # that it depends on, as the guest calls them

    def as_dict(self) -> dict[str, str]:
        return {"cost": self.kind, "text": self.text}


NOTHING = Cost(
    "nothing",
    "nothing to lose",
    "the guest does not use post-copy: until it has moved as a whole, it is at the source",
)
SECONDS = Cost(
    "seconds",
    "nothing or seconds",
    "should the destination be lost in post-copy, the guest can go on at the source from the moment of the "
    "switch: nothing is lost if it had not run at the destination, otherwise what it did there",
)


def cost(xml: str, *, copied: bool | Collection[str], qemu_version: int, post_copy: bool = True) -> Cost:
    """Of the guest with XML at a host with QEMU_VERSION (0: not known). COPIED: whether the migration copies
    disks, or the names of those that it copies. Raises guest.GuestXmlError."""
    if not post_copy:
        return NOTHING
    own, shared = own_and_shared(xml, copied)
    names = (*own, *shared)
    if names and 0 < qemu_version < QEMU_TAKES_DISKS_BACK:
        return Cost(
            "not-possible",
            "none with this QEMU",
            "should the destination be lost in post-copy, so is the guest: the source's QEMU cannot take "
            f"{_listed(names)} back (10.0 can)",
            names,
        )
    if not shared:
        return SECONDS
    return Cost(
        "shared-disks",
        f"none once the guest has written to {_listed(shared)} at the destination",
        "should the destination be lost in post-copy, the guest can go on at the source only if it has not "
        f"written to {_listed(shared)} at the destination, which both hosts share; otherwise a hard reboot "
        "saves what is on disk",
        tuple(shared),
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(names)
