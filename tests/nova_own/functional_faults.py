# SPDX-License-Identifier: Apache-2.0
"""What Nova's code and ours ask of Neutron, Cinder, placement, the bus, the database and the journal once a
guest has been switched, on both hosts: each of these calls fails once, in turn, and the books end right.

Which calls there are is found by a migration in which none fails. Run by test_functional.py, in a process of
its own (python -m tests.nova_own --module ...).
"""

from __future__ import annotations

import errno
import functools
import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import Any

import fixtures
import oslo_messaging
from cinderclient import exceptions as cinder_exceptions
from keystoneauth1 import exceptions as keystone_exceptions
from neutronclient.common import exceptions as neutron_exceptions
from oslo_db import exception as db_exceptions

from tests.nova_own import two_hosts

# What a service is, of both hosts' managers, and how it fails.
SERVICES: dict[str, Callable[[], Exception]] = {
    "network_api": neutron_exceptions.ServiceUnavailable,
    "volume_api": functools.partial(cinder_exceptions.ClientException, 503),
    "reportclient": functools.partial(keystone_exceptions.ConnectFailure, "placement is away"),
    "compute_rpcapi": functools.partial(oslo_messaging.MessagingTimeout, "no reply"),
}
# What all share, by class.
CLASSES: dict[str, Callable[[], Exception]] = {
    "nova.objects.Instance.save": db_exceptions.DBConnectionError,
    "nova.objects.Instance.refresh": db_exceptions.DBConnectionError,
    "nova.objects.Migration.save": db_exceptions.DBConnectionError,
    "nova.objects.BlockDeviceMapping.save": db_exceptions.DBConnectionError,
    "nova.objects.BlockDeviceMappingList.get_by_instance_uuid": db_exceptions.DBConnectionError,
    "nova.objects.InstancePCIRequests.get_by_instance_uuid": db_exceptions.DBConnectionError,
    "nova.objects.InstanceActionEvent.create": db_exceptions.DBConnectionError,
}
LATER = 3  # so many calls of one name fail in turn
SHARES = 8  # of all calls: one test has only so long


class Faults:
    """Notes each call that is made while it is ARMED, and has one of them fail. A call is the name of what is
    called and how many of that name came before it."""

    def __init__(self) -> None:
        self.armed = False
        self.made: list[tuple[str, int]] = []
        self.fails: tuple[str, int] | None = None
        self.failed = False
        self._lock = threading.Lock()

    def begin(self, fails: tuple[str, int] | None) -> None:
        self.made, self.fails, self.failed, self.armed = [], fails, False, True

    def around(self, name: str, real: Callable[..., Any], error: Callable[[], Exception]) -> Any:
        @functools.wraps(real)
        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                if self.armed:
                    this = (name, sum(each == name for each, _ in self.made))
                    self.made.append(this)
                    if this == self.fails:
                        self.failed = True
                        raise error()
            return real(*arguments, **named)

        return call


