# SPDX-License-Identifier: Apache-2.0
"""Which of libvirt's events has nova-compute announce a guest, for how long, and by whom."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import nova.privsep
import pytest
from nova.network import model
from nova.objects import migrate_data
from nova.virt import event as virtevent

from pcmig import huge_pages
from pcmig.nova import announcing, port_answers
from pcmig.nova import huge_pages as nova_huge_pages
from pcmig.ports import beside, vswitchd
from pcmig.ports.announcing import Announced
from pcmig.ports.host import HostError
from pcmig.ports.model import Nic

PATIENCE_S = 60.0
SHIM = pathlib.Path(announcing.__file__).with_name("shim")
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
NIC = Nic("fa:16:3e:00:00:01", "bridge", "tap1", "br-int", openvswitch=True)


class Played:
    """What would announce: one call at a time, which ends when the test says so or the guest has gone."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = threading.Event()
        self.heard = threading.Event()
        self.ended: list[str] = []
        self.over = threading.Event()

    def announce(self, nics: Any, host: Any, *, addresses: Any, stop: Any) -> list[Announced]:
        assert nics == [NIC] and addresses == {NIC.mac: ["10.0.0.9"]}
        self.calls += 1
        self.begun.set()
        while not self.heard.wait(0.02) and not stop():
            pass
        self.ended.append("heard" if self.heard.is_set() else "gone")
        self.over.set()
        return [Announced(NIC.mac, "tap1", 4, 0, 12)]


class Host:
    """In place of pcmig.ports.host.Host."""

    def __init__(self, ovsdb: str, *, packet_out: Any, beside: Any) -> None:
        assert (packet_out, beside) == (announcing._packet_out, announcing._beside)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    found = Played()
    monkeypatch.setattr(announcing, "announce_until_learned", found.announce)
    monkeypatch.setattr(announcing, "Host", Host)
    monkeypatch.setattr(port_answers, "nics", lambda noted: [NIC])
    monkeypatch.setattr(announcing, "addresses", lambda noted: {NIC.mac: ["10.0.0.9"]})
    # Nova's own would be started, with sudo, where another test has made it importable, and hold up this one.
    daemon = types.SimpleNamespace(privileged=types.SimpleNamespace(prepare=lambda for_bridges: None))
    monkeypatch.setitem(sys.modules, "nova.virt.pcmig", daemon)
    yield found
    found.heard.set()


def record(side: str = "destination", started: str = "then") -> Any:
    return types.SimpleNamespace(
        side=side, entry=types.SimpleNamespace(started=started), nova={"migrate_data": {}}
    )


def event(transition: int) -> virtevent.LifecycleEvent:
    return virtevent.LifecycleEvent(UUID, transition)


def wait(what: threading.Event) -> None:
    assert what.wait(PATIENCE_S)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "pcmig-announce"]


def settle() -> None:
    """All that was begun is over."""
    for thread in threads():
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_once_for_each_arrival(played: Played, caplog: pytest.LogCaptureFixture) -> None:
    """libvirt says that it runs at the switch, and again when post-copy ends."""
    caplog.set_level("INFO")
    known = {UUID: record()}
    announcer = announcing.Announcer(known.get)
    for _ in range(2):
        announcer.look(event(virtevent.EVENT_LIFECYCLE_STARTED))
        announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
        wait(played.begun)
    played.heard.set()
    settle()
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    settle()
    assert (played.calls, played.ended) == (1, ["heard"])
    assert f"Guest {UUID} has arrived: tap1: announced 4 times from 0 ms on, heard after 12 ms" in caplog.text
    known[UUID] = record(started="later")
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    settle()
    assert played.calls == 2


@pytest.mark.parametrize(
    "transition",
    [
        virtevent.EVENT_LIFECYCLE_POSTCOPY_STARTED,
        virtevent.EVENT_LIFECYCLE_PAUSED,
        virtevent.EVENT_LIFECYCLE_STOPPED,
    ],
)
def test_not_when_it_has_gone(played: Played, transition: int) -> None:
    announcer = announcing.Announcer({UUID: record()}.get)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    wait(played.begun)
    announcer.look(event(transition))
    settle()
    assert played.ended == ["gone"]


