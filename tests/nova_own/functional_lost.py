# SPDX-License-Identifier: Apache-2.0
"""Guests that are lost with a host, on two nova-computes with a played libvirt and a played engine: what
leads out of it through Nova, by itself, by `pcmig forget` and by evacuation.

Run by test_functional.py, in a process of its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import fixtures

from pcmig import _core, journal
from pcmig.cli import main
from pcmig.nova import words
from tests.nova_own import functional_adoption as adoption
from tests.nova_own.two_hosts import VOLUME, Engine

ANSWERS = [202, 409, 500]  # 500: what is a cast elsewhere is a call in these tests


class LostTest(adoption.AdoptionTest):
    halves: dict[str, Any]

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.keeper.AGAIN_S", 0.0))
        # Disks that both hosts see.
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.virt.libvirt.driver.LibvirtDriver._is_shared_block_storage",
                lambda *_, **__: True,
            )
        )
        self._tell_apart()

    def _half(self, uri: str, uuid: str, _timeout_ms: int = 0) -> Any:
        half = self.halves["destination" if "dest" in uri else "source"]
        if half is None:
            raise _core.ConnectError("no route to host")
        return {
            "half": half,
            "job_active": False,
            "shut_down": False,
            "defined": False,
            "runs": False,
            "id": None,
        }

    def _lost(self, destination: str | None = "absent") -> None:
        """The source's power goes in post-copy."""
        engine = self._in_post_copy()
        self.halves = {"source": "absent", "destination": "postcopy-failed"}
        engine.play(outcome="needs-operator", phase="finished", error="one half of the guest is gone")
        self._guest("src").destroy()
        self._wait_for_state_change(self.server, "ERROR")
        if destination is not None:
            self._guest("dest").destroy()
            self.halves["destination"] = destination

    def _guest(self, host: str) -> Any:
        connection = self.computes[host].driver._host.get_connection()
        return connection.lookupByUUIDString(self.server["id"])

    def _hard_reboot(self) -> str:
        """The server's status after it."""
        self.api.post_server_action(
            self.server["id"], {"reboot": {"type": "HARD"}}, check_response_status=ANSWERS
        )
        self._wait(
            lambda: self.api.get_server(self.server["id"])["OS-EXT-STS:task_state"] is None, "it has ended"
        )
        server = self.api.get_server(self.server["id"])
        self.fault = (server.get("fault") or {}).get("message", "")
        return str(server["status"])

    def _allocations(self, uuid: str) -> list[str]:
        names = {value: key for key, value in self.compute_rp_uuids.items()}
        found = self.placement.get(f"/allocations/{uuid}").body["allocations"]
        return [names[each] for each in found]

    def _forget(self, host: str, *words: str) -> tuple[int, str]:
        """`pcmig forget` on the machine of HOST."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main.main(["forget", "--journal", self.folders[host], *words, self.server["id"]])
        return code, out.getvalue()

    def _migrations(self, kind: str) -> list[Any]:
        path = f"/os-migrations?instance_uuid={self.server['id']}"
        found = self.api.api_get(path).body["migrations"]
        return [each for each in found if each["migration_type"] == kind]

    def _evacuated(self, host: str) -> str:
        """Its status, after the source was declared dead."""
        self.computes["src"].stop()
        [service] = self.api.get_services(host="src", binary="nova-compute")
        self.api.put_service(service["id"], {"forced_down": True})
        self.api.api_post(
            f"/servers/{self.server['id']}/action",
            {"evacuate": {"host": host}},
            check_response_status=[200, *ANSWERS],
        )
        self._wait(
            lambda: [
                each
                for each in self._migrations("evacuation")
                if each["status"] not in ("accepted", "pre-migrating")
            ],
            "the evacuation has ended",
        )
        server = self.api.get_server(self.server["id"])
        found = f"{server['status']} {server['OS-EXT-SRV-ATTR:host']}"
        self.fault = f"{found}: {(server.get('fault') or {}).get('message', '')}"
        return found

    def _in_pre_copy(self) -> None:
        self.api.post_server_action(
            self.server["id"], {"os-migrateLive": {"host": "dest", "block_migration": "auto"}}
        )
        self._wait(lambda: Engine.made and len(self._entries("dest")) == 1, "it has begun")

    def test_a_guest_that_is_gone_is_started_again_at_its_host(self) -> None:
        self._lost()
        assert self._hard_reboot() == "ERROR"
        assert self.fault.startswith("pcmig forget") or "lost" in self.fault or "gone" in self.fault, (
            self.fault
        )
        for _ in range(3):
            self._run_periodics()
        self._wait(lambda: not self._entries("src") and not self._entries("dest"), "the journals are empty")
        assert self._allocations(self.server["id"]) == ["src"]
        assert self._allocations(self._record()["uuid"]) == []
        assert self.api.get_server(self.server["id"])["status"] == "ERROR", "it did not end well"
        assert self._hard_reboot() == "ACTIVE", self.fault
        assert self._guest("src").isActive()

    def test_half_a_guest_is_forgotten_by_word_and_without_a_restart(self) -> None:
        self._lost(destination=None)
        for _ in range(3):
            self._run_periodics()
        assert self._hard_reboot() == "ERROR"
        code, said = self._forget("src")
        assert code == 3 and "--accept-loss" in said, said
        code, said = self._forget("src", "--accept-loss")
        assert code == 0 and "virsh -c 'qemu+tcp://dest/system' destroy" in said.replace('"', "'"), said
        code, said = self._forget("dest", "--accept-loss")
        assert code == 0, said
        assert self._hard_reboot() == "ACTIVE", self.fault

    def _attachments(self) -> set[str]:
        """The identifiers of the server's in Cinder."""
        return set(self.cinder.attachment_ids_for_instance(self.server["id"]))

    def _migrating_with_a_volume(self, begin: Callable[[], None]) -> tuple[set[str], set[str]]:
        """The source's attachments, and those of both hosts after BEGIN."""
        self._attach(self.server, VOLUME)
        source = self._attachments()
        begin()
        both = self._attachments()
        assert len(source) == 1 and len(both) == 2 and source < both
        return source, both

    def _starts_with_its_volume(self, attachments: set[str]) -> None:
        """As often as it is asked to: with what Nova's record names, and Cinder has."""
        for _ in range(2):
            assert self._hard_reboot() == "ACTIVE", self.fault
            assert self._attachments() == attachments
            [volume] = self.api.get_server_volumes(self.server["id"])
            assert (volume["volumeId"], {volume["attachment_id"]}) == (VOLUME, attachments)
            assert VOLUME in self._guest("src").XMLDesc(0)

    def test_a_reboot_that_is_refused_leaves_the_volumes_of_both_hosts_attached(self) -> None:
        source, both = self._migrating_with_a_volume(lambda: self._lost(destination=None))
        assert self._hard_reboot() == "ERROR"
        assert self.fault == words.refusal("half-lost")
        assert self._attachments() == both
        self._guest("dest").destroy()
        self.halves["destination"] = "absent"
        for _ in range(3):
            self._run_periodics()
        self._wait(lambda: not self._entries("src") and not self._entries("dest"), "the journals are empty")
        self._starts_with_its_volume(source)

    def test_a_reboot_just_after_it_was_forgotten_starts_it_with_the_sources_volumes(self) -> None:
        source, _ = self._migrating_with_a_volume(lambda: self._lost(destination=None))
        self._run_periodics()
        for host in ("src", "dest"):
            code, said = self._forget(host, "--accept-loss")
            assert code == 0, said
        self._starts_with_its_volume(source)

    def test_a_server_that_is_deleted_keeps_no_volume_in_use(self) -> None:
        _, both = self._migrating_with_a_volume(lambda: self._lost(destination=None))
        self._delete_server(self.server)
        assert len(self._attachments() & both) == 1, "half of it is left"
        self._guest("dest").destroy()
        self.halves["destination"] = "absent"
        for _ in range(3):
            self._run_periodics()
        self._wait(lambda: not self._entries("src"), "the source's journal is empty")
        assert not self._attachments()

    def test_an_evacuation_that_is_refused_leaves_the_volumes_of_both_hosts_attached(self) -> None:
        _, both = self._migrating_with_a_volume(self._in_pre_copy)
        self.halves = {"source": "running", "destination": "absent"}
        assert self._evacuated("dest").startswith("ERROR"), "its guest runs there"
        assert self._attachments() == both

    def test_what_runs_is_not_forgotten(self) -> None:
        engine = self._in_post_copy()
        code, said = self._forget("src", "--accept-loss")
        assert code == 1 and "looks after the migration" in said, said
        journal.Journal(self.folders["src"]).path(self.server["id"]).unlink()
        assert self.src.driver._records.get(self.server["id"]) is not None
        assert len(self._entries("src")) == 1, "it is written again"
        self.halves = {"source": "absent", "destination": "running"}
        engine.play(outcome="completed", phase="finished")
        self._moved()

    def test_a_source_that_died_in_pre_copy_is_evacuated_to_the_destination(self) -> None:
        self._in_pre_copy()
        self.halves = {"source": None, "destination": "absent"}
        assert self._evacuated("dest") == "SHUTOFF dest", self.fault
        self._wait(lambda: not self._entries("dest"), "its record has served")
        # The source is back, with a definition, a folder and a record: none of it may ever be used again.
        self.halves = {"source": "absent", "destination": "running"}
        self._back()
        self._wait(lambda: not self._entries("src"), "the source's record is gone")
        assert self.api.get_server(self.server["id"])["OS-EXT-SRV-ATTR:host"] == "dest"
        [migration] = self._migrations("live-migration")
        assert migration["status"] == "error"
        assert self._allocations(migration["uuid"]) == []
        assert self._allocations(self.server["id"]) == ["dest"]

    def test_evacuated_to_a_third_host(self) -> None:
        self.flags(journal_dir=self.useFixture(fixtures.TempDir()).path, group="pcmig")
        self.start_compute(hostname="third")
        self._in_pre_copy()
        self.halves = {"source": None, "destination": "absent"}
        assert self._evacuated("third") == "SHUTOFF third", self.fault
        self.halves = {"source": "absent", "destination": "absent"}
        self._back()
        self._wait(lambda: not self._entries("src"), "the source's record is gone")
        connection = self.src.driver._host.get_connection()
        assert self.server["id"] not in [each.UUIDString() for each in connection.listAllDomains(0)]

    def _back(self) -> None:
        """The source's nova-compute is started again."""
        self._journal("src")
        self.restart_compute_service("src")
        self._run_periodics()

    def test_a_source_that_answers_is_not_evacuated_from(self) -> None:
        self._in_pre_copy()
        self.halves = {"source": "running", "destination": "absent"}
        assert self._evacuated("dest").startswith("ERROR"), "its guest runs there"


# What it inherits is run by itself.
for name in list(vars(adoption.AdoptionTest)):
    if name.startswith("test_"):
        setattr(LostTest, name, None)
