# SPDX-License-Identifier: Apache-2.0
"""The control socket's client."""

from __future__ import annotations

import os
import pathlib
import re

import pytest

from pcmig.tunnel.client import Client, TunnelError, UnknownNameError, new_name
from pcmig.tunnel.peer import Peer
from tests.unit.tunnel.fake_daemon import FakeDaemon

NAME = "0123456789abcdef" * 2


def test_names_are_not_to_be_guessed() -> None:
    names = {new_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


def test_requests(daemon: FakeDaemon) -> None:
    client = Client(daemon.control)
    assert client.open(NAME, Peer("b")) == f"{daemon.folder}/{NAME}"
    client.open(NAME, Peer("fe80::1", 16600), streams=4)
    assert client.names() == [NAME]
    figures = client.show(NAME)
    assert (figures["bytes_out"], figures["cipher"]) == (3145728, "TLS_AES_128_GCM_SHA256")
    assert figures["error"] == "the peer went away"
    assert client.probe(Peer("b")) == {
        "subject": "CN=b, O=acme",
        "not_after": 1856000000,
        "clock_skew_ms": -90000,
    }
    client.close(NAME)
    with pytest.raises(UnknownNameError, match="unknown name"):
        client.close(NAME)
    with pytest.raises(UnknownNameError):
        client.show(NAME)
    assert daemon.asked[:2] == [f"open {NAME} b 16516", f"open {NAME} fe80::1 16600 streams=4"]


def test_a_refusal_is_told(daemon: FakeDaemon) -> None:
    daemon.refusal = "10.0.0.2:16516: certificate has expired"
    with pytest.raises(TunnelError, match="certificate has expired"):
        Client(daemon.control).open(NAME, Peer("b"))


@pytest.mark.parametrize("name", ["", "x", NAME.upper(), NAME + "0", "../" + NAME, NAME + "\n"])
def test_only_names_reach_the_daemon(daemon: FakeDaemon, name: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Client(daemon.control).show(name)
    assert not daemon.asked


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"what?\n", "answers 'what?'"),
        (b"\xff\xfe\n", "is that pcmig's"),
        (b"ok", "ended in the middle of an answer"),
        (b"", "ended in the middle of an answer"),
        (b"ok" * 100_000, "ended in the middle of an answer"),
    ],
)
def test_nonsense_for_an_answer(daemon: FakeDaemon, answer: bytes, text: str) -> None:
    daemon.answer = lambda _: answer
    with pytest.raises(TunnelError, match=re.escape(text)):
        Client(daemon.control).names()


def test_nobody_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TunnelError, match=r"is not running .*systemctl start pcmig-tunnel"):
        Client(str(tmp_path / "nothing")).names()
    with pytest.raises(TunnelError, match="cannot be asked"):
        Client(str(tmp_path / ("x" * 200))).names()


def test_not_allowed_to_ask(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", denied)
    with pytest.raises(TunnelError, match="control_group"):
        Client(daemon.control).names()


def test_where_the_daemon_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCMIG_TUNNEL_CONTROL", "/run/x")
    assert Client().control == "/run/x"
    del os.environ["PCMIG_TUNNEL_CONTROL"]
    assert Client().control == "/run/pcmig/tunnel.control"
