# SPDX-License-Identifier: Apache-2.0
"""Looks after the migrations on record that no thread of this nova-compute follows: those of its predecessor,
and those that an operator had to repair."""

from __future__ import annotations

import collections
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from nova.objects import base as objects_base
from oslo_log import log as logging

from pcmig import _core, journal
from pcmig.nova import (
    adoption,
    attachments,
    bindings,
    ending,
    evacuation,
    guard,
    records,
    steer,
    turned_back,
    turner,
    turning,
    volumes,
)
from pcmig.nova.away import patient
from pcmig_common import turned_back as words

LOG = logging.getLogger(__name__)

# Where only people can help: the engine would say so again.
_HOPELESS = (
    "half-lost",
    "gone",
    "ended",
    "double",
    "in-doubt",
    "runs-at-source",
    "runs-at-destination",
    "silent",
    "unseen",
)
# The guest is off everywhere, and both hosts say so; believed when they say it again after a while.
_OFF = ("gone", "ended")
AGAIN_S = 20.0
# The guest is at the source, and of its migration here nothing is needed.
_STAYED = ("at-source", "home-source", turner.TURNED_BACK)


class Keeper:
    """DRIVER is the compute driver. look_after() is to be called once when Nova has looked at its instances
    and before it serves requests, and now and then after."""

    def __init__(
        self, driver: Any, known: records.Records, guard_: guard.Guard, turning_: turning.Turning
    ) -> None:
        self._driver = driver
        self._records = known
        self._guard = guard_
        self.starting = True
        self.stopping = threading.Event()
        self._putting_right = threading.Lock()
        self._busy: collections.Counter[str] = collections.Counter()
        self._seen: dict[str, str] = {}  # situation at the last look
        self._ends: dict[str, ending.Ending] = {}  # those that are not carried out yet
        self._since_s: dict[str, float] = {}  # when it was seen first
        self.turner = turner.Turner(self, driver, known, guard_, turning_)

    def of_nova(self, instances: Any) -> list[Any]:
        """INSTANCES but those that are looked after here: Nova would end their migrations at its start."""
        return [
            instance
            for instance in instances
            if guard.insists(instance) or not self._on_record(instance.uuid)
        ]

    def _record(self, uuid: str) -> records.Record | None:
        record = self._records.get(uuid)
        return record if record is not None and record.side == "source" else None

    def _on_record(self, uuid: str) -> bool:
        """Also where nobody knows what is: such a migration is left as it is."""
        return self._record(uuid) is not None or self._records.unreadable(uuid) is not None

    def keeps(self, instance: Any) -> bool:
        """Whether Nova, starting, must not touch the migration of INSTANCE."""
        return self.starting and bool(self._records) and self._on_record(instance.uuid)

    def look_after(self) -> None:
        first, self.starting = self.starting, False
        manager = getattr(self._driver.virtapi, "_compute", None)
        if not self._records and not self._records.forgotten:
            return
        self._records.save()
        for uuid in {record.entry.uuid for record in self._records.forgotten}:
            if manager is not None and self._busy[uuid] == 0:
                self.on_thread(uuid, self.put_right, uuid)
        for record in self._records.all():
            uuid = record.entry.uuid
            if self._busy[uuid] > 0:
                continue
            try:
                self._look_after(record, manager, first)
            except Exception:  # the others' have nothing to do with it
                self._later(uuid)

    def _look_after(self, record: records.Record, manager: Any, first: bool) -> None:
        uuid = record.entry.uuid
        if self._driver._follows(uuid):
            if self._driver._is_unrun(uuid):
                self.on_thread(uuid, self.turner.engine_gives_way, record)
        elif record.side == "destination":
            self.on_thread(uuid, self._drop_if_settled, record, manager)
        elif manager is not None and (record.turned or record.about_to_turn):
            self.on_thread(uuid, self.turner.after, record, manager)
        elif manager is not None and first:
            adopted = self.recalled(record, manager)
            if adopted is not None:
                self.on_thread(uuid, self._follow, adopted, manager)
        elif manager is not None:
            self.on_thread(uuid, self.again, record, manager)

    def on_thread(self, uuid: str, call: Callable[..., None], *arguments: Any) -> None:
        """eventlet makes it one of its own."""

        def work() -> None:
            try:
                call(*arguments)
            except Exception:
                self._later(uuid)
            finally:
                self._busy[uuid] -= 1

        self._busy[uuid] += 1
        try:
            threading.Thread(target=work, name=f"pcmig-{uuid[:8]}", daemon=True).start()
        except RuntimeError:  # no thread is to be had
            self._busy[uuid] -= 1
            self._later(uuid)

    def _later(self, uuid: str) -> None:
        """Called for an error, whatever it is: what was left undone is tried again at the next look."""
        LOG.exception("Cannot look after the migration of guest %s yet", uuid)
        self._seen.pop(uuid, None)
        if not self._driver._follows(uuid):
            self._records.release(uuid)

    def _drop_if_settled(self, record: records.Record, manager: Any) -> None:
        """Of a guest that should have come here. Nova does not always tell the destination how it ended."""
        uuid = record.entry.uuid
        if adoption.comes_here(uuid):
            self._seen.pop(uuid, None)
            return
        before = self._seen.get(uuid)
        situation, again = self._note(record)
        if situation in _STAYED and again and self._is_left(record):
            if situation == turner.TURNED_BACK:
                self._clear_what_is_left(record, manager)
            else:
                self._tell_what_is_left(record, manager)
        elif (situation in guard.SETTLED and situation == before) or (
            situation in _OFF and again and not record.disks_copied
        ):
            self._records.remove(uuid, "destination")
            self._seen.pop(uuid, None)
        elif situation == "half-lost" != before and evacuation.left(self._guard.host, record) is not None:
            LOG.error(
                "virsh destroy %(name)s: this host still has half a guest that was evacuated; it is of no "
                "use any more, and holds memory. Then: %(forget)s",
                {"name": record.entry.name, "forget": self._forget(uuid)},
            )

    def _is_left(self, record: records.Record) -> bool:
        """Whether this host, which was to get the guest, still has a definition or files of it, and knows how
        to remove them. Nova has done that wherever it could reach this host at the migration's end."""
        if "migrate_data" not in record.nova:
            return False
        half = self._guard._half([record.entry.dest_uri], record.entry.uuid)
        folder = str(record.nova.get(records.FOLDER) or "")
        return bool(half.get("defined")) or (record.disks_copied and os.path.isdir(folder))

    def _clear_what_is_left(self, record: records.Record, manager: Any) -> None:
        """This host was away, dead as far as anybody knew, and the guest goes on where it was: as Nova's
        rollback does at a destination, for which the guard is asked."""
        uuid = record.entry.uuid
        context = nova_context.get_admin_context()
        try:
            instance = objects.Instance.get_by_uuid(context, uuid, expected_attrs=list(adoption.WITH))
        except exception.InstanceNotFound:
            instance = None
        if manager is None or instance is None or instance.host == self._guard.host:
            self._records.remove(uuid, "destination")
            return
        if words.since(instance.system_metadata) is None:
            return  # the source has not said so in Nova's books (yet)
        data = objects_base.NovaObject.obj_from_primitive(record.nova["migrate_data"], context)
        _, destroy_disks = manager._live_migration_cleanup_flags(data)
        LOG.warning(
            "The guest goes on at %(host)s, and was to come here: what is left of it here is removed",
            {"host": instance.host},
            instance=instance,
        )
        manager.rollback_live_migration_at_destination(
            context, instance=instance, destroy_disks=destroy_disks, migrate_data=data
        )
        self._records.remove(uuid, "destination")
        self._seen.pop(uuid, None)

    def _tell_what_is_left(self, record: records.Record, manager: Any) -> None:
        """The guest is at its source by what its libvirt says now, which may be a guest that was started
        again from older disks: that the switch was never made is not known here, so the disks here may be
        the newest that there are. Nothing is removed."""
        uuid = record.entry.uuid
        LOG.warning(
            "Kept: what is left here of guest %(name)s (%(uuid)s), which was to come here and is at its "
            "source; whether it ever ran here is not known, so its disks here may be the newer "
            "ones%(folder)s",
            {
                "name": record.entry.name,
                "uuid": uuid,
                "folder": f": {record.nova[records.FOLDER]}" if record.nova.get(records.FOLDER) else "",
            },
        )
        self._records.remove(uuid, "destination")
        self._seen.pop(uuid, None)

    def is_busy(self, uuid: str) -> bool:
        """Whether a thread looks after the guest's migration at this moment."""
        return self._busy[uuid] > 0

    def _forget(self, arguments: str) -> str:
        """The command with ARGUMENTS, as it finds this journal."""
        return self._records.naming(f"pcmig forget {arguments}")

    def _note(self, record: records.Record) -> tuple[str, bool]:
        """The situation, and whether it has been the same since a look a while ago."""
        uuid = record.entry.uuid
        situation = self._guard.situation(record)
        if self._seen.get(uuid) != situation:
            self._seen[uuid], self._since_s[uuid] = situation, time.monotonic()
            return situation, False
        return situation, time.monotonic() - self._since_s.get(uuid, 0.0) >= AGAIN_S

    def again(self, record: records.Record, manager: Any) -> None:
        """One that needed an operator: since the last look somebody may have repaired it."""
        uuid = record.entry.uuid
        before = self._seen.get(uuid)
        situation, again = self._note(record)
        if self.turner.takes(record, situation, manager):
            return
        if situation in _OFF and again:
            self._give_back(record, manager)
            return
        if situation == before or (
            situation in _HOPELESS and evacuation.left(self._guard.host, record) is None
        ):
            return
        adopted = self.recalled(record, manager)
        if adopted is not None:
            self._follow(adopted, manager)

    def _give_back(self, record: records.Record, manager: Any) -> None:
        """The guest ended with its migration. Nova's rollback gives everything back to the host where Nova
        has the server, which may be started there again. Its owner sees it in ERROR: it did not end well."""
        uuid = record.entry.uuid
        adopted = self.recalled(record, manager, off=True)
        if adopted is None:
            return
        instance = adopted.instance
        if adoption.is_there(adopted):
            self._follow(adopted, manager)
            return
        if record.disks_copied:
            self._records.release(uuid)
            LOG.error(
                "%(forget)s lets the server be started at its host again, but "
                "first: the guest is off on both hosts, its disks were copied, and if it had switched "
                "to post-copy those at %(dest)s are the newer ones; bring them here",
                {"forget": self._forget(f"--accept-loss {uuid}"), "dest": adopted.dest},
                instance=instance,
            )
            self._since_s[uuid] = time.monotonic() + 3600  # told once an hour
            return
        try:
            end = ending.Rollback(
                manager,
                adopted.context,
                instance,
                adopted.migration,
                self._records,
                record,
                adopted.source_bdms,
                recover=adopted.recover(manager),
                dest=adopted.dest,
                status="error",
                ports_stay=functools.partial(self._ports_come_back, adopted, manager),
            )
            if not self._run(end):
                return
            instance.refresh()
            manager._set_instance_obj_error_state(instance, clean_task_state=True)
        finally:
            self._records.release(uuid)
        self._records.remove(uuid, "source")
        self._seen.pop(uuid, None)
        LOG.warning(
            "openstack server reboot --hard %(uuid)s starts the server again, from its disks: it ended in "
            "its live migration, as both hosts have said twice",
            {"uuid": uuid},
            instance=instance,
        )

    def _ports_come_back(self, adopted: adoption.Adopted, manager: Any) -> None:
        """Of a guest that is off: nobody else binds them here, a hard reboot neither. Raises what is worth
        waiting for."""
        try:
            bindings.come_back(adopted.context, adopted.instance, adopted.migration, manager)
        except Exception as err:
            if patient(err):
                raise
            LOG.warning(
                "Cannot bind the ports here again; openstack port show tells where each is bound: %s",
                err,
                instance=adopted.instance,
            )

    def put_right(self, uuid: str) -> None:
        """Puts Nova's records right where an operator had one of the guest's forgotten. Raises what keeps it
        from that, and is to be called again then."""
        if not any(record.entry.uuid == uuid for record in self._records.forgotten):
            return  # without waiting for what is done for another guest
        with self._putting_right:
            for record in [each for each in self._records.forgotten if each.entry.uuid == uuid]:
                # One on record again is a younger migration's, and Nova's records are about that.
                if record.side == "source" and self._records.get(uuid) is None:
                    self._put_right(record, self._driver.virtapi._compute)
                self._records.forgotten.remove(record)

    def _put_right(self, record: records.Record, manager: Any) -> None:
        """As far as they are about this migration alone. Nothing of the guest or its disks is touched, on
        either host."""
        adopted = adoption.recall(record)
        if adopted is None and not self._give_up_volumes(record, manager):
            raise exception.ServiceUnavailable("Cinder does not delete the source's attachments yet")
        if (
            adopted is None
            or adoption.is_over(adopted)
            or adopted.instance.host != adopted.migration.source_compute
        ):
            return
        context, instance = adopted.context, adopted.instance
        self._ports_come_back(adopted, manager)
        ending.revert_allocation(manager, context, instance, adopted.migration)
        volumes.come_back(manager, context, instance, adopted.source_bdms)
        manager._set_migration_status(adopted.migration, "error")
        LOG.warning(
            "The live migration is forgotten: Nova's records are those of before it", instance=instance
        )

    def recalled(self, record: records.Record, manager: Any, *, off: bool = False) -> adoption.Adopted | None:
        """RECORD with what Nova knows, whose record is put right unless the guest is OFF; None when there is
        nothing to do (yet)."""
        adopted = self._recall(record, manager, off)
        if adopted is None:
            self._records.release(record.entry.uuid)
        return adopted

    def _recall(self, record: records.Record, manager: Any, off: bool) -> adoption.Adopted | None:
        uuid = record.entry.uuid
        try:
            self._records.claim(record)
            adopted = adoption.recall(record)
            if adopted is not None and adopted.migration.status == "completed":
                # Nova does this last; it is no harm where it is done.
                manager._delete_allocation_after_move(adopted.context, adopted.instance, adopted.migration)
                ending.check_allocation(manager, adopted.context, adopted.migration)
            if adopted is None and not self._give_up_volumes(record, manager):
                self._seen.pop(uuid, None)
                return None
            if adopted is None or adoption.is_over(adopted):
                LOG.info("The migration of guest %s is over", uuid)
                self._records.remove(uuid, "source")
                return None
            if guard.insists(adopted.instance):
                return None
            if evacuation.left(self._guard.host, record) is not None:
                self._evacuated(adopted, manager)
                return None
            if adoption.is_elsewhere(adopted):
                LOG.error(
                    "The guest is on %(host)s by Nova's record, where its migration to %(dest)s did not take "
                    "it: nothing is done to it",
                    {"host": adopted.instance.host, "dest": adopted.dest},
                    instance=adopted.instance,
                )
                return None
            if not off and not adoption.is_there(adopted):
                adoption.goes_on(adopted)
        except journal.HeldError as err:
            LOG.warning("%s", err)
            self._seen.pop(uuid, None)
            return None
        except Exception:  # the conductor, its database, a journal of another release: later again
            LOG.exception("Cannot adopt the migration of guest %s yet", uuid)
            self._seen.pop(uuid, None)
            return None
        if off:
            return adopted
        LOG.info(
            "Live migration %(migration)s to %(dest)s, begun %(started)s, is adopted",
            {
                "migration": adopted.migration.uuid,
                "dest": adopted.dest,
                "started": record.entry.started,
            },
            instance=adopted.instance,
        )
        return adopted

    def _give_up_volumes(self, record: records.Record, manager: Any) -> bool:
        """If the server is deleted, and not its migration's record alone. False: it is to be called again."""
        try:
            objects.Instance.get_by_uuid(adoption.context_of(record), record.entry.uuid)
        except exception.InstanceNotFound:
            return attachments.give_up(manager, record, self._guard.evidence(record)["source"])
        return True

    def _evacuated(self, adopted: adoption.Adopted, manager: Any) -> None:
        """The server runs elsewhere, and what is left of it here never may again. Nova has its rest destroyed
        when it starts, and leaves the live migration under way, with resources of this host."""
        record, instance, migration = adopted.record, adopted.instance, adopted.migration
        if self._guard.evidence(record)["source"] == "absent":
            manager._delete_allocation_after_move(adopted.context, instance, migration)
            ending.check_allocation(manager, adopted.context, migration)
            if migration.status not in ("error", *adoption.OVER):
                manager._set_migration_status(migration, "error")
            LOG.info("The guest was evacuated, its migration is over", instance=instance)
            self._records.remove(record.entry.uuid, "source")
            return
        LOG.error(
            "virsh destroy %(name)s: this host still has half a guest that was evacuated to %(host)s and "
            "runs there; then: %(forget)s",
            {
                "name": record.entry.name,
                "host": instance.host,
                "forget": self._forget(record.entry.uuid),
            },
            instance=instance,
        )

    def carry_out(self, end: ending.Ending) -> None:
        """END goes on on a thread of its own, which holds none of Nova's places for live migrations."""
        self.on_thread(str(end.instance.uuid), self.carry_out_here, end)

    def carry_out_here(self, end: ending.Ending) -> None:
        instance = end.instance
        manager = self._driver.virtapi._compute
        uuid = str(instance.uuid)
        try:
            if not self._run(end):
                return
        except exception.InstanceNotFound:
            LOG.info("The server of a live migration is deleted: nothing is to be written down any more")
            record = self._records.get(uuid)
            if record is not None and not self._give_up_volumes(record, manager):
                self.looks_anew(uuid)
                self._records.release(uuid)
                return
        except Exception:
            self._failed(end.migration, instance, manager)
            return
        if isinstance(end, turned_back.TurnedBack):  # its record stays until that QEMU has ended
            self._records.release(uuid)
            return
        self._records.remove(uuid, "source")
        self._seen.pop(uuid, None)

    def _run(self, end: ending.Ending) -> bool:
        """END, which waits() tells of."""
        uuid = str(end.instance.uuid)
        self._ends[uuid] = end
        try:
            return end.run(self.wait)
        finally:
            self._ends.pop(uuid, None)

    def seen(self) -> dict[str, str]:
        """The situation of each guest on record that is not driven here, at the last look."""
        return dict(self._seen)

    def looks_anew(self, uuid: str) -> None:
        """What was found before counts no more."""
        self._seen.pop(uuid, None)

    def waits(self, uuid: str) -> str | None:
        """Why the end of a guest's migration is not written down yet, as far as it waits for something."""
        end = self._ends.get(uuid)
        return None if end is None else end.waits

    def wait(self, seconds: float) -> bool:
        return ending.wait(self.stopping, seconds)

    def _failed(self, migration: Any, instance: Any, manager: Any) -> None:
        """Called for an error. As ComputeManager._do_live_migration does; people have to look after it then.
        What cannot be written down either is tried again at the next look."""
        LOG.exception("Live migration failed.", instance=instance)
        uuid = str(instance.uuid)
        try:
            manager._set_migration_status(migration, "error")
            instance.refresh()
            manager._set_instance_obj_error_state(instance, clean_task_state=True)
            record = self._records.get(uuid)
            if record is not None:
                self._note(record)
        finally:  # on_thread() tells of what is raised here
            self._records.release(uuid)

    def _follow(self, adopted: adoption.Adopted, manager: Any) -> None:
        uuid = adopted.record.entry.uuid
        if adoption.is_there(adopted):
            self.carry_out_here(
                ending.Completion(
                    manager,
                    adopted.context,
                    adopted.instance,
                    adopted.migration,
                    self._records,
                    adopted.record,
                    adopted.source_bdms,
                    post=adopted.post(manager),
                )
            )
            return
        steered: steer.Steered | None = None
        try:
            steered = self._driver._steer_adopted(adopted)
            status = self._monitor(adopted, steered)
            if steered.gives_way is not None and status["outcome"] == "detached":
                steered.detached = True
                self.turner.begin(adopted.record, steered.gives_way, status)
                return
            if steered.detached:
                return
            self._driver._tell(
                status,
                steered,
                adopted.context,
                adopted.instance,
                adopted.migration,
                migrate_data=adopted.migrate_data,
                dest=adopted.dest,
                source_bdms=adopted.source_bdms,
                post=adopted.post(manager),
                recover=adopted.recover(manager),
                finish=self._run,
            )
        except Exception:
            self._failed(adopted.migration, adopted.instance, manager)
        else:
            if not steered.detached:
                self._records.remove(uuid, "source")
                self._seen.pop(uuid, None)
        finally:
            self._driver._adopted_ended(uuid)
            if steered is not None:
                steered.end()

    def _monitor(self, adopted: adoption.Adopted, steered: steer.Steered) -> dict[str, Any]:
        entry, instance = adopted.record.entry, adopted.instance
        try:
            guest = self._driver._host.get_guest(instance)
        except Exception as err:  # it has moved, or libvirt does not answer now: no downtime is to be set
            LOG.info("Its downtime is left as it is: %s", err, instance=instance)
            guest = None
        engine: _core.Migration = steered.adopt(
            entry.uuid, entry.dest_uri, entry.engine, entry.tunnel, crossed=entry.crossed
        )
        data_gb = self._driver._live_migration_data_gb(instance, [])
        monitor = steer.Monitor(
            steered, adopted.context, instance, guest, adopted.migration, data_gb, crossed=entry.crossed
        )
        return monitor.follow(engine)
