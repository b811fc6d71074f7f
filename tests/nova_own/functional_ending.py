# SPDX-License-Identifier: Apache-2.0
"""What Nova's post step does at the source, and how often, when a service that it talks to does not answer,
and when the destination does not. When nova-compute ends at any point of it: functional_restart.py.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import collections
from typing import Any

import fixtures
import oslo_messaging
from cinderclient import exceptions as cinder_exceptions
from neutronclient.common import exceptions as neutron_exceptions
from nova import context as nova_context
from nova import exception, objects

from tests.nova_own import two_hosts
from tests.nova_own.two_hosts import VOLUME, Engine

DISCONNECT = "nova.virt.libvirt.volume.volume.LibvirtBaseVolumeDriver.disconnect_volume"
UNPLUG = "nova.virt.libvirt.driver.LibvirtDriver.unplug_vifs"
POWER_DOWN = "nova.virt.libvirt.cpu.api.API.power_down_for_instance"
CLEANUP = "nova.virt.libvirt.driver.LibvirtDriver._cleanup"
CLEANUP_FLAGS = "nova.compute.manager.ComputeManager._live_migration_cleanup_flags"


class Killed(BaseException):
    """nova-compute ends here: what catches errors does not catch this."""


class Ending(two_hosts.TwoHosts):
    """self.server, which moves, has a volume of its own and one that it shares with self.neighbour."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.ending.RETRY_S", (0.3,)))
        # As where each host has files of its own; these two share a folder.
        self.useFixture(fixtures.MonkeyPatch(CLEANUP_FLAGS, lambda *_, **__: (True, False)))
        self.neighbour = self.new_server()
        self.shared = self.cinder.MULTIATTACH_VOL
        for server, volume in (
            (self.server, self.shared),
            (self.neighbour, self.shared),
            (self.server, VOLUME),
        ):
            self._attach(server, volume)
        self.attachments = set(self.cinder.attachment_ids_for_instance(self.server["id"]))
        self.done: collections.Counter[str] = collections.Counter()
        self._watch()

    def _watch(self) -> None:
        """Counts what is done at the source."""
        self._count(DISCONNECT, lambda _this, info, *_, **__: f"disconnect {info['data']['volume_id']}")
        self._count(UNPLUG, lambda *_, **__: "unplug")
        self._count(POWER_DOWN, lambda _this, instance: f"power down {_cores(instance)}")
        self._count(CLEANUP, lambda *_, **__: "cleanup")

    def _count(self, name: str, told: Any) -> None:
        self._around(name, lambda *arguments, **named: self.done.update([told(*arguments, **named)]))

    def _around(self, name: str, before: Any = None, after: Any = None) -> None:
        """BEFORE and AFTER are called with the arguments of the method NAME of a class."""
        place, _, method = name.rpartition(".")
        module, _, cls = place.rpartition(".")
        owner = getattr(__import__(module, fromlist=[cls]), cls)
        real = getattr(owner, method)

        def wrapped(this: Any, *arguments: Any, **named: Any) -> Any:
            if before is not None:
                before(this, *arguments, **named)
            answer = real(this, *arguments, **named)
            if after is not None:
                after(this, *arguments, **named)
            return answer

        self.useFixture(fixtures.MonkeyPatch(name, wrapped))

    def _fail(self, owner: Any, name: str, error: BaseException, times: int = 1, after: bool = False) -> None:
        """The next TIMES calls of OWNER's NAME raise ERROR, instead of what they do or AFTER it."""
        real = getattr(owner, name)
        left = [times]

        def failing(*arguments: Any, **named: Any) -> Any:
            if left[0] <= 0:
                return real(*arguments, **named)
            left[0] -= 1
            if after:
                real(*arguments, **named)
            raise error

        setattr(owner, name, failing)

    def _kill_once(self, name: str, after: bool) -> list[str]:
        """nova-compute ends in the next call of the method NAME of a class; what is in the list then."""
        killed: list[str] = []

        def kill(*_: Any, **__: Any) -> None:
            if not killed:
                killed.append(name)
                raise Killed

        self._around(name, **{"after" if after else "before": kill})
        return killed

    def _arrived(self, engine: Engine) -> None:
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished")

    def _no_reply(self, times: int = 1) -> None:
        self._fail(
            self.src.manager.compute_rpcapi,
            "post_live_migration_at_destination",
            oslo_messaging.MessagingTimeout("no reply"),
            times,
        )

    def _log(self) -> str:
        return str(self.stdlog.logger.output)

    def _nothing_was_done_twice(self) -> None:
        assert self.done and max(self.done.values()) == 1, self.done
        # The neighbour goes on using it.
        assert f"disconnect {self.shared}" not in self.done, self.done
        assert self._attachments_at_source() == set()

    def _attachments_at_source(self) -> set[str]:
        return self.attachments & set(self.cinder.attachment_ids_for_instance(self.server["id"]))


