# SPDX-License-Identifier: Apache-2.0
"""The compute driver: Nova's own for libvirt, with the C engine where post-copy is in play.

Where it is not, every call goes to Nova's code as it came.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from nova import exception
from nova.compute import utils as compute_utils
from nova.conf import CONF
from nova.virt import event as virtevent
from nova.virt.libvirt import driver as libvirt_driver
from oslo_log import log as logging

from pcmig import _core, turn_back_cost
from pcmig.nova import (
    adoption,
    announcing,
    attachments,
    bindings,
    conf,
    connection_lock,
    ending,
    flags,
    huge_pages,
    once,
    planning,
    port_answers,
    ports,
    releases,
    steer,
    turning,
    unread,
    waking,
    words,
)
from pcmig_common import choice, messages, turned_back
from pcmig_common.i18n import _

LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# Nova's handler of the switch comes after ours, which binds all ports at once; and at the latest after:
PORTS_FIRST_S = 10.0


class PostCopyLibvirtDriver(planning.PlanningLibvirtDriver):
    """compute_driver = pcmig.PostCopyLibvirtDriver"""

    _arrivals: str | None = None  # why no guest can arrive here by post-copy, as far as it was looked at

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        self._host_live_flags = self._host_block_flags = 0
        self._nova_flags = (0, 0)  # as Nova computed them
        self._this_thread = threading.local()
        self._events: queue.SimpleQueue[Any] | None = None
        self._messages: Any = None  # the message server, where there is one
        self._announcer = announcing.Announcer(lambda uuid: self._records.get(uuid))
        # Here and not in init_host, where SystemExit does not end the process: what is wrong by itself,
        # whatever libvirt and QEMU are.
        try:
            self._options = conf.load(CONF)
            _core.set_connect_timeout(self._options.connect_timeout_ms)
            super().__init__(virtapi, read_only)
            connection_lock.reenter(self._host)
            self._check_flags()
        except conf.ConfigError as err:
            _refuse_to_start(str(err))

    # Flags: Nova reads them as two attributes, one pair for the host. Here they are those of the migration
    # that the calling thread works on.

    @property
    def _live_migration_flags(self) -> int:
        plan = getattr(self._this_thread, "plan", None)
        return self._host_live_flags if plan is None else plan.flags

    @_live_migration_flags.setter
    def _live_migration_flags(self, bits: int) -> None:
        self._host_live_flags = bits

    @property
    def _block_migration_flags(self) -> int:
        plan = getattr(self._this_thread, "plan", None)
        return self._host_block_flags if plan is None else plan.flags

    @_block_migration_flags.setter
    def _block_migration_flags(self, bits: int) -> None:
        self._host_block_flags = bits

    def _check_flags(self) -> None:
        """Raises conf.ConfigError as init_host() would; the flags are 0 until then, as Nova has it."""
        super()._parse_migration_flags()
        found = (self._host_live_flags, self._host_block_flags)
        self._host_live_flags = self._host_block_flags = 0
        if all(isinstance(bits, int) for bits in found):  # or Nova's tests play libvirt
            flags.merge(CONF, *found)

    def _parse_migration_flags(self) -> None:
        super()._parse_migration_flags()
        self._nova_flags = (self._host_live_flags, self._host_block_flags)
        self._merge_flags()

    def _merge_flags(self, **versions: int) -> flags.MigrationFlags:
        merged = flags.merge(CONF, *self._nova_flags, **versions)
        if self._options.shadow:
            return merged  # Nova's own stay in force, and post-copy is nobody's business here
        self._flags = merged
        self._host_live_flags, self._host_block_flags = merged.live.bits, merged.block.bits
        return merged

    def init_host(self, host: str) -> None:
        super().init_host(host)
        # Nova's thread runs libvirt's event loop by now; one loop in a process is enough.
        _core.share_event_loop()
        # Again, now that Nova has judged the versions of libvirt and QEMU for itself.
        connection = self._host.get_connection()
        try:
            merged = self._merge_flags(
                qemu_version=connection.getVersion(), libvirt_version=connection.getLibVersion()
            )
        except conf.ConfigError as err:
            # As Nova's own complaint about versions does (nova/virt/libvirt/driver.py, init_host).
            raise exception.InternalError(str(err)) from err
        for warning in (*merged.warnings, *unread.unread(unread.files_of(CONF))):
            LOG.warning("pcmig: %s", warning)
        if self._options.shadow:
            LOG.info(
                "Shadow: Nova drives every live migration; what pcmig would have decided under policy "
                "%(policy)s is logged and kept",
                {"policy": self._options.policy},
            )
        for name, kind in (("live", merged.live), ("block", merged.block)):
            if kind.post_copy and not self._options.shadow:
                LOG.info(
                    "Post-copy is permitted for %(kind)s migrations, policy %(policy)s (%(source)s), "
                    "flags %(flags)s",
                    {
                        "kind": name,
                        "policy": kind.policy,
                        "source": kind.policy_from,
                        "flags": ", ".join(kind.origins),
                    },
                )
        if (merged.live.tunnel or merged.block.tunnel) and not self._options.shadow:
            obstacle = self._options.tunnel.obstacle()
            if obstacle is None:
                LOG.info("Migrations with post-copy go through pcmig's tunnel")
            else:
                LOG.warning("No migration with post-copy can leave this host: %s", obstacle)
        if (merged.live.post_copy or merged.block.post_copy) and adoption.lacks_cinder(CONF):
            LOG.warning("%s", adoption.NO_CINDER)
        if hasattr(self.virtapi, "_compute"):  # a nova-compute, whom others find on the bus
            attachments.keep(self.virtapi._compute, self._records, self._keeper.put_right)
            self._messages = messages.serve(
                host,
                self._progress,
                lambda: self._arrivals,
                self._turn_back,
                CONF.libvirt.live_migration_inbound_addr,
                port_answers.PortAnswers(self._records.get).answer,
                lambda uuid: waking.reset(self._uri(), uuid),
                huge_pages.at_destination,
            )
        self._records.load()
        if hasattr(self.virtapi, "_compute"):
            self._metering.start()

    def cleanup_host(self, host: str) -> None:
        # What is in flight goes on without us, and is adopted at the next start.
        self._keeper.stopping.set()
        steered = [plan.steered for plan in list(self._plans.values()) if plan.steered is not None]
        stops: list[Callable[[], None]] = [each.detach for each in steered]
        stops += [
            functools.partial(messages.stop, self._messages),
            self._announcer.stop,
            self._metering.stop,
        ]
        for stop in stops:
            try:
                stop()
            except Exception:  # what comes after has nothing to do with it
                LOG.exception("Not everything could be stopped")
        super().cleanup_host(host)

    def _progress(self, instance: str) -> messages.Answer:
        """For the API's os-pcmig, on a thread of the message server."""
        plan = self._plans.get(instance)
        if plan is None:
            waits = self._keeper.waits(instance) or self._guard.told.of(instance)
            return None, waits or "no live migration of this server is under way here"
        if plan.steered is None:
            return None, f"Nova drives this migration: {plan.reason}"
        found = plan.steered.progress()
        if found is not None:
            found["way_back"] = plan.way_back
        return found, None if found is not None else "the migration is being prepared"

    def _turn_back(self, context: Any, uuid: str, said: turned_back.Words) -> str | None:
        """For an administrator, on a thread of the message server; why not, or None: it has begun."""
        record = self._records.get(uuid) if self._records else None
        if record is None or record.side != "source":
            return "no live migration of this server from here is on record: there is nothing to turn back"
        if record.turned:
            return "the server turned back already"
        request = turning.Request(said)
        try:
            self._turning.may(context, record, request)
        except turning.NotNow as err:
            return str(err)
        steered = self._steered_by(uuid)
        if steered is not None:
            return None if steered.give_way(request) else "the migration moves: look again in a while"
        return self._keeper.turner.begin(record, request, None)

    # The checks before a migration

    def check_can_live_migrate_destination(
        self,
        context: Any,
        instance: Any,
        src_compute_info: Any,
        dst_compute_info: Any,
        block_migration: Any = False,
        disk_over_commit: Any = False,
    ) -> Any:
        with self._last_word_if_it_fails(instance):
            why = self._records.unreadable(str(instance.uuid))
            if why is not None:  # it could not be stopped or rebooted here
                self._fail_check(instance, _("this host has a record of it that cannot be used"), why)
            data = super().check_can_live_migrate_destination(
                context, instance, src_compute_info, dst_compute_info, block_migration, disk_over_commit
            )
            try:
                # Which kind of migration it becomes is known only after the source's check.
                kinds = {True, False} if "block_migration" not in data else {data.block_migration}
                choices = [self._choose(context, instance, kind, []) for kind in kinds]
                if any(chosen.post_copy for chosen in choices):
                    # The source asks for it, and leaves post-copy out of what does not have to have it.
                    self._arrivals = self._destination_reason()
                    if self._arrivals is not None and any(chosen.demanded for chosen in choices):
                        self._fail_check(
                            instance, _("no server can arrive at this host by post-copy"), self._arrivals
                        )
            except Exception:
                self.cleanup_live_migration_destination_check(context, data)
                raise
        return data

    def check_can_live_migrate_source(
        self, context: Any, instance: Any, dest_check_data: Any, block_device_info: Any = None
    ) -> Any:
        with self._last_word_if_it_fails(instance):
            self._refuse_until_powered_off(instance)
            waits = self._keeper.waits(str(instance.uuid))
            if waits is not None:
                self._fail_check(
                    instance, _("the end of its last live migration is not written down yet"), waits
                )
            data = super().check_can_live_migrate_source(
                context, instance, dest_check_data, block_device_info
            )
            if self._concerns(context, instance, data.block_migration):
                guest = self._host.get_guest(instance)
                obstacles = self._obstacles(instance, guest, _vifs_of(instance))
                chosen = self._choose(context, instance, data.block_migration, obstacles)
                if chosen.refused is not None:
                    self._fail_check(instance, chosen.refused, chosen.reason)
                if chosen.post_copy and self._tunnelled(data.block_migration):
                    obstacle = self._options.tunnel.obstacle()
                    if obstacle is not None:
                        self._fail_check(
                            instance, _("the encrypted way for live migrations is not ready"), obstacle
                        )
        return data

    def _fail_check(self, instance: Any, reason: str, explained: str) -> NoReturn:
        """Not with a cause: Nova puts what comes with an error from another host into the fault's text."""
        LOG.warning("Live migration is refused: %s", explained, instance=instance)
        self._guard.told.note(str(instance.uuid), explained)
        raise exception.MigrationPreCheckError(reason=reason)

    @contextlib.contextmanager
    def _last_word_if_it_fails(self, instance: Any) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._forget_wish(instance)
            raise

    def _forget_wish(self, instance: Any) -> None:
        """A word in the server's metadata is good for one request for a live migration: it is taken out when
        the migration has begun, or could not. Conductor tries other hosts with the record that it has, in
        which the word still stands."""
        key = choice.METADATA_KEY
        metadata = planning.loaded(instance, "metadata", {})
        if "metadata" not in self._options.request_sources or key not in metadata:
            return
        try:
            instance.delete_metadata_key(key)
        except Exception as err:  # the conductor, its database or the bus between
            LOG.warning(
                "Cannot take %(key)s out of the server's metadata, it will hold for the next live migration "
                "as well: %(err)s",
                {"key": key, "err": err},
                instance=instance,
            )

    def rollback_live_migration_at_source(self, context: Any, instance: Any, migrate_data: Any) -> None:
        self._forget_wish(instance)  # of one that ended before it got to _live_migration
        acts = self._acts(instance)
        if acts is not None:  # what Nova's rollback does from here on is not to be repeated
            acts.mark(ending.ROLLBACK, once.BEGUN)
        super().rollback_live_migration_at_source(context, instance, migrate_data)

    # The migration

    def _live_migration(
        self,
        context: Any,
        instance: Any,
        dest: str,
        post_method: Any,
        recover_method: Any,
        block_migration: Any,
        migrate_data: Any,
    ) -> None:
        arguments = (context, instance, dest, post_method, recover_method, block_migration, migrate_data)
        self._guard.told.forget(str(instance.uuid))
        if not self._permitted(bool(migrate_data.block_migration)):
            self._forget_wish(instance)
            with self._shadowing(context, instance, dest, migrate_data):
                super()._live_migration(*arguments)
            return
        source_bdms = _source_bdms(post_method)
        plan = self._plan(
            context,
            instance,
            dest,
            migrate_data,
            lambda: adoption.noted(context, dest, block_migration, migrate_data, source_bdms),
        )
        self._forget_wish(instance)
        self._plans[instance.uuid] = plan
        steered = plan.steered
        settled = False
        try:
            super()._live_migration(*arguments)
            settled = steered is None or not steered.detached
        finally:
            self._plans.pop(instance.uuid, None)
            if steered is not None:
                steered.end()
                # What an operator has to look at stays on record.
                if settled or steered.engine is None:
                    self._records.remove(instance.uuid, "source")
                elif not steered.detached:
                    self._records.release(str(instance.uuid))

    @contextlib.contextmanager
    def _on_this_thread(self, plan: steer.Plan) -> Iterator[None]:
        self._this_thread.plan = plan
        try:
            yield
        finally:
            self._this_thread.plan = None

    def _live_migration_operation(
        self,
        context: Any,
        instance: Any,
        dest: str,
        block_migration: Any,
        migrate_data: Any,
        guest: Any,
        device_names: Any,
    ) -> Any:
        plan = self._plans.get(instance.uuid)
        if plan is None:
            return super()._live_migration_operation(
                context, instance, dest, block_migration, migrate_data, guest, device_names
            )
        if plan.steered is not None:
            plan.way_back = self._cost_of_way_back(guest, device_names)
            guest = plan.steered.stand_in(guest)
        with self._on_this_thread(plan):
            return super()._live_migration_operation(
                context, instance, dest, block_migration, migrate_data, guest, device_names
            )

    def _cost_of_way_back(self, guest: Any, copied: Any) -> dict[str, str] | None:
        """For who looks; COPIED: the disks that are."""
        try:
            version = self._host.get_connection().getVersion()
            xml = guest.get_xml_desc()
            return turn_back_cost.cost(xml, copied=list(copied or ()), qemu_version=version).as_dict()
        except Exception as err:  # nothing depends on it
            LOG.info("What a way back would cost the guest is not known: %s", err)
            return None

    def _live_migration_monitor(
        self,
        context: Any,
        instance: Any,
        guest: Any,
        dest: str,
        post_method: Any,
        recover_method: Any,
        block_migration: Any,
        migrate_data: Any,
        operation: Any,
        disk_paths: Any,
    ) -> None:
        arguments = (
            context,
            instance,
            guest,
            dest,
            post_method,
            recover_method,
            block_migration,
            migrate_data,
            operation,
            disk_paths,
        )
        plan = self._plans.get(instance.uuid)
        if plan is None:
            super()._live_migration_monitor(*arguments)
            return
        steered = plan.steered
        if steered is None:
            with self._on_this_thread(plan):
                super()._live_migration_monitor(*arguments)
            return
        monitor = steer.Monitor(
            steered,
            context,
            instance,
            guest,
            migrate_data.migration,
            self._live_migration_data_gb(instance, disk_paths),
        )
        engine = monitor.wait_for_engine(operation)
        if engine is None:
            # The operation failed before libvirt heard of it: Nova's monitor finds out what that means.
            super()._live_migration_monitor(*arguments)
            return
        try:
            status = monitor.follow(engine)
        finally:
            steered.end()
        if steered.gives_way is not None and status["outcome"] == "detached":
            self._keeper.turner.begin(self._records.get(str(instance.uuid)), steered.gives_way, status)
            steered.detached = True
            return
        if steered.detached:
            LOG.info(
                "The live migration had not begun: the server stays here, and the next start says so"
                if status["outcome"] == "failed"
                else "The live migration goes on by itself and is adopted at the next start",
                instance=instance,
            )
            return
        self._tell(
            status,
            steered,
            context,
            instance,
            migrate_data.migration,
            migrate_data=migrate_data,
            dest=dest,
            source_bdms=_source_bdms(post_method),
            post=functools.partial(post_method, context, instance, dest, block_migration, migrate_data),
            recover=functools.partial(recover_method, context, instance, dest, migrate_data),
            finish=self._finish_or_leave,
        )
        self._clear_empty_migration(instance)

    def _tell(
        self,
        status: dict[str, Any],
        steered: steer.Steered,
        context: Any,
        instance: Any,
        migration: Any,
        *,
        migrate_data: Any,
        dest: str,
        source_bdms: Any,
        post: Callable[..., Any],
        recover: Callable[..., Any],
        finish: Callable[[ending.Ending], bool],
    ) -> None:
        """Has Nova carry out what the engine found out. FINISH says whether that is done."""
        uuid = str(instance.uuid)
        arguments = (
            getattr(self.virtapi, "_compute", None),
            context,
            instance,
            migration,
            self._records,
            self._records.get(uuid),
            source_bdms,
        )

        def carry_out(end: ending.Ending) -> None:
            if not finish(end):
                steered.detached = True

        def complete() -> None:
            carry_out(ending.Completion(*arguments, post=post))

        def give_up(migration_status: str = "failed") -> None:
            carry_out(
                ending.Rollback(
                    *arguments,
                    recover=recover,
                    dest=dest,
                    status=migration_status,
                    ports_stay=functools.partial(
                        self._ports_stay, steered, instance, migration, migrate_data
                    ),
                )
            )

        if status["outcome"] in ("needs-operator", "failed") and self._keeper.turner.at_end(
            self._records.get(uuid), status
        ):
            steered.detached = True
            return
        self._records.settle(uuid, str(status["outcome"]))
        if status["outcome"] != "completed" and not steered.abort_asked:
            self._guard.told.note(uuid, self._for_operators(status))
        _tell_outcome(
            status,
            steered,
            context,
            instance,
            text=self._for_operators(status),
            post=complete,
            recover=give_up,
        )

    def _ports_stay(self, steered: steer.Steered, instance: Any, migration: Any, migrate_data: Any) -> None:
        """The guest has stayed, and its ports with it."""
        activation = None if steered.ports is None else steered.ports.activation
        if activation is not None and not activation.is_settled():
            raise exception.ServiceUnavailable("Neutron has yet to answer what it was asked at the switch")
        record = self._records.get(str(instance.uuid))
        # Nova's handler may have activated them, or a process before this one.
        crossed = record is not None and record.entry.crossed
        moved = crossed or (activation is not None and activation.begun)
        bindings.stay(self, self.virtapi._compute, instance, migration, migrate_data, moved=moved)

    def _for_operators(self, status: dict[str, Any]) -> str:
        return self._records.naming(words.for_operators(str(status["error"]), status["operator_command"]))

    def _finish_or_leave(self, end: ending.Ending) -> bool:
        """On Nova's thread, of which there are max_concurrent_live_migrations: what cannot be carried out at
        once goes on on another one."""
        if end.attempt():
            return True
        self._keeper.carry_out(end)
        return False

    def live_migration_force_complete(self, instance: Any) -> None:
        steered = self._steered(instance)
        if steered is None:
            super().live_migration_force_complete(instance)
        else:
            steered.force()

    def live_migration_abort(self, instance: Any) -> None:
        if self._keeper.keeps(instance):
            LOG.info("The live migration is not aborted, but adopted", instance=instance)
            return
        steered = self._steered(instance)
        if steered is None:
            super().live_migration_abort(instance)
        else:
            try:
                steered.abort()
            except _core.Error as err:
                # Nova asks for it after any error of the monitor, and takes libvirt's own exception alone for
                # "there is nothing to abort": another one hides why the migration ended.
                raise libvirt_driver.libvirt.libvirtError(str(err)) from err

    def _steered(self, instance: Any) -> steer.Steered | None:
        return self._steered_by(instance.uuid) if self._plans else None

    # Events

    def emit_event(self, event: Any) -> None:
        """Without eventlet Nova handles an event on the thread that runs libvirt's event loop, with calls to
        conductor and Neutron. As soon as the engine drives a migration, that thread is wanted for its events,
        and all of Nova's go to another one, so that they stay in order."""
        try:
            self._announcer.look(event)
        except Exception:  # Nova hears of it all the same
            LOG.exception("A guest may not be announced")
        found = self._ports_first(event)
        if found is None:
            self._emit(event)
            return
        thread = threading.Thread(
            target=self._emit_after, args=(found, event), name="pcmig-event", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had: Nova hears of it at once
            self._emit(event)

    def _ports_first(self, event: Any) -> ports.Ports | None:
        """The ports of a guest that has just stopped for its switch, while they are being bound."""
        plan = self._plans.get(_uuid_of_switch(event)) if self._plans else None
        found = None if plan is None or plan.steered is None else plan.steered.ports
        return found if found is not None and found.activation.under_way() else None

    def _emit_after(self, found: ports.Ports, event: Any) -> None:
        found.activation.wait(PORTS_FIRST_S)
        self._emit(event)

    def _emit(self, event: Any) -> None:
        if self._events is None:
            if not self._plans or not releases.threading_mode():
                super().emit_event(event)
                return
            events: queue.SimpleQueue[Any] = queue.SimpleQueue()
            thread = threading.Thread(
                target=self._handle_events, args=(events,), name="pcmig-events", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had: it is handled here, and the next one may be there
                super().emit_event(event)
                return
            self._events = events
        self._events.put(event)

    def _handle_events(self, events: queue.SimpleQueue[Any]) -> None:
        while True:
            try:
                super().emit_event(events.get())
            except Exception:  # those that come after have nothing to do with it
                LOG.exception("An event of libvirt's was not handled")


def _uuid_of_switch(event: Any) -> str:
    """Of the guest that EVENT says has stopped for its switch to post-copy; "" for all others."""
    if not isinstance(event, virtevent.LifecycleEvent):
        return ""
    if event.get_transition() != virtevent.EVENT_LIFECYCLE_POSTCOPY_STARTED:
        return ""
    return str(event.get_instance_uuid())


def _vifs_of(instance: Any) -> list[Any]:
    """The ports of INSTANCE as Nova keeps them, before it has migrate_data.vifs."""
    cache = planning.loaded(instance, "info_cache", None)
    return list(getattr(cache, "network_info", None) or [])


def _tell_outcome(
    status: dict[str, Any],
    steered: steer.Steered,
    context: Any,
    instance: Any,
    *,
    text: str,
    post: Callable[[], Any],
    recover: Callable[..., Any],
) -> None:
    """As Nova's monitor does, by the engine's verdict on both hosts and not by the call's return code.
    TEXT is for operators."""
    if status["outcome"] == "completed":
        LOG.info("Migration operation has completed", instance=instance)
        post()
    elif status["outcome"] == "failed":
        # The guest runs on at the source, and nothing of it is needed at the destination.
        if steered.abort_asked:
            LOG.warning("Migration operation was cancelled", instance=instance)
            recover(migration_status="cancelled")
        else:
            LOG.error("Live Migration failure: %s", status["error"], instance=instance)
            LOG.error("Migration operation has aborted", instance=instance)
            recover()
    else:
        # Nova's rollback would destroy the destination's half, which may be the one that runs.
        LOG.error("Live migration needs an operator: %s", text, instance=instance)
        error = steer.PostCopyInterrupted()
        error.__cause__ = words.Explained(text)
        try:
            # Nova tells no fault of what happens on this thread. Its details begin with the cause.
            compute_utils.add_instance_fault_from_exc(context, instance, error, (type(error), error, None))
        except Exception as err:  # only news are lost
            LOG.warning("Cannot add the fault to the server: %s", err, instance=instance)
        raise error


def _source_bdms(post_method: Any) -> Any:
    """The source's volumes, which Nova has bound to its POST_METHOD."""
    return getattr(post_method, "keywords", {}).get("source_bdms")


def _refuse_to_start(line: str) -> NoReturn:
    """Ends the process with one line for a configuration that cannot work, as Nova does for a driver that
    cannot be loaded (nova/virt/driver.py, load_compute_driver)."""
    LOG.error("%s", line)
    sys.exit(f"nova-compute: {line}")
