# SPDX-License-Identifier: Apache-2.0
"""Looks after the migrations on record that no thread of this nova-compute follows: those of its predecessor,
and those that an operator had to repair."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nova import exception
from oslo_log import log as logging

from pcmig import _core, journal
from pcmig.nova import adoption, ending, guard, records, steer

LOG = logging.getLogger(__name__)

# Where only people can help: the engine would say so again.
_HOPELESS = ("half-lost", "gone", "double", "in-doubt", "silent", "unseen")


class Keeper:
    """DRIVER is the compute driver. look_after() is to be called once when Nova has looked at its instances
    and before it serves requests, and now and then after."""

    def __init__(self, driver: Any, known: records.Records, guard_: guard.Guard) -> None:
        self._driver = driver
        self._records = known
        self._guard = guard_
        self.starting = True
        self.stopping = threading.Event()
        self._busy: set[str] = set()
        self._seen: dict[str, str] = {}  # situation at the last look
        self._ends: dict[str, ending.Ending] = {}  # those that are not carried out yet

    def of_nova(self, instances: Any) -> list[Any]:
        """INSTANCES but those that are looked after here: Nova would end their migrations at its start."""
        return [
            instance
            for instance in instances
            if guard.insists(instance) or self._record(instance.uuid) is None
        ]

    def _record(self, uuid: str) -> records.Record | None:
        record = self._records.get(uuid)
        return record if record is not None and record.side == "source" else None

    def keeps(self, instance: Any) -> bool:
        """Whether Nova, starting, must not touch the migration of INSTANCE."""
        return self.starting and bool(self._records) and self._record(instance.uuid) is not None

    def look_after(self) -> None:
        first, self.starting = self.starting, False
        if not self._records:
            return
        manager = getattr(self._driver.virtapi, "_compute", None)
        for record in self._records.all():
            uuid = record.entry.uuid
            if uuid in self._busy or self._driver._follows(uuid):
                continue
            if record.side == "destination":
                self._on_thread(uuid, self._drop_if_settled, record)
            elif manager is not None and first:
                adopted = self._recalled(record, manager)
                if adopted is not None:
                    self._on_thread(uuid, self._follow, adopted, manager)
            elif manager is not None:
                self._on_thread(uuid, self._again, record, manager)

    def _on_thread(self, uuid: str, call: Callable[..., None], *arguments: Any) -> None:
        """eventlet makes it one of its own."""
        self._busy.add(uuid)

        def work() -> None:
            try:
                call(*arguments)
            except Exception:  # whatever it is, it is tried again later
                LOG.exception("Cannot look after the migration of guest %s", uuid)
            finally:
                self._busy.discard(uuid)

        threading.Thread(target=work, name=f"pcmig-{uuid[:8]}", daemon=True).start()

    def _drop_if_settled(self, record: records.Record) -> None:
        """Of a guest that should have come here. Nova does not always tell the destination how it ended."""
        uuid = record.entry.uuid
        if adoption.comes_here(uuid):
            self._seen.pop(uuid, None)
            return
        situation = self._guard.situation(record)
        if situation in guard.SETTLED and self._seen.get(uuid) == situation:
            self._records.remove(uuid, "destination")
            self._seen.pop(uuid, None)
        else:
            self._seen[uuid] = situation

    def _again(self, record: records.Record, manager: Any) -> None:
        """One that needed an operator: since the last look somebody may have repaired it."""
        uuid = record.entry.uuid
        situation = self._guard.situation(record)
        before, self._seen[uuid] = self._seen.get(uuid), situation
        if situation in _HOPELESS or situation == before:
            return
        adopted = self._recalled(record, manager)
        if adopted is not None:
            self._follow(adopted, manager)

    def _recalled(self, record: records.Record, manager: Any) -> adoption.Adopted | None:
        """RECORD with what Nova knows, whose record is put right; None when there is nothing to do (yet)."""
        uuid = record.entry.uuid
        try:
            self._records.claim(record)
            adopted = adoption.recall(record)
            if adopted is not None and adopted.migration.status == "completed":
                # Nova does this last; it is no harm where it is done.
                manager._delete_allocation_after_move(adopted.context, adopted.instance, adopted.migration)
            if adopted is None or adoption.is_over(adopted):
                LOG.info("The migration of guest %s is over", uuid)
                self._records.remove(uuid, "source")
                return None
            if guard.insists(adopted.instance):
                return None
            if adoption.is_elsewhere(adopted):
                LOG.error(
                    "The guest is on %(host)s by Nova's record, where its migration to %(dest)s did not take "
                    "it: nothing is done to it",
                    {"host": adopted.instance.host, "dest": adopted.dest},
                    instance=adopted.instance,
                )
                return None
            if not adoption.is_there(adopted):
                adoption.goes_on(adopted)
        except journal.HeldError as err:
            LOG.warning("%s", err)
            self._seen.pop(uuid, None)
            return None
        except Exception:  # the conductor, its database, a journal of another release: later again
            LOG.exception("Cannot adopt the migration of guest %s yet", uuid)
            self._seen.pop(uuid, None)
            return None
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

    def carry_out(self, end: ending.Ending) -> None:
        """END goes on on a thread of its own, which holds none of Nova's places for live migrations."""
        self._on_thread(str(end.instance.uuid), self._carry_out, end)

    def _carry_out(self, end: ending.Ending) -> None:
        instance = end.instance
        manager = self._driver.virtapi._compute
        uuid = str(instance.uuid)
        self._ends[uuid] = end
        try:
            if not end.run(self._wait):
                return
        except exception.InstanceNotFound:
            LOG.info("The server of a live migration is deleted: nothing is to be written down any more")
        except Exception:
            LOG.exception("Live migration failed.", instance=instance)
            self._failed(end.migration, instance, manager)
            record = self._records.get(uuid)
            if record is not None:
                self._seen[uuid] = self._guard.situation(record)
            return
        finally:
            self._ends.pop(uuid, None)
        self._records.remove(uuid, "source")
        self._seen.pop(uuid, None)

    def waits(self, uuid: str) -> str | None:
        """Why the end of a guest's migration is not written down yet, as far as it waits for something."""
        end = self._ends.get(uuid)
        return None if end is None else end.waits

    def _wait(self, seconds: float) -> bool:
        return ending.wait(self.stopping, seconds)

    def _failed(self, migration: Any, instance: Any, manager: Any) -> None:
        """As ComputeManager._do_live_migration does."""
        manager._set_migration_status(migration, "error")
        instance.refresh()
        manager._set_instance_obj_error_state(instance, clean_task_state=True)

    def _follow(self, adopted: adoption.Adopted, manager: Any) -> None:
        uuid = adopted.record.entry.uuid
        if adoption.is_there(adopted):
            self._carry_out(
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
        steered = self._driver._steer_adopted(adopted)
        try:
            self._activate_bindings(adopted, manager)
            status = self._monitor(adopted, steered)
            if steered.detached:
                return
            self._driver._tell(
                status,
                steered,
                adopted.context,
                adopted.instance,
                adopted.migration,
                dest=adopted.dest,
                source_bdms=adopted.source_bdms,
                post=adopted.post(manager),
                recover=adopted.recover(manager),
                finish=lambda end: end.run(self._wait),
            )
        except Exception:
            LOG.exception("Live migration failed.", instance=adopted.instance)
            self._failed(adopted.migration, adopted.instance, manager)
            self._seen[uuid] = self._guard.situation(adopted.record)
        else:
            if not steered.detached:
                self._records.remove(uuid, "source")
                self._seen.pop(uuid, None)
        finally:
            self._driver._adopted_ended(uuid)
            steered.end()

    def _activate_bindings(self, adopted: adoption.Adopted, manager: Any) -> None:
        """As Nova's event handler does at the switch, which nobody may have noticed."""
        where = self._guard.evidence(adopted.record)["destination"]
        if where not in ("postcopy", "postcopy-failed", "running"):
            return
        try:
            manager.network_api.migrate_instance_start(adopted.context, adopted.instance, adopted.migration)
        except Exception as err:  # it is done again at the end
            LOG.warning("Cannot activate the ports at the destination: %s", err, instance=adopted.instance)

    def _monitor(self, adopted: adoption.Adopted, steered: steer.Steered) -> dict[str, Any]:
        entry, instance = adopted.record.entry, adopted.instance
        try:
            guest = self._driver._host.get_guest(instance)
        except exception.InstanceNotFound:
            guest = None  # it has moved: no downtime is to be set
        engine: _core.Migration = steered.adopt(entry.uuid, entry.dest_uri, entry.engine, entry.tunnel)
        data_gb = self._driver._live_migration_data_gb(instance, [])
        monitor = steer.Monitor(steered, adopted.context, instance, guest, adopted.migration, data_gb)
        return monitor.follow(engine)
