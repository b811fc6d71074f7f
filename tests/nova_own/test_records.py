# SPDX-License-Identifier: Apache-2.0
"""pcmig.nova.records, guard and adoption: who is asked, what is refused, what is put right after a restart.

Both hosts are played here; the real ones are in tests/cloud.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import pathlib
import re
import stat
import types
from typing import Any

import oslo_messaging
import pytest
from nova import context as nova_context
from nova import exception, objects
from nova.conf import CONF
from nova.objects import base as objects_base
from nova.objects import fields as object_fields
from nova.objects import migrate_data
from nova.virt import driver as virt_driver
from nova.virt.libvirt import driver as libvirt_driver

from pcmig import _core, journal
from pcmig.nova import (
    adoption,
    driver,
    ending,
    evacuation,
    guard,
    keeper,
    once,
    recorded,
    records,
    steer,
    turning,
    words,
)

UUID = "a0a0a0a0-0000-4000-8000-000000000000"
SOURCE, DESTINATION = "qemu:///system", "qemu+tcp://b/system"


def entry(**changes: Any) -> journal.Entry:
    fields: dict[str, Any] = {
        "uuid": UUID,
        "name": "instance-00000001",
        "source_uri": SOURCE,
        "dest_uri": DESTINATION,
        "engine": {},
        "started": records.now(),
    }
    return journal.Entry(**fields | changes)


def instance(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "uuid": UUID,
        "host": "a",
        "task_state": "migrating",
        "vm_state": "active",
        "deleted": False,
    }
    return types.SimpleNamespace(**fields | changes)


class Hosts:
    """What libvirt says of the guest; a host that is None does not answer."""

    def __init__(self) -> None:
        self.halves: dict[str, str | None] = {SOURCE: "postcopy-failed", DESTINATION: "postcopy-failed"}
        self.job = False
        self.shut_down: str | None = None
        self.asked: list[tuple[str, int]] = []

    def half(self, uri: str, uuid: str, timeout_ms: int) -> Any:
        assert uuid == UUID
        self.asked.append((uri, timeout_ms))
        half = self.halves[uri]
        if half is None:
            raise _core.ConnectError("no route to host")
        return {
            "half": half,
            "job_active": self.job,
            "shut_down": self.shut_down == uri,
            "runs": False,
            "id": None,
        }


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts()
    monkeypatch.setattr(guard._core, "half", hosts.half)  # type: ignore[attr-defined]
    return hosts


@pytest.fixture
def known(tmp_path: pathlib.Path) -> records.Records:
    return records.Records(str(tmp_path / "migrations"))


# What is guarded and does not matter here; a driver is not made without.
Others = type("Others", (), dict.fromkeys(guard.ACTS, lambda self, context, instance: None))


class Stock(Others):  # type: ignore[misc,valid-type]  # made at run time
    """Nova's driver, as far as it counts here."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def reboot(self, context: Any, instance: Any, reboot_type: str) -> str:
        self.done.append("reboot")
        return "rebooted"

    def destroy(self, context: Any, instance: Any, destroy_disks: bool = True) -> None:
        self.done.append("destroy")
        self.cleanup(context, instance)

    def cleanup(self, context: Any, instance: Any) -> None:
        self.done.append("cleanup")


@guard.guarded(Stock)
class Driver(Stock):
    _guarded = recorded.RecordedLibvirtDriver._guarded
    _is_marked = recorded.RecordedLibvirtDriver._is_marked

    def __init__(self, known: records.Records) -> None:
        super().__init__()
        self._records = known
        self._guard = guard.Guard(known, 10_000)
        self._keeper = types.SimpleNamespace(
            starting=False, turner=types.SimpleNamespace(powered_off=lambda _: None)
        )


def test_nobody_is_asked_for_guests_that_are_not_on_record(known: records.Records, hosts: Hosts) -> None:
    made = Driver(known)
    assert made.reboot(None, instance(), "HARD") == "rebooted"
    known.add(entry(), "source")
    made.reboot(None, instance(uuid="b" + UUID[1:]), "HARD")
    assert hosts.asked == []


def test_what_could_run_a_guest_twice_is_refused_with_what_helps(
    known: records.Records, hosts: Hosts
) -> None:
    known.add(entry(), "source")
    made = Driver(known)
    with pytest.raises(guard.Refused) as refused:
        made.reboot(None, instance(task_state=None), "HARD")
    assert str(refused.value) == words.refusal("interrupted")
    helps = f"pcmig resume -c '{SOURCE}' 'instance-00000001' '{DESTINATION}'  # post-copy was interrupted"
    assert str(refused.value.__cause__).startswith(helps)
    assert made._guard.told.of(UUID) == str(refused.value.__cause__)
    assert made.done == []
    assert hosts.asked == [(SOURCE, guard.PEER_TIMEOUT_MS), (DESTINATION, guard.PEER_TIMEOUT_MS)]


