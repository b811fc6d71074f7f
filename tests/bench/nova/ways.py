# SPDX-License-Identifier: Apache-2.0
"""The ways to migrate that are compared: a driver, and what nova.conf says for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tests.bed import BedError
from tests.cloud.cloud import PCMIG_DRIVER, STOCK_DRIVER
from tests.cloud.config import Sections, Value
from tests.cloud.service import RUN

STOCK = "stock"
TRACES = f"{RUN}/traces"  # as nova-compute sees it
DEFAULT_WAYS = "stock,pcmig,pcmig-timeout"
GRAMMAR = "stock, pcmig[-POLICY], pcmig-timeout"

_DEFAULT: Mapping[str, Value] = {"debug": False}  # CPU time is that of a service as operators run it
_PERMIT: Mapping[str, Value] = {"live_migration_permit_post_copy": True}
# The smallest there is; it counts per GiB of memory and disk, each as at least 2.
_TIMEOUT: Mapping[str, Value] = {
    "live_migration_timeout_action": "force_complete",
    "live_migration_completion_timeout": 1,
}


@dataclasses.dataclass(frozen=True)
class Way:
    """`by_timeout`: Nova's completion timeout decides when to switch, and not a policy."""

    name: str
    driver: str
    nova_conf: Sections
    meaning: str
    by_timeout: bool = False


def parse_ways(text: str) -> list[Way]:
    """Ways between commas, each once. Raises BedError that says what would be right."""
    names = [name for name in (piece.strip() for piece in text.split(",")) if name]
    if not names:
        raise BedError(f"--ways {text!r} names none: use {GRAMMAR}")
    return [parse_way(name) for name in dict.fromkeys(names)]


def parse_way(name: str) -> Way:
    conf: Sections
    if name == STOCK:
        conf = {"DEFAULT": _DEFAULT, "libvirt": {**_PERMIT, **_TIMEOUT}}
        return Way(
            name, STOCK_DRIVER, conf, "Nova's driver, forced to complete at the smallest timeout", True
        )
    if name == "pcmig-timeout":
        conf = {
            "DEFAULT": _DEFAULT,
            "libvirt": {**_PERMIT, **_TIMEOUT},
            "pcmig": {"policy": "manual", "trace_dir": TRACES},
        }
        return Way(name, PCMIG_DRIVER, conf, "pcmig's driver, which switches at the same timeout only", True)
    who, dash, policy = name.partition("-")
    if who != "pcmig" or (dash and not policy):
        raise BedError(f"unknown way {name!r}: use {GRAMMAR}")
    policy = policy or "auto"
    conf = {
        "DEFAULT": _DEFAULT,
        "libvirt": _PERMIT,
        "pcmig": {"policy": policy, "trace_dir": TRACES},
    }
    return Way(name, PCMIG_DRIVER, conf, f"pcmig's driver, policy {policy}")
