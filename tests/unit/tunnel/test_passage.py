# SPDX-License-Identifier: Apache-2.0
"""One migration's way through the tunnel."""

from __future__ import annotations

import pytest

from pcmig.tunnel.client import TunnelError
from pcmig.tunnel.passage import Names, Passage
from pcmig.tunnel.peer import Peer
from tests.unit.patience import wait_for
from tests.unit.tunnel.fake_daemon import FakeDaemon


def names(daemon: FakeDaemon, *, disks: bool = False) -> Names:
    return Names.new(Peer("b", 16600), disks=disks, streams=2, control=daemon.control)


def test_memory_and_disks_have_a_name_each(daemon: FakeDaemon) -> None:
    given = names(daemon, disks=True)
    passage = Passage(given)
    passage.open()
    assert passage.arguments() == {
        "migrate_uri": f"unix://{daemon.folder}/{given.memory}",
        "disks_uri": f"unix://{daemon.folder}/{given.disks}",
        "tunnel_control": daemon.control,
    }
    assert given.memory != given.disks
    assert set(daemon.names.values()) == {"b 16600 streams=2"}
    found = passage.accounting()
    assert found["peer"] == "b" and found["memory"]["bytes_out"] == found["disks"]["bytes_out"] == 3145728
    passage.close()
    assert not daemon.names
    passage.close()
    assert passage.accounting() == found, "what was seen last"


def test_without_disks(daemon: FakeDaemon) -> None:
    passage = Passage(names(daemon))
    passage.open()
    assert passage.arguments()["disks_uri"] is None
    assert len(daemon.names) == 1


def test_the_journal_keeps_it(daemon: FakeDaemon) -> None:
    for disks in (False, True):
        given = names(daemon, disks=disks)
        assert Names.of_entry(given.as_entry()) == given
    assert Names.of_entry(None) is None
    with pytest.raises(TunnelError, match="not understood"):
        Names.of_entry({"host": "b"})


def test_a_refusal_names_the_peer(daemon: FakeDaemon) -> None:
    daemon.refusal = "no route to host"
    with pytest.raises(TunnelError, match=r"no way through the tunnel to b:16600: .*no route to host"):
        Passage(names(daemon)).open()


def test_a_daemon_that_was_restarted_is_told_again(daemon: FakeDaemon) -> None:
    given = names(daemon, disks=True)
    passage = Passage(given)
    passage.open()
    daemon.names.clear()
    for _ in range(3):  # often, and asked once
        passage.keep()
    wait_for(lambda: len(daemon.names) >= 2)
    assert set(daemon.names) == {given.memory, given.disks}
    assert len([line for line in daemon.asked if line.startswith("open")]) == 4
