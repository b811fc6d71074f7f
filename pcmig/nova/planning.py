# SPDX-License-Identifier: Apache-2.0
"""The driver's part for what a migration gets: post-copy or not, and with which flags, policy and figures.

A layer of its own between RecordedLibvirtDriver and PostCopyLibvirtDriver: it overrides no method of Nova's.
What is decided, pcmig_common.choice tells.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

from nova import objects
from nova.compute import vm_states
from nova.conf import CONF
from nova.network import model as network_model
from oslo_log import log as logging

from pcmig import _core
from pcmig import guest as guest_xml
from pcmig.nova import capability, flags, recorded, releases, shadowing, steer
from pcmig.ports import waiting
from pcmig_common import choice

LOG = logging.getLogger(__name__)


class PlanningLibvirtDriver(recorded.RecordedLibvirtDriver):
    """Wants `_options` before __init__()."""

    _flags: flags.MigrationFlags | None = None  # until Nova's are merged with ours

    def _permitted(self, block_migration: bool) -> bool:
        return self._flags is not None and self._flags.of(block_migration).post_copy

    def _tunnelled(self, block_migration: bool) -> bool:
        return self._flags is not None and self._flags.of(block_migration).tunnel

    def _choose(
        self,
        context: Any,
        instance: Any,
        block_migration: bool,
        obstacles: list[guest_xml.Obstacle],
    ) -> choice.Choice:
        """What is to be done with a migration of INSTANCE; see pcmig_common.choice."""
        try:
            wish = choice.wish(
                self._options.request_sources,
                api=choice.requested(getattr(context, "roles", None)),
                metadata=loaded(instance, "metadata", {}),
            )
        except choice.RequestError as err:
            return choice.Choice(False, f"refused: {err}", str(err))
        flavor = loaded(instance, "flavor", None)
        chosen = choice.decide(
            wish,
            (flavor.extra_specs if flavor is not None and "extra_specs" in flavor else None) or {},
            choice.image_properties(loaded(instance, "system_metadata", {})),
            self._options.default_choice,
            obstacles,
            image_mode=self._options.image_property,
            permitted=self._permitted(block_migration),
            paused=loaded(instance, "vm_state", None) == vm_states.PAUSED,
        )
        for warning in chosen.warnings:
            LOG.warning("Not heeded: %s", warning, instance=instance)
        return chosen

    def _obstacles(self, instance: Any, guest: Any, vifs: Iterable[Any]) -> list[guest_xml.Obstacle]:
        """What in the guest does not go with post-copy, but for the interfaces among VIFS that Nova unplugs
        before it migrates (_detach_direct_passthrough_vifs)."""
        unplugged = {
            str(vif["address"]).lower()
            for vif in vifs
            if vif.get("vnic_type") in network_model.VNIC_TYPES_DIRECT_PASSTHROUGH and vif.get("address")
        }
        found = guest_xml.obstacles(guest.get_xml_desc(), unplugged)
        if self._get_vpmems(instance):
            found.append(capability.VPMEM)
        return found

    def _concerns(self, context: Any, instance: Any, block_migration: bool) -> bool:
        """Whether anybody speaks of post-copy: this host, the guest's rule, or the request."""
        if self._options.shadow:
            return False
        if self._permitted(block_migration):
            return True
        chosen = self._choose(context, instance, block_migration, [])
        return chosen.refused is not None

    def _destination_reason(self) -> str | None:
        found: str | None = releases.off_hub(
            capability.destination_reason, self._uri(), self._options.connect_timeout_ms
        )
        return found

    def _plan(
        self,
        context: Any,
        instance: Any,
        dest: str,
        migrate_data: Any,
        noted: Callable[[], dict[str, Any]],
    ) -> steer.Plan:
        """What this migration gets, on a host that permits post-copy."""
        assert self._flags is not None
        block_migration = bool(migrate_data.block_migration)
        kind = self._flags.of(block_migration)
        vifs = migrate_data.vifs if "vifs" in migrate_data else []
        obstacles = self._obstacles(
            instance,
            self._host.get_guest(instance),
            [vif.source_vif for vif in vifs if "source_vif" in vif and vif.source_vif],
        )
        chosen = self._choose(context, instance, block_migration, obstacles)
        if chosen.post_copy and not chosen.demanded:
            reason = self._peers.arrivals(context, dest)
            if reason is not None:
                chosen = choice.Choice(False, f"no post-copy: {dest}: {reason}")
        LOG.info("Live migration %(what)s", {"what": chosen.reason}, instance=instance)
        if not chosen.post_copy:
            if kind.tunnel:
                LOG.warning(
                    "Live migration without post-copy is Nova's own: it does not go through pcmig's tunnel",
                    instance=instance,
                )
            bits = kind.bits & ~flags.POSTCOPY
            if CONF.libvirt.live_migration_permit_auto_converge:
                # Left out only for post-copy (Nova, _handle_live_migration_auto_converge).
                bits |= flags.BITS["VIR_MIGRATE_AUTO_CONVERGE"]
            return steer.Plan(bits, None, chosen.reason)
        policy = kind.policy
        params = dict(_core.parse_policy(policy)["params"])
        # QEMU's limit rises in Nova's steps, which the monitor tells the engine one by one (steer.py).
        params |= {
            "downtime_limit_ms": bounded("downtime_limit_ms", CONF.libvirt.live_migration_downtime),
            "downtime_control": 0,
        }
        if self._options.ports_wait_ms > 0:
            params["gate_wait_ms"] = waiting.gate_wait_ms(self._options.ports_wait_ms)
        params.update(self._options.params)
        trace_dir = self._options.trace_dir
        orders = steer.Orders(
            source_uri=self._uri(),
            policy=policy,
            params=params,
            postcopy_bandwidth_mib=self._options.postcopy_bandwidth_mib,
            connect_timeout_ms=self._options.connect_timeout_ms,
            trace_path=os.path.join(trace_dir, f"{migrate_data.migration.uuid}.trace") if trace_dir else None,
            resume_uris=self._options.resume_uris(dest),
            count_faults=self._options.count_faults,
            way=self._options.tunnel if kind.tunnel else None,
            note=functools.partial(self._note, instance, noted),
            dest_host=functools.partial(self._note_dest_host, str(instance.uuid)),
            crossed=functools.partial(self._note_crossed, str(instance.uuid)),
            keeping=self._keeping(context, instance, migrate_data.migration),
            wake=lambda: self._peers.wake(context, dest, str(instance.uuid)),
            ended=self._count,
            activated=self._note_activated,
        )
        steered = steer.Steered(orders, instance, self._ports(context, instance, dest))
        return steer.Plan(self._for_machine(instance, kind.bits), steered, chosen.reason)

    def _shadowing(
        self, context: Any, instance: Any, dest: str, migrate_data: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Looks on at a migration that Nova drives, where that is wanted. Raises nothing."""
        if not self._options.shadow:
            return contextlib.nullcontext()
        try:
            return self._looks_on(context, instance, dest, migrate_data)
        except Exception as err:  # a defect of ours, or of what was configured for us alone
            LOG.warning(
                "Shadow: nothing is seen of it: %(kind)s: %(err)s",
                {"kind": type(err).__name__, "err": err},
                instance=instance,
            )
            return contextlib.nullcontext()

    def _looks_on(self, context: Any, instance: Any, dest: str, migrate_data: Any) -> shadowing.Shadowing:
        policy = self._options.policy
        limit_ms = bounded("downtime_limit_ms", CONF.libvirt.live_migration_downtime)
        params = {**_core.parse_policy(policy)["params"], "downtime_limit_ms": limit_ms}
        return shadowing.Shadowing(
            instance,
            self._uri(),
            str(self._live_migration_uri(dest)),
            policy,
            {**params, **self._options.params},
            self._store(),
            self._by(context, migrate_data.migration),
            self._huge_pages(context, instance, migrate_data.migration),
        )

    def _for_machine(self, instance: Any, bits: int) -> int:
        """BITS of a migration with post-copy, as the guest's machine type lets it have them."""
        parallel = flags.BITS["VIR_MIGRATE_PARALLEL"]
        if not bits & parallel:
            return bits
        machine = guest_xml.early_page_channel(self._host.get_guest(instance).get_xml_desc())
        if machine is None:
            return bits
        LOG.warning(
            "VIR_MIGRATE_PARALLEL is left out: with the machine type %(machine)s QEMU mixes up its "
            "connections and those of post-copy, and stops",
            {"machine": machine},
            instance=instance,
        )
        return bits & ~parallel


def bounded(name: str, value: int) -> int:
    """VALUE of one of Nova's options as the core's parameter NAME takes it: Nova's have no upper bound, and
    guides for vGPUs set a downtime of 500 s."""
    param = next(param for param in _core.params() if param["name"] == name)
    return max(param["min"], min(value, param["max"]))


def loaded(instance: Any, name: str, default: Any) -> Any:
    """An attribute of an instance, if it came with it: none of them is worth a call to the conductor."""
    if isinstance(instance, objects.Instance) and not instance.obj_attr_is_set(name):
        return default
    return getattr(instance, name, default)