class FaultsTest(two_hosts.TwoHosts):
    """Guests that have moved, and guests that stay."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.ending.RETRY_S", (0.1,)))
        self.useFixture(fixtures.MonkeyPatch("pcmig.nova.keeper.AGAIN_S", 0.0))
        self._tell_apart()
        self.faults = Faults()
        watch(self, self.faults)

    def _migrated(self, outcome: str, fails: tuple[str, int] | None) -> set[tuple[str, int]]:
        """A server of its own, whose migration ends with OUTCOME while the call FAILS does; the calls that
        were made."""
        server = self.new_server()
        self._attach(server, self.cinder.MULTIATTACH_VOL)
        before = set(self.cinder.attachment_ids_for_instance(server["id"]))
        engine = self._in_post_copy(server)
        moved = outcome == "completed"
        self.others[server["id"]] = {
            "source": "absent" if moved else "running",
            "destination": "running" if moved else "absent",
        }
        self.faults.begin(fails)
        engine.play(outcome=outcome, phase="finished", error=None if moved else "the stream broke")
        self._books(server, "completed" if moved else "failed")
        self.faults.armed = False
        if moved:
            self._moved(server)
        else:
            self._stayed(server, before)
        made = set(self.faults.made)
        return made

    def _books(self, server: Any, status: str) -> None:
        """Nova's record of the migration and the journals; the keeper looks now and then, as it does."""

        def right() -> bool:
            done = self._record(server)["status"] == status and not any(
                entry.uuid == server["id"] for host in ("src", "dest") for entry in self._entries(host)
            )
            if not done:
                for compute in (self.src, self.dest):
                    compute.driver._keeper.look_after()
            return done

        self._wait(right, f"the books say {status}, with {self.faults.fails}")

    def _stayed(self, server: Any, attachments: set[str]) -> None:
        now = self._wait_for_state_change(server, "ACTIVE")
        assert now["OS-EXT-SRV-ATTR:host"] == "src" and now["OS-EXT-STS:task_state"] is None
        allocations = self.placement.get(f"/allocations/{server['id']}").body["allocations"]
        assert list(allocations) == [self.compute_rp_uuids["src"]]
        uuid = self._record(server)["uuid"]
        assert self.placement.get(f"/allocations/{uuid}").body["allocations"] == {}
        assert attachments <= set(self.cinder.attachment_ids_for_instance(server["id"]))

    def _each_in_turn(self, outcome: str, share: int) -> None:
        calls = sorted(call for call in self._migrated(outcome, None) if call[1] < LATER)
        wanted = calls[share::SHARES]
        failed = []
        for call in wanted:
            try:
                self._migrated(outcome, call)
            except AssertionError as err:
                raise AssertionError(f"{call} failed: {str(err)[:1000]}") from err
            if self.faults.failed:
                failed.append(call)
        # What one does that others do at the same time may be called less often.
        assert len(failed) > len(wanted) // 2 >= 1, (failed, calls)

    def test_moved_1(self) -> None:
        self._each_in_turn("completed", 0)

    def test_moved_2(self) -> None:
        self._each_in_turn("completed", 1)

    def test_moved_3(self) -> None:
        self._each_in_turn("completed", 2)

    def test_moved_4(self) -> None:
        self._each_in_turn("completed", 3)

    def test_moved_5(self) -> None:
        self._each_in_turn("completed", 4)

    def test_moved_6(self) -> None:
        self._each_in_turn("completed", 5)

    def test_moved_7(self) -> None:
        self._each_in_turn("completed", 6)

    def test_moved_8(self) -> None:
        self._each_in_turn("completed", 7)

    def test_stayed_1(self) -> None:
        self._each_in_turn("failed", 0)

    def test_stayed_2(self) -> None:
        self._each_in_turn("failed", 1)

    def test_stayed_3(self) -> None:
        self._each_in_turn("failed", 2)

    def test_stayed_4(self) -> None:
        self._each_in_turn("failed", 3)

    def test_stayed_5(self) -> None:
        self._each_in_turn("failed", 4)

    def test_stayed_6(self) -> None:
        self._each_in_turn("failed", 5)

    def test_stayed_7(self) -> None:
        self._each_in_turn("failed", 6)

    def test_stayed_8(self) -> None:
        self._each_in_turn("failed", 7)


def watch(test: Any, faults: Faults) -> None:
    for compute in (test.src, test.dest):
        for name, error in SERVICES.items():
            owner = getattr(compute.manager, name)
            for method in methods(owner):
                setattr(owner, method, faults.around(f"{name}.{method}", getattr(owner, method), error))
    for name, error in CLASSES.items():
        place, _, attribute = name.rpartition(".")
        module, _, cls = place.rpartition(".")
        owner = getattr(__import__(module, fromlist=[cls]), cls)
        found = getattr(owner, attribute)
        real = getattr(found, "__func__", found)  # the fixture makes a class method of it again
        test.useFixture(fixtures.MonkeyPatch(name, faults.around(name, real, error)))
    full = functools.partial(OSError, errno.ENOSPC, "No space left on device")
    real = tempfile.mkstemp
    test.useFixture(
        fixtures.MonkeyPatch("pcmig.journal.tempfile.mkstemp", faults.around("journal", real, full))
    )


def methods(owner: Any) -> Iterable[str]:
    for name in dir(type(owner)):
        if not name.startswith("_") and callable(getattr(owner, name)):
            yield name
