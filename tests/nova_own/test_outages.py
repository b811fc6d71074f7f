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
    attachments,
    away,
    driver,
    ending,
    guard,
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


class Left:
    """Placement, which has a migration's allocation at the first LEFT questions."""

    def __init__(self, left: int) -> None:
        self.left = left

    def get_allocs_for_consumer(self, *_: Any) -> dict[str, Any]:
        self.left -= 1
        return {"allocations": {"the source": {}} if self.left >= 0 else {}}


def forget(known: records.Records) -> None:
    """As an operator does (pcmig forget)."""
    known.load()
    known.release(UUID)
    known._journal.remove(UUID)
    assert known.get(UUID) is None and len(known.forgotten) == 1


def away_once(away_: str, monkeypatch: pytest.MonkeyPatch) -> Away:
    """Who does not answer once, of those that are asked to put a forgotten migration's books right."""
    call = Away(neutron_exceptions.ServiceUnavailable(), 1 if away_ == "Neutron" else 0)
    monkeypatch.setattr("pcmig.nova.keeper.bindings.come_back", call)
    placement = Away(keystone_exceptions.ConnectFailure("no route"), 1 if away_ == "placement" else 0)
    answers = placement.before(Left(0).get_allocs_for_consumer)
    monkeypatch.setattr(Manager, "reportclient", types.SimpleNamespace(get_allocs_for_consumer=answers))
    cinder = Away(exception.ServiceUnavailable(), 1 if away_ == "Cinder" else 0)
    monkeypatch.setattr("pcmig.nova.keeper.volumes.come_back", cinder)
    return call


