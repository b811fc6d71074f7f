# SPDX-License-Identifier: Apache-2.0
"""What becomes of Nova's records when nova-compute is restarted in a live migration, or somebody meddles with
a broken one.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import json
import re
from typing import Any

import fixtures

from pcmig.nova import steer, words
from tests.nova_own import two_hosts
from tests.nova_own.two_hosts import Engine

RECOVERY = {
    "state": "resuming",
    "attempts": 3,
    "permille": 430,
    "since_ms": 1,
    "next_ms": None,
    "text": "post-copy interrupted at 43 %, resuming, attempt 3 at compute-0042",
}
# What of it the server's owner reads.
TOLD = "post-copy interrupted at 43 %, resuming, attempt 3"


class AdoptionTest(two_hosts.TwoHosts):
    def test_it_goes_on_after_a_restart(self) -> None:
        self._in_post_copy().play(crossed=True)
        assert [len(self._entries(host)) for host in ("src", "dest")] == [1, 1]
        self._wait(lambda: self._entries("src")[0].crossed, "it is noted that the switch was issued")
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
        self._wait(lambda: self._record()["status"] == TOLD, "the interruption is told")
        engine.play(recovery=None, phase="postcopy")
        self._wait(lambda: self._record()["status"] == steer.POST_COPY, "it is over")
        self._notified(
            "instance.live_migration_switchover.start",
            "instance.live_migration_switchover.end",
            "instance.live_migration_interrupted",
            "instance.live_migration_resumed",
        )
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished")
        self._moved()
        # They are written beside what Nova does at the end.
        self._wait(lambda: len(self._ledgers("src")) == 2, "both ledgers are there")
        left, moved = (kept.document for kept in self._ledgers("src"))
        assert (left["outcome"], left["adopted"]) == ("detached", False)
        assert (moved["outcome"], moved["adopted"]) == ("completed", True)
        assert [each["guest"]["uuid"] for each in (left, moved)] == [self.server["id"]] * 2
        assert left["begun"] == moved["begun"]  # one migration, which began once
        assert left["ended"] <= moved["started"] <= moved["ended"]
        assert {each["by"]["migration"] for each in (left, moved)} == {self._record()["uuid"]}
        assert moved["by"]["program"] == "nova-compute"
        assert set(moved["samples"]["phase"]) <= {"precopy", "postcopy", "paused"}
        assert self._ledgers("dest") == []

    def _notified(self, *wanted: str) -> None:
        """The notifications that Nova has none for came in this order, each once, as Nova's own do."""

        def ours() -> list[Any]:
            return [each for each in self.notifier.versioned_notifications if each["event_type"] in wanted]

        self._wait(lambda: len(ours()) >= len(wanted), "the notifications are there")
        assert [each["event_type"] for each in ours()] == list(wanted)
        for each in ours():
            assert (each["publisher_id"], each["priority"]) == ("nova-compute:src", "INFO")
            assert each["payload"]["nova_object.name"] == "InstanceActionPayload"
            assert each["payload"]["nova_object.data"]["uuid"] == self.server["id"]

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

    def test_a_broken_guest_is_not_touched_and_ends_well_all_the_same(self) -> None:
        engine = self._in_post_copy()
        self.halves = {"source": "postcopy-failed", "destination": "postcopy-failed"}
        engine.play(recovery=RECOVERY, phase="paused")
        self._wait(lambda: self._record()["status"] == TOLD, "the interruption is told")
        server_id = self.server["id"]
        self.src.driver._host.get_connection().lookupByUUIDString(server_id).suspend()
        self.api.post_server_action(server_id, {"reboot": {"type": "HARD"}}, check_response_status=[409])
        self.api.post_server_action(server_id, {"os-resetState": {"state": "active"}})
        # 500 as what is a cast elsewhere is a call in these tests.
        self.api.post_server_action(server_id, {"reboot": {"type": "HARD"}}, check_response_status=[500])
        server = self._wait_for_state_change(self.server, "ERROR")
        assert server["fault"]["message"] == words.refusal("interrupted")
        first = server["fault"]["details"].splitlines()[0]
        assert "Explained: pcmig resume -c " in first and "  # post-copy was interrupted" in first
        events = [
            (event["event"], event["details"])
            for action in self.api.get_instance_actions(server_id)
            if action["action"] == "live-migration"
            for event in self.api.api_get(
                f"/servers/{server_id}/os-instance-actions/{action['request_id']}"
            ).body["instanceAction"]["events"]
        ]
        assert (TOLD, RECOVERY["text"]) in events, events
        self._owner_reads_no_hosts()
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished", recovery=None)
        self._moved()

    def _owner_reads_no_hosts(self) -> None:
        """All that the API shows of it to a user of the server's project who is no administrator."""
        reader, server_id = self.api_fixture.reader_api, self.server["id"]
        reader.microversion = "latest"
        path = f"/servers/{server_id}/os-instance-actions"
        fault = reader.api_get(f"/servers/{server_id}").body["server"]["fault"]
        assert set(fault) == {"code", "created", "message"}
        actions = reader.api_get(path).body["instanceActions"]
        read = [reader.api_get(f"{path}/{action['request_id']}").body for action in actions]
        events = [event for one in read for event in one["instanceAction"]["events"]]
        assert TOLD in [event["event"] for event in events]
        assert not re.search(r"\bsrc\b|\bdest\b|compute-0042|://", json.dumps([fault, events]))

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
        assert "without an operator" in server["fault"]["message"]
        assert server["fault"]["details"].splitlines()[0].endswith(": look  # the source's half is gone")
        assert server["OS-EXT-SRV-ATTR:host"] == "src"
        assert self._record()["status"] == "error"
        assert len(self._entries("src")) == 1
        self.halves = {"source": "absent", "destination": "running"}
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("completed")))
        self._run_periodics()
        self._moved()
