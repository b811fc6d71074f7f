# SPDX-License-Identifier: Apache-2.0
"""The end of a live migration: has Nova's own code carry it out, and write down where the guest is.

The engine's verdict stands by then. What Nova's code does after it may fail, or not be possible yet: then it
is called again until Nova's database says where the guest is, without doing anything twice that is not to be
repeated (once.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from nova import exception, objects
from nova.compute import task_states, vm_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from pcmig.nova import guard, once, records, volumes
from pcmig.nova.away import patient

LOG = logging.getLogger(__name__)

# Between attempts, and how often an error is taken before it is believed.
RETRY_S = (5, 10, 20, 30, 60)
UNREACHED_S = 10  # the longest as long as the guest's ports are bound where it is not
ERRORS = 5
ROLLBACK = "rollback"  # the mark that Nova's rollback has done what can be repeated


def migrates(instance: Any) -> bool:
    """Has Nova's record say (again) that the guest migrates, so that nothing else is done to it; whether it
    does. What the server's owner asked for meanwhile stays."""
    if guard.insists(instance):
        return False
    if instance.task_state == task_states.MIGRATING and instance.vm_state != vm_states.ERROR:
        return True
    before = instance.task_state
    if before not in (None, task_states.MIGRATING):
        return False
    instance.task_state = task_states.MIGRATING
    if instance.vm_state == vm_states.ERROR:
        instance.vm_state = vm_states.ACTIVE
    try:
        instance.save(expected_task_state=[before])
    except exception.UnexpectedTaskStateError:  # somebody was faster
        instance.refresh()
        return False
    return True


def wait(stopping: Any, seconds: float) -> bool:
    """Whether the service ends within SECONDS. STOPPING is a threading.Event."""
    deadline_s = time.monotonic() + seconds
    while not stopping.is_set() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return bool(stopping.is_set())


def check_allocation(manager: Any, context: Any, migration: Any) -> None:
    """Nova's client of placement does not always raise what keeps it from answering, and Nova's code goes on
    then. The migration's is gone at its end, whatever that is."""
    if _has_allocation(manager, context, migration):
        raise exception.ServiceUnavailable(
            f"placement still has the allocation of migration {migration.uuid}"
        )


def revert_allocation(manager: Any, context: Any, instance: Any, migration: Any) -> None:
    """What MIGRATION holds is the server's at the source again. May be repeated. Raises what keeps placement
    from answering; what it refuses, of a host that is overcommitted by now say, is told."""
    for _ in range(2):  # Nova's code says nothing of an answer that did not come; no two in a row are lost so
        if not _has_allocation(manager, context, migration):
            return
        manager._revert_allocation(context, instance, migration)
    if _has_allocation(manager, context, migration):
        LOG.error(
            "openstack resource provider allocation delete %(migration)s, then nova-manage placement "
            "heal_allocations --instance %(server)s --force: placement does not give what the live migration "
            "held at the source back to the server",
            {"migration": migration.uuid, "server": instance.uuid},
            instance=instance,
        )


def _has_allocation(manager: Any, context: Any, migration: Any) -> bool:
    return bool(manager.reportclient.get_allocs_for_consumer(context, migration.uuid)["allocations"])