def test_one_that_has_ended_here_is_forgotten(played: Played) -> None:
    announcer = announcing.Announcer({UUID: record()}.get)
    played.heard.set()
    for transition in (
        virtevent.EVENT_LIFECYCLE_RESUMED,
        virtevent.EVENT_LIFECYCLE_PAUSED,
        virtevent.EVENT_LIFECYCLE_SUSPENDED,
    ):
        announcer.look(event(transition))
        settle()
        assert list(announcer._begun) == [UUID]
    announcer.look(event(virtevent.EVENT_LIFECYCLE_STOPPED))
    assert announcer._begun == {} and played.calls == 1


def test_one_that_stood_still_before_it_was_heard_is_announced_again(played: Played) -> None:
    """Post-copy was interrupted, and goes on."""
    announcer = announcing.Announcer({UUID: record()}.get)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    wait(played.begun)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_PAUSED))
    settle()
    played.heard.set()
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    settle()
    assert played.ended == ["gone", "heard"]


def test_one_that_stood_still_for_a_moment_is_announced_again(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs again before whoever announces it has noticed."""
    notices = threading.Event()

    def announce(*_: Any, stop: Any, **__: Any) -> list[Announced]:
        played.calls += 1
        if played.calls == 1:
            played.begun.set()
            wait(notices)
        played.ended.append("gone" if stop() else "heard")
        played.over.set()
        return []

    monkeypatch.setattr(announcing, "announce_until_learned", announce)
    announcer = announcing.Announcer({UUID: record()}.get)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    wait(played.begun)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_PAUSED))
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    wait(played.over)
    notices.set()
    settle()
    assert played.ended == ["heard", "gone"]
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    settle()
    assert played.calls == 2, "at the end of post-copy"


def test_what_it_takes_is_there_when_it_runs(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nova's daemon is started, and the socket opened, when the guest begins to come in."""
    prepared: list[bool] = []
    daemon = types.SimpleNamespace(privileged=types.SimpleNamespace(prepare=prepared.append))
    monkeypatch.setitem(sys.modules, "nova.virt.pcmig", daemon)
    announcer = announcing.Announcer({UUID: record()}.get)
    for nic in (NIC, dataclasses.replace(NIC, openvswitch=False)):
        monkeypatch.setattr(port_answers, "nics", lambda noted, nic=nic: [nic])
        announcer.look(event(virtevent.EVENT_LIFECYCLE_STARTED))
        settle()
    assert prepared == [False, True] and played.calls == 0
    daemon.privileged = None  # of another installation
    announcer.look(event(virtevent.EVENT_LIFECYCLE_STARTED))
    settle()
    announcing.Announcer({UUID: record("source")}.get).look(event(virtevent.EVENT_LIFECYCLE_STARTED))
    settle()
    assert prepared == [False, True]


def test_the_service_ends(played: Played) -> None:
    announcer = announcing.Announcer({UUID: record()}.get)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    wait(played.begun)
    announcer.stop()
    settle()
    assert played.ended == ["gone"]


@pytest.mark.parametrize("found", [None, record("source")])
def test_only_guests_that_arrive(played: Played, found: Any) -> None:
    announcer = announcing.Announcer(lambda uuid: found)
    announcer.look(event(virtevent.EVENT_LIFECYCLE_RESUMED))
    announcer.look(object())  # an event of another kind
    settle()
    assert played.calls == 0


def test_its_addresses() -> None:
    vif = model.VIF(
        id=UUID,
        address="FA:16:3E:00:00:01",
        network=model.Network(
            subnets=[
                model.Subnet(ips=[model.FixedIP(address="10.0.0.9")]),
                model.Subnet(ips=[model.FixedIP(address="fd00::9")]),
            ]
        ),
    )
    [there] = migrate_data.VIFMigrateData.create_skeleton_migrate_vifs([vif])
    there.host, there.vif_type, there.vnic_type = "b", "ovs", "normal"
    there.vif_details, there.profile = {}, {}
    data = migrate_data.LibvirtLiveMigrateData(vifs=[there])
    found = announcing.addresses(data.obj_to_primitive())
    assert found == {"fa:16:3e:00:00:01": ["10.0.0.9", "fd00::9"]}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("no daemon"), "hands no frame to .*: RuntimeError: no daemon"),
        (vswitchd.VswitchdError("it refuses"), "it refuses"),
        (HostError("no other port"), "no other port"),
    ],
)
def test_a_privileged_daemon_that_does_not_do_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    functions = types.SimpleNamespace(packet_out=fails, beside=fails)
    daemon = types.SimpleNamespace(privileged=functions)
    monkeypatch.setitem(sys.modules, "nova.virt.pcmig", daemon)
    with pytest.raises(vswitchd.VswitchdError, match=raised):
        announcing._packet_out("/run/openvswitch", "br-int", 3, [b""])
    with pytest.raises(HostError, match=raised):
        announcing._beside("tap1", NIC.mac, [b""])


