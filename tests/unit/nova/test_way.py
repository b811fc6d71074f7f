# SPDX-License-Identifier: Apache-2.0
"""How a live migration finds the destination's tunnel."""

from __future__ import annotations

import pathlib

import pytest

from pcmig.nova import conf as pcmig_conf
from pcmig.nova.settings import ConfigError, read
from pcmig.nova.way import Way
from pcmig.tunnel.client import TunnelError
from tests.unit.nova.nova_conf import make
from tests.unit.tunnel.fake_daemon import fake_daemon

DEST = "qemu+tcp://b/system"


@pytest.mark.parametrize(
    ("peer", "migrate_uri", "asked"),
    [
        (None, "tcp://10.0.0.2", "10.0.0.2 16516"),
        (None, None, "b 16516"),
        ("%s.mig.example.org", "tcp://10.0.0.2", "b.mig.example.org 16516"),
    ],
)
def test_peer(tmp_path: pathlib.Path, peer: str | None, migrate_uri: str | None, asked: str) -> None:
    with fake_daemon(tmp_path) as daemon:
        passage = Way(peer=peer, control=daemon.control).open(DEST, migrate_uri, disks=True)
        assert set(daemon.names.values()) == {asked} and len(daemon.names) == 2
        passage.close()


def test_refusals_leave_nothing_open(tmp_path: pathlib.Path) -> None:
    with fake_daemon(tmp_path) as daemon:
        way = Way(control=daemon.control)
        assert way.obstacle() is None
        daemon.refusal = "no route to host"
        with pytest.raises(TunnelError, match="no route to host"):
            way.open(DEST, None, disks=True)
        with pytest.raises(TunnelError, match=r"set \[pcmig\] tunnel_peer"):
            way.open("qemu:///system", None, disks=False)
        assert not daemon.names
    assert "is not running" in str(Way(control=str(tmp_path / "none")).obstacle())


def test_options(tmp_path: pathlib.Path) -> None:
    text = "[pcmig]\ntunnel_peer = %s-mig\ntunnel_port = 16600\ntunnel_streams = 4\ntunnel_control = /run/x\n"
    assert pcmig_conf.load(make(tmp_path, text)).tunnel == Way("%s-mig", 16600, 4, "/run/x")
    assert pcmig_conf.load(make(tmp_path, "")).tunnel == Way()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tunnel_peer = %d", "neither a host's name nor an address"),
        ("tunnel_peer = %s:16600", "the port is a matter of [pcmig] tunnel_port"),
        ("tunnel_control = run/x", "not an absolute path"),
        ("tunnel_streams = 9", "Should be less than or equal to 8"),
        ("tunnel_port = 0", "Should be greater than or equal to 1"),
        ("tunnel = yes", "Valid values are [none, pcmig]"),
    ],
)
def test_what_is_refused(tmp_path: pathlib.Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        conf = make(tmp_path, f"[pcmig]\n{line}\n")
        pcmig_conf.load(conf)
        read(conf, "pcmig", "tunnel")
    assert words in str(caught.value)