class Ending:
    """One migration's. MANAGER is Nova's ComputeManager, None where there is none; RECORD is None for what is
    not on record. SOURCE_BDMS are the source's volumes, as Nova's code gets them."""

    def __init__(
        self,
        manager: Any,
        context: Any,
        instance: Any,
        migration: Any,
        known: records.Records,
        record: records.Record | None,
        source_bdms: Any,
    ) -> None:
        self._manager = manager
        self._context = context
        self.instance = instance
        self.migration = migration
        self._records = known
        self._record = record
        self._acts = None if record is None else once.Acts(known, record, instance)
        self._source_bdms = source_bdms
        self._attempts = 0
        self._errors = 0  # that say more than that somebody is away,
        self._most = ERRORS  # and how many of them are believed
        self._unreached = False  # its ports are not bound here yet
        self._why = ""  # the last attempt was none
        self._lost: str | None = None  # why there will be no other

    WAITS = "The end of the live migration cannot be written down yet"

    def run(self, stopping: Callable[[float], bool]) -> bool:
        """Until it is carried out; False when the service ends before, or the server is none of ours any
        more. STOPPING waits so many seconds and says whether the service ends. Raises what Nova's code goes
        on raising."""
        while True:
            if self._attempts > 0:
                pause_s = RETRY_S[min(self._attempts, len(RETRY_S)) - 1]
                if self._unreached:
                    pause_s = min(pause_s, UNREACHED_S)
                LOG.warning(
                    "%(why)s; again in %(pause)d s",
                    {"why": self.waits, "pause": pause_s},
                    instance=self.instance,
                )
                if stopping(pause_s):
                    return False
            if self.attempt():
                return True
            if self._lost is not None:
                LOG.error("%s: %s", self.WAITS, self._lost, instance=self.instance)
                if self._forgotten():
                    self._let_go()
                return False

    @property
    def waits(self) -> str | None:
        """What it waits for, in words; None before the first attempt is over."""
        return f"{self.WAITS}: {self._why}" if self._why else None

    def attempt(self) -> bool:
        """Once; whether it is carried out. Raises what is not to be tried again: an error that came ERRORS
        times."""
        self._attempts += 1
        if self._manager is None:
            self._carry_out()
            return True
        try:
            # What is raised here has Nova put the server into ERROR, whose guest runs: a bus that is down is
            # waited for.
            self.instance.refresh()
        except Exception as err:
            return self._wait_for(err)
        self._lost = self._elsewhere()
        return self._lost is None and self._attempt()

    def _wait_for(self, err: Exception, counts: bool = True) -> bool:
        """Called for an error: it is raised, or there will be another attempt. COUNTS: it may be raised for
        what it says, if there are too many."""
        self._errors += counts and not patient(err)
        if isinstance(err, exception.InstanceNotFound) or self._errors >= self._most:
            raise err
        self._why = f"{type(err).__name__}: {err}"
        return False

    def _attempt(self) -> bool:
        try:
            if not self._ours():
                return False
            self._carry_out()
        except Exception as err:
            self._wait_for(err)
            self._take_back()
            return False
        return True

    def _take_back(self) -> None:
        """After an error Nova may have the server idle by its record: before anybody asks for something,
        another live migration say, that says again that it migrates."""
        try:
            self.instance.refresh()
            if self._elsewhere() is None:
                migrates(self.instance)
        except Exception as err:  # the next attempt does it
            LOG.warning("Cannot put the server's task state back: %s", err, instance=self.instance)

    def ports_first(self, come_back: Callable[[], None]) -> None:
        """The guest runs, and nobody reaches it where its ports are bound to the destination: COME_BACK binds
        them here. Raises what is worth waiting for."""
        try:
            self._unreached = True
            come_back()
            self._unreached = False
        except Exception as err:
            if patient(err):
                raise
            self._unreached = False
            LOG.exception(
                "Cannot see to the bindings of the ports; openstack port show tells where each is bound",
                instance=self.instance,
            )

    def _elsewhere(self) -> str | None:
        """Why nothing is to be done any more; None as long as something is."""
        if self._forgotten():
            return "its record was removed, and with it goes what was left to do"
        if self._overtaken():
            return "another live migration of the server is on record by now, and its books are that one's"
        host, left = str(self.instance.host), self._record is not None and self._record.left
        if host == str(self.migration.dest_compute) or (
            host == str(self.migration.source_compute) and not left
        ):
            return None
        return f"Nova has the server on {host} by now, where this migration did not take it"

    def _forgotten(self) -> bool:
        """Whether somebody removed the record."""
        return self._record is not None and self._records.get(self._record.entry.uuid) is None

    def _overtaken(self) -> bool:
        """Whether the record is that of another migration by now."""
        if self._record is None:
            return False
        now = self._records.get(self._record.entry.uuid)
        return now is not None and now.of != self._record.of

    def _let_go(self) -> None:
        """The server is its owner's again, as far as it is our word that says that it migrates."""
        if self.instance.task_state != task_states.MIGRATING:
            return
        self.instance.task_state = None
        with contextlib.suppress(exception.UnexpectedTaskStateError):
            self.instance.save(expected_task_state=[task_states.MIGRATING])

    def _ours(self) -> bool:
        """Whether Nova's record says that the guest migrates, as Nova's code wants it. A server that is
        being deleted is let be after the first time."""
        if migrates(self.instance) or (guard.insists(self.instance) and self._attempts == 1):
            return True
        state = self.instance.task_state or self.instance.vm_state
        self._why = f"Nova's record of the server says '{state}', which comes first"
        return False

    def check_allocation(self) -> None:
        check_allocation(self._manager, self._context, self.migration)

    def _carry_out(self) -> None:
        raise NotImplementedError


