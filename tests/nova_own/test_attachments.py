# SPDX-License-Identifier: Apache-2.0
"""What Nova throws away before it asks the driver, for servers whose live migration is on record: attachments
of volumes at a reboot, ports and volumes at an evacuation. Cinder is played, the code is Nova's.

Run by tools/test nova-own.
"""

from __future__ import annotations

import pathlib
import types
from typing import Any
from unittest import mock

import pytest
from nova import exception, objects
from nova.compute import manager as compute_manager
from nova.virt.libvirt import driver as libvirt_driver

from pcmig.nova import adoption, attachments, bindings, guard, keeper, recorded, records
from tests.nova_own.test_records import SOURCE, UUID, Hosts, entry, hosts, instance

__all__ = ["hosts"]  # a fixture

SERVER = instance(task_state="reboot_pending_hard")
BOTH = {"at-source", "at-destination"}


class Bdms:
    """Nova's record of the server's one volume. REMOVED gets what is taken out of it."""

    def __init__(self, attachment: str, removed: list[str]) -> None:
        self.objects = [
            types.SimpleNamespace(
                volume_id="v", attachment_id=attachment, destroy=lambda: removed.append(attachment)
            )
        ]


class Cinder:
    """Nova's client of it."""

    def __init__(self) -> None:
        self.has = set(BOTH)

    def attachment_get_all(self, _context: Any, _uuid: str) -> list[dict[str, str]]:
        return [{"id": each} for each in sorted(self.has)]

    def attachment_get(self, _context: Any, attachment: str) -> None:
        if attachment not in self.has:
            raise exception.VolumeAttachmentNotFound(attachment_id=attachment)

    def attachment_delete(self, _context: Any, attachment: str) -> None:
        self.attachment_get(None, attachment)
        self.has.remove(attachment)


class Compute:
    """Nova's manager, as far as a reboot's beginning goes. NAMES is the attachment in Nova's record."""

    _delete_dangling_bdms = compute_manager.ComputeManager._delete_dangling_bdms

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: str) -> None:
        self.volume_api = Cinder()
        self.names = names
        self.removed: list[str] = []
        monkeypatch.setattr(
            objects.BlockDeviceMappingList,
            "get_by_instance_uuid",
            lambda _context, _uuid: Bdms(self.names, self.removed),
        )

    def reboot(self, read: str | None = None) -> tuple[set[str], str]:
        """What Cinder has after it, and what Nova goes on with; READ it has read before."""
        bdms = Bdms(read or self.names, self.removed)
        self._delete_dangling_bdms(None, SERVER, bdms)
        return self.volume_api.has, " ".join(bdm.attachment_id for bdm in bdms.objects)


@pytest.fixture
def known(tmp_path: pathlib.Path) -> records.Records:
    known = records.Records(str(tmp_path / "migrations"))
    known.load()
    return known


