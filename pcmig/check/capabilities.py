# SPDX-License-Identifier: Apache-2.0
"""Reads the XML that libvirt gives of hosts and guests."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcmig._core import HostFacts


@dataclass(frozen=True)
class Capabilities:
    """What matters of a libvirt host's capabilities XML."""

    arch: str | None = None
    live: bool = False
    transports: tuple[str, ...] = ()
    guest_kinds: frozenset[str] = frozenset()  # of this architecture: "qemu", "kvm"


def capabilities(facts: HostFacts) -> Capabilities:
    """The capabilities; all unknown where libvirt gave none."""
    return parse_capabilities(facts["capabilities"] or "")


@functools.lru_cache(maxsize=8)
def parse_capabilities(xml: str) -> Capabilities:
    """Reads libvirt's capabilities XML; what cannot be read is unknown."""
    try:
        root = ET.fromstring(xml)
    except (ET.ParseError, ValueError):
        return Capabilities()
    arch = text_of(root, "host/cpu/arch")
    return Capabilities(
        arch=arch,
        live=root.find("host/migration_features/live") is not None,
        transports=tuple(
            node.text
            for node in root.iterfind("host/migration_features/uri_transports/uri_transport")
            if node.text
        ),
        guest_kinds=frozenset(kinds_of(root, arch)),
    )


def kinds_of(root: ET.Element, arch: str | None) -> Iterator[str]:
    for node in root.iterfind("guest/arch"):
        if node.get("name") == arch:
            yield from (domain.get("type", "") for domain in node.iterfind("domain"))


def text_of(root: ET.Element, path: str) -> str | None:
    text = root.findtext(path)
    return text.strip() or None if text else None


def memory_blocks(xml: str) -> int:
    """How many blocks of memory QEMU gives a guest: its NUMA cells, or one, and its memory devices."""
    root = ET.fromstring(xml)
    return max(1, len(root.findall("cpu/numa/cell"))) + len(root.findall("devices/memory"))


def domain_type(xml: str | None) -> str | None:
    """The type of a guest ("kvm", "qemu", ...), or None when XML is none."""
    try:
        return ET.fromstring(xml or "").get("type")
    except (ET.ParseError, ValueError):
        return None