class Completion(Ending):
    """The guest has moved. POST is Nova's _post_live_migration_update_host; it takes source_bdms."""

    WAITS = "The guest has moved, but that cannot be written down yet"

    def __init__(self, *arguments: Any, post: Callable[..., Any]) -> None:
        super().__init__(*arguments)
        self._post = post

    def _attempt(self) -> bool:
        try:
            if self._is_written_down():
                self._manager._delete_allocation_after_move(self._context, self.instance, self.migration)
                self.check_allocation()
                return True
            if not self._ours():
                return False
            self._here()
            self._carry_out()
            self.check_allocation()
        except Exception as err:
            self._wait_for(err, counts=not self._is_written_down())
            self._take_back()
            return False
        return True

    def _is_written_down(self) -> bool:
        """All but what placement has for the migration."""
        return self.migration.status == "completed" and "status" not in self.migration.obj_what_changed()

    def _here(self) -> None:
        """Nova's code finds the server at the source, in this object only: the destination removes the ports'
        bindings of the host that it names."""
        source = str(self.migration.source_compute)
        if str(self.instance.host) == source:
            return
        if self._acts is not None:
            self._acts.left()
        once.says_at(self.instance, source)

    def _carry_out(self) -> None:
        state = None if self._acts is None else self._acts.state(once.ATTACHMENTS)
        if state is None:
            self._post()
        else:
            self._post(source_bdms=self._attachments_left(state))

    def _attachments_left(self, state: str) -> Any:
        """Those whose end Nova's code is to be asked for again."""
        left = []
        if state == once.BEGUN:  # by a process that is gone; the identifier is the source's alone
            volumes = [bdm for bdm in self._source_bdms or [] if bdm.is_volume]
            left = [bdm for bdm in volumes if bdm.attachment_id is not None]
            for bdm in volumes:
                if bdm.attachment_id is None:
                    LOG.error(
                        "The connection of volume %(volume)s to this host may not be terminated, and is not "
                        "a second time: openstack volume attachment list --volume-id %(volume)s says whether "
                        "it is there",
                        {"volume": bdm.volume_id},
                        instance=self.instance,
                    )
        return objects.BlockDeviceMappingList(objects=left)

    def _take_back(self) -> None:
        """Nova has the server at the destination by then."""
        if self._acts is not None and self._acts.state(once.ATTACHMENTS) == once.BEGUN:
            self._acts.mark(once.ATTACHMENTS, once.DONE)
        if not self._is_written_down():
            super()._take_back()


class Rollback(Ending):
    """The guest has stayed. RECOVER is Nova's _rollback_live_migration, STATUS what it is to write down.
    PORTS_STAY binds the ports here again that were activated at the destination (bindings.py)."""

    WAITS = "The guest has stayed at the source, but that cannot be written down yet"

    def __init__(
        self,
        *arguments: Any,
        recover: Callable[..., Any],
        dest: str,
        status: str,
        ports_stay: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(*arguments)
        self._ports_stay = ports_stay
        self._recover = recover
        self._dest = dest
        self._status = status
        self._recovered = False  # Nova's rollback came to its end
        if self._acts is None:  # how far Nova's rollback came is not known
            self._most = 1

    def _carry_out(self) -> None:
        if self._manager is not None:
            self.ports_first(self._ports_stay)
        if self._acts is not None and self._acts.state(ROLLBACK) is not None:
            self._write_down()
            return
        self._recover(migration_status=self._status)
        self._recovered = True
        if self._manager is not None and self._acts is not None:
            self.check_allocation()
            volumes.check(self._context, self.instance, self._source_bdms)

    def _write_down(self) -> None:
        """What of Nova's rollback may be repeated: by the time it failed, Nova's volumes may be the source's
        again, and the destination would disconnect those."""
        if not self._recovered:
            LOG.error(
                "Nova's rollback of this live migration was begun before, and is not done again: only Nova's "
                "records are put right. On %(dest)s something of the guest may be left: ls -d %(folder)s "
                "says which files, lsblk which disks, virsh domstate %(name)s that it does not run there",
                {
                    "dest": self._dest,
                    "name": self.instance.name,
                    "folder": libvirt_utils.get_instance_path(self.instance),
                },
                instance=self.instance,
            )
        manager, context, instance = self._manager, self._context, self.instance
        revert_allocation(manager, context, instance, self.migration)
        volumes.come_back(manager, context, instance, self._source_bdms)
        try:
            manager.network_api.setup_networks_on_host(context, instance, host=self._dest, teardown=True)
        except exception.PortBindingDeletionFailed as err:  # as Nova takes it
            LOG.error("Bindings of ports at %s may be left: %s", self._dest, err, instance=instance)
        instance.task_state = None
        instance.progress = 0
        instance.drop_migration_context()
        instance.save(expected_task_state=[task_states.MIGRATING])
        manager._set_migration_status(self.migration, self._status)
