# SPDX-License-Identifier: Apache-2.0
"""The daemon's figures, as Prometheus reads them."""

from __future__ import annotations

import pathlib
import re
import socket
import time

import pytest

from pcmig import files
from pcmig.tunnel import metrics
from pcmig.tunnel.client import Client
from tests.unit.certificates import DAY, Authority
from tests.unit.patience import wait_for
from tests.unit.tunnels import Daemon, authority, folder, new_name

__all__ = ["authority", "folder"]  # fixtures

LINE = re.compile(r'(pcmig_tunnel_\w+)(?:\{(\w+)="(\w+)"\})? (-?[0-9.e+-]+)')


def scraped(text: str) -> dict[tuple[str, str], float]:
    """By name and value of the label. Each has its type, once."""
    found: dict[tuple[str, str], float] = {}
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(types) == len(set(types))
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match is not None, line
        assert match[1] in types
        assert match[1].endswith("_total") == (f"# TYPE {match[1]} counter" in text)
        found[match[1].removeprefix(metrics.PREFIX), match[3] or ""] = float(match[4])
    return found


def figures_with(daemon: Daemon, wanted: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """All figures, as soon as they have the WANTED ones: the daemon counts in its own time."""
    figures: dict[tuple[str, str], float] = {}

    def are_there() -> bool:
        figures.update(scraped(metrics.text(Client(daemon.control).metrics())))
        return wanted.items() <= figures.items()

    wait_for(are_there, f"{wanted}, instead of {figures}")
    return figures


def test_what_two_daemons_count(folder: pathlib.Path, authority: Authority) -> None:
    pairs = [authority.issue(name, "localhost", days=20) for name in "ab"]
    crl = authority.revoke()
    with (
        Daemon(folder / "a", authority, pairs[0]) as a,
        Daemon(folder / "b", authority, pairs[1], crl=str(crl), allow=["localhost"]) as b,
    ):
        name = new_name()
        b.listen(name)
        assert a.ask(f"open {name} localhost {b.port}").startswith("ok ")
        listening = b.listen(other := new_name())
        assert a.ask(f"open {other} localhost {b.port}").startswith("ok ")
        here = a.connect(other)
        here.sendall(bytes(100_000))
        there, _ = listening.accept()
        assert len(there.recv(100_000, socket.MSG_WAITALL)) == 100_000
        with socket.create_connection(("127.0.0.1", b.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger.recv(100)
        # The two looks and the stranger have heard the last word before their connections are gone.
        figures = figures_with(b, {("connections_accepted", ""): 1, ("received_bytes_total", ""): 100_000})
        assert figures["up", ""] == 1
        assert figures["handshakes_accepted_total", ""] == 3, "two looks at the peer, and the stream"
        assert figures["streams", ""] == 1
        assert figures["refused_total", "handshake"] == 1
        assert figures["refused_total", "certificate"] == figures["refused_total", "peer"] == 0
        days = {
            what: (end - time.time()) / 86400
            for (key, what), end in figures.items()
            if key.startswith("end_")
        }
        assert {what: round(left) for what, left in days.items()} == {
            "certificate": 20,
            "client_certificate": 20,
            "ca": 30,
            "crl": DAY.days,
        }
        b.reload(crl=str(authority.revoke(pairs[0])))
        here.close()
        figures_with(b, {("streams", ""): 0, ("locked_out_total", ""): 1})
        assert a.ask(f"open {new_name()} localhost {b.port}").startswith("error ")
        figures = figures_with(b, {("refused_total", "certificate"): 1})
        assert figures["received_bytes_total", ""] == 100_000
        a.ask(f"close {other}")
        assert scraped(metrics.text(Client(a.control).metrics()))["sent_bytes_total", ""] == 100_000, (
            "forgotten"
        )
        there.close()


def test_a_file_for_the_collector(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pcmig.prom"
    files.replace(str(path), metrics.text(None), 0o644)
    assert scraped(path.read_text()) == {("up", ""): 0}
    assert path.stat().st_mode & 0o777 == 0o644 and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="No such file"):
        files.replace(str(tmp_path / "no" / "x.prom"), "", 0o644)
