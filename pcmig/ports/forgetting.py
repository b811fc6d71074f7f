# SPDX-License-Identifier: Apache-2.0
"""A guest that has gone is forgotten by the switches of the host that it left: other guests there would talk
to its old port, which nobody empties, until the switch is told better or the entry is 5 minutes old."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pcmig.ports.host import HostError

if TYPE_CHECKING:
    from pcmig.ports.host import Host
    from pcmig.ports.model import Nic


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """What came of it at one port."""

    mac: str
    device: str | None
    known: bool = False  # the switch had it
    problem: str | None = None


def forget(nics: Sequence[Nic], host: Host) -> list[Forgotten]:
    """To be called on the source host as soon as the guest has stopped there. The ports stay as they are: it
    may yet run there again, and is learned anew then. Raises HostError when the host cannot be asked."""
    rows = []
    for port in host.look(list(nics)):
        try:
            rows.append(Forgotten(port.mac, port.device, host.forget(port)))
        except HostError as err:
            rows.append(Forgotten(port.mac, port.device, problem=str(err)))
    return rows