@pytest.mark.parametrize("who", ["Neutron", "placement", "Cinder"])
def test_the_books_of_a_forgotten_migration_are_put_right_when_all_have_answered(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    made, _, _ = keep(known, monkeypatch)
    away_once(who, monkeypatch)
    statuses: list[str] = []
    monkeypatch.setattr(Manager, "_set_migration_status", staticmethod(lambda _, to: statuses.append(to)))
    forget(known)
    made.look_after()
    assert len(known.forgotten) == 1 and not statuses
    made.look_after()
    assert not known.forgotten and statuses == ["error"]


def test_ports_that_neutron_refuses_for_ever_keep_no_books_wrong(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = keep(known, monkeypatch)
    away_once("nobody", monkeypatch)
    refuses = Away(neutron_exceptions.Conflict(), 1000)
    monkeypatch.setattr("pcmig.nova.keeper.bindings.come_back", refuses)
    forget(known)
    made.look_after()
    assert not known.forgotten and refuses.calls == 1


def test_attachments_of_a_deleted_and_forgotten_server_go_when_cinder_answers(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = keep(known, monkeypatch)
    monkeypatch.setattr(adoption, "recall", lambda _record: None)
    answers = [False, True]
    monkeypatch.setattr(made, "_give_up_volumes", lambda *_: answers.pop(0))
    forget(known)
    made.look_after()
    assert len(known.forgotten) == 1
    made.look_after()
    assert not known.forgotten and not answers


def test_attachments_are_not_given_up_while_libvirt_does_not_say_what_is_there(
    known: records.Records,
) -> None:
    assert not attachments.give_up(Manager(), known.add(entry(caller=NOTED), "source"), "unknown")


def test_ports_of_a_guest_that_is_off_come_back_before_its_record_goes(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else binds them where Nova has the server, a hard reboot neither."""
    made, _, nova = keep(known, monkeypatch)
    made.starting = False
    nova.vm_state = "active"
    ports = away_once("Neutron", monkeypatch)
    waits: list[str | None] = []

    def wait(_seconds: float) -> bool:
        waits.append(made.waits(UUID))
        return False

    monkeypatch.setattr(made, "wait", wait)
    monkeypatch.setattr(
        adoption.Adopted, "recover", lambda *_: lambda **_named: setattr(nova, "status", "error")
    )
    monkeypatch.setattr(volumes, "check", lambda *_: None)
    hosts.halves = dict.fromkeys(hosts.halves, "absent")
    monkeypatch.setattr(keeper, "AGAIN_S", 0.0)
    for _ in range(3):
        made.look_after()
    assert ports.calls == 2 and not known
    assert len(waits) == 1 and "ServiceUnavailable" in str(waits[0])


@pytest.mark.parametrize("how", ["completed", "evacuated"])
def test_a_record_stays_while_placement_keeps_the_migrations_allocation(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nova's client of placement returns None where it cannot connect."""
    made, _, nova = keep(known, monkeypatch)
    monkeypatch.setattr(Manager, "reportclient", Left(1))
    monkeypatch.setattr(
        Manager, "_delete_allocation_after_move", staticmethod(lambda *_: None), raising=False
    )
    if how == "completed":
        nova.status = "completed"
    else:
        hosts.halves[next(iter(hosts.halves))] = "absent"
        monkeypatch.setattr("pcmig.nova.keeper.evacuation.left", lambda *_: object())
    made.look_after()
    assert known
    made.look_after()
    assert not known


# Ends


def ends(known: records.Records, recover: Callable[..., None]) -> tuple[ending.Rollback, Nova]:
    """A rollback that is on record."""
    nova = Nova()
    nova.vm_state, nova.in_database = "active", "migrating"
    record = known.add(entry(caller={"nova": NOTED["nova"] | {"migration": "first"}}), "source")
    end = ending.Rollback(
        Manager(), None, nova, nova, known, record, None, recover=recover, dest="b", status="failed"
    )
    return end, nova


def test_a_server_is_not_idle_while_its_rollback_waits(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its owner, or the scheduler, would migrate it again, on books that are wrong."""
    monkeypatch.setattr(Manager, "reportclient", Left(1))
    monkeypatch.setattr(volumes, "check", lambda *_: None)

    def recover(**_: Any) -> None:
        nova.in_database = nova.task_state = None  # at its end

    end, nova = ends(known, recover)
    assert not end.attempt()
    assert nova.in_database == "migrating"


@pytest.mark.parametrize(("left", "tries"), [(0, 0), (1, 1), (2, 2), (1000, 2)])
def test_what_placement_refuses_is_told_and_keeps_no_server_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left: int, tries: int
) -> None:
    """The source's host may be overcommitted by now. An answer that was lost is asked for once more."""
    tried: list[Any] = []
    monkeypatch.setattr(Manager, "reportclient", Left(left))
    revert = staticmethod(lambda *arguments: tried.append(arguments))
    monkeypatch.setattr(Manager, "_revert_allocation", revert, raising=False)
    ending.revert_allocation(Manager(), None, Nova(), types.SimpleNamespace(uuid="m"))
    assert len(tried) == tries
    assert ("openstack resource provider allocation delete m, then" in caplog.text) is (left == 1000)


@pytest.mark.parametrize("how", ["another", "removed"])
def test_what_waits_to_be_written_down_leaves_another_migration_alone(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asked: list[str] = []

    def recover(**_: Any) -> None:
        asked.append("Nova")
        raise exception.ServiceUnavailable

    end, nova = ends(known, recover)
    assert not end.attempt() and asked == ["Nova"]
    if how == "another":  # somebody reset the server's state, and migrated it
        known.add(entry(caller={"nova": NOTED["nova"] | {"migration": "second"}}), "source")
    else:
        known.remove(UUID)
    assert not end.run(lambda _: False)
    assert asked == ["Nova"]
    assert nova.in_database == ("migrating" if how == "another" else None), "it is the other one's word"
    assert bool(known) is (how == "another")


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
    assert away.patient(error)


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
    assert not away.patient(error)


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
    books = Books(known, Away(neutron_exceptions.ServiceUnavailable(), 6))
    assert not books.attempt()
    assert books.steps == ["_once_known", "_allocations", "_volumes", "_clear_destination"]
    waits: list[float] = []

    def wait_(pause_s: float) -> bool:
        waits.append(pause_s)
        return False

    assert books.run(wait_)
    assert books.steps.count("_write_down") == 1
    assert waits == [5, 10, 10, 10, 10, 10], "nobody reaches the guest until then"


class Volume:
    """In Nova's record of the server."""

    is_volume = True
    volume_id = "v"

    def __init__(self, attachment: str) -> None:
        self.attachment_id = attachment
        self.saved = False


class Cinder:
    """Nova's manager, as far as volumes come back, and what its Cinder answers where one is deleted."""

    def __init__(self, answer: Exception | None) -> None:
        self.volume_api = self
        self.answer = answer
        self.deleted: list[str] = []

    def attachment_delete(self, _context: Any, attachment: str) -> None:
        self.deleted.append(attachment)
        if self.answer is not None:
            raise self.answer

    def _rollback_volume_bdms(self, context: Any, bdms: Any, original: Any, _instance: Any) -> None:
        """As Nova's, which goes on after an error of Cinder's, with the destination's in its record."""
        for bdm in bdms:
            if bdm.attachment_id != original[0].attachment_id:
                self.attachment_delete(context, bdm.attachment_id)
                bdm.attachment_id = original[0].attachment_id
            bdm.saved = True


@pytest.mark.parametrize(
    ("answer", "back", "refused"),
    [
        (None, True, False),
        (exception.VolumeAttachmentNotFound(attachment_id="destination's"), True, False),  # deleted before
        # What would be answered for ever: without a service token, or without the right.
        (cinder_exceptions.ClientException(409, "in use by Nova"), True, True),
        (exception.Forbidden(), True, True),
        (cinder_exceptions.ClientException(503), False, False),
        (cinder_exceptions.ClientException(500), False, False),
        (exception.CinderConnectionFailed(reason="refused"), False, False),
    ],
)
def test_a_volume_comes_back_and_what_cinder_refuses_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Exception | None,
    back: bool,
    refused: bool,
) -> None:
    objects.register_all()
    here, there = Volume("source's"), Volume("destination's")
    monkeypatch.setattr(objects.BlockDeviceMappingList, "get_by_instance_uuid", lambda *_: [there])
    cinder, server = Cinder(answer), types.SimpleNamespace(uuid=UUID)
    with pytest.raises(exception.ServiceUnavailable, match="volume v"):
        volumes.check(None, server, [here])
    if not back:
        with pytest.raises(exception.ServiceUnavailable, match="volume v"):
            volumes.come_back(cinder, None, server, [here])
        assert (there.attachment_id, there.saved) == ("destination's", False)
        cinder.answer = None
    volumes.come_back(cinder, None, server, [here])
    volumes.check(None, server, [here])
    assert (there.attachment_id, there.saved) == ("source's", True)
    told = "openstack volume attachment delete destination's: volume v stays attached" in caplog.text
    assert told is refused
    volumes.come_back(cinder, None, server, [here])
    assert cinder.deleted == ["destination's"] * (1 if back else 2)


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


def test_no_live_migration_begins_while_the_end_of_the_last_one_waits(known: records.Records) -> None:
    made = driver.PostCopyLibvirtDriver.__new__(driver.PostCopyLibvirtDriver)
    made._keeper = types.SimpleNamespace(waits=lambda _: "it waits for placement")  # type: ignore[assignment]
    made._guard = guard.Guard(known, 1000)
    made._options = types.SimpleNamespace(request_sources=())  # type: ignore[assignment]
    server = types.SimpleNamespace(uuid=UUID, system_metadata={}, metadata={})
    with pytest.raises(exception.MigrationPreCheckError, match="its last live migration is not written down"):
        made.check_can_live_migrate_source(None, server, None)
    assert made._guard.told.of(UUID) == "it waits for placement"
