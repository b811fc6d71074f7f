# SPDX-License-Identifier: Apache-2.0
"""nova-compute with pcmig's driver, in a real cloud: who moves how, and what everybody says of it after."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec, LostWrite, lost_writes
from tests.cloud.api import ApiError, wait_until
from tests.cloud.cloud import Cloud
from tests.cloud.config import Sections
from tests.cloud.conftest import PERMITTED, configured
from tests.cloud.server import Server

pytestmark = pytest.mark.timeout(420)

# They dirty all of their work within a second, over and over: at 200 Mb/s pre-copy does not end.
BUSY = GuestSpec(name="busy", memory_mib=112, worker_mib=32)
SECOND = GuestSpec(name="second", memory_mib=112, worker_mib=32)
FORBIDDEN = GuestSpec(name="forbidden", memory_mib=112, worker_mib=32)
IDLE = GuestSpec(name="idle", memory_mib=112, worker_mib=32, write_pps=20, verify_pps=5000)
POST_COPY = "running (post-copy)"
ENDED = ("completed", "error", "failed", "cancelled")
ARRIVED = re.compile(r"has arrived: tap\S+: announced (?:once|\d+ times) from \d+ ms on, .*")


@pytest.fixture(scope="module")
def cloud(pcmig_cloud: Cloud) -> Iterator[Cloud]:
    with configured(pcmig_cloud, PERMITTED) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def busy(cloud: Cloud) -> Server:
    return cloud.boot(BUSY)


@pytest.fixture(scope="module")
def idle(cloud: Cloud) -> Server:
    return cloud.boot(IDLE)


class Move:
    """One live migration, watched to its end."""

    def __init__(self, cloud: Cloud, server: Server) -> None:
        self.cloud = cloud
        self.server = server
        self.source = str(server.nova_host)
        self.before = len(cloud.migrations(server))
        self.errors_before = server.verdict(time.monotonic() - 1, time.monotonic(), 0).page_errors
        self.log_start = len(cloud.compute_log(self.source))
        self.statuses: list[str] = []
        self.start_s = time.monotonic()

    def look(self) -> str:
        """The record's status now, "" before there is one."""
        records = self.cloud.migrations(self.server)
        status = str(records[0]["status"]) if len(records) > self.before else ""
        if status and (not self.statuses or self.statuses[-1] != status):
            self.statuses.append(status)
        return status

    def wait_for(self, status: str, patience_s: float = 60) -> None:
        wait_until(lambda: self.look() == status, patience_s, f"migration of {self.server.name} is {status}")

    def end(self, status: str = "completed", patience_s: float = 120) -> None:
        """The migration ends in STATUS, and the server is ACTIVE without a task."""
        deadline_s = time.monotonic() + patience_s
        while self.look() not in ENDED and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert self.statuses and self.statuses[-1] == status, f"{self.statuses}\n{self.found()}"
        self.server.wait_status("ACTIVE")
        self.end_s = time.monotonic()

    def found(self) -> str:
        """How it stands on both hosts, for whoever has to find out why."""
        lines = [line for line in self.log().splitlines() if " pcmig." in line]
        for name, compute in self.cloud.computes.items():
            lines.append(f"host {name}: {compute.host.domain_state(self.server.domain)}")
            lines.append(compute.connections())
        return "\n".join(lines)

    def log(self) -> str:
        """What nova-compute of the source said since the start."""
        return self.cloud.compute_log(self.source)[self.log_start :]

    def check_moved(self, host: str) -> None:
        """The guest is whole at HOST, and everybody knows."""
        self.check_at(host)
        allocations = self.cloud.placement_allocations(self.server)
        assert list(allocations) == [host]
        record = self.cloud.migrations(self.server)[0]
        assert self.cloud.placement_allocations(record["uuid"]) == {}
        assert record["dest_compute"] == f"pcmig-{host}"
        domain = self.server.domain
        assert self.cloud.computes[host].host.domain_state(domain) is not None
        assert self.cloud.computes[self.source].host.domain_state(domain) is None

    def check_at(self, host: str) -> None:
        assert self.server.nova_host == host
        assert self.cloud.port_bindings(self.server).get(host) == "ACTIVE"
        self._wait_heard(host)
        time.sleep(2.0)
        verdict = self.server.verdict(self.start_s, self.end_s, 2.0)
        assert verdict.alive and verdict.host == host, verdict
        if verdict.page_errors > self.errors_before and lost_writes(self.server.log.read_text()):
            raise LostWrite(f"QEMU lost page writes: {verdict}")
        assert verdict.page_errors == self.errors_before, verdict
        assert verdict.pages_checked > 0

    def _wait_heard(self, host: str) -> None:
        """A busy machine may keep the guest or its port waiting: then it is told what the switches say."""
        try:
            self.server.wait_heartbeats(20, since_s=self.end_s, patience_s=30)
        except BedError as error:
            print(error)
            for name, compute in self.cloud.computes.items():
                print(f"host {name}'s switch:\n{compute.switch_report()}")
            print(self.cloud.computes[host].agent.log.read_text()[-6000:])
            self.server.wait_heartbeats(20, since_s=self.end_s, patience_s=60)


