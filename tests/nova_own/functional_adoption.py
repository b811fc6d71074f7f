"""Two nova-computes with a played libvirt and a played engine, everything else Nova's own: what becomes of
Nova's records when nova-compute is restarted in a live migration, or somebody meddles with a broken one.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import fixtures
from nova.tests.functional.libvirt import base

from pcmig import journal
from pcmig.nova import steer
from tests.nova_own.engine_status import PRECOPY

RECOVERY = {
    "state": "resuming",
    "attempts": 3,
    "permille": 430,
    "since_ms": 1,
    "next_ms": None,
    "text": "post-copy interrupted at 43 %, resuming, attempt 3",
}


class Engine:
    """Plays _core.Migration: its status is what the test says."""

    made: ClassVar[list[Engine]] = []

    def __init__(self, domain: str, destination: str, **arguments: Any) -> None:
        self.domain, self.destination, self.arguments = domain, destination, arguments
        self.now = dict(PRECOPY)
        self.asked: list[str] = []
        self._reader, self._writer = os.pipe()
        Engine.made.append(self)

    def play(self, **status: Any) -> None:
        self.now = self.now | status

    def status(self) -> dict[str, Any]:
        return dict(self.now)

    def decisions(self) -> list[Any]:
        return []

    def fileno(self) -> int:
        return self._reader

    def detach(self) -> None:
        self.play(outcome="detached")

    def open_gate(self) -> None:
        self.asked.append("open_gate")
        self.play(gate="open", phase="postcopy")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name)


class AdoptionTest(base.LibvirtMigrationMixin, base.ServersTestBase):  # type: ignore[misc]  # Nova has no types
    microversion = "latest"
    ADMIN_API = True

    def setUp(self) -> None:
        super().setUp()
        Engine.made = []
        self.halves = {"source": "running", "destination": "absent"}
        self.flags(live_migration_permit_post_copy=True, group="libvirt")
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", Engine))
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.half", self._half))
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.share_event_loop", lambda: None))
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.capability.destination_reason", lambda *_: None))
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.interruption.AFTER_SWITCH_S", 0.0))
        self.folders = {}
        for host in ("src", "dest"):
            self.folders[host] = self.useFixture(fixtures.TempDir()).path
            self._journal(host)
            self.start_compute(hostname=host)
        self.server = self._create_server(host="src", networks="none")

    @property
    def src(self) -> Any:
        return self.computes["src"]

    @property
    def dest(self) -> Any:
        return self.computes["dest"]

    def _journal(self, host: str) -> None:
        self.flags(journal_dir=self.folders[host], group="pcmig")

    def _half(self, uri: str, uuid: str, _timeout_ms: int) -> Any:
        assert uuid == self.server["id"]
        side = "destination" if "dest" in uri else "source"
        return {"half": self.halves[side], "job_active": self.halves["source"] == "postcopy"}

    def _wait(self, ready: Any, what: str) -> Any:
        for _ in range(200):
            found = ready()
            if found:
                return found
            time.sleep(0.1)
        self.fail(f"not within 20 s: {what}")

    def _record(self) -> Any:
        path = f"/os-migrations?instance_uuid={self.server['id']}"
        return self.api.api_get(path).body["migrations"][0]

    def _in_post_copy(self) -> Engine:
        """The newest engine, with the migration in post-copy by every record."""
        self.api.post_server_action(
            self.server["id"], {"os-migrateLive": {"host": "dest", "block_migration": "auto"}}
        )
        engine: Engine = self._wait(lambda: Engine.made and Engine.made[-1], "the engine is there")
        engine.play(gate="wanted", phase="drain")
        self._wait(lambda: "open_gate" in engine.asked, "the gate is opened")
        assert self._record()["status"] == steer.POST_COPY
        self.halves = {"source": "postcopy", "destination": "postcopy"}
        self._arrive()
        return engine

    def _arrive(self) -> None:
        """libvirt of the destination knows the guest."""
        xml = self.src.driver._host.get_connection().lookupByUUIDString(self.server["id"]).XMLDesc(0)
        self.dest.driver._host.get_connection().createXML(xml, 0)

    def _restart(self) -> None:
        self._journal("src")
        self.restart_compute_service("src")

    def _entries(self, host: str) -> list[journal.Entry]:
        entries, errors = journal.Journal(self.folders[host]).all()
        assert not errors, errors
        return entries

    def _moved(self) -> None:
        self._wait(lambda: self._record()["status"] == "completed", "the record is completed")
        server = self._wait_for_state_change(self.server, "ACTIVE")
        assert server["OS-EXT-SRV-ATTR:host"] == "dest"
        allocations = self.placement.get(f"/allocations/{self.server['id']}").body["allocations"]
        assert list(allocations) == [self.compute_rp_uuids["dest"]]
        uuid = self._record()["uuid"]
        assert self.placement.get(f"/allocations/{uuid}").body["allocations"] == {}
        self._wait(lambda: not self._entries("src") and not self._entries("dest"), "the journals are empty")

    def test_it_goes_on_after_a_restart(self) -> None:
        self._in_post_copy()
        assert [len(self._entries(host)) for host in ("src", "dest")] == [1, 1]
        self._restart()
        assert len(Engine.made) == 2
        engine = Engine.made[-1]
        assert engine.arguments["adopt"] and engine.arguments["recover"]
        assert engine.domain == self.server["id"]
        engine.play(phase="postcopy")
        self._wait(lambda: self._record()["status"] == steer.POST_COPY, "the record says so")
        server = self.api.get_server(self.server["id"])
        assert server["status"] == "MIGRATING"
        engine.play(recovery=RECOVERY, phase="paused")
        self._wait(lambda: self._record()["status"] == RECOVERY["text"], "the interruption is told")
        engine.play(recovery=None, phase="postcopy")
        self._wait(lambda: self._record()["status"] == steer.POST_COPY, "it is over")
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished")
        self._moved()

    def test_it_arrived_meanwhile(self) -> None:
        self._in_post_copy()
        self.halves = {"source": "absent", "destination": "running"}
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("completed")))
        self._restart()
        self._moved()

    def test_it_stayed_meanwhile(self) -> None:
        self._in_post_copy()
        self.halves = {"source": "running", "destination": "absent"}
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("failed")))
        self._restart()
        self._wait(lambda: self._record()["status"] == "failed", "the record says so")
        server = self._wait_for_state_change(self.server, "ACTIVE")
        assert server["OS-EXT-SRV-ATTR:host"] == "src"
        allocations = self.placement.get(f"/allocations/{self.server['id']}").body["allocations"]
        assert list(allocations) == [self.compute_rp_uuids["src"]]
        self._wait(lambda: not self._entries("src"), "the source's journal is empty")

    @staticmethod
    def _settled(outcome: str) -> type:
        class Settled(Engine):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.play(outcome=outcome, phase="finished", error="gone" if outcome != "completed" else None)

        return Settled

    def test_a_broken_guest_is_not_touched_and_ends_well_all_the_same(self) -> None:
        engine = self._in_post_copy()
        self.halves = {"source": "postcopy-failed", "destination": "postcopy-failed"}
        engine.play(recovery=RECOVERY, phase="paused")
        self._wait(lambda: self._record()["status"] == RECOVERY["text"], "the interruption is told")
        server_id = self.server["id"]
        self.src.driver._host.get_connection().lookupByUUIDString(server_id).suspend()
        self.api.post_server_action(server_id, {"reboot": {"type": "HARD"}}, check_response_status=[409])
        self.api.post_server_action(server_id, {"os-resetState": {"state": "active"}})
        # 500 as what is a cast elsewhere is a call in these tests.
        self.api.post_server_action(server_id, {"reboot": {"type": "HARD"}}, check_response_status=[500])
        server = self._wait_for_state_change(self.server, "ERROR")
        assert "post-copy was interrupted" in server["fault"]["message"], server["fault"]
        events = [
            event["event"]
            for action in self.api.get_instance_actions(server_id)
            if action["action"] == "live-migration"
            for event in self.api.api_get(
                f"/servers/{server_id}/os-instance-actions/{action['request_id']}"
            ).body["instanceAction"]["events"]
        ]
        assert RECOVERY["text"] in events, events
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished", recovery=None)
        self._moved()

    def test_what_nobody_can_save_is_left_alone_until_it_is_repaired(self) -> None:
        engine = self._in_post_copy()
        self.halves = {"source": "absent", "destination": "postcopy-failed"}
        engine.play(
            outcome="needs-operator",
            phase="finished",
            error="the source's half is gone",
            operator_command="look",
        )
        server = self._wait_for_state_change(self.server, "ERROR")
        assert "the source's half is gone; to go on: look" in server["fault"]["message"]
        assert server["OS-EXT-SRV-ATTR:host"] == "src"
        assert self._record()["status"] == "error"
        assert len(self._entries("src")) == 1
        self.halves = {"source": "absent", "destination": "running"}
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("completed")))
        self._run_periodics()
        self._moved()
