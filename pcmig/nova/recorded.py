# SPDX-License-Identifier: Apache-2.0
"""The driver's part for migrations on record: it puts them there, keeps Nova from touching their guests, and
has them adopted after a restart.

A layer of its own between Nova's driver and PostCopyLibvirtDriver.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from nova.conf import CONF
from nova.virt import driver as virt_driver
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from pcmig import journal
from pcmig.huge_pages import HugePages
from pcmig.ledgers.store import Store
from pcmig.metrics import store
from pcmig.nova import (
    adoption,
    attachments,
    bindings,
    conf,
    guard,
    huge_pages,
    keeper,
    keeping,
    metering,
    neutron_client,
    once,
    ports,
    records,
    releases,
    steer,
    turning,
)
from pcmig.tunnel.passage import Passage
from pcmig_common import messages, turned_back

LOG = logging.getLogger(__name__)

POWER_CYCLES = ("reboot", "shutdown", "start")  # acts after which another QEMU runs the guest, or none


@guard.guarded(libvirt_driver.LibvirtDriver)
class RecordedLibvirtDriver(libvirt_driver.LibvirtDriver):  # type: ignore[misc]  # Nova has no types
    """Wants `_options` before __init__()."""

    _options: conf.Options

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        self._plans: dict[str, steer.Plan] = {}  # by the instance's UUID
        folder = self._options.journal_dir or os.path.join(CONF.state_path, "pcmig", "migrations")
        self._records = records.Records(folder)
        self._guard = guard.Guard(self._records, self._options.connect_timeout_ms, virtapi)
        self._turning = turning.Turning(
            self._records,
            self._guard,
            self._options.turn_back,
            lambda: self._peers,
        )
        self._keeper = keeper.Keeper(self, self._records, self._guard, self._turning)
        self._metering = metering.Metering(
            self._options.metrics,
            # Who has named a folder has let nova-compute write into that, and not beside it.
            os.path.join(folder, "metrics") if self._options.journal_dir else store.beside(folder),
            folder,
            self._figures,
            self._keeper.seen,
        )
        super().__init__(virtapi, read_only)

    @functools.cached_property
    def _peers(self) -> messages.Client:
        """Other hosts' nova-computes; made when the first is asked, as the bus is there then."""
        return messages.Client()

    def _ports(self, context: Any, instance: Any, dest: str) -> ports.Ports:
        """Of a guest that goes to DEST, a host's name."""
        return ports.made(
            instance,
            dest,
            connect=functools.partial(neutron_client.client, context),
            # The bus is looked for when somebody asks.
            ask=lambda: self._peers.ports(context, dest, str(instance.uuid)),
            wait_ms=self._options.ports_wait_ms,
            then=self._options.ports_then,
        )

    def _store(self) -> Store:
        beside_journal = self._options.journal_dir or os.path.join(CONF.state_path, "pcmig")
        return Store(
            self._options.ledger_dir or os.path.join(beside_journal, "ledgers"),
            kept=self._options.ledgers_kept,
            days=self._options.ledgers_days,
        )

    @staticmethod
    def _by(context: Any, migration: Any) -> dict[str, Any]:
        """Who asked for MIGRATION."""
        return {
            "migration": str(migration.uuid),
            "request_id": context.request_id,
            "user_id": context.user_id,
            "project_id": context.project_id,
        }

    def _keeping(
        self, context: Any, instance: Any, migration: Any, *, adopted: bool = False
    ) -> keeping.Keeping:
        """Keeps the ledger of MIGRATION, by the options."""
        store, by = self._store(), self._by(context, migration)
        timeout_ms = self._options.connect_timeout_ms

        def begun() -> str | None:
            record = self._records.get(str(instance.uuid))
            return None if record is None else record.entry.started

        pages = self._huge_pages(context, instance, migration, adopted=adopted)
        return keeping.Keeping(
            store, instance, by, timeout_ms, begun=begun, adopted=adopted, huge_pages=pages
        )

    def _huge_pages(self, context: Any, instance: Any, migration: Any, *, adopted: bool = False) -> HugePages:
        """Of a guest that MIGRATION takes away from here."""
        uuid = str(instance.uuid)
        # Whatever is wrong with the record is of no concern to the migration.
        return huge_pages.watched(
            uuid,
            lambda: self._peers.huge_pages(context, str(migration.dest_compute), uuid),
            adopted=adopted,
        )

    def _permitted(self, block_migration: bool) -> bool:
        raise NotImplementedError

    if hasattr(libvirt_driver.LibvirtDriver, "process_instances_at_startup"):

        def process_instances_at_startup(self, context: Any, instances: Any) -> Any:
            """Nova 34 asks before it touches them. Releases before it end migrations in the database only, as
            live_migration_abort() sees to; adoption puts them back."""
            checked = super().process_instances_at_startup(context, instances)
            if not self._records:
                return checked
            return objects.InstanceList(context, objects=self._keeper.of_nova(checked))

    def get_available_resource(self, nodename: str) -> Any:
        """Nova asks when it has looked at all its instances, just before it serves requests, and each minute
        after."""
        try:
            self._keeper.look_after()
        except Exception:  # nova-compute starts, and counts its resources, all the same; the next time
            LOG.exception("Cannot look after the live migrations on record")
        return super().get_available_resource(nodename)

    def _note(
        self,
        instance: Any,
        noted: Callable[[], dict[str, Any]],
        uuid: str,
        destination: str,
        arguments: dict[str, Any],
        passage: Passage | None,
    ) -> None:
        """Puts a migration on record before it begins."""
        entry = journal.Entry(
            uuid=uuid,
            name=str(instance.name),
            source_uri=self._uri(),
            dest_uri=destination,
            engine=journal.engine_arguments(arguments),
            started=records.now(),
            caller={records.CALLER: noted()},
            tunnel=passage.names.as_entry() if passage is not None else None,
        )
        try:
            self._records.add(entry, "source")
        except journal.JournalError as err:
            raise exception.MigrationError(reason=f"it cannot be put on record: {err}") from err

    def _note_dest_host(self, uuid: str, host: str) -> None:
        """By what the destination's host is known again, whatever answers at its address."""
        self._records.goes_to(uuid, host)

    def _note_crossed(self, uuid: str) -> None:
        """The switch to post-copy was issued."""
        self._records.cross(uuid)

    @contextlib.contextmanager
    def _guarded(self, instance: Any, act: str) -> Iterator[bool]:
        """Whether ACT is to be done. Raises guard.Refused when it is not; while Nova starts, what is refused
        is left out instead, as it would keep nova-compute from starting."""
        with contextlib.ExitStack() as stack:
            go_on = True
            try:
                stack.enter_context(self._guard.asked(instance, act))
            except guard.Refused:
                if not self._keeper.starting:
                    raise
                go_on = False
            yield go_on
        if go_on and act in POWER_CYCLES:
            self._keeper.turner.powered_off(instance)

    def _source_uris(self, context: Any, host: str) -> list[str]:
        """Where libvirt of HOST, a live migration's source, may be reached from here, the best way first:
        where migrations to it go, perhaps a network of their own, on which alone its libvirtd listens."""
        if self._options.source_uri:
            found = [self._options.source_uri.replace("%s", host)]
        else:
            address = messages.address(context, host)
            found = [self._live_migration_uri(address)] if address else []
        found = list(dict.fromkeys([*found, self._live_migration_uri(host)]))
        LOG.debug("libvirt of %(host)s is asked at: %(uris)s", {"host": host, "uris": ", ".join(found)})
        return found

    def pre_live_migration(
        self,
        context: Any,
        instance: Any,
        block_device_info: Any,
        network_info: Any,
        disk_info: Any,
        migrate_data: Any,
    ) -> Any:
        data = super().pre_live_migration(
            context, instance, block_device_info, network_info, disk_info, migrate_data
        )
        if self._permitted(True) or self._permitted(False):
            source_uri, *others = self._source_uris(context, str(instance.host))
            noted = {
                "block_migration": bool(migrate_data.block_migration),
                records.SOURCE_URIS: others,
                # For what is left here should the guest turn back while this host is away (keeper.py).
                "migrate_data": adoption.without_secrets(data).obj_to_primitive(),
                records.FOLDER: libvirt_utils.get_instance_path(instance),
            }
            entry = journal.Entry(
                uuid=str(instance.uuid),
                name=str(instance.name),
                source_uri=source_uri,
                dest_uri=self._uri(),
                engine={},
                started=records.now(),
                caller={records.CALLER: noted},
            )
            try:
                self._records.add(entry, "destination")
            except journal.JournalError as err:
                LOG.warning("A guest comes here without being on record: %s", err, instance=instance)
        return data

    def post_live_migration_at_destination(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_migration: Any = False,
        block_device_info: Any = None,
    ) -> None:
        super().post_live_migration_at_destination(
            context, instance, network_info, block_migration, block_device_info
        )
        self._records.remove(str(instance.uuid), "destination")

    # A server that turned back: libvirt refuses what changes the guest until that QEMU ended.

    def _is_marked(self, instance: Any) -> bool:
        """As nova-api sees it, whatever is on record."""
        return turned_back.since(_system_metadata(instance)) is not None

    def _refuse_until_powered_off(self, instance: Any) -> None:
        if self._is_marked(instance):
            raise guard.Refused(reason=str(turned_back.SENTENCE))

    def _is_turned(self, instance: Any) -> bool:
        record = self._records.get(str(instance.uuid)) if self._records else None
        return record is not None and record.turned

    def pause(self, instance: Any) -> None:
        self._refuse_until_powered_off(instance)
        super().pause(instance)

    def suspend(self, context: Any, instance: Any) -> None:
        self._refuse_until_powered_off(instance)
        with self._guarded(instance, guard.ACTS["suspend"]) as go_on:
            if go_on:
                super().suspend(context, instance)

    def power_off(self, instance: Any, timeout: Any = 0, retry_interval: Any = 0) -> None:
        with self._guarded(instance, guard.ACTS["power_off"]) as go_on:
            if not go_on:
                return
            if timeout and self._is_turned(instance):
                self._press_power_button(instance)
            super().power_off(instance, timeout, retry_interval)

    def _press_power_button(self, instance: Any) -> None:
        """Past libvirt, whose own way waits for the migration's job."""
        try:
            import libvirt_qemu

            domain = self._host.get_guest(instance)._domain
            hmp = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            releases.off_hub(libvirt_qemu.qemuMonitorCommand, domain, "system_powerdown", hmp)
        except Exception as err:  # it is powered off hard then
            LOG.warning("The guest cannot be told to shut down: %s", err, instance=instance)

    def instance_on_disk(self, instance: Any) -> Any:
        """Nova asks here, and nowhere else, for a server whose evacuation to this host it has accepted, and
        which libvirt does not know. Next it gives up the ports and volumes that the server has: what would
        not be started then is refused now."""
        self._guard.ask_ahead(instance, guard.ACTS["spawn"])
        if bindings.remove_inactive(nova_context.get_admin_context(), instance):
            # A port that was plugged for the live migration is none that Neutron tells of when it is there.
            try:
                self.unplug_vifs(instance, instance.get_network_info())
            except Exception as err:  # as Nova takes it where it clears up
                LOG.warning("Cannot unplug the ports here: %s", err, instance=instance)
        manager = getattr(self.virtapi, "_compute", None)
        if manager is not None:
            record = self._records.get(str(instance.uuid)) if self._records else None
            attachments.remove_of_source(manager, record, instance)
        return super().instance_on_disk(instance)

    def rollback_live_migration_at_destination(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any,
        destroy_disks: Any = True,
        migrate_data: Any = None,
    ) -> None:
        with self._guarded(instance, guard.ACTS["rollback_live_migration_at_destination"]) as go_on:
            if go_on:
                super().rollback_live_migration_at_destination(
                    context, instance, network_info, block_device_info, destroy_disks, migrate_data
                )
                self._records.remove(str(instance.uuid), "destination")

    # Nova's post step at the source

    def _acts(self, instance: Any) -> once.Acts | None:
        """What it does once; None for a guest without a migration on record that leaves this host."""
        record = self._records.get(str(instance.uuid)) if self._records else None
        return once.Acts(self._records, record, instance) if record and record.side == "source" else None

    def post_live_migration(
        self, context: Any, instance: Any, block_device_info: Any, migrate_data: Any = None
    ) -> None:
        stock = super().post_live_migration
        acts = self._acts(instance)
        volumes = [] if acts is None else virt_driver.block_device_info_get_mapping(block_device_info)
        names = [once.volume_act(volume) for volume in volumes]
        if acts is not None and acts.are_done(once.SECRETS, *names, once.PORTS_AND_CORES):
            return  # and nobody is asked whether it may be
        with self._guarded(instance, guard.ACTS["post_live_migration"]) as go_on:
            if not go_on:
                return
            if acts is None:
                stock(context, instance, block_device_info, migrate_data)
                return
            acts.once(
                once.SECRETS,
                functools.partial(stock, context, instance, {}, migrate_data),
                once.secrets_left(instance, migrate_data),
            )
            for name, volume in zip(names, volumes, strict=True):
                acts.once(
                    name,
                    functools.partial(
                        stock, context, instance, {**block_device_info, "block_device_mapping": [volume]}
                    ),
                    once.volume_left(volume["connection_info"]),
                )
            # Nova does this later, and not at all when a service that it asks before does not answer: its
            # record has the cores of the destination then.
            vifs = bindings.vifs_at_source(instance, migrate_data)
            self._unplug_and_power_down(context, instance, vifs, acts)
            if acts.state(once.ATTACHMENTS) is None:
                acts.mark(once.ATTACHMENTS, once.BEGUN)  # Nova's next step

    def post_live_migration_at_source(self, context: Any, instance: Any, network_info: Any) -> None:
        acts = self._acts(instance)
        if acts is not None:
            acts.mark(once.ATTACHMENTS, once.DONE)
            if acts.are_done(once.PORTS_AND_CORES):
                return
        with self._guarded(instance, guard.ACTS["post_live_migration_at_source"]) as go_on:
            if not go_on:
                return
            if acts is None:
                super().post_live_migration_at_source(context, instance, network_info)
                return
            self._unplug_and_power_down(context, instance, network_info, acts)

    def _unplug_and_power_down(self, context: Any, instance: Any, vifs: Any, acts: once.Acts) -> None:
        acts.once(
            once.PORTS_AND_CORES,
            functools.partial(super().post_live_migration_at_source, context, instance, vifs),
            once.ports_and_cores_left(instance, vifs),
        )

    def cleanup(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: Any = True,
        migrate_data: Any = None,
        destroy_vifs: Any = True,
        destroy_secrets: Any = True,
    ) -> None:
        # Of Nova's callers only the post step has migrate_data.
        acts = self._acts(instance) if migrate_data is not None else None
        if acts is not None and acts.are_done(once.FILES):
            return
        with self._guarded(instance, guard.ACTS["cleanup"]) as go_on:
            if not go_on:
                return
            stock = functools.partial(
                super().cleanup,
                context,
                instance,
                network_info,
                block_device_info,
                destroy_disks,
                migrate_data,
                destroy_vifs,
                destroy_secrets,
            )
            if acts is None:
                stock()
                return
            shared = once.folder_is_shared(migrate_data)
            host = str(instance.host)
            acts.once(
                once.FILES, stock, once.files_left(instance, self._uri(), shared=shared), only_here=False
            )
            # Nova's code saves the instance, and takes over the host of its record, which is the destination
            # when an attempt before failed. The destination is told next, and clears up where it is told.
            once.says_at(instance, host)

    def _follows(self, uuid: str) -> bool:
        """Whether a thread of this process looks after the guest's migration."""
        return uuid in self._plans

    def _is_unrun(self, uuid: str) -> bool:
        """Whether an engine that waits for the destination is certain that the guest never ran there."""
        plan = self._plans.get(uuid)
        engine = plan.steered.engine if plan is not None and plan.steered is not None else None
        if engine is None:
            return False
        status = engine.status()
        return bool(status.get("unrun")) and status["recovery"] is not None

    def _steered_by(self, uuid: str) -> steer.Steered | None:
        plan = self._plans.get(uuid) if self._plans else None
        return None if plan is None else plan.steered

    def _steer_adopted(self, adopted: adoption.Adopted) -> steer.Steered:
        """The engine's side of a migration that is there already; to be told to _adopted_ended()."""
        orders = steer.Orders(
            source_uri=adopted.record.entry.source_uri,
            policy=str(adopted.record.entry.engine.get("policy", "auto")),
            params={},
            postcopy_bandwidth_mib=0,
            connect_timeout_ms=self._options.connect_timeout_ms,
            trace_path=None,
            resume_uris=self._options.resume_uris(adopted.dest),
            crossed=functools.partial(self._note_crossed, str(adopted.instance.uuid)),
            keeping=self._keeping(
                adopted.context,
                adopted.instance,
                adopted.migration,
                adopted=True,
            ),
            wake=lambda: self._peers.wake(adopted.context, adopted.dest, str(adopted.instance.uuid)),
            ended=self._count,
            activated=self._note_activated,
        )
        steered = steer.Steered(
            orders, adopted.instance, self._ports(adopted.context, adopted.instance, adopted.dest)
        )
        bits = int(adopted.record.entry.engine.get("flags", 0))
        self._plans[str(adopted.instance.uuid)] = steer.Plan(bits, steered, "adopted")
        return steered

    def _adopted_ended(self, uuid: str) -> None:
        self._plans.pop(uuid, None)

    # Figures for Prometheus

    def _figures(self) -> list[dict[str, Any]]:
        """Of every migration that the engine drives."""
        rows = []
        for uuid, plan in list(self._plans.items()):
            record = self._records.get(uuid)
            if plan.steered is not None and record is not None:
                rows.append(plan.steered.figures(record.entry.dest_uri))
        return [row for row in rows if row is not None]

    def _note_activated(self, migration: str, seconds: float) -> None:
        self._metering.activated(migration, seconds)

    def _count(self, migration: str, steered: steer.Steered, status: Any) -> None:
        engine = steered.engine
        if engine is None:
            return
        self._metering.ended(
            migration,
            policy=steered.policy,
            outcome=status["outcome"],
            ledger=engine.ledger,
            decisions=engine.decisions,
        )


def _system_metadata(instance: Any) -> dict[str, str]:
    """If it came with the instance: whatever asks here has it from Nova's own call."""
    if isinstance(instance, objects.Instance) and not instance.obj_attr_is_set("system_metadata"):
        return {}
    return getattr(instance, "system_metadata", None) or {}