def other(host: str | None) -> str:
    return "b" if host == "a" else "a"


def moved(cloud: Cloud, server: Server) -> Move:
    """To the other host, and whole there."""
    move = Move(cloud, server)
    target = other(server.nova_host)
    cloud.live_migrate(server, target)
    move.end()
    move.check_moved(target)
    return move


def test_a_guest_that_never_converges_moves(cloud: Cloud, busy: Server) -> None:
    """As users type it."""
    move = Move(cloud, busy)
    target = other(busy.nova_host)
    cloud.cli("nova", "live-migration", busy.id, cloud.computes[target].name)
    move.end()
    move.check_moved(target)
    assert POST_COPY in move.statuses
    log = move.log()
    assert re.search(r"Live migration: switch: ", log)
    assert "The route's option quickack: set" in log  # by Nova's privileged daemon: nova-compute is not root
    # The destination was asked about its port, which was bound there before Nova's event handler came to it.
    assert "ports at pcmig-" in log and "all ports forward; the switch may come" in log
    bound = re.search(r"1 of 1 ports are bound to pcmig-(\w), (\d+) ms after the guest stopped", log)
    assert bound is not None and bound[1] == target[-1]
    # The destination announced it, by Nova's privileged daemon.
    wait_until(lambda: ARRIVED.search(cloud.compute_log(target)), 90, "how it was announced is told")
    assert "is already ACTIVE" in log, "Nova finds nothing to do"
    print(f"the port was bound {bound[2]} ms after the guest stopped")
    # The record had its status in time, so that Nova's event handler moved the port, and not the clean-up.
    assert "Unable to find migration record" not in log
    assert log.index("Binding ports to destination host") < log.index("Migration operation has completed")
    record = cloud.nova_db(f"select memory_total, memory_processed from migrations where uuid = "
                           f"'{cloud.migrations(busy)[0]['uuid']}'")[0]  # fmt: skip
    assert int(record["memory_total"] or 0) > 64 << 20
    assert int(record["memory_processed"] or 0) > 16 << 20


def test_an_idle_guest_stays_in_pre_copy(cloud: Cloud, idle: Server) -> None:
    move = moved(cloud, idle)
    assert POST_COPY not in move.statuses
    assert "Live migration: switch" not in move.log()


def test_block_migration_by_the_client(cloud: Cloud, busy: Server) -> None:
    move = Move(cloud, busy)
    target = other(busy.nova_host)
    cloud.cli("nova", "--os-compute-api-version", "2.24", "live-migration", "--block-migrate", busy.id,
              cloud.computes[target].name)  # fmt: skip
    move.end()
    move.check_moved(target)
    assert POST_COPY in move.statuses
    assert (cloud.computes[target].instances / busy.id / "disk").exists()
    assert not (cloud.computes[move.source].instances / busy.id).exists()


def test_aborted_in_pre_copy(cloud: Cloud, busy: Server) -> None:
    source = str(busy.nova_host)
    move = Move(cloud, busy)
    cloud.live_migrate(busy, other(source))
    move.wait_for("running")
    record = cloud.migrations(busy)[0]
    cloud.api.request("DELETE", "compute", f"/servers/{busy.id}/migrations/{record['id']}")
    move.end("cancelled")
    move.check_at(source)
    assert list(cloud.placement_allocations(busy)) == [source]
    assert other(source) not in cloud.port_bindings(busy)


