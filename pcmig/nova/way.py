# SPDX-License-Identifier: Apache-2.0
"""How live migrations of this host go through pcmig's tunnel. Nothing of Nova is needed here."""

from __future__ import annotations

import dataclasses

from pcmig.tunnel.client import CONTROL, Client, TunnelError
from pcmig.tunnel.passage import Names, Passage
from pcmig.tunnel.peer import DEFAULT_PORT, of_uri, parse


@dataclasses.dataclass(frozen=True)
class Way:
    """The options of [pcmig] that begin with tunnel_."""

    peer: str | None = None  # with %s for the destination's host name; None: as the migration goes by itself
    port: int = DEFAULT_PORT
    streams: int = 1
    control: str = CONTROL

    def open(self, destination: str, migrate_uri: str | None, *, disks: bool) -> Passage:
        """A way for one migration to the libvirt at DESTINATION, whose QEMU listens at MIGRATE_URI; DISKS:
        they are copied. Both ends have verified each other then. Raises TunnelError."""
        found = of_uri(migrate_uri) or of_uri(destination)
        if self.peer is not None:
            host = of_uri(destination)
            found = parse(self.peer.replace("%s", host.host if host else ""))
        if found is None:
            raise TunnelError(f"{destination} names no host to reach the tunnel at: set [pcmig] tunnel_peer")
        there = dataclasses.replace(found, port=self.port)
        passage = Passage(Names.new(there, disks=disks, streams=self.streams, control=self.control))
        try:
            passage.open()
        except TunnelError:
            passage.close()
            raise
        return passage

    def obstacle(self) -> str | None:
        """Why no migration can leave this host through the tunnel; None: one may be able to."""
        try:
            Client(self.control).names()
        except TunnelError as err:
            return str(err)
        return None
