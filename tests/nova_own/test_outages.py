# SPDX-License-Identifier: Apache-2.0
"""Somebody does not answer at one very call after the switch (the database, Cinder, a disk that is full, a
thread that is not to be had): nothing else is left undone by it, and that is done later.

What Nova's services are asked for is failed call by call in functional_faults.py.
"""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from cinderclient import exceptions as cinder_exceptions
from keystoneauth1 import exceptions as keystone_exceptions
from neutronclient.common import exceptions as neutron_exceptions
from nova import exception, objects
from nova.virt import event as virtevent
from nova.virt.libvirt import driver as libvirt_driver
from oslo_db import exception as db_exceptions

from pcmig import journal
from pcmig.nova import (
    adoption,
    announcing,
    driver,
    ending,
    keeper,
    port_answers,
    recorded,
    records,
    turned_back,
    volumes,
)
from tests.nova_own.test_announcing import NIC, played, record, settle, wait
from tests.nova_own.test_announcing import UUID as ARRIVING
from tests.nova_own.test_records import UUID, Follower, Hosts, Manager, Nova, adopt, entry, hosts, known

__all__ = ["hosts", "known", "played"]  # fixtures

NOTED = {"nova": {"dest": "b", "block_migration": False}}


class NoThread(threading.Thread):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")


class Away:
    """Raises the first TIMES that it is called, and does nothing after."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        self.error = error
        self.left = times
        self.calls = 0

    def __call__(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        if self.calls <= self.left:
            raise self.error

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """CALL, as soon as it does not raise."""

        def either(*arguments: Any, **named: Any) -> Any:
            self()
            return call(*arguments, **named)

        return either


# The journal's disk


def test_what_a_full_disk_kept_off_the_record_is_written_later(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, on_disk = records.Records(str(tmp_path)), journal.Journal(str(tmp_path))
    known.load()
    made = known.add(entry(caller=NOTED), "source")
    make = tempfile.mkstemp

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pcmig.journal.tempfile.mkstemp", full)
    known.cross(UUID)
    with pytest.raises(journal.JournalError, match="No space left"):
        known.mark(made, "files", "done")
    known.never_ran(made)
    (tmp_path / "another").touch()  # the folder is read again
    found = known.get(UUID)
    assert found is not None and found.entry.crossed and found.entry.unrun
    assert found.marks == {"files": "done"}
    known.save()
    monkeypatch.setattr("pcmig.journal.tempfile.mkstemp", make)
    old = on_disk.read(UUID)
    assert old is not None and not old.crossed
    known.save()
    after = on_disk.read(UUID)
    assert after is not None and after.crossed and after.unrun
    assert after.caller["nova"] == NOTED["nova"] | {"side": "source", "acts": {"files": "done"}}


def test_a_record_that_was_removed_and_cannot_be_written_again_is_kept_in_mind(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, on_disk = records.Records(str(tmp_path)), journal.Journal(str(tmp_path))
    known.load()
    known.add(entry(caller=NOTED), "source")
    make = tempfile.mkstemp
    monkeypatch.setattr("pcmig.journal.tempfile.mkstemp", Away(OSError(errno.ENOSPC, "No space left"), 1000))
    on_disk.path(UUID).unlink()
    assert known.get(UUID) is not None
    monkeypatch.setattr("pcmig.journal.tempfile.mkstemp", make)
    known.save()
    assert on_disk.read(UUID) is not None


def test_a_folder_that_cannot_be_locked_is_told_as_the_journals(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcmig.journal.fcntl.flock", Away(OSError(errno.ENOLCK, "No locks available"), 1000))
    with pytest.raises(journal.JournalError, match="cannot be locked: No locks available"):
        journal.Journal(str(tmp_path)).write(entry())
    assert not [name for name in os.listdir("/proc/self/fd") if _is_lock(name, tmp_path)]


def _is_lock(name: str, folder: pathlib.Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}") == str(folder / ".lock")
    except OSError:  # closed since
        return False


# The keeper


def keep(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, outcome: str = "completed"
) -> tuple[keeper.Keeper, Follower, Nova]:
    known.add(entry(caller=NOTED), "source")
    made, follower, nova = adopt(known, monkeypatch, outcome)
    nova.uuid = UUID
    on_thread = keeper.Keeper.on_thread
    monkeypatch.setattr(made, "on_thread", lambda *arguments: on_thread(made, *arguments))
    monkeypatch.setattr("pcmig.nova.keeper.threading.Thread", Here)
    return made, follower, nova


class Here:
    """A thread that is done when it is started."""

    def __init__(self, target: Callable[[], None], **_: Any) -> None:
        self.start = target


@pytest.mark.parametrize("at", ["_steer_adopted", "_tell", "_set_migration_status", "refresh", "thread"])
def test_an_adoption_that_fails_at_any_call_is_tried_again(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The database is away at that call, and where the failure is to be written down; or no thread is to be
    had."""
    made, follower, nova = keep(known, monkeypatch)
    away = Away(db_exceptions.DBConnectionError(), 2)
    if at == "thread":
        monkeypatch.setattr("pcmig.nova.keeper.threading.Thread", NoThread)
    elif at == "refresh":
        monkeypatch.setattr(follower, "_tell", away)
        monkeypatch.setattr(nova, "refresh", away)
    elif at == "_set_migration_status":
        monkeypatch.setattr(follower, "_tell", away)
        monkeypatch.setattr(Manager, at, staticmethod(away))
    else:
        monkeypatch.setattr(follower, at, away.before(getattr(follower, at)))
        monkeypatch.setattr(Manager, "_set_instance_obj_error_state", staticmethod(away))
    made.look_after()
    kept = known.get(UUID)
    assert kept is not None and kept.entry.owner is None and not made.is_busy(UUID)
    monkeypatch.setattr("pcmig.nova.keeper.threading.Thread", Here)
    away.left = 0
    made.look_after()
    assert not known


