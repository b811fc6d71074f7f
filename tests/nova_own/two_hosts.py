# SPDX-License-Identifier: Apache-2.0
"""Two nova-computes with a played libvirt and a played engine, everything else Nova's own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

import fixtures
from nova.conf import CONF
from nova.tests.functional.libvirt import base

from pcmig import journal
from pcmig._core import Migration
from pcmig.ledgers.store import Kept, Store
from pcmig.nova import guard, steer
from tests.nova_own.engine_status import PRECOPY

if TYPE_CHECKING:
    from pcmig._core import Ledger

VOLUME = "11111111-aaaa-4bbb-8ccc-222222222222"


# Of the real core, before anything has happened.
LEDGER = Migration("g1", "test:///default").ledger()


class Engine:
    """Plays _core.Migration: its status is what the test says."""

    made: ClassVar[list[Engine]] = []

    def __init__(self, domain: str, destination: str, **arguments: Any) -> None:
        self.domain, self.destination, self.arguments = domain, destination, arguments
        self.now = dict(PRECOPY)
        self.asked: list[str] = []
        self._reader, self._writer = os.pipe()
        self._left, self._leaves = os.pipe()
        Engine.made.append(self)

    def play(self, **status: Any) -> None:
        self.now = self.now | status
        if self.now["left"] or self.now["outcome"] is not None:
            os.write(self._leaves, b"x")

    def left_fileno(self) -> int:
        return self._left

    def status(self) -> dict[str, Any]:
        return dict(self.now)

    def decisions(self, first: int = 0) -> list[Any]:
        return []

    def ledger(self) -> Ledger:
        return LEDGER

    def fileno(self) -> int:
        return self._reader

    def detach(self) -> None:
        self.play(outcome="detached")

    def open_gate(self) -> None:
        self.asked.append("open_gate")
        self.play(gate="open", phase="postcopy")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name)


class TwoHosts(base.LibvirtMigrationMixin, base.ServersTestBase):  # type: ignore[misc]  # Nova has no types
    microversion = "latest"
    ADMIN_API = True

    def setUp(self) -> None:
        super().setUp()
        Engine.made = []
        self.halves = {"source": "running", "destination": "absent"}
        self.others: dict[str, dict[str, str]] = {}  # halves of other guests than self.server
        self.flags(live_migration_permit_post_copy=True, group="libvirt")
        if "manager_shutdown_timeout" in CONF:  # Nova 34 waits that long for live migrations when it ends
            self.flags(manager_shutdown_timeout=1, graceful_shutdown_timeout=2)
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.Migration", Engine))
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.half", self._half))
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.host_facts", lambda uri, **_: {"hostname": uri}))
        self.useFixture(fixtures.MonkeyPatch("pcmig._core.share_event_loop", lambda: None))
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.capability.destination_reason", lambda *_: None))
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.interruption.AFTER_SWITCH_S", 0.0))
        self.before_hosts()
        self.folders = {}
        for host in ("src", "dest"):
            self.folders[host] = self.useFixture(fixtures.TempDir()).path
            self._journal(host)
            self.start_compute(hostname=host)
        self.server = self.new_server()

    def before_hosts(self) -> None:
        """For options that nova-compute reads at its start."""

    def new_server(self, host: str = "src") -> Any:
        return self._create_server(host=host, networks="none")

    def _attach(self, server: Any, volume: str) -> None:
        self.api.post_server_volume(server["id"], {"volumeAttachment": {"volumeId": volume}})
        self._wait(
            lambda: any(a["volumeId"] == volume for a in self.api.get_server_volumes(server["id"])),
            "the volume is attached",
        )

    @property
    def src(self) -> Any:
        return self.computes["src"]

    @property
    def dest(self) -> Any:
        return self.computes["dest"]

    def _journal(self, host: str) -> None:
        self.flags(journal_dir=self.folders[host], group="pcmig")

    def _half(self, uri: str, uuid: str, _timeout_ms: int) -> Any:
        assert uuid in {self.server["id"], *self.others}
        side = "destination" if "dest" in uri else "source"
        halves = self.others.get(uuid, self.halves)
        return {
            "half": halves[side],
            "job_active": halves["source"] == "postcopy",
            "shut_down": False,
            "runs": False,
            "id": None,
        }

    def _tell_apart(self) -> None:
        """What the hosts ask of themselves as well: each calls itself qemu:///system."""
        asked = guard.Guard._half

        def half(asking: guard.Guard, uris: list[str], uuid: str) -> Any:
            return asked(
                asking, [uri.replace("qemu:///", f"qemu+tcp://{asking.host}/") for uri in uris], uuid
            )

        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.guard.Guard._half", half))

    def _wait(self, ready: Any, what: str) -> Any:
        for _ in range(600):
            found = ready()
            if found:
                return found
            time.sleep(0.1)
        self.fail(f"not within 60 s: {what}")

    def _record(self, server: Any = None) -> Any:
        path = f"/os-migrations?instance_uuid={(server or self.server)['id']}"
        return self.api.api_get(path).body["migrations"][0]

    def _in_post_copy(self, server: Any = None) -> Engine:
        """The newest engine, with the migration in post-copy by every record."""
        server = server or self.server
        made = len(Engine.made)
        self.api.post_server_action(
            server["id"], {"os-migrateLive": {"host": "dest", "block_migration": "auto"}}
        )
        engine: Engine = self._wait(
            lambda: len(Engine.made) > made and Engine.made[-1], "the engine is there"
        )
        engine.play(gate="wanted", phase="drain")
        self._wait(lambda: "open_gate" in engine.asked, "the gate is opened")
        assert self._record(server)["status"] == steer.POST_COPY
        halves = {"source": "postcopy", "destination": "postcopy"}
        if server is self.server:
            self.halves = halves
        else:
            self.others[server["id"]] = halves
        self._arrive(server)
        return engine

    def _arrive(self, server: Any) -> None:
        """libvirt of the destination knows the guest."""
        xml = self.src.driver._host.get_connection().lookupByUUIDString(server["id"]).XMLDesc(0)
        self.dest.driver._host.get_connection().createXML(xml, 0)

    def _restart(self) -> None:
        self._journal("src")
        self.restart_compute_service("src")

    def _entries(self, host: str) -> list[journal.Entry]:
        entries, errors = journal.Journal(self.folders[host]).all()
        assert not errors, errors
        return entries

    def _ledgers(self, host: str) -> list[Kept]:
        """Those that HOST has kept."""
        kept, errors = Store(os.path.join(self.folders[host], "ledgers")).all()
        assert not errors, errors
        return kept

    def _moved(self, server: Any = None) -> None:
        server = server or self.server
        self._wait(lambda: self._record(server)["status"] == "completed", "the record is completed")
        now = self._wait_for_state_change(server, "ACTIVE")
        assert now["OS-EXT-SRV-ATTR:host"] == "dest"

        def allocations(uuid: str) -> Any:
            return self.placement.get(f"/allocations/{uuid}").body["allocations"]

        assert list(allocations(server["id"])) == [self.compute_rp_uuids["dest"]]
        uuid = self._record(server)["uuid"]
        self._wait(lambda: allocations(uuid) == {}, "the migration's allocation is gone")
        self._wait(
            lambda: (
                not any(
                    entry.uuid == server["id"] for host in ("src", "dest") for entry in self._entries(host)
                )
            ),
            "the journals are empty",
        )

    @staticmethod
    def _settled(outcome: str) -> type:
        class Settled(Engine):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.play(outcome=outcome, phase="finished", error="gone" if outcome != "completed" else None)

        return Settled
