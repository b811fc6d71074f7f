# SPDX-License-Identifier: Apache-2.0
"""One migration's way through the tunnel: its names, its URIs, and what becomes of them.

The names belong to the migration, not to the process that looks after it: they are in the journal, and who
picks the migration up uses them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import Any

from pcmig.tunnel.client import Client, Figures, TunnelError, UnknownNameError, new_name
from pcmig.tunnel.peer import Peer

# How often an interrupted migration's names are looked after.
KEEP_S = 2.0


@dataclasses.dataclass(frozen=True)
class Names:
    """What the journal keeps."""

    peer: Peer
    memory: str
    disks: str | None = None
    streams: int = 1
    control: str | None = None  # None: where the daemon has it by default

    @classmethod
    def new(cls, peer: Peer, *, disks: bool, streams: int = 1, control: str | None = None) -> Names:
        return cls(peer, new_name(), new_name() if disks else None, streams, control)

    def as_entry(self) -> dict[str, Any]:
        """For journal.Entry.tunnel."""
        return {
            "host": self.peer.host,
            "port": self.peer.port,
            "memory": self.memory,
            "disks": self.disks,
            "streams": self.streams,
            "control": self.control,
        }

    @classmethod
    def of_entry(cls, noted: dict[str, Any] | None) -> Names | None:
        """From journal.Entry.tunnel; None for a migration that does not go through the tunnel. Raises
        TunnelError for what this release did not write."""
        if noted is None:
            return None
        try:
            names = cls(
                Peer(str(noted["host"]), int(noted["port"])),
                str(noted["memory"]),
                None if noted["disks"] is None else str(noted["disks"]),
                int(noted.get("streams", 1)),
                noted.get("control"),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise TunnelError(f"the journal's word on the tunnel is not understood: {noted!r}") from err
        return names


class Passage:
    """The way of one migration. Methods block for as long as the daemon does, keep() does not."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._client = Client(names.control)
        self._uris: dict[str, str] = {}  # by name
        self._keeping: threading.Thread | None = None
        self._kept_s = float("-inf")
        self._figures: dict[str, Figures] = {}  # by kind, as they were seen last

    @property
    def _kinds(self) -> dict[str, str]:
        names = {"memory": self.names.memory}
        return names | ({"disks": self.names.disks} if self.names.disks else {})

    @classmethod
    def of_entry(cls, noted: dict[str, Any]) -> Passage:
        """From journal.Entry.tunnel. Raises TunnelError for what this release did not write."""
        names = Names.of_entry(noted)
        assert names is not None
        return cls(names)

    def open(self) -> None:
        """Both ends have verified each other when it returns. What is open already stays so. Raises
        TunnelError."""
        try:
            for name in self._kinds.values():
                self._uris[name] = f"unix://{self._client.open(name, self.names.peer, self.names.streams)}"
        except TunnelError as err:
            raise TunnelError(f"no way through the tunnel to {self.names.peer}: {err}") from err

    def arguments(self) -> dict[str, Any]:
        """Migration's arguments that lead through it. open() comes before."""
        return {
            "migrate_uri": self._uris[self.names.memory],
            "disks_uri": self._uris[self.names.disks] if self.names.disks else None,
            "tunnel_control": self._client.control,
        }

    def keep(self) -> None:
        """To be called now and then while the stream is broken: opens again, on a thread, what a restart of
        the daemon has taken away. A resume finds it as soon as it is there."""
        now_s = time.monotonic()
        if now_s - self._kept_s < KEEP_S or (self._keeping is not None and self._keeping.is_alive()):
            return
        self._kept_s = now_s
        keeping = threading.Thread(target=self._reopen, name="pcmig-tunnel", daemon=True)
        try:
            keeping.start()
        except RuntimeError:  # no thread is to be had; the next time
            return
        self._keeping = keeping

    def _reopen(self) -> None:
        for name in self._kinds.values():
            with contextlib.suppress(TunnelError):  # the peer may be away, the daemon too: later again
                try:
                    self._client.show(name)
                except UnknownNameError:
                    self._client.open(name, self.names.peer, self.names.streams)

    def accounting(self) -> dict[str, Any]:
        """What went through, by kind ("memory", "disks"), and the peer. What cannot be asked any more is as
        it was seen last."""
        for kind, name in self._kinds.items():
            with contextlib.suppress(TunnelError):
                self._figures[kind] = self._client.show(name)
        return {"peer": self.names.peer.host, "port": self.names.peer.port, **self._figures}

    def close(self) -> None:
        """For good. What is closed already, or cannot be closed, is no error: the daemon drops it in time."""
        for name in self._kinds.values():
            with contextlib.suppress(TunnelError):
                self._client.close(name)