def test_a_host_that_does_not_answer_counts_as_unknown(known: records.Records, hosts: Hosts) -> None:
    known.add(entry(), "source")
    hosts.halves = {SOURCE: "absent", DESTINATION: None}
    with pytest.raises(guard.Refused) as refused:
        Driver(known).reboot(None, instance(), "HARD")
    assert "does not answer" in str(refused.value.__cause__)


@pytest.mark.parametrize("text", ['{"schema": 99, "written_by": "9.8.7"}', '{"sch'], ids=["newer", "cut"])
def test_a_guest_whose_record_is_not_understood_is_not_touched(
    known: records.Records, hosts: Hosts, tmp_path: pathlib.Path, text: str
) -> None:
    """After a package was rolled back, say: nobody here knows which half is kept."""
    known.add(entry(), "destination")  # so that the folder is there
    path = tmp_path / "migrations" / f"{UUID}.json"
    path.write_text(text)
    other = instance(uuid="b" + UUID[1:])
    again = records.Records(str(tmp_path / "migrations"))
    again.load()
    assert again and again.all() == []
    made = Driver(again)
    for act in (
        lambda: made.reboot(None, instance(), "HARD"),
        lambda: made.destroy(None, instance()),
        lambda: made._guard.ask_ahead(instance(), "start"),
    ):
        with pytest.raises(guard.Refused) as refused:
            act()
        assert str(refused.value) == words.refusal("unseen")
        assert str(path) in str(refused.value.__cause__)
    assert made._guard.told.of(UUID) == str(refused.value.__cause__)
    assert (made.done, hosts.asked) == ([], [])
    with pytest.raises(journal.JournalError):
        again.add(entry(), "destination")
    assert path.read_text() == text
    assert made.reboot(None, other, "HARD") == "rebooted"
    looks_after = keeper.Keeper(made, again, made._guard, None)  # type: ignore[arg-type]
    assert looks_after.keeps(instance()) and looks_after.of_nova([instance(), other]) == [other]
    path.unlink()  # an operator has moved it away
    assert not again
    made.reboot(None, instance(), "HARD")


def test_a_record_that_another_pcmig_wrote_since_stays_known(
    known: records.Records, hosts: Hosts, tmp_path: pathlib.Path
) -> None:
    """And is written again no more: the file is the other's."""
    known.load()
    known.add(entry(), "source")
    path = tmp_path / "migrations" / f"{UUID}.json"
    path.write_text('{"schema": 99}')
    assert known.get(UUID) is not None and known.unreadable(UUID) is None
    known.cross(UUID)
    known.save()
    known.remove(UUID)
    assert path.read_text() == '{"schema": 99}'
    assert known.unreadable(UUID) is not None


def test_what_is_asked_once_covers_all_of_it(known: records.Records, hosts: Hosts) -> None:
    known.add(entry(), "destination")
    hosts.halves = {SOURCE: "running", DESTINATION: "migrating"}
    made = Driver(known)
    made.destroy(None, instance())
    assert made.done == ["destroy", "cleanup"]
    assert len(hosts.asked) == 2
    made.cleanup(None, instance=instance())
    assert len(hosts.asked) == 4


def test_files_of_a_guest_are_not_deleted_because_its_half_is_gone(
    known: records.Records, hosts: Hosts
) -> None:
    known.add(entry(), "source")
    hosts.halves = {SOURCE: "absent", DESTINATION: "postcopy-failed"}
    made = Driver(known)
    with pytest.raises(guard.Refused) as refused:
        made.destroy(None, instance(task_state="rebuilding"))
    assert "one half of it is gone" in str(refused.value.__cause__)
    assert made.done == []


def test_the_owner_may_delete_the_guest(known: records.Records, hosts: Hosts) -> None:
    known.add(entry(), "source")
    made = Driver(known)
    with pytest.raises(guard.Refused):
        made.destroy(None, instance())
    made.destroy(None, instance(task_state="deleting"))
    assert made.done == ["destroy", "cleanup"]


def test_while_nova_starts_what_is_refused_is_left_out(known: records.Records, hosts: Hosts) -> None:
    known.add(entry(), "source")
    made = Driver(known)
    made._keeper.starting = True
    assert made.reboot(None, instance(), "HARD") is None
    assert made.done == []


def test_the_engines_verdict_is_the_answer(known: records.Records, hosts: Hosts) -> None:
    known.add(entry(), "source")
    asking = guard.Guard(known, 10_000)
    for verdict, act, allowed in (
        ("completed", "post-migration", True),
        ("completed", "delete-files", True),
        ("completed", "reboot", False),
        ("failed", "reboot", True),
        ("failed", "post-migration", False),
    ):
        known.settle(UUID, verdict)
        if allowed:
            with asking.asked(instance(), act):
                pass
        else:
            with pytest.raises(guard.Refused), asking.asked(instance(), act):
                pass
    assert hosts.asked == []
    known.settle(UUID, "needs-operator")
    record = known.get(UUID)
    assert record is not None and record.verdict == "failed"


