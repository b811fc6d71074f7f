# SPDX-License-Identifier: Apache-2.0
"""Announcing and forgetting, with a host and an ear that a test plays. The schedule is the core's
(tests/c/test_announce.c); real switches are in tests/functional/test_ports.py."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import cast

import pytest

from pcmig.ports import announcing, frames
from pcmig.ports.announcing import Announced, announce_until_learned, in_words
from pcmig.ports.ear import EarError
from pcmig.ports.forgetting import Forgotten, forget
from pcmig.ports.host import Host, HostError
from pcmig.ports.model import Nic, Port, Readiness, Verdict

NIC = Nic("52:54:00:00:00:01", "bridge", "vnet0", "br0", openvswitch=False, addresses=("10.0.0.9",))
OTHER = Nic("52:54:00:00:00:02", "direct", "macvtap0", None, openvswitch=False)
UNHEARD = Nic("52:54:00:00:00:03", "bridge", "tap3", "br-int", openvswitch=True)


class Played:
    """A host, what it says, and what it was told."""

    def __init__(self) -> None:
        self.readiness = {nic.mac: Readiness.READY for nic in (NIC, UNHEARD)} | {OTHER.mac: Readiness.UNSEEN}
        self.counted = {"tap3": 2}  # frames of the guest, by device
        self.sent: list[tuple[str, list[bytes]]] = []
        self.problem: str | None = None
        self.now_ms = 0
        self.looks_ms: list[int] = []
        self.at: dict[int, Callable[[], object]] = {}  # what happens when, in ms

    def look(self, nics: list[Nic]) -> list[Port]:
        self.looks_ms.append(self.now_ms)
        return [
            Port(
                nic.mac,
                nic.kind,
                nic.device,
                "Linux bridge",
                nic.bridge,
                Verdict(self.readiness[nic.mac], ""),
            )
            for nic in nics
        ]

    def announce(self, port: Port, sent: list[bytes]) -> None:
        if self.problem is not None:
            raise HostError(self.problem)
        self.sent.append((port.mac, sent))

    def frames_from(self, device: str) -> int | None:
        return self.counted.get(device)

    def forget(self, port: Port) -> bool:
        if port.mac == OTHER.mac:
            raise HostError("no such bridge")
        return True

    def host(self) -> Host:
        return cast(Host, self)


class PlayedEar:
    """It hears what is in `heard`, once."""

    heard_macs: set[str] = set()  # noqa: RUF012 - of all ears, set by each test
    opened = 0

    def __init__(self, device: str, mac: str) -> None:
        if device in ("macvtap0", "tap3"):
            raise EarError(f"{device} cannot be listened to: Operation not permitted")
        type(self).opened += 1
        self.mac = mac
        self._pipe = os.pipe()

    def fileno(self) -> int:
        return self._pipe[0]

    def heard(self) -> bool:
        found = self.mac in self.heard_macs
        self.heard_macs.discard(self.mac)
        return found

    def close(self) -> None:
        type(self).opened -= 1
        for each in self._pipe:
            os.close(each)


class PlayedTime:
    """It passes only where the code waits, and no ear ends a wait early."""

    def __init__(self, played: Played) -> None:
        self.played = played

    def monotonic(self) -> float:
        return self.played.now_ms / 1000

    def select(self, _readers: object, _writers: object, _others: object, wait_s: float) -> None:
        self.played.now_ms += round(wait_s * 1000)
        for when_ms in [each for each in self.played.at if each <= self.played.now_ms]:
            self.played.at.pop(when_ms)()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(announcing, "Ear", PlayedEar)
    PlayedEar.heard_macs, PlayedEar.opened = set(), 0
    played = Played()
    time = PlayedTime(played)
    monkeypatch.setattr(announcing, "time", time)
    monkeypatch.setattr(announcing, "select", time)
    return played


def test_until_it_is_heard(played: Played) -> None:
    played.at[100] = lambda: PlayedEar.heard_macs.add(NIC.mac)
    (row,) = announce_until_learned([NIC], played.host(), addresses={NIC.mac: ("fd00::9", "10.0.0.9")})
    assert (row.sent, row.first_ms, row.problem) == (4, 0, None)
    assert row.heard_ms == 100
    assert PlayedEar.opened == 0
    assert [mac for mac, _ in played.sent] == [NIC.mac] * 4
    assert played.sent[0][1] == frames.announcements(NIC.mac, ["10.0.0.9", "fd00::9"])


def test_not_before_its_port_forwards(played: Played) -> None:
    played.readiness[NIC.mac] = Readiness.WAITING
    PlayedEar.heard_macs.add(NIC.mac)  # in vain: nobody has learned from it
    played.at[200] = lambda: played.readiness.update({NIC.mac: Readiness.READY})
    told: list[bool] = []
    (row,) = announce_until_learned(
        [NIC], played.host(), for_s=0.5, told=lambda ports: told.append(ports[0].forwards)
    )
    assert row.first_ms == 200
    assert (row.heard_ms, row.sent) == (None, 3)  # at 0, 100 and 300 ms, and then the time is over
    assert told[:5] == [False] * 4 + [True]


def test_each_port_by_itself(played: Played) -> None:
    """One that cannot be listened to is announced to the end."""
    PlayedEar.heard_macs.add(NIC.mac)
    played.at[50] = lambda: PlayedEar.heard_macs.add(NIC.mac)
    rows = announce_until_learned([NIC, OTHER], played.host(), for_s=1.0)
    assert [(row.sent, row.heard_ms is None) for row in rows] == [(4, False), (4, True)]
    assert rows[1].problem == "macvtap0 cannot be listened to: Operation not permitted"


def test_who_may_not_listen_goes_by_what_the_device_has_counted(played: Played) -> None:
    """QEMU's own five, which may all come after the port began to forward, are no word of the guest's."""
    played.at[150] = lambda: played.counted.update(tap3=7)
    played.at[1950] = lambda: played.counted.update(tap3=8)
    (row,) = announce_until_learned([UNHEARD], played.host())
    assert row.heard_ms == 1950 and row.sent == 5 and row.problem is None


def test_what_was_counted_before_the_port_forwarded_taught_nobody(played: Played) -> None:
    """Also when it stops, and begins again."""
    played.readiness[UNHEARD.mac] = Readiness.WAITING
    played.counted["tap3"] = 20

    def forwards(ready: Readiness, count: int) -> None:
        played.readiness[UNHEARD.mac] = ready
        played.counted["tap3"] = count

    played.at[100] = lambda: forwards(Readiness.READY, 100)
    played.at[200] = lambda: forwards(Readiness.READY, 106)
    played.at[300] = lambda: forwards(Readiness.WAITING, 106)
    played.at[1000] = lambda: forwards(Readiness.READY, 106)
    heard: list[int] = []  # when the guest counts as heard
    rule = announcing._Row.look

    def look(row: announcing._Row, now_ms: int, port: Port, host: Host) -> None:
        rule(row, now_ms, port, host)
        if row.account.heard_ms is not None:
            heard.append(played.now_ms)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcing._Row, "look", look)
        announce_until_learned([UNHEARD], played.host(), stop=lambda: played.now_ms >= 2000)
    assert heard[0] == 200 and heard[-1] < 300 + announcing.CALM_LOOK_MS


def test_ports_that_forward_are_looked_at_less_often(played: Played) -> None:
    """What the host has to say is long where it has many guests."""
    played.readiness[UNHEARD.mac] = Readiness.WAITING
    played.at[1000] = lambda: played.readiness.update({UNHEARD.mac: Readiness.READY})
    announce_until_learned([UNHEARD], played.host(), for_s=4.0)
    early = [each for each in played.looks_ms if each <= 1000]
    assert early == list(range(0, 1001, announcing.LOOK_MS))
    assert len(played.looks_ms) - len(early) <= 4000 / announcing.CALM_LOOK_MS


def test_what_goes_wrong(played: Played) -> None:
    played.problem = "br0.mgmt: Permission denied"
    bad = Nic("33:33:00:00:00:01", "bridge", "vnet1", "br0", openvswitch=False)
    played.readiness[bad.mac] = Readiness.READY
    rows = announce_until_learned([NIC, bad], played.host(), for_s=0.1)
    assert rows[0] == Announced(NIC.mac, "vnet0", problem="br0.mgmt: Permission denied")
    assert rows[1].problem is not None and "no machine's address" in rows[1].problem
    assert "vnet0: not announced: br0.mgmt: Permission denied" in in_words(rows)


def test_what_went_wrong_for_a_moment(played: Played) -> None:
    played.problem = "br0.mgmt: No such file or directory"
    played.at[100] = lambda: setattr(played, "problem", None)
    (row,) = announce_until_learned([NIC], played.host(), for_s=0.5)
    assert row.sent and row.problem is None


def test_one_whose_link_is_down(played: Played) -> None:
    """As QEMU does: whoever has its address may be elsewhere."""
    (row,) = announce_until_learned([dataclasses.replace(NIC, pulled=True)], played.host())
    assert (row.sent, row.problem, played.sent) == (0, "the guest has its link down", [])


def test_somebody_ends_it(played: Played) -> None:
    (row,) = announce_until_learned([NIC], played.host(), stop=lambda: played.now_ms > 0)
    assert played.now_ms == announcing.LOOK_MS and row.sent == 1
    assert announce_until_learned([], played.host()) == []


def test_in_words() -> None:
    assert in_words(
        [Announced("m", "vnet0", 4, 0, 12), Announced("m", None, 1, 90, None, "br0 is gone")]
    ) == (
        "vnet0: announced 4 times from 0 ms on, heard after 12 ms; "
        "m: announced once from 90 ms on, not heard (br0 is gone)"
    )
    assert in_words([Announced("m", "vnet0")]) == "vnet0: not announced: its port did not forward"
    assert in_words([]) == "the guest has no network interface"


def test_forgotten(played: Played) -> None:
    assert forget([NIC, OTHER], played.host()) == [
        Forgotten(NIC.mac, "vnet0", known=True),
        Forgotten(OTHER.mac, "macvtap0", problem="no such bridge"),
    ]