def in_the_daemon(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as the daemon runs it."""
    monkeypatch.setattr(nova.privsep.sys_admin_pctxt, "entrypoint", lambda function: function)
    spec = importlib.util.spec_from_file_location("privileged", SHIM / "privileged.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_root_starts_leaves_nothing_to_be_written_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    module = in_the_daemon(monkeypatch)
    run, umasks = subprocess.run, list[str]()

    def played(words: list[str], **how: Any) -> Any:
        assert words[-4:] == ["wake", "-c", "qemu:///system", UUID]
        code = "import os; print(f'{os.umask(0):03o}')"
        done = run([sys.executable, "-c", code], **(how | {"timeout": PATIENCE_S}))
        umasks.append(done.stdout.strip())
        return done

    monkeypatch.setattr(subprocess, "run", played)
    before = os.umask(0)  # as the daemon has it
    try:
        module.wake("qemu:///system", UUID)
    finally:
        os.umask(before)
    assert umasks == ["022"]


def test_huge_pages_are_read_by_another_process_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by this one where it may."""
    module = in_the_daemon(monkeypatch)
    assert json.loads(module.huge_pages("destination", UUID)) == [None, huge_pages.NOT_HERE, False]
    asked: list[Any] = []

    def played(*words: str) -> str:
        asked.append(words)
        return "[4096, null, false]" if len(asked) == 1 else "{"

    daemon = types.SimpleNamespace(privileged=types.SimpleNamespace(huge_pages=played))
    monkeypatch.setitem(sys.modules, "nova.virt.pcmig", daemon)
    assert nova_huge_pages.at_destination(UUID) == huge_pages.unknown(huge_pages.NOT_HERE) and not asked
    denied = huge_pages.unknown(huge_pages.DENIED)
    monkeypatch.setattr(huge_pages, "at_source", lambda _: denied)
    monkeypatch.setattr(huge_pages, "at_destination", lambda _: denied)
    assert nova_huge_pages.at_source(UUID) == huge_pages.Seen(4096, None)
    said = nova_huge_pages.at_destination(UUID).why
    assert said == "Nova's privileged daemon did not look: JSONDecodeError"
    assert asked == [("source", UUID), ("destination", UUID)]


def test_the_daemons_part_is_that_of_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes over oslo.privsep's channel has tuples for lists."""
    sent: list[Any] = []
    monkeypatch.setattr(vswitchd, "send", lambda *words: sent.append(words))
    module = in_the_daemon(monkeypatch)
    module.packet_out("/run/openvswitch", "br-int", 3, (b"frame",))
    monkeypatch.setattr(beside, "send_as_root", lambda *words: sent.append(words))
    module.beside("tap1", NIC.mac, (b"frame",))
    assert sent == [("/run/openvswitch", "br-int", 3, [b"frame"]), ("tap1", NIC.mac, [b"frame"])]
    monkeypatch.setattr(beside, "packet_socket_of_root", lambda: sent.append("opened"))
    for for_bridges in (False, True):
        module.prepare(for_bridges)
    assert sent[2:] == ["opened"]