@pytest.mark.parametrize(
    ("half", "allowed"), [("absent", True), ("dead", True), ("migrating", False), ("running", False)]
)
def test_a_rollback_where_the_source_cannot_be_asked(
    known: records.Records, hosts: Hosts, half: str, allowed: bool
) -> None:
    known.add(entry(), "destination")
    hosts.halves = {SOURCE: None, DESTINATION: half}
    record = known.get(UUID)
    assert record is not None
    if allowed:
        guard.Guard(known, 10_000).check(record, instance(), "rollback")
    else:
        with pytest.raises(guard.Refused):
            guard.Guard(known, 10_000).check(record, instance(), "rollback")


@pytest.mark.parametrize(
    ("source", "half", "shut_down", "allowed"),
    [
        ("absent", "absent", SOURCE, True),
        ("absent", "absent", None, False),  # it may have switched, and ended here
        ("absent", "absent", DESTINATION, False),
        ("absent", "postcopy-failed", SOURCE, False),
        (None, "absent", None, False),
    ],
)
def test_copies_of_disks_go_when_the_guest_was_shut_down_at_the_source(
    known: records.Records, hosts: Hosts, source: str | None, half: str, shut_down: str | None, allowed: bool
) -> None:
    record = known.add(entry(caller={"nova": {"block_migration": True}}), "destination")
    hosts.halves, hosts.shut_down = {SOURCE: source, DESTINATION: half}, shut_down
    asking = guard.Guard(known, 10_000)
    for act in ("rollback", "start"):
        if allowed and act == "rollback":
            asking.check(record, instance(), act)
        else:
            with pytest.raises(guard.Refused):
                asking.check(record, instance(), act)


def test_every_guarded_method_is_novas_and_looks_like_it() -> None:
    stock = libvirt_driver.LibvirtDriver
    for name in guard.ACTS:
        mine = getattr(driver.PostCopyLibvirtDriver, name)
        assert mine is not getattr(stock, name), name
        assert list(inspect.signature(mine).parameters) == list(
            inspect.signature(getattr(stock, name)).parameters
        )
        if hasattr(virt_driver.ComputeDriver, name):
            assert "instance" in inspect.signature(getattr(virt_driver.ComputeDriver, name)).parameters


def test_the_documentation_has_every_guarded_call() -> None:
    page = (pathlib.Path(__file__).parents[2] / "doc" / "operate" / "nova.rst").read_text(encoding="utf-8")
    chapter = page.partition("What is refused meanwhile\n")[2].partition("\nAfter a restart")[0]
    rows = dict(re.findall(r"   \* - (``.*)\n     - (.*)\n", chapter))
    told = {
        (name, act)
        for acts, names in rows.items()
        for act in re.findall(r"``([a-z-]+)``", acts)
        for name in re.findall(r"``(\w+)``", names)
    }
    assert set(guard.ACTS.items()) <= told
    assert {name for name, _ in told} == set(guard.ACTS)


@pytest.mark.parametrize(
    ("halves", "column"),
    [
        (("postcopy", "postcopy"), 2),
        (("postcopy-failed", "postcopy-failed"), 3),
        (("postcopy-failed", "dead"), 4),
        (("absent", "running"), 5),
    ],
)
def test_the_documentation_says_what_the_guard_says(halves: tuple[str, str], column: int) -> None:
    page = (pathlib.Path(__file__).parents[2] / "doc" / "operate" / "nova.rst").read_text(encoding="utf-8")
    chapter = page.partition("What is refused meanwhile\n")[2].partition("\nAfter a restart")[0]
    words = {
        (False, False): "refused",
        (True, True): "goes on",
        (True, False): "at the source only",
        (False, True): "at the destination only",
    }
    for row in re.findall(r"   \* - (``.*\n(?:     - .*\n)+)", chapter):
        cells = [cell.strip() for cell in re.split(r"\n     - ", row)]
        for act in re.findall(r"``([a-z-]+)``", cells[0]):
            source, destination = (
                _core.guard(
                    side=side,
                    act=act,
                    in_flight=True,
                    source=halves[0],  # type: ignore[arg-type]
                    destination=halves[1],  # type: ignore[arg-type]
                    job_active=False,
                )["allowed"]
                for side in ("source", "destination")
            )
            assert cells[column].strip() == words[source, destination], (act, halves)


def test_every_act_is_the_cores() -> None:
    for act in guard.ACTS.values():
        _core.guard(side="source", act=act)  # type: ignore[arg-type]


def test_records_outlive_the_process(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)
    first = records.Records(folder)
    first.add(entry(engine={"flags": 1}, caller={"nova": {"dest": "b"}}), "source")
    second = records.Records(folder)
    assert not second
    second.load()
    record = second.get(UUID)
    assert record is not None
    assert (record.side, record.nova["dest"], record.entry.engine) == ("source", "b", {"flags": 1})
    second.remove(UUID, "destination")
    assert second
    second.remove(UUID)
    assert not second and not journal.Journal(folder).all()[0]


class Manager:
    """nova.compute.manager.ComputeManager, as far as it is called."""

    network_api = types.SimpleNamespace(migrate_instance_start=lambda *_: None)
    reportclient = types.SimpleNamespace(get_allocs_for_consumer=lambda *_: {"allocations": {}})