def test_a_reboot_removes_none_of_a_server_on_record(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(monkeypatch, "at-destination")
    attachments.keep(compute, known, lambda _uuid: None)
    known.add(entry(), "source")
    assert compute.reboot() == (BOTH, "at-destination")
    known.remove(UUID)
    assert compute.reboot() == ({"at-destination"}, "at-destination"), "and is Nova's own for all others"
    assert not compute.removed


def test_a_reboot_removes_none_of_a_server_whose_record_is_not_understood(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A newer pcmig's, after a package was rolled back."""
    known.add(entry(), "destination")
    (tmp_path / "migrations" / f"{UUID}.json").write_text('{"schema": 99}')
    again = records.Records(str(tmp_path / "migrations"))
    again.load()
    compute = Compute(monkeypatch, "at-destination")
    attachments.keep(compute, again, lambda _uuid: None)
    assert compute.reboot() == (BOTH, "at-destination")


def test_a_rollback_that_ends_meanwhile_is_seen(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(monkeypatch, "at-source")
    compute.volume_api.has = {"at-source"}
    attachments.keep(compute, known, lambda _uuid: None)
    assert compute.reboot(read="at-destination") == ({"at-source"}, "at-source")
    assert not compute.removed


def test_of_one_that_was_forgotten_novas_record_is_put_right_first(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(monkeypatch, "at-destination")

    def put_right(_uuid: str) -> None:
        compute.names = "at-source"

    attachments.keep(compute, known, put_right)
    assert compute.reboot(read="at-destination") == ({"at-source"}, "at-source")


def test_where_it_cannot_be_put_right_there_is_no_reboot(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(monkeypatch, "at-destination")

    def fails(_uuid: str) -> None:
        raise exception.ServiceUnavailable("Cinder")

    attachments.keep(compute, known, fails)
    with pytest.raises(exception.ServiceUnavailable):
        compute.reboot()
    assert compute.volume_api.has == BOTH


def forgotten(known: records.Records, monkeypatch: pytest.MonkeyPatch) -> tuple[keeper.Keeper, list[str]]:
    """A keeper that follows a source's record that was removed, and which of them it has put right."""
    driver = types.SimpleNamespace(virtapi=types.SimpleNamespace(_compute=object()))
    made = keeper.Keeper(driver, known, guard.Guard(known, 1000), None)  # type: ignore[arg-type]
    done: list[str] = []
    monkeypatch.setattr(made, "_put_right", lambda record, _manager: done.append(record.entry.name))
    monkeypatch.setattr(made, "on_thread", lambda _uuid, call, *arguments: call(*arguments))
    known.add(entry(name="first"), "source")
    known.release(UUID)
    known._journal.remove(UUID)
    assert known.get(UUID) is None and len(known.forgotten) == 1
    return made, done


def test_what_was_forgotten_is_put_right_once_and_until_it_is(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = forgotten(known, monkeypatch)
    right = made._put_right

    def fails(*_: Any) -> None:
        raise exception.ServiceUnavailable("Cinder")

    monkeypatch.setattr(made, "_put_right", fails)
    with pytest.raises(exception.ServiceUnavailable):
        made.put_right(UUID)
    monkeypatch.setattr(made, "_put_right", right)
    made.put_right("b" + UUID[1:])
    assert not done
    made.look_after()
    made.put_right(UUID)
    assert done == ["first"] and not known.forgotten


def test_a_younger_migration_is_not_put_right_for_the_one_before(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = forgotten(known, monkeypatch)
    known.add(entry(name="second"), "source")
    made.put_right(UUID)
    assert not done and not known.forgotten and known.get(UUID) is not None


BDMS: list[dict[str, Any]] = [
    {"volume_id": "v", "attachment_id": "at-source", "is_volume": True},
    {"volume_id": "w", "attachment_id": "gone", "is_volume": True},
    {"volume_id": None, "attachment_id": None, "is_volume": False},
]


@pytest.mark.parametrize(
    ("deleted", "source", "left"),
    [
        (True, "absent", {"at-destination"}),
        (True, "postcopy-failed", BOTH),
        (False, "absent", BOTH),  # the migration's record alone is gone
    ],
)
def test_of_a_server_that_is_deleted_the_sources_go(
    known: records.Records,
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
    deleted: bool,
    source: str,
    left: set[str],
) -> None:
    compute = Compute(monkeypatch, "at-destination")
    driver = types.SimpleNamespace(virtapi=types.SimpleNamespace(_compute=compute))
    made = keeper.Keeper(driver, known, guard.Guard(known, 1000), None)  # type: ignore[arg-type]
    noted = {"user_id": "u", "project_id": "p", "request_id": "req-1"}
    record = known.add(entry(caller={"nova": {"context": noted}}), "source")
    hosts.halves[SOURCE] = source
    bdms = [types.SimpleNamespace(**bdm) for bdm in BDMS]
    monkeypatch.setattr(adoption, "source_bdms", lambda *_: bdms)
    monkeypatch.setattr(adoption, "recall", lambda _record: None)

    def get(_context: Any, uuid: str, **_: Any) -> Any:
        if deleted:
            raise exception.InstanceNotFound(instance_id=uuid)
        return SERVER

    monkeypatch.setattr(objects.Instance, "get_by_uuid", get)
    with mock.patch.object(attachments.LOG, "error") as told:
        assert made.recalled(record, compute) is None
    assert compute.volume_api.has == left
    if deleted and source != "absent":
        assert told.call_args_list[0][0][0].startswith("openstack volume attachment delete %(id)s: ")
    else:
        assert not told.called
    assert not known


def test_an_evacuation_that_would_be_refused_is_before_anything_is_given_up(
    known: records.Records, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorded.RecordedLibvirtDriver.__new__(recorded.RecordedLibvirtDriver)
    made._records, made._guard = known, guard.Guard(known, 1000)
    made.virtapi = types.SimpleNamespace(_compute="manager")
    given_up: list[str] = []
    monkeypatch.setattr(attachments, "remove_of_source", lambda *_: given_up.append("attachments"))
    monkeypatch.setattr(bindings, "remove_inactive", lambda *_: given_up.append("ports"))
    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "instance_on_disk", lambda *_: given_up.append("asked"))
    server = instance(task_state="rebuilding")
    known.add(entry(), "destination")
    with pytest.raises(guard.Refused):
        made.instance_on_disk(server)
    assert not given_up
    known.remove(UUID)
    made.instance_on_disk(server)
    assert given_up == ["ports", "attachments", "asked"]


@pytest.mark.parametrize("way", ["listed", "on record"])
def test_an_evacuation_removes_the_dead_hosts_attachments(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Cinder connects no volume to another host before. An administrator of another project is shown none of
    them, and deletes what he can name."""
    compute = Compute(monkeypatch, "at-destination")
    data = objects.LibvirtLiveMigrateData(old_vol_attachment_ids={"v": "at-source"})
    noted = {"migrate_data": data.obj_to_primitive()}
    record = known.add(entry(caller={records.CALLER: noted}), "destination") if way == "on record" else None
    if record is not None:
        monkeypatch.setattr(compute.volume_api, "attachment_get_all", lambda *_: [])
    for _ in range(2):  # nothing is missed the second time
        attachments.remove_of_source(compute, record, SERVER)
        assert compute.volume_api.has == {"at-destination"}


def test_an_evacuation_without_cinder_says_what_to_do(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova's next call of Cinder fails, or does not."""
    compute = Compute(monkeypatch, "at-destination")

    def away(*_: Any) -> Any:
        raise exception.CinderConnectionFailed(reason="nobody there")

    with monkeypatch.context() as patched, mock.patch.object(attachments.LOG, "error") as told:
        patched.setattr(compute.volume_api, "attachment_delete", away)
        attachments.remove_of_source(compute, None, SERVER)
        assert told.call_args_list[0][0][0].startswith("openstack volume attachment delete %(id)s: ")
        assert told.call_args_list[0][0][1]["id"] == "at-source"
    monkeypatch.setattr(compute.volume_api, "attachment_get_all", away)
    attachments.remove_of_source(compute, None, SERVER)
    assert compute.volume_api.has == BOTH


def test_a_server_without_volumes_asks_nothing_of_cinder(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = types.SimpleNamespace(objects=[])
    monkeypatch.setattr(objects.BlockDeviceMappingList, "get_by_instance_uuid", lambda *_: nobody)
    attachments.remove_of_source(object(), None, SERVER)
