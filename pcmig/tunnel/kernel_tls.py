# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel may encrypt in OpenSSL's place (kernel TLS). A migration can outlast a key (RFC 8446,
5.5), so both the kernel and OpenSSL have to be able to renew the keys of a connection that runs."""

from __future__ import annotations

import os
import pathlib
import re
import ssl

ULPS = pathlib.Path("/proc/sys/net/ipv4/tcp_available_ulp")
KERNEL_RENEWS = (6, 14)
# The first that gives the kernel a new key, for both directions; none that is known of, up to 3.6, does
# (github.com/openssl/openssl, issues 16307 and 31138).
OPENSSL_RENEWS: tuple[int, int] | None = None


def here() -> str | None:
    """Why not on this host; None: it may."""
    try:
        ulps = ULPS.read_text().split()
    except OSError:
        ulps = []
    return why_not(ulps, os.uname().release, ssl.OPENSSL_VERSION_INFO[:2])


def why_not(
    ulps: list[str],
    release: str,
    openssl: tuple[int, ...],
    openssl_renews: tuple[int, int] | None = OPENSSL_RENEWS,
) -> str | None:
    """ULPS: what the kernel can lay over TCP (net.ipv4.tcp_available_ulp); RELEASE: of the kernel."""
    number = re.match(r"(\d+)\.(\d+)", release)
    if "tls" not in ulps:
        return "this kernel has no TLS (its module tls is not loaded, or was not built: modprobe tls)"
    if number is None or (int(number[1]), int(number[2])) < KERNEL_RENEWS:
        return f"Linux {release} takes no new keys for a connection that runs: that takes 6.14 or newer"
    if openssl_renews is None or openssl < openssl_renews:
        version = ".".join(map(str, openssl))
        return f"OpenSSL {version} gives the kernel no new keys for a connection that runs"
    return None
