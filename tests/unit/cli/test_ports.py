# SPDX-License-Identifier: Apache-2.0
"""`pcmig ports`: what is refused, what is printed. Real ports are in tests/functional/test_ports.py."""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from typing import cast

import pytest

from pcmig import _core
from pcmig.cli import ports
from pcmig.ports import announcing
from pcmig.ports.model import Port, Readiness, Verdict
from tests.unit.cli.conftest import pcmig
from tests.unit.patience import NEVER_S

TEST_GUEST = "test:///default"
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
EARLIEST = "; forwards in 3.4 s at the earliest"
LISTENS = Verdict(Readiness.WAITING, "br0 listens", 3400, "ip link set br0 type bridge stp_state 0")
FORWARDS = Verdict(Readiness.READY, "forwards", 0, notes=("no other port of br0 forwards",))


def seen(*verdicts: Verdict) -> ports.Seen:
    return ports.Seen(
        "c7a5",
        "g1",
        [Port("52:54:00:00:00:01", "bridge", "vnet0", "Linux bridge", "br0", each) for each in verdicts],
    )


def guest_with(folder: pathlib.Path, devices: str) -> str:
    """A libvirt that has one guest, g1."""
    guest = folder / "guest.xml"
    guest.write_text(
        f"<node><domain type='test'><name>g1</name><uuid>{UUID}</uuid><memory>65536</memory>"
        f"<os><type>hvm</type></os><devices>{devices}</devices></domain></node>"
    )
    return f"test://{guest}"


def test_a_guest_without_interfaces(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    uri = guest_with(tmp_path, "")
    assert pcmig(capsys, "ports", "-c", uri, "g1") == (0, "g1 has no network interface\n")
    code, said = pcmig(capsys, "ports", "-c", uri, "--json", "g1")
    answer = json.loads(said)
    assert (code, answer["name"], answer["ready"], answer["ports"]) == (0, "g1", True, [])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("-c", TEST_GUEST, "nobody"), 1, "nobody"),
        (("-c", "qemu+ssh://root@b/system", "g1"), 2, "type this command on b"),
        (("--ovsdb", "", "g1"), 2, "the value is empty"),
        ((), 2, "DOMAIN"),
        (("--announce", "g1"), 2, "--announce needs --follow"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str) -> None:
    got, said = pcmig(capsys, "ports", *words)
    assert got == code and message in said