def _cores(instance: Any) -> list[int]:
    return sorted(instance.numa_topology.cpu_pinning) if instance.numa_topology else []


class ServiceTest(Ending):
    """One that the post step talks to does not answer once."""

    def _fails_once(self, owner: Any, name: str, error: Exception) -> None:
        engine = self._in_post_copy()
        self._fail(owner, name, error)
        self._arrived(engine)
        self._moved()
        self._nothing_was_done_twice()
        assert self.done == {f"disconnect {VOLUME}": 1, "unplug": 1, "power down []": 1, "cleanup": 1}

    def test_the_destination(self) -> None:
        self._fails_once(
            self.src.manager.compute_rpcapi,
            "post_live_migration_at_destination",
            oslo_messaging.MessagingTimeout("no reply"),
        )

    def test_neutron_at_the_source(self) -> None:
        """Nova has the server at the destination then; the ports' bindings at the source go all the same."""
        # As where the disks are copied, or in a Ceph, and not the folder: what clears it saves the instance.
        self.useFixture(fixtures.MonkeyPatch(CLEANUP_FLAGS, lambda *_, **__: (True, True)))
        cleared: list[tuple[str, str]] = []
        real = self.dest.manager.network_api.setup_networks_on_host

        def clear(context: Any, instance: Any, host: str, teardown: bool = False) -> None:
            if teardown:
                cleared.append((str(instance.host), host))
            real(context, instance, host, teardown)

        self.dest.manager.network_api.setup_networks_on_host = clear
        self._fails_once(
            self.src.manager.network_api, "migrate_instance_start", neutron_exceptions.ServiceUnavailable()
        )
        assert cleared == [("dest", "src")]

    def test_neutron_at_the_destination(self) -> None:
        engine = self._in_post_copy()
        for name in ("migrate_instance_finish", "get_instance_nw_info", "setup_networks_on_host"):
            self._fail(self.dest.manager.network_api, name, neutron_exceptions.ServiceUnavailable())
        self._arrived(engine)
        self._moved()
        self._nothing_was_done_twice()

    def test_placement(self) -> None:
        engine = self._in_post_copy()
        error = exception.AllocationDeleteFailed(consumer_uuid="u", error="503")
        self._fail(self.src.manager.reportclient, "delete_allocation_for_instance", error, times=7)
        self._arrived(engine)
        self._moved()
        self._nothing_was_done_twice()

    def test_cinder(self) -> None:
        engine = self._in_post_copy()
        asked: list[str] = []
        real = self.src.manager.volume_api.attachment_delete

        def delete(context: Any, attachment: str) -> None:
            asked.append(attachment)
            if len(asked) == 1:
                raise cinder_exceptions.ClientException(503)
            real(context, attachment)

        self.src.manager.volume_api.attachment_delete = delete
        self._no_reply()
        self._arrived(engine)
        self._moved()
        assert sorted(asked) == sorted(self.attachments)  # each of them once
        assert self._attachments_at_source() == {asked[0]}
        assert f"Volume attachment {asked[0]} not deleted on source" in self._log()


