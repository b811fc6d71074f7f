# SPDX-License-Identifier: Apache-2.0
"""Where the other end's tunnel listens: HOST[:PORT], as it is typed and as it follows from a URI."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 16516

# What a name may consist of; an address is checked by itself.
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclasses.dataclass(frozen=True)
class Peer:
    """HOST is a name or an address without brackets, and what the peer's certificate has to name."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"


def parse(text: str) -> Peer:
    """ "b", "b:16600", "10.0.0.2", "fe80::1", "[fe80::1]:16600". Raises ValueError that says what would be
    right."""
    wanted = "write HOST or HOST:PORT, an IPv6 address with a port in brackets"
    host, port = text, str(DEFAULT_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: {wanted}")
        port = rest[1:] if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: {port!r} is no port from 1 to 65535")
    if not _NAME.fullmatch(host) and not _is_address(host):
        where = f"{text!r}: " if host != text else ""
        raise ValueError(f"{where}{host!r} is neither a host's name nor an address; {wanted}")
    return Peer(host, int(port))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text or bool(re.fullmatch(r"[0-9A-Fa-f:.]+%[A-Za-z0-9_.-]+", text))


def of_uri(uri: str | None, port: int = DEFAULT_PORT) -> Peer | None:
    """The host that a libvirt or migrate URI names; None when it names none."""
    try:
        host = urlsplit(uri or "").hostname
    except ValueError:
        return None
    # In a URI the percent sign before an interface's name is %25 (RFC 6874).
    host = unquote(host or "")
    if not (_NAME.fullmatch(host) or _is_address(host)) or in_brackets(uri or "") is not None:
        return None
    return Peer(host, port)


def in_brackets(uri: str) -> str | None:
    """URI as it would be right, where its host is an IPv6 address without brackets, whose last part would be
    taken for a port; else None."""
    scheme, slashes, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    if not slashes or "[" in host or host.count(":") < 2:
        return None
    # With a port behind it, which makes it no address or another one, this is only an example.
    address = host if _is_address(unquote(host)) else "ADDRESS"
    return f"{scheme}://{user}{at}[{address}]{slash}{path}"
