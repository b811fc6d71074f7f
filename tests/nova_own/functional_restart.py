# SPDX-License-Identifier: Apache-2.0
"""What Nova's post step does at the source, and how often, when nova-compute ends at any point of it.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import time
from typing import Any

import fixtures

from tests.nova_own import functional_ending as ending
from tests.nova_own.functional_ending import CLEANUP, DISCONNECT, POWER_DOWN, Killed
from tests.nova_own.two_hosts import VOLUME


class RestartTest(ending.Ending):
    """nova-compute ends at some point of the post step, and another one goes on."""

    def _killed(self) -> None:
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("completed")))
        self._restart()
        self._moved()
        self._nothing_was_done_twice()

    def _killed_in(self, name: str, after: bool) -> None:
        engine = self._in_post_copy()
        killed = self._kill_once(name, after)
        self._arrived(engine)
        self._wait(lambda: killed, "the post step has come there")
        time.sleep(0.5)
        assert self._record()["status"] != "completed"
        self._killed()

    def test_before_a_volume_is_disconnected(self) -> None:
        self._killed_in(DISCONNECT, after=False)
        assert f"grep -l {VOLUME}" in self._log() or f"volume {VOLUME} (fake) may still" in self._log()
        assert self.done["power down []"] == self.done["cleanup"] == 1

    def test_after_a_volume_is_disconnected(self) -> None:
        self._killed_in(DISCONNECT, after=True)
        assert self.done["power down []"] == self.done["cleanup"] == 1

    def test_in_the_cores(self) -> None:
        self._killed_in(POWER_DOWN, after=True)
        assert (
            "a restart of nova-compute switches off" in self._log() or "nothing is left by it" in self._log()
        )

    def test_in_the_clean_up(self) -> None:
        self._killed_in(CLEANUP, after=False)
        assert "undefine --keep-nvram" in self._log()

    def _killed_at(self, owner: Any, name: str, after: bool) -> None:
        engine = self._in_post_copy()
        self._fail(owner, name, Killed(), after=after)
        self._arrived(engine)
        self._wait(lambda: "unplug" in self.done, "the post step has begun")
        time.sleep(0.5)
        self._killed()
        assert self.done == {f"disconnect {VOLUME}": 1, "unplug": 1, "power down []": 1, "cleanup": 1}

    def test_before_an_attachment_is_deleted(self) -> None:
        self._killed_at(self.src.manager.volume_api, "attachment_delete", after=False)

    def test_after_an_attachment_is_deleted(self) -> None:
        self._killed_at(self.src.manager.volume_api, "attachment_delete", after=True)

    def test_before_the_destination_is_told(self) -> None:
        self._killed_at(self.src.manager.compute_rpcapi, "post_live_migration_at_destination", after=False)

    def test_after_the_destination_is_told(self) -> None:
        self._killed_at(self.src.manager.compute_rpcapi, "post_live_migration_at_destination", after=True)

    def test_before_the_allocation_goes(self) -> None:
        self._killed_at(self.src.manager.reportclient, "delete_allocation_for_instance", after=False)

    def test_in_the_rollback(self) -> None:
        engine = self._in_post_copy()
        removed: list[str] = []
        rpc = self.src.manager.compute_rpcapi
        real = rpc.remove_volume_connection

        def remove(context: Any, instance: Any, volume: str, host: str) -> None:
            removed.append(volume)
            real(context, instance, volume, host)
            raise Killed

        rpc.remove_volume_connection = remove
        self.halves = {"source": "running", "destination": "absent"}
        engine.play(outcome="failed", phase="finished", error="the stream broke")
        self._wait(lambda: removed, "the rollback has begun")
        time.sleep(0.5)
        self._count(
            "nova.compute.manager.ComputeManager._remove_remote_volume_connections", lambda *_: "remove"
        )
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", self._settled("failed")))
        self._restart()
        self._wait(lambda: self._record()["status"] == "failed", "the record says so")
        server = self._wait_for_state_change(self.server, "ACTIVE")
        assert server["OS-EXT-SRV-ATTR:host"] == "src"
        allocations = self.placement.get(f"/allocations/{self.server['id']}").body["allocations"]
        assert list(allocations) == [self.compute_rp_uuids["src"]]
        self._wait(lambda: not self._entries("src"), "the source's journal is empty")
        assert self.done["remove"] == 0 and len(removed) == 1
        assert set(self.cinder.attachment_ids_for_instance(self.server["id"])) == self.attachments
        assert "Nova's rollback of this live migration was begun before" in self._log()

    def test_while_it_waits_for_the_destination(self) -> None:
        engine = self._in_post_copy()
        self._no_reply(times=1 << 30)
        self._arrived(engine)
        self._wait(lambda: "cannot be written down yet" in self._log(), "it waits")
        self._killed()