class CoresTest(Ending):
    """Dedicated CPUs under [libvirt] cpu_power_management: those of the neighbours stay on."""

    ADDITIONAL_FILTERS: Any = ["NUMATopologyFilter"]  # noqa: RUF012  # as Nova's class has it

    def before_hosts(self) -> None:
        self.flags(cpu_dedicated_set="0-7", group="compute")

    def new_server(self, host: str = "src") -> Any:
        if not hasattr(self, "dedicated"):
            self.dedicated = self._create_flavor(vcpu=2, extra_spec={"hw:cpu_policy": "dedicated"})
        return self._create_server(host=host, networks="none", flavor_id=self.dedicated)

    def _pins(self, server: Any) -> list[int]:
        return _cores(
            objects.Instance.get_by_uuid(
                nova_context.get_admin_context(), server["id"], expected_attrs=["numa_topology"]
            )
        )

    def _keeps_the_neighbours_on(self) -> None:
        self.new_server("dest")  # has the cores there that self.server has here
        mine, neighbours = self._pins(self.server), self._pins(self.neighbour)
        engine = self._in_post_copy()
        self._arrived(engine)
        self._moved()
        self._nothing_was_done_twice()
        assert [name for name in self.done if "power" in name] == [f"power down {mine}"]
        assert self._pins(self.server) == neighbours  # what a second time would have switched off

    def test_no_reply_of_the_destination(self) -> None:
        self._no_reply()
        self._keeps_the_neighbours_on()

    def test_neutron_away(self) -> None:
        # Before Nova comes to the cores at the source.
        self._fail(
            self.src.manager.network_api, "migrate_instance_start", neutron_exceptions.ServiceUnavailable()
        )
        self._keeps_the_neighbours_on()


class WaitTest(Ending):
    """The destination's nova-compute is away for longer."""

    def before_hosts(self) -> None:
        self.flags(max_concurrent_live_migrations=1)

    def _state(self) -> tuple[str | None, str]:
        instance = objects.Instance.get_by_uuid(nova_context.get_admin_context(), self.server["id"])
        return instance.task_state, instance.host

    def test_another_server_leaves_the_host_meanwhile(self) -> None:
        rpc = self.src.manager.compute_rpcapi
        real = rpc.post_live_migration_at_destination
        away = [True]

        def call(context: Any, instance: Any, *arguments: Any) -> Any:
            if away[0] and instance.uuid == self.server["id"]:
                raise oslo_messaging.MessagingTimeout("no reply")
            return real(context, instance, *arguments)

        rpc.post_live_migration_at_destination = call
        engine = self._in_post_copy()
        self._arrived(engine)
        self._wait(lambda: "cannot be written down yet" in self._log(), "it waits")
        second = self._in_post_copy(self.neighbour)
        self.others[self.neighbour["id"]] = {"source": "absent", "destination": "running"}
        second.play(outcome="completed", phase="finished")
        self._moved(self.neighbour)
        assert self._state() == ("migrating", "dest")
        away[0] = False
        self._moved()
        assert max(self.done.values()) <= 2, self.done  # once for each server

    def test_what_the_owner_asked_for_survives(self) -> None:
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.ending.RETRY_S", (1.0,)))
        self._no_reply(times=2)
        engine = self._in_post_copy()
        self._arrived(engine)
        self._wait(lambda: "cannot be written down yet" in self._log(), "it waits")
        assert self._state() == ("migrating", "dest")
        _, why = self.src.driver._progress(self.server["id"])
        assert "cannot be written down yet: MessagingTimeout: no reply" in why, why
        # Idle for its owner at no time: Nova's API refuses all but deletion.
        self.api.post_server_action(self.server["id"], {"os-stop": None}, check_response_status=[409])
        self.api.post_server_action(self.server["id"], {"os-resetState": {"state": "active"}})
        instance = objects.Instance.get_by_uuid(nova_context.get_admin_context(), self.server["id"])
        instance.task_state = "powering-off"
        instance.save()
        self._wait(lambda: "says 'powering-off', which comes first" in self._log(), "it waits for that")
        assert self._state() == ("powering-off", "dest")
        instance.refresh()
        instance.task_state = None
        instance.save()
        self._moved()
        self._nothing_was_done_twice()
