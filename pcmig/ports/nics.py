# SPDX-License-Identifier: Apache-2.0
"""The interfaces of a guest, from its live XML: pure."""

from __future__ import annotations

import contextlib
import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from pcmig import guest
from pcmig.ports.model import Nic


def nics(xml: str) -> list[Nic]:
    """In the order of the XML. Raises guest.GuestXmlError."""
    return [_nic(interface) for interface in guest.parse(xml).iterfind("./devices/interface")]


def _nic(interface: ET.Element) -> Nic:
    source = interface.find("source")
    virtualport = interface.find("virtualport")
    link = interface.find("link")
    return Nic(
        mac=_attribute(interface.find("mac"), "address") or "",
        kind=interface.get("type", ""),
        device=_attribute(interface.find("target"), "dev"),
        bridge=_attribute(source, "bridge"),
        openvswitch=virtualport is not None and virtualport.get("type") == "openvswitch",
        pulled=link is not None and link.get("state") == "down",
        addresses=tuple(_addresses(interface)),
    )


def _addresses(interface: ET.Element) -> Iterator[str]:
    """Of <ip>, and what network filters were told."""
    told = [each.get("address", "") for each in interface.iterfind("./ip")]
    told += [
        each.get("value", "")
        for each in interface.iterfind("./filterref/parameter")
        if each.get("name") in ("IP", "IPV6")
    ]
    for text in dict.fromkeys(told):
        with contextlib.suppress(ValueError):
            yield str(ipaddress.ip_address(text.strip()))


def _attribute(element: ET.Element | None, name: str) -> str | None:
    value = "" if element is None else element.get(name, "")
    return value.strip() or None
