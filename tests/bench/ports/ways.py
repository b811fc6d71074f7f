# SPDX-License-Identifier: Apache-2.0
"""What is compared: kinds of networks, and ways to move a guest over them."""

from __future__ import annotations

import dataclasses

from tests.bed import BedError


@dataclasses.dataclass(frozen=True)
class SetUp:
    """The hosts' bridges, of which each network card of the guest has one."""

    name: str
    meaning: str
    openvswitch: bool = False
    forward_delay_s: int = 0  # of a spanning tree; 0 = there is none
    nics: int = 1


SETUPS = (
    SetUp("bridge", "Linux bridge without a spanning tree"),
    SetUp("bridge-2s", "Linux bridge, spanning tree with a forward delay of 2 s", forward_delay_s=2),
    SetUp("bridge-15s", "Linux bridge, spanning tree with a forward delay of 15 s", forward_delay_s=15),
    SetUp("two-nics", "two network cards, each on a Linux bridge of its own, 2 s", forward_delay_s=2, nics=2),
    SetUp("openvswitch", "Open vSwitch in user space", openvswitch=True),
)

WAYS = {
    "virsh": "virsh migrate --postcopy --postcopy-after-precopy",
    "pcmig": "pcmig migrate --policy first-pass",
    "pcmig-ports": "the same with --ports",
}


def chosen(text: str | None) -> list[SetUp]:
    """Raises BedError."""
    names = text.split(",") if text else [each.name for each in SETUPS]
    found = [each for name in names for each in SETUPS if each.name == name]
    if len(found) != len(names):
        raise BedError(f"--setups {text}: use some of {','.join(each.name for each in SETUPS)}")
    return found


def chosen_ways(text: str | None) -> list[str]:
    """Raises BedError."""
    names = text.split(",") if text else list(WAYS)
    if not set(names) <= set(WAYS):
        raise BedError(f"--ways {text}: use some of {','.join(WAYS)}")
    return names