def test_a_port_without_an_open_vswitch(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    """What cannot be asked holds nothing, and says why."""
    uri = guest_with(
        tmp_path,
        "<interface type='bridge'><source bridge='ovs0'/><virtualport type='openvswitch'/><target dev='lo'/>"
        "</interface>",
    )
    code, said = pcmig(capsys, "ports", "-c", uri, "--ovsdb", "unix:/nonexistent", "g1")
    assert code == 0 and said.startswith("unseen") and "there is no /nonexistent" in said


def test_a_guest_without_interfaces_is_announced(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """It runs, and there is nothing to do. Real ones: tests/functional/test_ports.py."""
    uri = guest_with(tmp_path, "")
    words = ("ports", "-c", uri, "--follow", "--announce")
    code, said = pcmig(capsys, *words, "g1")
    assert (code, said) == (0, "g1 has no network interface\nthe guest has no network interface\n")
    code, said = pcmig(capsys, *words, "--json", "g1")
    first, last = map(json.loads, said.splitlines())
    assert (code, first["announced"], last["announced"]) == (0, None, [])
    assert last["text"] == "the guest has no network interface"


def test_a_guest_that_begins_to_run(tmp_path: pathlib.Path) -> None:
    """Not before it does, and libvirt is asked for its XML once."""
    incoming = ports.Incoming(guest_with(tmp_path, ""), "g1")
    incoming.look()
    assert incoming.runs and incoming.name == "g1"
    incoming.runs = False
    begun_s = time.monotonic()
    incoming.wait(0.1)
    assert not incoming.runs and time.monotonic() - begun_s >= 0.1
    played = PlayedEvents()
    incoming._events = cast("_core.GuestEvents", played)
    incoming.wait(60)
    assert not incoming.runs and played.closed and incoming._events is None
    played = PlayedEvents("runs")
    incoming._events = cast("_core.GuestEvents", played)
    incoming.wait(60)
    assert incoming.runs and not played.closed


@pytest.mark.parametrize(
    ("half", "runs"),
    [
        ({"half": "postcopy", "running": False}, False),  # the source's
        ({"half": "postcopy", "running": True}, True),
        ({"half": "running", "running": True}, True),
    ],
)
def test_only_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, half: dict[str, object], runs: bool
) -> None:
    incoming = ports.Incoming(guest_with(tmp_path, ""), "g1")
    monkeypatch.setattr(_core, "half", lambda *_: half)
    incoming.look()
    assert incoming.runs is runs
    monkeypatch.setattr(ports, "ASK_S", NEVER_S)
    assert not incoming.has_gone()  # it has begun a moment ago
    monkeypatch.setattr(ports, "ASK_S", 0.0)
    assert incoming.has_gone() is not runs


def test_one_that_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """While libvirt does not answer it cannot."""
    incoming = ports.Incoming(guest_with(tmp_path, ""), "g1")
    incoming.look()

    def half(*_: object) -> object:
        raise _core.ConnectError("no libvirt")

    monkeypatch.setattr(_core, "half", half)
    monkeypatch.setattr(ports, "ASK_S", 0.0)
    assert not incoming.has_gone()
    incoming._events = cast("_core.GuestEvents", PlayedEvents())
    assert incoming.has_gone()


def test_one_that_is_off_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its definition is not what comes."""
    incoming = ports.Incoming(TEST_GUEST, "g1")
    xml = f"<domain type='test'><name>g1</name><uuid>{UUID}</uuid></domain>"
    monkeypatch.setattr(_core, "domain_xml", lambda *_: xml)
    with pytest.raises(_core.NoDomainError, match="g1 is off here"):
        incoming.look()
    assert incoming._events is None


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (announcing.Announced("m", "vnet0", 4, 0, 12), 0),
        (announcing.Announced("m", "vnet0", 4, 0, 12, "br0 is gone"), 1),
        (announcing.Announced("m", "vnet0"), 1),
    ],
)
def test_what_was_not_sent_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    row: announcing.Announced,
    code: int,
) -> None:
    monkeypatch.setattr(announcing, "announce_until_learned", lambda *_, **__: [row])
    words = ("ports", "-c", guest_with(tmp_path, ""), "--follow", "--announce", "g1")
    assert pcmig(capsys, *words)[0] == code


class PlayedEvents:
    """Something has happened."""

    def __init__(self, what: str = "stopped") -> None:
        self.what, self.closed = what, False
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - readable as long as it is there

    def fileno(self) -> int:
        return self._file.fileno()

    def take(self) -> list[str]:
        return [self.what]

    def close(self) -> None:
        self.closed = True


def test_what_is_printed() -> None:
    assert ports.as_text(seen(LISTENS, FORWARDS)).splitlines() == [
        "waiting  52:54:00:00:00:01  vnet0  br0  Linux bridge  br0 listens" + EARLIEST,
        "         fix: ip link set br0 type bridge stp_state 0",
        "ready    52:54:00:00:00:01  vnet0  br0  Linux bridge  forwards",
        "         note: no other port of br0 forwards",
    ]
    assert [ports.as_json(seen(each))["ready"] for each in (LISTENS, FORWARDS)] == [False, True]


@pytest.mark.parametrize("in_json", [True, False])
def test_a_time_that_runs_is_no_news(in_json: bool) -> None:
    later = Verdict(LISTENS.readiness, LISTENS.why, 3300, LISTENS.fix)
    first, second, third = (
        ports.without_times(ports.tell(seen(each), in_json=in_json)) for each in (LISTENS, later, FORWARDS)
    )
    assert first == second != third
    failure = ports.tell_failure("no such guest", absent=True, in_json=in_json)
    assert ports.without_times(failure) not in (first, third) and "no such guest" in failure