def test_one_guest_that_cannot_be_looked_after_keeps_no_other_from_it(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "b" + UUID[1:]
    known.add(entry(uuid=other, started="2026-01-01T00:00:00+00:00"), "source")
    made, follower, _ = keep(known, monkeypatch)
    monkeypatch.setattr(follower, "_follows", lambda uuid: {}[uuid] if uuid == other else False)
    with pytest.raises(KeyError):
        follower._follows(other)
    monkeypatch.setattr(made, "_later", lambda uuid: None)
    made.look_after()
    assert follower.told == ["completed"]


def test_nova_compute_counts_its_resources_whatever_becomes_of_the_records() -> None:
    class Stock(recorded.RecordedLibvirtDriver):
        def __init__(self) -> None:
            self._keeper = types.SimpleNamespace(look_after=Away(db_exceptions.DBConnectionError()))  # type: ignore[assignment]

    asked = []
    real = libvirt_driver.LibvirtDriver.get_available_resource
    libvirt_driver.LibvirtDriver.get_available_resource = lambda _self, name: asked.append(name)
    try:
        Stock().get_available_resource("a")
    finally:
        libvirt_driver.LibvirtDriver.get_available_resource = real
    assert asked == ["a"]


@pytest.mark.parametrize("answers", [True, False])
def test_the_volumes_of_a_deleted_server_are_given_up_when_cinder_answers_again(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    objects.register_all()
    made, _, _ = keep(known, monkeypatch)
    hosts.halves = dict.fromkeys(hosts.halves, "absent")
    error = cinder_exceptions.ClientException(503 if not answers else 400)
    delete = Away(error)
    monkeypatch.setattr(Manager, "volume_api", types.SimpleNamespace(attachment_delete=delete), raising=False)
    monkeypatch.setattr(adoption, "recall", lambda _record: None)
    monkeypatch.setattr(adoption, "context_of", lambda _record: None)
    monkeypatch.setattr(
        objects.Instance, "get_by_uuid", Away(exception.InstanceNotFound(instance_id=UUID), 9)
    )
    bdm = types.SimpleNamespace(is_volume=True, attachment_id="one", volume_id="v")
    monkeypatch.setattr(adoption, "source_bdms", lambda *_: [bdm])
    monkeypatch.setattr(keeper, "AGAIN_S", 0.0)
    made.look_after()
    assert bool(known) is not answers, "what Cinder refuses is told, and not asked for again"
    for _ in range(2):  # both halves are gone, as both hosts have to say twice
        made.look_after()
    assert not known and delete.calls == (1 if answers else 2)


# Ends


@pytest.mark.parametrize(
    "error",
    [
        neutron_exceptions.ServiceUnavailable(),
        neutron_exceptions.NeutronClientException(status_code=502),
        neutron_exceptions.ConnectionFailed(reason="refused"),
        cinder_exceptions.ClientException(503),
        cinder_exceptions.ClientException(504, "Gateway Timeout"),
        keystone_exceptions.ConnectFailure("no route"),
        keystone_exceptions.BadGateway(),
        keystone_exceptions.GatewayTimeout(),
        db_exceptions.DBConnectionError(),
        exception.ConsumerAllocationRetrievalFailed(consumer_uuid=UUID, error="<h1>503 Service Unavailable"),
        exception.PortBindingActivationFailed(port_id="p", host="a"),
    ],
)
def test_who_is_away_is_waited_for(error: Exception) -> None:
    assert ending.patient(error)


@pytest.mark.parametrize(
    "error",
    [
        neutron_exceptions.Conflict(),
        cinder_exceptions.ClientException(400),
        exception.InstanceNotFound(instance_id=UUID),
        ValueError("503 guests"),
    ],
)
def test_who_says_no_is_not(error: Exception) -> None:
    assert not ending.patient(error)


class Books(turned_back.TurnedBack):
    """A server that turned back, whose steps are noted."""

    def __init__(self, known: records.Records, ports: Callable[[], None]) -> None:
        nova = Nova()
        super().__init__(
            Manager(),
            None,
            nova,
            nova,
            known,
            None,
            None,
            migrate_data=None,
            ports_come_back=ports,
            dest_answers=lambda: True,
            text="",
        )
        self.steps: list[str] = []
        for name in ("_once_known", "_allocations", "_volumes", "_clear_destination", "_write_down"):
            setattr(self, name, lambda *_, name=name: self.steps.append(name))


def test_what_neutron_refuses_keeps_nothing_of_a_server_that_turned_back_unwritten(
    known: records.Records,
) -> None:
    books = Books(known, Away(neutron_exceptions.Conflict(), 1000))
    assert books.run(lambda _: False)
    assert books.steps[-1] == "_write_down" and "_volumes" in books.steps


def test_while_neutron_is_away_the_rest_of_a_server_that_turned_back_is_put_right(
    known: records.Records,
) -> None:
    books = Books(known, Away(neutron_exceptions.ServiceUnavailable(), 2))
    assert not books.attempt()
    assert books.steps == ["_once_known", "_allocations", "_volumes", "_clear_destination"]
    assert books.run(lambda _: False)
    assert books.steps.count("_write_down") == 1


class Volume:
    """In Nova's record of the server."""

    is_volume = True
    volume_id = "v"

    def __init__(self, attachment: str) -> None:
        self.attachment_id = attachment


@pytest.mark.parametrize("deleted", [True, False])
def test_a_volume_comes_back_also_where_its_attachment_was_deleted_before(
    monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    objects.register_all()
    here, there = Volume("source's"), Volume("destination's")
    monkeypatch.setattr(objects.BlockDeviceMappingList, "get_by_instance_uuid", lambda *_: [there])
    asked: list[str] = []

    def get(_context: Any, attachment: str) -> None:
        if deleted:
            raise exception.VolumeAttachmentNotFound(attachment_id=attachment)

    def roll_back(_context: Any, bdms: Any, original: Any, _instance: Any) -> None:
        """As Nova's, whose error is raised where there is nothing to delete."""
        for bdm in bdms:
            if bdm.attachment_id != original[0].attachment_id:
                get(None, bdm.attachment_id)
                asked.append(bdm.attachment_id)
                bdm.attachment_id = original[0].attachment_id

    manager = types.SimpleNamespace(
        volume_api=types.SimpleNamespace(attachment_get=get), _rollback_volume_bdms=roll_back
    )
    volumes.come_back(manager, None, types.SimpleNamespace(uuid=UUID), [here])
    assert there.attachment_id == "source's" and asked == ([] if deleted else ["destination's"])
    there.attachment_id = "destination's"  # Nova goes on after an error of Cinder's
    with pytest.raises(exception.ServiceUnavailable, match="volume v"):
        volumes.check(None, types.SimpleNamespace(uuid=UUID), [here])


# Events of libvirt's


class Events(driver.PostCopyLibvirtDriver):
    """A driver with a migration under way."""

    def __init__(self, look: Callable[[Any], None]) -> None:
        self._plans = {UUID: object()}  # type: ignore[dict-item]
        self._events = None
        self._announcer = types.SimpleNamespace(look=look)  # type: ignore[assignment]

    def _ports_first(self, event: Any) -> Any:
        return None


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """By Nova."""
    found: list[Any] = []
    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "emit_event", lambda _, event: found.append(event))
    monkeypatch.setattr("pcmig.nova.driver.releases.threading_mode", lambda: True)
    return found


def test_nova_hears_of_a_guest_that_cannot_be_announced(
    handled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcmig.nova.driver.releases.threading_mode", lambda: False)
    Events(Away(OSError(errno.EIO, "Input/output error"))).emit_event("it runs")
    assert handled == ["it runs"]


def test_nova_hears_of_every_event_where_no_thread_is_to_be_had(
    handled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events(lambda _: None)
    monkeypatch.setattr("pcmig.nova.driver.threading.Thread", NoThread)
    for number in range(3):
        events.emit_event(number)
    assert handled == [0, 1, 2]


def test_an_event_that_nova_does_not_take_holds_up_no_other(
    handled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def handle(_self: Any, event: Any) -> None:
        if event == "bad":
            raise ValueError(event)
        handled.append(event)
        done.set()

    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "emit_event", handle)
    events = Events(lambda _: None)
    events.emit_event("bad")
    events.emit_event("good")
    wait(done)
    assert handled == ["good"]


def test_a_guest_is_announced_at_the_next_event_where_its_record_could_not_be_read(played: Any) -> None:
    answers = [OSError(errno.EIO, "Input/output error")] * 2

    def read(_uuid: str) -> Any:
        if answers:
            raise answers.pop()
        return record()

    announcer = announcing.Announcer(read)
    announcer._comes(ARRIVING)
    announcer._runs(ARRIVING)
    assert played.calls == 0
    played.heard.set()
    announcer._runs(ARRIVING)
    assert played.calls == 1


def test_a_guest_that_could_not_be_announced_is_at_the_next_event(
    played: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcer = announcing.Announcer(lambda _: record())
    monkeypatch.setattr(port_answers, "nics", Away(ValueError("of another release")))
    announcer._runs(ARRIVING)
    monkeypatch.setattr(port_answers, "nics", lambda _: [NIC])
    played.heard.set()
    announcer.look(virtevent.LifecycleEvent(ARRIVING, virtevent.EVENT_LIFECYCLE_RESUMED))
    settle()
    assert played.calls == 1


def test_an_allocation_that_placement_keeps_without_a_word_is_asked_for_again(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova's client of placement returns None where it cannot connect, and its code goes on."""
    nova = Nova()
    left: list[dict[str, Any]] = [{"the source": {}}, {"the source": {}}, {}]
    placement = types.SimpleNamespace(
        get_allocs_for_consumer=lambda *_: {"allocations": left.pop(0)},
    )
    asked: list[str] = []
    monkeypatch.setattr(Manager, "reportclient", placement)
    monkeypatch.setattr(
        Manager, "_delete_allocation_after_move", lambda *_: asked.append("gone"), raising=False
    )

    def post() -> None:
        nova.status = "completed"

    end = ending.Completion(Manager(), None, nova, nova, known, None, None, post=post)
    assert end.run(lambda _: False)
    assert (left, asked) == ([], ["gone", "gone"])
