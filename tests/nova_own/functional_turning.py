# SPDX-License-Identifier: Apache-2.0
"""Guests that turn back to their source, on two nova-computes with a played libvirt and a played engine: by
themselves, on request, by a fence; Nova's books, what is refused until a power cycle, a destination that
comes back.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

from typing import Any

import fixtures
from cinderclient import exceptions as cinder_exceptions
from nova import context as nova_context
from nova import exception, objects
from nova.network import neutron
from nova.volume import cinder

from pcmig import _core
from pcmig.nova import guard, turning
from pcmig_common import messages, turned_back
from tests.nova_own import functional_lost as lost
from tests.nova_own.functional_adoption import RECOVERY
from tests.nova_own.two_hosts import VOLUME

HOST = "7a0d3c52-6f0e-4f6f-9b5c-3f9f3f1d2b10"
XML = "<domain type='kvm'><name>g</name><devices/></domain>"


class TurningTest(lost.LostTest):
    mode = "unrun"
    xml = XML
    domain_id: int | None = 7
    runs = False
    processes: bool | None = False  # of the guest at the destination, as its nova-compute says
    dest_answers = True

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("pcmig.turn_back.AGAIN_S", 0.0))
        self.look_words: dict[str, Any] = {}
        self.done: list[str] = []  # what QEMU was asked
        look = {
            "run_state": "finish-migrate",
            "migration": "postcopy-paused",
            "half": "waits",
            "remaining_bytes": 4096,
            "sent_bytes": 8192,
            "requests": 2,
            "qemu": 10_000_002,
            "sets_active": True,
            "discards_memory": False,
        }
        self.host_there: str | None = HOST  # that answers at the destination's address
        for name, value in (
            ("pcmig.turn_back.host_of", lambda _: self.host_there),
            (
                "pcmig._core.turn_back_look",
                lambda *_: look | self.look_words | ({"half": "runs"} if self.runs else {}),
            ),
            ("pcmig._core.domain_xml", lambda *_: self.xml),
            ("pcmig.nova.turning._do", lambda uri, uuid: self._turn(uuid)),
            ("pcmig._core.turn_back", lambda *_: ["it runs already"]),  # of one that does
            ("pcmig._core.turn_back", lambda *_: ["it runs already"]),
            ("pcmig_common.messages.Client.process", lambda *_: self.processes),
            ("pcmig_common.messages.Client.answers", lambda *_: self.dest_answers),
        ):
            self.useFixture(fixtures.MonkeyPatch(name, value))

    def before_hosts(self) -> None:
        self.flags(turn_back=self.mode, group="pcmig")

    def _turn(self, uuid: str) -> list[str]:
        [entry] = self._entries("src")
        assert entry.turned_back and entry.turned_back["done"] is False, "on record before it is done"
        self.done.append(uuid)
        self.runs = True
        return ["it ran"]

    def _half(self, uri: str, uuid: str, _timeout_ms: int = 0) -> Any:
        found = super()._half(uri, uuid)
        source = "dest" not in uri
        runs = source and self.runs and found["half"] == "postcopy-failed"
        return found | {"runs": runs, "id": self.domain_id if source else None}

    def _destination_is_gone(self, **status: Any) -> Any:
        """In post-copy, and then its host says that it has nothing of the guest."""
        engine = self._in_post_copy()
        engine.play(crossed=True, dest_host=HOST)
        self._wait(lambda: self._entries("src")[0].crossed, "it is noted")
        assert self._entries("src")[0].dest_host == HOST
        self.halves = {"source": "postcopy-failed", "destination": "absent"}
        self._guest("dest").destroy()
        engine.play(
            outcome="needs-operator", phase="finished", error="the destination's half is gone", **status
        )
        return engine

    def _instance(self) -> Any:
        context = nova_context.get_admin_context()
        return objects.Instance.get_by_uuid(context, self.server["id"], expected_attrs=["system_metadata"])

    def _back_at_source(self) -> None:
        """By all of Nova's books."""
        self._wait(lambda: self._record()["status"] == "failed", "the migration has failed")
        server = self._wait_for_state_change(self.server, "ACTIVE")
        assert server["OS-EXT-SRV-ATTR:host"] == "src" and server["OS-EXT-STS:task_state"] is None
        assert self._allocations(self.server["id"]) == ["src"]
        assert self._allocations(self._record()["uuid"]) == []
        assert turned_back.since(self._instance().system_metadata)
        assert len(self._entries("src")) == 1, "it stays on record"
        self._wait(lambda: self._entries("src")[0].owner is None, "nobody has to look after it")
        assert self.done == [self.server["id"]]
        events = [
            event["event"]
            for action in self.api.get_instance_actions(self.server["id"])
            if action["action"] == "live-migration"
            for event in self.api.api_get(
                f"/servers/{self.server['id']}/os-instance-actions/{action['request_id']}"
            ).body["instanceAction"]["events"]
        ]
        assert any(event.startswith("turned back") for event in events), events

    def _ask(self, **words: bool) -> str | None:
        refused: str | None = self.src.driver._turn_back(
            nova_context.get_admin_context(), self.server["id"], turned_back.Words(**words)
        )
        return refused

    def test_by_itself_where_it_never_ran(self) -> None:
        self._destination_is_gone(unrun=True)
        self._back_at_source()
        # What libvirt cannot do is refused, and a hard reboot ends that.
        context, instance = nova_context.get_admin_context(), self._instance()
        driver = self.src.driver
        for call, arguments in (
            (driver.pause, (instance,)),
            (driver.suspend, (context, instance)),
            (driver.check_can_live_migrate_source, (context, instance, None)),
        ):
            try:
                call(*arguments)
            except guard.Refused as err:
                assert str(err) == str(turned_back.SENTENCE)
            else:
                self.fail(f"{call} was not refused")
        self.domain_id, self.runs = 8, False
        self.halves = {"source": "running", "destination": "absent"}
        assert self._hard_reboot() == "ACTIVE", self.fault
        assert turned_back.since(self._instance().system_metadata) is None
        assert not self._entries("src")

    def test_stopped_and_started(self) -> None:
        self._destination_is_gone(unrun=True)
        self._back_at_source()
        self.domain_id, self.runs = None, False
        self.halves = {"source": "absent", "destination": "absent"}
        self.api.post_server_action(self.server["id"], {"os-stop": {}})
        self._wait_for_state_change(self.server, "SHUTOFF")
        self._wait(lambda: not self._entries("src"), "its record has served")
        assert turned_back.since(self._instance().system_metadata) is None
        self.api.post_server_action(self.server["id"], {"os-start": {}})
        self._wait_for_state_change(self.server, "ACTIVE")

    def test_on_request_where_it_ran(self) -> None:
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        for _ in range(2):
            self._run_periodics()
        assert not self.done, "nobody has asked"
        self.processes = True
        assert "its QEMU runs" in str(self._ask())
        self.processes = None
        assert "does not say" in str(self._ask())
        self.processes = False
        self.xml = XML.replace(
            "<devices/>",
            "<devices><disk device='disk'><source dev='/x'/><target dev='vda'/></disk></devices>",
        )
        assert "--accept-newer-disks" in str(self._ask())
        assert not self.done
        assert self._ask(accept_newer_disks=True) is None
        self._back_at_source()
        assert "already" in str(self._ask())

    def test_absent_counts_only_from_the_host_to_which_it_went(self) -> None:
        """An address may change hands, whatever the destination's nova-compute says of its processes."""
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        for self.host_there in (None, "00000000-0000-0000-0000-000000000001"):
            refused = str(self._ask())
            assert "not known to be the one to which the guest went" in refused
            assert f"openstack pcmig turn-back --destination-is-dead {self.server['id']}" in refused
        assert not self.done
        assert self._ask(destination_is_dead=True) is None
        self._back_at_source()

    def test_silence_alone_never(self) -> None:
        engine = self._in_post_copy()
        engine.play(crossed=True, phase="paused", recovery=RECOVERY, unrun=True)
        self._wait(lambda: self._entries("src")[0].crossed, "it is noted")
        self.halves = {"source": "postcopy-failed", "destination": None}
        self.processes = None
        self.dest_answers = False
        for _ in range(2):
            self._run_periodics()
        assert "does not answer" in str(self._ask())
        assert not self.done and "detach" not in engine.asked
        # The word of whoever fenced its host.
        [service] = self.api.get_services(host="dest", binary="nova-compute")
        self.computes["dest"].stop()
        self.api.put_service(service["id"], {"forced_down": True})
        self._run_periodics()
        self._back_at_source()

    def test_a_destination_that_lives_is_not_dead_by_word(self) -> None:
        engine = self._in_post_copy()
        engine.play(crossed=True, phase="paused", recovery=RECOVERY)
        self._wait(lambda: self._entries("src")[0].crossed, "it is noted")
        self.halves = {"source": "postcopy-failed", "destination": "postcopy-failed"}
        assert "pcmig resume" in str(self._ask(destination_is_dead=True, accept_newer_disks=True))
        assert not self.done

    def test_what_fails_is_looked_after_as_before(self) -> None:
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")

        def fails(*_: Any) -> Any:
            raise _core.LibvirtError("the stub is not to be had")

        with fixtures.MonkeyPatch("pcmig.nova.turning._do", fails):
            assert self._ask() is None
            self._wait(lambda: "stub" in (self.src.driver._guard.told.of(self.server["id"]) or ""), "told")
        self._wait(lambda: not self.src.driver._keeper.is_busy(self.server["id"]), "its thread has ended")
        assert self._entries("src")[0].owner is None
        assert self._ask() is None
        self._back_at_source()

    def test_a_service_that_does_not_answer_is_asked_again(self) -> None:
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.ending.RETRY_S", (0.1,)))
        fails = [2]
        set_up = neutron.API.setup_networks_on_host

        def flaky(*arguments: Any, **named: Any) -> Any:
            if fails[0] > 0 and named.get("teardown"):
                fails[0] -= 1
                raise exception.ServiceUnavailable("503")
            return set_up(*arguments, **named)

        self.useFixture(fixtures.MonkeyPatch("nova.network.neutron.API.setup_networks_on_host", flaky))
        self._destination_is_gone(unrun=True)
        self._back_at_source()
        assert fails == [0]

    def _cinder_is_away(self, calls: int) -> list[int]:
        """For so many attempts to delete an attachment; how many of them are left."""
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.ending.RETRY_S", (0.1,)))
        left = [calls]
        delete = cinder.API.attachment_delete  # of Nova's fixture, which knows no self

        def flaky(_: Any, *arguments: Any) -> Any:
            if left[0] > 0:
                left[0] -= 1
                raise cinder_exceptions.ClientException(503, "Service Unavailable")
            return delete(*arguments)

        self.useFixture(fixtures.MonkeyPatch("nova.volume.cinder.API.attachment_delete", flaky))
        return left

    def test_cinder_does_not_answer(self) -> None:
        """The volume is the source's again, in Nova's books and Cinder; at the destination it is disconnected
        once."""
        disconnected: list[str] = []
        name = "nova.compute.manager.ComputeManager.remove_volume_connection"
        remove = type(self.dest.manager).remove_volume_connection

        def noting(manager: Any, context: Any, **named: Any) -> Any:
            disconnected.append(named["volume_id"])
            return remove(manager, context, **named)

        self.useFixture(fixtures.MonkeyPatch(name, noting))
        left = self._cinder_is_away(3)
        source, _ = self._migrating_with_a_volume(lambda: self._destination_is_gone(unrun=True))
        self._back_at_source()
        assert left == [0] and disconnected == [VOLUME]
        self.domain_id, self.runs = 8, False
        self.halves = {"source": "running", "destination": "absent"}
        self._starts_with_its_volume(source)

    def test_cinder_does_not_answer_and_nova_compute_is_restarted(self) -> None:
        """Nobody answers for the destination, either: what is left there it clears away itself."""
        self.dest_answers = False
        left = self._cinder_is_away(10_000)
        source, both = self._migrating_with_a_volume(lambda: self._destination_is_gone(unrun=True))
        self._wait(lambda: left[0] < 9_990, "it was asked often")
        assert "still attached" in str(self.src.driver._keeper.waits(self.server["id"]))
        assert self._record()["status"] != "failed" and self._attachments() == both
        self._restart()
        left[0] = 0
        for _ in range(2):
            self._run_periodics()
        self._back_at_source()
        assert self._attachments() == source

    def test_nova_compute_is_restarted_before_the_books_are_written(self) -> None:
        away = [True]

        def allocations(*_: Any, **__: Any) -> Any:
            if away[0]:
                raise exception.ServiceUnavailable("placement is away")
            return revert(*_, **__)

        revert = type(self.src.manager)._revert_allocation
        self.useFixture(
            fixtures.MonkeyPatch("nova.compute.manager.ComputeManager._revert_allocation", allocations)
        )
        self._destination_is_gone(unrun=True)
        self._wait(lambda: self.done, "it turned back")
        self._wait(lambda: self.src.driver._keeper.waits(self.server["id"]), "its books wait")
        self._restart()
        assert self.api.get_server(self.server["id"])["status"] == "MIGRATING"
        away[0] = False
        for _ in range(2):
            self._run_periodics()
        self._back_at_source()

    def test_a_destination_that_comes_back_has_lost(self) -> None:
        self.dest_answers = False
        self._destination_is_gone(unrun=True)
        self._back_at_source()
        assert len(self._entries("dest")) == 1
        rolled_back: list[str] = []
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.virt.libvirt.driver.LibvirtDriver.rollback_live_migration_at_destination",
                lambda _, context, instance, *__, **___: rolled_back.append(instance.uuid),
            )
        )
        half = self._half

        def defined(uri: str, uuid: str, timeout_ms: int = 0) -> Any:
            return half(uri, uuid) | {"defined": "dest" in uri}

        self.useFixture(fixtures.MonkeyPatch("pcmig._core.half", defined))
        self._journal("dest")
        self.restart_compute_service("dest")
        for _ in range(3):
            self._run_periodics()
        self._wait(lambda: not self._entries("dest"), "the destination's record is gone")
        assert rolled_back == [self.server["id"]]
        assert len(self._entries("src")) == 1

    def test_disks_that_may_be_newer_are_kept(self) -> None:
        """A source that runs says nothing of whether the guest was switched: it may have been booted anew."""
        self.dest_answers = False
        self._destination_is_gone(unrun=True)
        self._back_at_source()
        removed: list[str] = []
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.virt.libvirt.driver.LibvirtDriver.rollback_live_migration_at_destination",
                lambda _, context, instance, *__, **___: removed.append(instance.uuid),
            )
        )
        half = self._half
        self.useFixture(
            fixtures.MonkeyPatch(
                "pcmig._core.half",
                lambda uri, uuid, timeout_ms=0: half(uri, uuid, timeout_ms) | {"defined": "dest" in uri},
            )
        )
        self.domain_id, self.runs = 8, False
        self.halves = {"source": "running", "destination": "absent"}
        self._journal("dest")
        self.restart_compute_service("dest")
        for _ in range(3):
            self._run_periodics()
        self._wait(lambda: not self._entries("dest"), "the destination's record is gone")
        assert not removed

    def test_one_at_a_time(self) -> None:
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        turner = self.src.driver._keeper.turner
        with turner._alone(self.server["id"]):
            assert "at this moment" in str(self._ask())
            turner._turn_back(self.src.driver._records.get(self.server["id"]), turning.Request(), None)
            assert not self.done
        self._wait(lambda: self._ask() is None, "nobody is at it")
        self._back_at_source()

    def test_a_fence_does_not_say_that_it_is_nowhere_else(self) -> None:
        self.look_words = {"remaining_bytes": 0}
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        assert "no other host has it" in str(self._ask(destination_is_dead=True))
        [service] = self.api.get_services(host="dest", binary="nova-compute")
        self.computes["dest"].stop()
        self.api.put_service(service["id"], {"forced_down": True})
        refused = str(self._ask())
        assert "no other host has it" in refused
        assert f"openstack pcmig turn-back --guest-is-nowhere-else {self.server['id']}" in refused
        assert not self.done
        # Whoever has looked says so, and then it is he who vouches for it.
        assert self._ask(guest_is_nowhere_else=True) is None
        self._back_at_source()

    def test_the_destination_is_asked_for_the_process_twice(self) -> None:
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        said = iter([False, True])
        with fixtures.MonkeyPatch("pcmig_common.messages.Client.process", lambda *_: next(said)):
            record = self.src.driver._records.get(self.server["id"])
            try:
                self.src.driver._turning.turn(nova_context.get_admin_context(), record, turning.Request())
            except turning.NotNow as err:
                assert "its QEMU runs" in str(err)
            else:
                self.fail("it was not asked again")
        assert not self.done

    def test_books_of_a_qemu_that_ended_before_they_were_written(self) -> None:
        away = [True]
        revert = type(self.src.manager)._revert_allocation

        def allocations(*arguments: Any, **named: Any) -> Any:
            if away[0]:
                raise exception.ServiceUnavailable("placement is away")
            return revert(*arguments, **named)

        self.useFixture(
            fixtures.MonkeyPatch("nova.compute.manager.ComputeManager._revert_allocation", allocations)
        )
        self._destination_is_gone(unrun=True)
        self._wait(lambda: self.src.driver._keeper.waits(self.server["id"]), "its books wait")
        self._restart()
        self.domain_id, self.runs = None, False
        self.halves = {"source": "absent", "destination": "absent"}
        for _ in range(2):
            self._run_periodics()
        assert len(self._entries("src")) == 1, "it stays on record until its books are right"
        away[0] = False
        self._run_periodics()
        self._wait(lambda: self._record()["status"] == "failed", "its books are written")
        for _ in range(2):
            self._run_periodics()
        self._wait(lambda: not self._entries("src"), "then its record has served")
        assert self._allocations(self.server["id"]) == ["src"]

    def test_what_was_done_is_written_down_whatever_is_configured(self) -> None:
        """nova-compute ended between the act and its note; nobody answers for the destination."""
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        self._wait(lambda: not self.src.driver._keeper.is_busy(self.server["id"]), "its thread has ended")
        self.runs, self.processes = True, None
        self.src.driver._turning.mode = "never"
        self.done.append(self.server["id"])  # before
        for _ in range(2):
            self._run_periodics()
        self._back_at_source()

    def test_the_bus_carries_it(self) -> None:
        """Both questions reach the driver that is asked."""
        self._destination_is_gone(unrun=False)
        self._wait_for_state_change(self.server, "ERROR")
        client = messages.Client()
        context = nova_context.get_admin_context()
        assert client.turn_back(context, "src", self.server["id"], turned_back.Words()) is None
        self._back_at_source()


# What it inherits is run by itself.
for name in list(vars(lost.LostTest)):
    if name.startswith("test_") and name not in vars(TurningTest):
        setattr(TurningTest, name, None)
