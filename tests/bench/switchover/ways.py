# SPDX-License-Identifier: Apache-2.0
"""The ways to migrate that are compared: their names, and which are compared by default on which stack."""

from __future__ import annotations

import dataclasses
import enum

from tests.bed import BedError, GuestSpec


class Kind(enum.Enum):
    """Who carries the migration out, and who decides when to switch."""

    VIRSH = "virsh migrate --postcopy --postcopy-after-precopy"
    VIRSH_PASS = "virsh migrate --postcopy, switched after one pass measured in pages"
    VIRSH_PRECOPY = "virsh migrate, pre-copy only"
    VIRSH_ITERATIONS = "virsh migrate --postcopy, switched when QEMU's counter of iterations says"
    POLL = "statistics every 0.5 s, switched when they show iteration 2 (not Nova's rule, see README.rst)"
    PCMIG = "pcmig migrate"


@dataclasses.dataclass(frozen=True)
class Way:
    """One way; `settings` are NAME=VALUE for `pcmig migrate --set`."""

    name: str
    kind: Kind
    idle: bool = False  # with a guest that does nothing
    policy: str = "auto"
    settings: tuple[str, ...] = ()
    iterations: int = 0  # of VIRSH_ITERATIONS; 0 = at once

    @property
    def meaning(self) -> str:
        if self.kind is Kind.VIRSH_ITERATIONS:
            return f"{self.kind.value} {self.iterations}"
        if self.kind is not Kind.PCMIG:
            return str(self.kind.value)
        return " ".join([self.kind.value, "--policy", self.policy, *(f"--set {s}" for s in self.settings)])


FIXED = {
    way.name: way
    for way in (
        Way("virsh", Kind.VIRSH),
        Way("virsh-pass", Kind.VIRSH_PASS),
        Way("virsh-idle", Kind.VIRSH_PRECOPY, idle=True),
        Way("poll", Kind.POLL),
    )
}
PCMIG_GRAMMAR = "pcmig[-POLICY|-idle][@NAME=VALUE,...]"

GUESTS = {False: GuestSpec(), True: GuestSpec(write_pps=0, verify_pps=0)}  # by Way.idle

# QEMU 10 counts an iteration per pass over memory: there virsh's own switch is the one after a real pass.
# QEMU 11 counts one every 55 ms, and virsh switches at once.
DEFAULT_WAYS = {
    "forky": "virsh,poll,pcmig,virsh-pass,pcmig-first-pass,pcmig-immediate,virsh-idle,pcmig-idle",
    "backports": "virsh,poll,pcmig,pcmig-first-pass,virsh-idle,pcmig-idle",
}


def parse_ways(text: str) -> list[Way]:
    """Ways between commas, each once. Raises BedError that says what would be right.

    The settings of a way have commas between them too: NAME=VALUE belongs to the way before it.
    """
    names: list[str] = []
    for piece in (piece.strip() for piece in text.split(",")):
        if names and "@" in names[-1] and "=" in piece and not piece.startswith("pcmig"):
            names[-1] += f",{piece}"
        elif piece:
            names.append(piece)
    if not names:
        raise BedError(f"--ways {text!r} names none: {_known()}")
    return [parse_way(name) for name in dict.fromkeys(names)]


def parse_way(name: str) -> Way:
    if name in FIXED:
        return FIXED[name]
    base, at, settings_text = name.partition("@")
    who, dash, policy = base.partition("-")
    settings = tuple(settings_text.split(",")) if at else ()
    if who != "pcmig" or (dash and not policy):
        raise BedError(f"unknown way {name!r}: {_known()}")
    if at and not all(key and value for key, _, value in (setting.partition("=") for setting in settings)):
        raise BedError(f"way {name!r}: after the @ stands NAME=VALUE, and more of them after commas")
    if policy == "idle":
        return Way(name, Kind.PCMIG, idle=True, settings=settings)
    return Way(name, Kind.PCMIG, policy=policy or "auto", settings=settings)


def _known() -> str:
    return f"use {', '.join(FIXED)} or {PCMIG_GRAMMAR}"