def test_abort_and_force_complete_in_post_copy_change_nothing(cloud: Cloud, busy: Server) -> None:
    move = Move(cloud, busy)
    target = other(busy.nova_host)
    cloud.live_migrate(busy, target)
    move.wait_for(POST_COPY)
    path = f"/servers/{busy.id}/migrations/{cloud.migrations(busy)[0]['id']}"
    with pytest.raises(ApiError) as refused:
        cloud.api.request("DELETE", "compute", path)
    assert refused.value.status in (400, 404)
    with pytest.raises(ApiError) as refused:
        cloud.force_complete(busy)
    assert refused.value.status in (400, 404)
    move.end()
    move.check_moved(target)


def test_two_at_once(cloud: Cloud, busy: Server) -> None:
    source = str(busy.nova_host)
    second = cloud.boot(SECOND, host=source)
    try:
        moves = [Move(cloud, server) for server in (busy, second)]
        for move in moves:
            cloud.live_migrate(move.server, other(source))
        # Both are looked at all the time, so that no status is missed.
        while [move for move in moves if move.look() not in ENDED]:
            time.sleep(0.1)
        for move in moves:
            move.end()
        for move in moves:
            move.check_moved(other(source))
            assert POST_COPY in move.statuses
    finally:
        cloud.delete(second)


def test_a_flavor_that_forbids(cloud: Cloud) -> None:
    """The others on the same host keep their post-copy; this one gets no such flag and stays in pre-copy."""
    server = cloud.boot(FORBIDDEN, flavor_specs={"pcmig:post_copy": "forbidden"})
    try:
        source = str(server.nova_host)
        move = Move(cloud, server)
        cloud.live_migrate(server, other(source))
        move.wait_for("running")
        time.sleep(8)  # a pass takes four
        assert move.look() == "running"
        assert "no post-copy: the flavor's extra spec pcmig:post_copy is forbidden" in move.log()
        record = cloud.migrations(server)[0]
        cloud.api.request("DELETE", "compute", f"/servers/{server.id}/migrations/{record['id']}")
        wait_until(
            lambda: move.look() not in ("running", "cancelled-pending"), 60, "the migration is cancelled"
        )
        server.wait_heartbeats(3, since_s=time.monotonic(), patience_s=30)
    finally:
        cloud.delete(server)


def test_an_image_that_contradicts_the_flavor(cloud: Cloud) -> None:
    """It is told whoever makes the server, and not whoever has to migrate it."""
    with pytest.raises(ApiError, match="they contradict each other, so change one"):
        cloud.boot(
            GuestSpec(name="torn", memory_mib=112, worker_mib=32),
            flavor_specs={"pcmig:post_copy": "required"},
            image_properties={"pcmig_post_copy": "forbidden"},
            wait=False,
        )


def reasons(cloud: Cloud, server: Server) -> str:
    """What `openstack server event show` tells of the server's live migrations that failed."""
    actions = cloud.api.get("compute", f"/servers/{server.id}/os-instance-actions")["instanceActions"]
    texts: list[str] = []
    for action in actions:
        if action["action"] != "live-migration":
            continue
        path = f"/servers/{server.id}/os-instance-actions/{action['request_id']}"
        for event in cloud.api.get("compute", path)["instanceAction"]["events"]:
            texts += [str(event.get("details") or ""), str(event.get("traceback") or "")]
    return "\n".join(text for text in texts if text)


def test_a_destination_that_cannot_receive_refuses_in_the_pre_check(cloud: Cloud, idle: Server) -> None:
    """Where its nova-compute is root: another user cannot try userfaultfd as QEMU, and leaves it to it."""
    source, target = str(idle.nova_host), other(idle.nova_host)
    compute = cloud.computes[target]
    path = compute.host.state / "etc/qemu.conf"
    before = path.read_text()
    compute.as_root = True
    cloud.restart_compute(target)
    # What libvirtd would read at its next start, and what the check reads now: QEMU without any rights.
    path.write_text(
        re.sub('user = ".*"', 'user = "nobody"', re.sub('group = ".*"', 'group = "nogroup"', before))
    )
    try:
        assert path.read_text() != before
        action = {"host": compute.name, "block_migration": "auto", "post_copy": True}
        cloud.api.post("compute", f"/servers/{idle.id}/action", {"os-migrateLive": action})
        text = "no server can arrive at this host by post-copy"
        wait_until(lambda: text in reasons(cloud, idle), 60, "the refusal is told")
        assert "userfaultfd" in cloud.compute_log(target)
        idle.wait_status("ACTIVE")
        assert idle.nova_host == source
    finally:
        path.write_text(before)
        compute.as_root = False
        cloud.restart_compute(target)