class Nova:
    """An instance and a migration in Nova's database."""

    def __init__(self) -> None:
        self.saved: list[Any] = []
        self.uuid = UUID
        self.host = "a"
        self.source_compute = "a"
        self.dest_compute = "b"
        self.in_database: str | None = None  # its task state
        self.task_state: str | None = None
        self.vm_state = "error"
        self.status = "error"
        self.deleted = False

    def refresh(self) -> None:
        self.task_state = self.in_database

    def obj_what_changed(self) -> set[str]:
        return set()

    def save(self, expected_task_state: list[str | None] | None = None) -> None:
        if expected_task_state is not None and self.in_database not in expected_task_state:
            raise exception.UnexpectedTaskStateError(
                instance_uuid=UUID, expected=expected_task_state, actual=self.in_database
            )
        self.in_database = self.task_state
        self.saved.append((self.task_state, self.vm_state))

    def obj_reset_changes(self, fields: list[str]) -> None: ...


class End:
    """A Completion without a record, and what it waited."""

    def __init__(self, known: records.Records, nova: Nova, post: Any) -> None:
        self.waits: list[float] = []
        self.end = ending.Completion(Manager(), None, nova, nova, known, None, None, post=post)

    def run(self) -> bool:
        return self.end.run(self.stopping)

    def stopping(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > 8


def test_a_guest_that_has_moved_is_written_down_however_long_it_takes(known: records.Records) -> None:
    nova, tries = Nova(), []

    def post() -> None:
        tries.append((nova.task_state, nova.host))
        nova.host, nova.in_database = "b", None  # as _post_live_migration_update_host() does when it fails
        if len(tries) < 4:
            raise oslo_messaging.MessagingTimeout("no reply")

    end = End(known, nova, post)
    assert end.run()
    assert tries == [("migrating", "a")] * 4
    assert end.waits == [5, 10, 20]
    assert nova.saved[0] == ("migrating", "active")


def test_a_server_says_that_it_migrates_before_anybody_waits(known: records.Records) -> None:
    nova, states = Nova(), []

    def post() -> None:
        nova.in_database = None
        raise oslo_messaging.MessagingTimeout("no reply")

    def stopping(_seconds: float) -> bool:
        states.append(nova.in_database)
        return len(states) > 2

    assert not End(known, nova, post).end.run(stopping)
    assert states == ["migrating"] * 3


@pytest.mark.parametrize("moved", [True, False])
def test_a_bus_that_is_down_at_the_end_is_waited_for(known: records.Records, moved: bool) -> None:
    """What is raised has Nova put the server into ERROR, though its guest runs."""

    class Away(Nova):
        left = 2

        def refresh(self) -> None:
            if self.left > 0:
                self.left -= 1
                raise oslo_messaging.MessagingTimeout("no reply")
            super().refresh()

    nova, waits = Away(), []
    told: list[str] = []

    def stopping(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 8

    arguments = (Manager(), None, nova, nova, known, None, None)
    end: ending.Ending
    if moved:
        end = ending.Completion(*arguments, post=lambda: told.append("post"))
    else:
        end = ending.Rollback(
            *arguments,
            recover=lambda migration_status: told.append(migration_status),
            dest="b",
            status="failed",
        )
    assert not end.attempt()
    assert end.waits is not None and "MessagingTimeout" in end.waits
    assert end.run(stopping)
    assert (told, waits) == (["post" if moved else "failed"], [5, 10])


def test_a_rollback_is_tried_again_when_somebody_was_away(known: records.Records) -> None:
    nova, tries = Nova(), []

    def recover(migration_status: str) -> None:
        tries.append(migration_status)
        if len(tries) < 3:
            raise oslo_messaging.MessagingTimeout("no reply")

    end = ending.Rollback(
        Manager(), None, nova, nova, known, None, None, recover=recover, dest="b", status="failed"
    )
    assert end.run(lambda _seconds: False)
    assert tries == ["failed"] * 3

    def broken(migration_status: str) -> None:
        raise exception.NovaException("broken")

    end = ending.Rollback(
        Manager(), None, Nova(), nova, known, None, None, recover=broken, dest="b", status="failed"
    )
    with pytest.raises(exception.NovaException, match="broken"):
        end.run(lambda _seconds: False)


def test_what_a_servers_owner_asked_for_comes_first(known: records.Records) -> None:
    nova, tries = Nova(), []

    def post() -> None:
        tries.append(nova.in_database)

    def stopping(_seconds: float) -> bool:
        assert nova.in_database == "powering-off"
        if len(tries) == 0 and len(nova.saved) == 0:
            waits.append(1)
        if len(waits) == 3:
            nova.in_database = None  # it is done
        return False

    waits: list[int] = []
    nova.in_database = nova.task_state = "powering-off"
    assert End(known, nova, post).end.run(stopping)
    assert (len(waits), tries) == (3, ["migrating"])


def test_who_asks_at_the_same_moment_is_first(known: records.Records) -> None:
    class Faster(Nova):
        def save(self, expected_task_state: list[str | None] | None = None) -> None:
            self.in_database = "rebooting"
            super().save(expected_task_state)

    nova = Faster()
    assert not ending.migrates(nova)
    assert (nova.in_database, nova.task_state, nova.saved) == ("rebooting", "rebooting", [])


def test_a_server_that_is_elsewhere_by_now_is_let_be(known: records.Records) -> None:
    nova = Nova()
    nova.host = "c"
    end = End(known, nova, lambda: pytest.fail("it is not to be called"))
    assert not end.run()
    assert (nova.saved, end.waits) == ([], [])


def test_a_migration_whose_record_was_removed_is_let_be(known: records.Records) -> None:
    record = known.add(entry(), "source")
    nova = Nova()
    known.remove(UUID)
    end = ending.Completion(
        Manager(), None, nova, nova, known, record, None, post=lambda: pytest.fail("it is not to be called")
    )
    assert not end.run(lambda _seconds: pytest.fail("nothing is to be waited for"))
    assert nova.saved == []


def test_an_allocation_that_placement_keeps_is_all_that_is_asked_for_again(known: records.Records) -> None:
    nova, asked = Nova(), []
    manager = Manager()

    def post() -> None:
        asked.append("post")
        nova.status = "completed"
        raise exception.AllocationDeleteFailed(consumer_uuid=UUID, error="503")

    def delete(*_arguments: Any) -> None:
        asked.append("allocation")
        if len(asked) < 9:
            raise exception.AllocationDeleteFailed(consumer_uuid=UUID, error="503")

    manager._delete_allocation_after_move = delete  # type: ignore[attr-defined]
    end = ending.Completion(manager, None, nova, nova, known, None, None, post=post)
    assert end.run(lambda _seconds: False)
    assert asked == ["post"] + ["allocation"] * 8


def test_a_destination_that_goes_on_saying_no_is_believed(known: records.Records) -> None:
    tries: list[int] = []

    def post() -> None:
        tries.append(1)
        raise exception.NovaException("broken")

    with pytest.raises(exception.NovaException, match="broken"):
        End(known, Nova(), post).run()
    assert len(tries) == ending.ERRORS


def test_the_end_of_the_service_ends_the_waiting(known: records.Records) -> None:
    def post() -> None:
        raise oslo_messaging.MessagingTimeout("no reply")

    assert not End(known, Nova(), post).run()


def test_a_guest_that_is_deleted_needs_no_end(known: records.Records) -> None:
    def post() -> None:
        raise exception.InstanceNotFound(instance_id=UUID)

    with pytest.raises(exception.InstanceNotFound):
        End(known, Nova(), post).run()


def test_an_act_is_done_once_in_a_migrations_life(tmp_path: pathlib.Path) -> None:
    done: list[str] = []
    first = records.Records(str(tmp_path))
    acts = once.Acts(first, first.add(entry(), "source"), instance())

    def on_disk() -> Any:
        found = journal.Journal(str(tmp_path)).read(UUID)
        assert found is not None
        return found.caller["nova"]["acts"]

    def work() -> None:
        assert on_disk()["volume v"] == "begun"
        done.append("work")

    acts.once("volume v", work, "look")
    assert on_disk() == {"volume v": "done"}
    acts.once("volume v", work, "look")
    second = records.Records(str(tmp_path))
    second.load()
    record = second.get(UUID)
    assert record is not None
    once.Acts(second, record, instance()).once("volume v", work, "look")
    assert done == ["work"]


@pytest.mark.parametrize("why", ["a crash", "no space", "left"])
def test_what_may_not_be_done_is_told_and_not_done(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    record = known.add(entry(), "source")
    if why == "a crash":
        known.mark(record, "volume v", "begun")
    elif why == "left":
        known.mark(record, records.LEFT, "done")
    else:

        def update(*_arguments: Any, **_named: Any) -> None:
            raise journal.JournalError("no space left")

        monkeypatch.setattr(journal.Journal, "update", update)
    acts = once.Acts(known, record, instance())
    for _ in range(2):
        acts.once("volume v", lambda: pytest.fail("it is done"), "lsblk /dev/sdx")
    told = [line.getMessage() for line in caplog.records if "lsblk /dev/sdx" in line.getMessage()]
    assert len(told) == 1, told


def test_each_volume_has_a_mark_of_its_own() -> None:
    volumes = [
        {"mount_device": "/dev/vdb", "connection_info": {"serial": "v", "data": {}}},
        {"mount_device": "/dev/vdc", "connection_info": {"data": {}}},
        {"mount_device": "/dev/vdd", "connection_info": {"data": {}}},
    ]
    assert [once.volume_act(v) for v in volumes] == ["volume v", "volume /dev/vdc", "volume /dev/vdd"]


def test_an_act_that_fails_is_not_done_again_and_keeps_nothing_else(
    known: records.Records, caplog: pytest.LogCaptureFixture
) -> None:
    record = known.add(entry(), "source")
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise OSError("device is busy")

    acts = once.Acts(known, record, instance())
    acts.once("volume v", work, "lsblk /dev/sdx")
    acts.once("volume v", work, "lsblk /dev/sdx")
    assert tries == [1]
    assert "device is busy" in caplog.text and "lsblk /dev/sdx" in caplog.text


def test_no_passphrase_of_a_vtpm_gets_to_the_disk(tmp_path: pathlib.Path) -> None:
    CONF([], project="nova", default_config_files=[])
    objects.register_all()
    data = migrate_data.LibvirtLiveMigrateData(is_shared_instance_path=True, block_migration=False)
    if "vtpm_secret_value" not in data.fields:
        pytest.skip("Nova before 33 has no such value")
    data.vtpm_secret_uuid = "11111111-2222-4333-8444-555555555555"
    data.vtpm_secret_value = "PASSPHRASE"
    data.migration = objects.Migration(uuid=UUID)
    context = nova_context.RequestContext("u", "p")
    known = records.Records(str(tmp_path / "migrations"))
    known.add(entry(caller={"nova": adoption.noted(context, "b", False, data, None)}), "source")
    (file,) = (tmp_path / "migrations").glob("*.json")
    assert "PASSPHRASE" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert data.vtpm_secret_value == "PASSPHRASE"  # Nova goes on with it
    noted = json.loads(file.read_text())["caller"]["nova"]["migrate_data"]
    back = objects_base.NovaObject.obj_from_primitive(noted)
    # What Nova asks for at the end, to delete libvirt's secret.
    assert back.has_vtpm and back.vtpm_secret_uuid == data.vtpm_secret_uuid
    assert not back.has_vtpm_secret_data


def test_no_value_that_nova_does_not_log_gets_to_the_disk() -> None:
    objects.register_all()
    data = migrate_data.LibvirtLiveMigrateData()
    secret = [n for n, f in data.fields.items() if isinstance(f, object_fields.SensitiveStringField)]
    for name in secret:
        setattr(data, name, "SECRET")
    assert "SECRET" not in json.dumps(adoption.without_secrets(data).obj_to_primitive())


def test_marks_keep_what_others_wrote_into_the_entry(tmp_path: pathlib.Path) -> None:
    known = records.Records(str(tmp_path))
    record = known.add(entry(caller={"nova": {"dest": "b"}}), "source")
    journal.Journal(str(tmp_path)).update(UUID, held=True)
    known.mark(record, "files", "done")
    found = journal.Journal(str(tmp_path)).read(UUID)
    assert found is not None
    assert found.held and found.caller["nova"]["dest"] == "b"


class Follower:
    """The driver, for the keeper: what it was told."""

    def __init__(self, outcome: str) -> None:
        self.virtapi = types.SimpleNamespace(_compute=Manager())
        self.outcome = outcome
        self.told: list[str] = []

    def _follows(self, _uuid: str) -> bool:
        return False

    def _steer_adopted(self, adopted: Any) -> Any:
        return types.SimpleNamespace(detached=False, gives_way=None, end=lambda: None)

    def _adopted_ended(self, _uuid: str) -> None: ...

    def _tell(self, status: dict[str, Any], *_arguments: Any, **_named: Any) -> None:
        self.told.append(status["outcome"])
        if status["outcome"] == "needs-operator":
            raise steer.PostCopyInterrupted()


def adopt(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, outcome: str, nova: Nova | None = None
) -> tuple[keeper.Keeper, Follower, Nova]:
    nova = nova or Nova()
    follower = Follower(outcome)
    asks = guard.Guard(known, 10_000)
    never = turning.Turning(known, asks, "never", lambda: pytest.fail("nobody is asked"))
    made = keeper.Keeper(follower, known, asks, never)
    record = known.get(UUID)
    assert record is not None
    found = adoption.Adopted(record, None, nova, nova, None, None)
    monkeypatch.setattr(adoption, "recall", lambda _record: found)
    monkeypatch.setattr(adoption.Adopted, "post", lambda *_: lambda: None)
    monkeypatch.setattr(adoption.Adopted, "recover", lambda *_: lambda: None)
    monkeypatch.setattr(made, "on_thread", lambda _uuid, call, *arguments: call(*arguments))
    monkeypatch.setattr(made, "_monitor", lambda *_: {"outcome": outcome})
    Manager._set_migration_status = staticmethod(lambda *_: None)  # type: ignore[attr-defined]
    Manager._set_instance_obj_error_state = staticmethod(lambda *_, **__: None)  # type: ignore[attr-defined]
    return made, follower, nova


@pytest.mark.parametrize(
    ("options", "lacks"), [({}, True), ({"auth_type": "password"}, False), ({"auth_section": "x"}, False)]
)
def test_an_adopted_migration_needs_an_account_for_cinder(options: dict[str, str], lacks: bool) -> None:
    CONF([], project="nova", default_config_files=[])
    try:
        for name, value in options.items():
            CONF.set_override(name, value, group="cinder")
        assert adoption.lacks_cinder(CONF) is lacks
    finally:
        for name in options:
            CONF.clear_override(name, group="cinder")


def test_what_was_in_flight_is_adopted_at_the_start(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(caller={"nova": {"dest": "b", "block_migration": False}}), "source")
    made, follower, nova = adopt(known, monkeypatch, "completed")
    nova.uuid = UUID
    assert made.keeps(instance())
    assert made.of_nova([instance()]) == []
    assert len(made.of_nova([instance(task_state="deleting"), instance(uuid="b" + UUID[1:])])) == 2
    made.look_after()
    assert not made.keeps(instance())
    assert follower.told == ["completed"]
    assert nova.saved[0] == ("migrating", "active")
    assert nova.status == "running"
    assert not known


def test_what_needs_an_operator_stays_on_record_and_is_adopted_again_once_it_is_repaired(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(caller={"nova": {"dest": "b", "block_migration": False}}), "source")
    hosts.halves = {SOURCE: "absent", DESTINATION: "postcopy-failed"}
    made, follower, _ = adopt(known, monkeypatch, "needs-operator")
    made.look_after()
    assert follower.told == ["needs-operator"]
    assert known
    for _ in range(3):  # nothing has changed
        made.look_after()
    assert follower.told == ["needs-operator"]
    hosts.halves = {SOURCE: "absent", DESTINATION: "running"}
    monkeypatch.setattr(made, "_monitor", lambda *_: {"outcome": "completed"})
    made.look_after()
    assert follower.told == ["needs-operator", "completed"]
    assert not known


def test_what_cannot_be_adopted_yet_is_tried_again(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(caller={"nova": {"dest": "b", "block_migration": False}}), "source")
    made, follower, _ = adopt(known, monkeypatch, "completed")
    found = adoption.recall
    answers = iter([exception.NovaException("the conductor does not answer")] * 3)

    def recall(record: records.Record) -> Any:
        for error in answers:
            raise error
        return found(record)

    monkeypatch.setattr(adoption, "recall", recall)
    for _ in range(3):
        made.look_after()
        assert follower.told == []
    made.look_after()
    assert follower.told == ["completed"]


def test_a_record_of_the_destination_goes_when_the_guest_is_settled(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(), "destination")
    made, _, _ = adopt(known, monkeypatch, "completed")
    comes = [True] * 3 + [False] * 3  # Nova's migration has not begun yet
    monkeypatch.setattr(adoption, "comes_here", lambda _uuid: comes.pop(0))
    hosts.halves = {SOURCE: "running", DESTINATION: "absent"}
    for _ in range(3):
        made.look_after()
        assert known
    hosts.halves = {SOURCE: "postcopy-failed", DESTINATION: "postcopy-failed"}
    made.look_after()
    assert known
    hosts.halves = {SOURCE: "running", DESTINATION: "absent"}
    made.look_after()
    assert known  # seen once: another migration may just begin
    made.look_after()
    assert not known


def test_a_guest_that_was_evacuated_meanwhile_is_left_alone(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(caller={"nova": {"dest": "b", "block_migration": False}}), "source")
    nova = Nova()
    nova.host = "c"
    made, follower, _ = adopt(known, monkeypatch, "completed", nova)
    made.look_after()
    assert (follower.told, nova.saved, bool(known)) == ([], [], True)


def test_nova_has_it_all_written_down() -> None:
    nova = Nova()
    adopted = adoption.Adopted(records.Record(entry(), "source"), None, nova, nova, None, None)
    assert not adoption.is_over(adopted)
    nova.status = "cancelled"
    nova.vm_state = "active"
    assert adoption.is_over(adopted)
    nova.task_state = "migrating"
    assert not adoption.is_over(adopted)
    nova.status = "completed"
    assert adoption.is_over(adopted)


def evacuated(monkeypatch: pytest.MonkeyPatch, status: str, dest: str) -> None:
    one = types.SimpleNamespace(status=status, dest_compute=dest, source_compute="a")
    monkeypatch.setattr(evacuation, "_of", lambda _, statuses: [one] if status in statuses else [])


@pytest.mark.parametrize(
    ("status", "dest", "halves", "copied", "allowed"),
    [
        ("pre-migrating", "b", (None, "absent"), False, True),
        ("accepted", "b", ("absent", "absent"), False, True),
        ("pre-migrating", "b", ("running", "absent"), False, False),  # the host is not dead
        ("pre-migrating", "b", (None, "postcopy-failed"), False, False),  # ended by a person first
        ("pre-migrating", "b", (None, "absent"), True, False),  # incomplete copies of its disks are here
        ("pre-migrating", "c", (None, "absent"), False, False),  # another host's
        ("error", "b", (None, "absent"), False, False),
    ],
)
def test_an_evacuation_is_its_owners_word_that_the_source_is_dead(
    known: records.Records,
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    dest: str,
    halves: tuple[str | None, str],
    copied: bool,
    allowed: bool,
) -> None:
    evacuated(monkeypatch, status, dest)
    monkeypatch.setattr(guard.Guard, "host", "b")
    known.add(entry(caller={"nova": {"block_migration": copied}}), "destination")
    hosts.halves = dict(zip((SOURCE, DESTINATION), halves, strict=True))
    asking = guard.Guard(known, 10_000)
    if not allowed:
        with pytest.raises(guard.Refused), asking.asked(instance(), "start"):
            pass
        assert known.get(UUID) is not None
        return
    with asking.asked(instance(), "start"):
        assert known.get(UUID) is not None
    assert known.get(UUID) is None, "it has served"


@pytest.mark.parametrize(
    ("status", "host", "allowed"),
    [("done", "c", True), ("completed", "b", True), ("pre-migrating", "c", False), ("done", "a", False)],
)
def test_what_a_host_that_is_back_has_of_an_evacuated_guest_goes(
    known: records.Records,
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    host: str,
    allowed: bool,
) -> None:
    """Even half of a guest that was interrupted: it must never run again."""
    evacuated(monkeypatch, status, host)
    monkeypatch.setattr(guard.Guard, "host", "a")
    known.add(entry(), "source")
    made = Driver(known)
    if not allowed:
        with pytest.raises(guard.Refused):
            made.destroy(None, instance(host=host, task_state=None))
        return
    with pytest.raises(guard.Refused):
        made.reboot(None, instance(host=host, task_state=None), "HARD")
    made.destroy(None, instance(host=host, task_state=None))
    assert made.done == ["destroy", "cleanup"]
    assert known.get(UUID) is not None, "for the keeper"


@pytest.mark.parametrize(
    ("half", "status", "written"),
    [("absent", "running", ["b", "error"]), ("absent", "error", ["b"]), ("postcopy-failed", "running", [])],
)
def test_the_migration_of_an_evacuated_guest_is_over_in_novas_books_too(
    known: records.Records,
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
    half: str,
    status: str,
    written: list[str],
) -> None:
    evacuated(monkeypatch, "completed", "b")
    monkeypatch.setattr(guard.Guard, "host", "a")
    known.add(entry(caller={"nova": {"dest": "b", "block_migration": False}}), "source")
    nova = Nova()
    nova.host, nova.status = "b", status
    hosts.halves = {SOURCE: half, DESTINATION: "running"}
    made, follower, _ = adopt(known, monkeypatch, "completed", nova)
    done: list[str] = []
    manager = follower.virtapi._compute
    manager._delete_allocation_after_move = lambda _context, server, _migration: done.append(server.host)
    monkeypatch.setattr(manager, "_set_migration_status", lambda _m, status: done.append(status))
    made.look_after()
    assert (done, follower.told, bool(known)) == (written, [], half != "absent")


def test_a_folder_that_cannot_be_listed_says_of_no_record_that_it_was_removed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova's records would be put right as if the migration had never been, of a guest that is in doubt."""
    folder = tmp_path / "migrations"
    known, book = records.Records(str(folder)), journal.Journal(folder)
    known.load()
    known.add(entry(), "source")
    known.release(UUID)
    listed = os.listdir

    def fails(path: Any) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", fails)
    book.update(UUID, name="other")  # so that it is read again
    assert known.get(UUID) is not None and not known.forgotten
    monkeypatch.setattr(os, "listdir", listed)
    folder.rename(tmp_path / "away")
    assert known.get(UUID) is not None and not known.forgotten
    (tmp_path / "away").rename(folder)
    record = known.get(UUID)
    assert record is not None and record.entry.name == "other"
    book.remove(UUID)
    assert known.get(UUID) is None and len(known.forgotten) == 1


def test_a_record_that_is_removed_or_changed_on_the_disk_counts_at_once(tmp_path: pathlib.Path) -> None:
    known, book = records.Records(str(tmp_path)), journal.Journal(tmp_path)
    known.load()
    known.add(entry(), "source")
    book.path(UUID).unlink()
    assert known.get(UUID) is not None and book.path(UUID).exists(), "this process looks after it"
    known.release(UUID)
    assert book.all()[0][0].owner is None
    book.update(UUID, name="other")
    record = known.get(UUID)
    assert record is not None and record.entry.name == "other" and not known.forgotten
    book.remove(UUID)
    assert not known and [each.entry.name for each in known.forgotten] == ["other"]
    known.add(entry(), "destination")
    assert book.all()[0][0].owner is None, "nobody looks after it"
    book.remove(UUID)
    assert known.get(UUID) is None


def test_a_source_is_asked_where_it_answers(known: records.Records, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = {"source_uris": ["qemu+tcp://by-name/system"]}
    record = known.add(entry(caller={"nova": noted}), "destination")
    asked = []

    def half(uri: str, uuid: str, timeout_ms: int) -> Any:
        asked.append(uri)
        if uri == SOURCE:
            raise _core.ConnectError("refused")
        return {
            "half": "running",
            "job_active": False,
            "shut_down": False,
            "defined": True,
            "runs": False,
            "id": 1,
        }

    monkeypatch.setattr(guard._core, "half", half)  # type: ignore[attr-defined]
    assert guard.Guard(known, 10_000).evidence(record)["source"] == "running"
    assert asked == [SOURCE, "qemu+tcp://by-name/system", DESTINATION]
