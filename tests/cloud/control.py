# SPDX-License-Identifier: Apache-2.0
"""The control node: a third view of the machine beside the two hosts, with a network of its own."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tests.bed.host import Host


class ControlNode(Host):
    """Databases, messages, APIs. Its network namespace has no name: it is gone with its last process."""

    UNSHARE = ("--net", *Host.UNSHARE)

    def __init__(self, state: pathlib.Path) -> None:  # none of what a libvirt host needs
        self.name = "control"
        self.state = state
        self.holder = None
        self._holder_process = None

    def up(self, layer: pathlib.Path, guest_folder: pathlib.Path, stay: bool = False) -> None:
        """The layer is an empty one: everything here is of the machine itself."""
        for folder in ("run/pcmig/guest", "etc", "lib", "log", "scratch"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        (layer / "usr").mkdir(parents=True, exist_ok=True)
        self.hold(layer, guest_folder, stay)

    def command(self, argv: Sequence[str]) -> list[str]:
        """How to run a program of the machine in this node's network."""
        if self.holder is None:
            return list(argv)
        return ["nsenter", "-t", str(self.holder.pid), "--net", "--", *argv]