def test_force_complete_switches_now(cloud: Cloud, idle: Server) -> None:
    """Under the policy that waits for it, with a guest that pre-copy would move by itself."""
    source = str(idle.nova_host)
    cloud.restart_compute(source, nova_conf={**PERMITTED, "pcmig": {"policy": "manual"}})
    try:
        move = Move(cloud, idle)
        cloud.live_migrate(idle, other(source))
        move.wait_for("running")
        cloud.force_complete(idle)
        move.end()
        move.check_moved(other(source))
        assert POST_COPY in move.statuses
        assert "Live migration: switch" in move.log()
    finally:
        cloud.restart_compute(source, nova_conf=PERMITTED)


OLD = (
    "VIR_MIGRATE_UNDEFINE_SOURCE, VIR_MIGRATE_PEER2PEER, VIR_MIGRATE_LIVE, VIR_MIGRATE_NON_SHARED_INC, "
    "VIR_MIGRATE_ENABLE_POSTCOPY, VIR_MIGRATE_POSTCOPY_AFTER_PRECOPY"
)


def test_the_flag_line_decides(cloud: Cloud, idle: Server) -> None:
    """The first patches' line asks for a switch after the first pass, also of a guest that would converge."""
    try:
        for line, switches in ((OLD, True), ("VIR_MIGRATE_POSTCOPY", False), ("", False)):
            cloud.use(cloud.driver, {"libvirt": {"block_migration_flag": line} if line else {}})
            move = moved(cloud, idle)
            decided = [line for line in move.log().splitlines() if "Live migration: " in line]
            assert (POST_COPY in move.statuses) is switches, (line, decided)
            assert ("Live migration post-copy:" in move.log()) is bool(line), (line, decided)
    finally:
        cloud.use(cloud.driver, PERMITTED)


WRONG: tuple[tuple[Sections, str], ...] = (
    ({"libvirt": {"block_migration_flag": "VIR_MIGRATE_LIFE"}}, "block_migration_flag = VIR_MIGRATE_LIFE"),
    (
        {
            "libvirt": {
                "live_migration_permit_post_copy": False,
                "live_migration_flag": "VIR_MIGRATE_POSTCOPY",
            }
        },
        "live_migration_permit_post_copy = false",
    ),
    ({"pcmig": {"policy": "soon"}}, r"\[pcmig\] policy = soon"),
    ({"pcmig": {"params": "request_wait_ms=9999999"}}, "request_wait_ms takes a whole number"),
)


def test_what_cannot_work_keeps_nova_compute_from_starting(cloud: Cloud) -> None:
    try:
        for conf, said in WRONG:
            service = cloud.restart_compute("a", nova_conf=conf, wait=False)
            wait_until(lambda: not service.running(), 60, "nova-compute ends")  # noqa: B023 - called here
            log = service.said()
            lines = [line for line in log.splitlines() if line.startswith("nova-compute: ")]
            assert len(lines) == 1 and re.search(said, lines[0]), log[-3000:]
            assert "/run/cloud/etc/nova/extra.conf: [" in lines[0]  # the file that says so
            assert "Traceback" not in log
    finally:
        cloud.restart_compute("a", nova_conf=PERMITTED)


def test_there_and_back_twice(cloud: Cloud, busy: Server) -> None:
    for _ in range(4):
        assert POST_COPY in moved(cloud, busy).statuses


def test_with_eventlet(cloud: Cloud, busy: Server) -> None:
    mode = {"OS_NOVA_DISABLE_EVENTLET_PATCHING": "false"}
    for compute in cloud.computes.values():
        compute.nova_env.update(mode)
    try:
        cloud.use(cloud.driver, PERMITTED)
        assert all("ventlet" in compute.nova.said() for compute in cloud.computes.values())
        for _ in range(2):
            assert POST_COPY in moved(cloud, busy).statuses
    finally:
        for compute in cloud.computes.values():
            for key in mode:
                compute.nova_env.pop(key, None)
        cloud.use(cloud.driver, PERMITTED)
