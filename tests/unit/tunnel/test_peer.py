# SPDX-License-Identifier: Apache-2.0
"""HOST[:PORT]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmig.tunnel.peer import DEFAULT_PORT, Peer, in_brackets, of_uri, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("b", "b", DEFAULT_PORT),
        ("b:16600", "b", 16600),
        ("b.example.org.", "b.example.org.", DEFAULT_PORT),
        ("10.0.0.2:1", "10.0.0.2", 1),
        ("fe80::1", "fe80::1", DEFAULT_PORT),
        ("[fe80::1]:16600", "fe80::1", 16600),
        ("[::1]", "::1", DEFAULT_PORT),
        ("fe80::1%eth0", "fe80::1%eth0", DEFAULT_PORT),
    ],
)
def test_what_is_a_peer(text: str, host: str, port: int) -> None:
    assert parse(text) == Peer(host, port)
    assert parse(str(Peer(host, port))) == Peer(host, port)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither a host's name nor an address"),
        ("b:0", "no port from 1 to 65535"),
        ("b:65536", "no port from 1 to 65535"),
        ("b:", "no port"),
        ("b:1x", "no port"),
        ("b c", "neither a host's name"),
        ("-b", "neither a host's name"),
        ("[::1", "in brackets"),
        ("[::1]x", "in brackets"),
        ("1:2:3", "neither a host's name nor an address"),
        ("../b", "neither a host's name"),
        ("b\nclose x", "neither a host's name"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@given(st.text())
def test_no_peer_breaks_a_line_of_the_control_socket(text: str) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert not set(found.host) & set(" \n\r\t\0") and found.host


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu+ssh://root@b/system", "b"),
        ("qemu+tcp://[fe80::1]:16509/system", "fe80::1"),
        ("tcp://10.0.0.2:49152", "10.0.0.2"),
        ("qemu+tcp://[fe80::1%25eth0]:16509/system", "fe80::1%eth0"),  # RFC 6874
        ("qemu+tcp://user@[fd00::2]/system", "fd00::2"),
    ],
)
def test_host_of_a_uri(uri: str, host: str) -> None:
    assert of_uri(uri) == Peer(host)


@pytest.mark.parametrize(
    "uri", [None, "", "qemu:///system", "qemu+ssh://[::1", "x", "qemu+tcp://fd00::2/system"]
)
def test_uri_without_a_host(uri: str | None) -> None:
    assert of_uri(uri) is None


@pytest.mark.parametrize(
    ("uri", "right"),
    [
        ("qemu+tcp://fd00::2/system", "qemu+tcp://[fd00::2]/system"),
        ("qemu+ssh://root@fe80::1%25eth0/system", "qemu+ssh://root@[fe80::1%25eth0]/system"),
        ("tcp://fd00::2", "tcp://[fd00::2]"),
        ("tcp://fd00:::49152", "tcp://[ADDRESS]"),
        ("qemu+tcp://[fd00::2]:16509/system", None),
        ("qemu+tcp://b:16509/system", None),
        ("qemu+ssh://u:p@b/system", None),
        ("qemu:///system", None),
        ("tcp:[fd00::2]", None),
        ("unix:///run/a:b:c", None),
        ("", None),
    ],
)
def test_brackets(uri: str, right: str | None) -> None:
    assert in_brackets(uri) == right
