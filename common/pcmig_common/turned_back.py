# SPDX-License-Identifier: Apache-2.0
"""Servers that turned back: their destination was lost in post-copy, and they go on at the source from the
moment of the switch.

libvirt keeps the migration's job for as long as that QEMU process runs, and with it refuses whatever
changes the guest, until it was powered off once. nova-compute notes it in the server's system metadata,
which users do not see, so that nova-api can refuse what cannot work without asking anybody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from pcmig_common.i18n import _

KEY = "pcmig_turned_back"  # in Nova's system metadata: when, as ISO 8601 has it

# What the server's owner reads: whole, short, without hosts.
SENTENCE = _(
    "The destination of the server's live migration was lost, and the server goes on from before it. "
    "This is not possible until it is powered off once: reboot it hard, or stop and start it."
)

# Actions of a server (POST /servers/ID/action) that libvirt refuses until then. Whatever powers the guest off
# by itself works: reboot, stop, resize, migrate, shelve, rescue.
SNAPSHOTS = ("createImage", "createBackup")  # of a volume they are Cinder's
ACTIONS = ("os-migrateLive", "suspend", "pause", "rebuild", "swapVolume", *SNAPSHOTS)


@dataclasses.dataclass(frozen=True)
class Words:
    """What somebody vouches for who has a guest turn back. The API and the bus have them by these names, the
    commands as options."""

    destination_is_dead: bool = False  # its host is off or fenced, or no QEMU of the guest runs there
    accept_newer_disks: bool = False  # its disks may have been written to since the switch
    guest_is_nowhere_else: bool = False  # it was not whole at the destination and moved on from there

    def options(self) -> list[str]:
        """Those that were given, as they are typed."""
        return [option for option, name in zip(OPTIONS, WORDS, strict=True) if getattr(self, name)]

    @classmethod
    def parsed(cls, args: object) -> Words:
        """Those of a parser that has OPTIONS."""
        return cls(**{name: getattr(args, name) for name in WORDS})

    @classmethod
    def of(cls, options: Collection[str]) -> Words:
        """Those that are typed so."""
        return cls(**{name: option in options for option, name in zip(OPTIONS, WORDS, strict=True)})


WORDS = tuple(field.name for field in dataclasses.fields(Words))
OPTIONS = tuple(f"--{name.replace('_', '-')}" for name in WORDS)


def since(system_metadata: Mapping[str, object] | None) -> str | None:
    """When it turned back; None for a server that did not, or was powered off since."""
    value = (system_metadata or {}).get(KEY)
    return str(value) if value else None


def refused(
    action: str, system_metadata: Mapping[str, object] | None, *, of_volume: bool = False
) -> str | None:
    """Why ACTION cannot work; None if it can. OF_VOLUME: the server's root disk is a volume."""
    if action not in ACTIONS or since(system_metadata) is None or (of_volume and action in SNAPSHOTS):
        return None
    return str(SENTENCE)
