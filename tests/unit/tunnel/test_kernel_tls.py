# SPDX-License-Identifier: Apache-2.0
"""Who asks for kernel TLS is told why not."""

from __future__ import annotations

import pytest

from pcmig.tunnel import kernel_tls, settings
from pcmig.tunnel.settings import SettingsError

FUTURE = (9, 0)


@pytest.mark.parametrize(
    ("ulps", "release", "openssl", "renews", "words"),
    [
        (["mptcp"], "6.18.44", (3, 6), FUTURE, "no TLS"),
        ([], "6.18.44", FUTURE, FUTURE, "no TLS"),
        (["mptcp", "tls"], "6.12.9-amd64", FUTURE, FUTURE, "Linux 6.12.9-amd64 takes no new keys"),
        (["tls"], "5.14.0-503.el9", FUTURE, FUTURE, "6.14 or newer"),
        (["tls"], "unknown", FUTURE, FUTURE, "6.14 or newer"),
        (["tls"], "6.14.0", (3, 6), FUTURE, "OpenSSL 3.6 gives the kernel no new keys"),
        (["tls"], "7.0", (3, 6), None, "OpenSSL 3.6"),
    ],
)
def test_why_not(
    ulps: list[str], release: str, openssl: tuple[int, int], renews: tuple[int, int] | None, words: str
) -> None:
    found = kernel_tls.why_not(ulps, release, openssl, renews)
    assert found is not None and words in found


def test_where_both_can_renew() -> None:
    assert kernel_tls.why_not(["espintcp", "tls"], "6.14.0", FUTURE, FUTURE) is None
    assert kernel_tls.why_not(["tls"], "7.1-rc1", FUTURE, FUTURE) is None


def test_a_setting_that_is_refused_here() -> None:
    """No OpenSSL of today gives the kernel new keys, and many a kernel has no TLS at all."""
    assert settings.settle({})  # off unless asked for
    with pytest.raises(
        SettingsError, match=r"^kernel_tls: a migration can outlast a key, and .*OpenSSL encrypts$"
    ):
        settings.settle({"kernel_tls": True})
