# SPDX-License-Identifier: Apache-2.0
"""nova-compute's side of asking: the word in a server's metadata, and what it tells of a migration.

Run by tools/test nova-own. The message bus is oslo.messaging's own for tests, in this process.
"""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import oslo_messaging
import pytest
from nova import context, exception, objects, rpc
from nova.conf import CONF
from nova.network import model as network_model
from nova.virt.libvirt import driver as libvirt_driver

from pcmig import huge_pages
from pcmig.nova import driver, flags, guard, records, steer
from pcmig.nova.conf import Options
from pcmig_common import messages, turned_back

objects.register_all()

UUID = "a0a0a0a0-0000-4000-8000-000000000000"
HOST = "compute-1"


class Instance:
    """With a word in its metadata, and what became of it."""

    uuid = UUID
    vm_state = "active"
    name = "instance-00000001"
    info_cache: Any = None
    flavor: Any = None

    def __init__(self, metadata: dict[str, str] | None = None, fails: bool = False) -> None:
        self.metadata = {"pcmig:post_copy": "true", "other": "1"} if metadata is None else metadata
        self.system_metadata: dict[str, str] = {}
        self.fails = fails

    def delete_metadata_key(self, key: str) -> None:
        if self.fails:
            raise exception.NovaException("the conductor does not answer")
        del self.metadata[key]


def compute(sources: tuple[str, ...] = ("metadata",), permitted: bool = True) -> driver.PostCopyLibvirtDriver:
    """A driver without a libvirt."""
    made = driver.PostCopyLibvirtDriver.__new__(driver.PostCopyLibvirtDriver)
    made._options = Options(request_sources=sources)
    made._plans = {}
    made._records = records.Records("/nonexistent")
    made._guard = guard.Guard(made._records, 1000)
    made._keeper = mock.Mock(waits=lambda _: None)
    kind = types.SimpleNamespace(post_copy=permitted, bits=0, policy="auto", tunnel=False)
    made._flags = mock.Mock(spec=flags.MigrationFlags, of=lambda _: kind)
    made._host = mock.Mock()
    made.__dict__["_peers"] = mock.Mock(arrivals=lambda *_: None)
    return made


@dataclasses.dataclass
class Nova:
    """What Nova's own driver was called for, with the metadata at that moment."""

    calls: list[tuple[str, dict[str, str]]] = dataclasses.field(default_factory=list)
    fails: bool = False

    def method(self, name: str, result: Any = None) -> Any:
        def called(_: Any, __: Any, instance: Any, *rest: Any, **words: Any) -> Any:
            self.calls.append((name, dict(instance.metadata)))
            if self.fails:
                raise exception.MigrationPreCheckError(reason="Nova's own")
            return result

        return called


@pytest.fixture
def nova(monkeypatch: pytest.MonkeyPatch) -> Nova:
    nova = Nova()
    data = objects.LibvirtLiveMigrateData(block_migration=False)
    stock = libvirt_driver.LibvirtDriver
    for name, result in [
        ("_live_migration", None),
        ("check_can_live_migrate_source", data),
        ("check_can_live_migrate_destination", data),
        ("rollback_live_migration_at_source", None),
    ]:
        monkeypatch.setattr(stock, name, nova.method(name, result))
    monkeypatch.setattr(stock, "cleanup_live_migration_destination_check", lambda *_: None)
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_obstacles", lambda *_: [])
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_uri", staticmethod(lambda: "qemu:///system"))
    return nova


def migrate(made: driver.PostCopyLibvirtDriver, instance: Instance) -> None:
    data = objects.LibvirtLiveMigrateData(block_migration=False, migration=objects.Migration(uuid=UUID))
    made._live_migration(context.get_admin_context(), instance, "there", None, None, False, data)


@pytest.mark.parametrize("permitted", [True, False])
def test_the_word_is_read_once_and_taken_out(nova: Nova, permitted: bool) -> None:
    made, instance = compute(permitted=permitted), Instance()
    read: list[dict[str, str]] = []

    def plan(*arguments: Any) -> Any:
        read.append(dict(instance.metadata))
        return steer.Plan(0, None, "")

    with mock.patch.object(made, "_plan", plan):
        migrate(made, instance)
    assert read == ([{"pcmig:post_copy": "true", "other": "1"}] if permitted else [])
    assert nova.calls == [("_live_migration", {"other": "1"})]
    assert instance.metadata == {"other": "1"}


def test_it_stays_where_it_does_not_count(nova: Nova) -> None:
    for sources in (("api",), ()):
        instance = Instance()
        migrate(compute(sources), instance)
        assert "pcmig:post_copy" in instance.metadata


def test_servers_without_it_are_left_alone(nova: Nova) -> None:
    instance = Instance({"other": "1"}, fails=True)
    migrate(compute(), instance)
    assert instance.metadata == {"other": "1"}


def test_the_migration_goes_on_when_it_cannot_be_taken_out(nova: Nova) -> None:
    instance = Instance(fails=True)
    with mock.patch.object(driver.LOG, "warning") as warned:
        migrate(compute(), instance)
    assert "it will hold for the next live migration" in warned.call_args[0][0]
    assert [name for name, _ in nova.calls] == ["_live_migration"]


@pytest.mark.parametrize("word", ["true", "maybe"])
def test_a_refusal_in_the_sources_check_takes_it_out(nova: Nova, word: str) -> None:
    made, instance = compute(permitted=word != "true"), Instance({"pcmig:post_copy": word})
    with pytest.raises(exception.MigrationPreCheckError):
        made.check_can_live_migrate_source(None, instance, None)
    assert instance.metadata == {}


def test_a_check_that_is_passed_leaves_it(nova: Nova) -> None:
    made, instance = compute(), Instance()
    made.check_can_live_migrate_source(None, instance, None)
    assert "pcmig:post_copy" in instance.metadata


def test_a_check_that_nova_ends_takes_it_out(nova: Nova) -> None:
    nova.fails = True
    made, instance = compute(), Instance()
    with pytest.raises(exception.MigrationPreCheckError, match="Nova's own"):
        made.check_can_live_migrate_source(None, instance, None)
    assert "pcmig:post_copy" not in instance.metadata


def test_the_destinations_no_takes_it_out(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_destination_reason", lambda _: "no userfaultfd")
    made, instance = compute(), Instance()
    with pytest.raises(exception.MigrationPreCheckError, match="no server can arrive at this host"):
        made.check_can_live_migrate_destination(None, instance, None, None, False)
    assert instance.metadata == {"other": "1"}
    assert made._progress(UUID) == (None, "no userfaultfd")


def test_the_destinations_no_refuses_nobody_who_need_not_switch(
    nova: Nova, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source hears of it and leaves post-copy out."""
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_destination_reason", lambda _: "no userfaultfd")
    there, instance = compute(), Instance({})
    there.check_can_live_migrate_destination(None, instance, None, None, False)
    assert there._arrivals == "no userfaultfd"
    here = compute()
    here.__dict__["_peers"] = mock.Mock(arrivals=lambda _context, _dest: there._arrivals)
    data = objects.LibvirtLiveMigrateData(block_migration=False)
    plan = here._plan(context.get_admin_context(), instance, "there", data, dict)
    assert plan.steered is None
    assert plan.reason == "no post-copy: there: no userfaultfd"
    assert not plan.flags & flags.POSTCOPY


MAC = "fa:16:3e:00:00:01"
SRIOV = f"""<domain type='kvm'><devices>
  <interface type='hostdev'><mac address='{MAC}'/></interface>
  <interface type='bridge'><mac address='fa:16:3e:00:00:02'/></interface>
</devices></domain>"""


@pytest.mark.parametrize(
    ("vnic_type", "unplugged"),
    [("direct", True), ("direct-physical", True), ("vdpa", True), ("macvtap", False), ("normal", False)],
)
def test_interfaces_that_nova_unplugs_first_are_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, vnic_type: str, unplugged: bool
) -> None:
    """In the source's check they are known from Nova's cache of the ports, afterwards from migrate_data."""
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_get_vpmems", lambda *_: [])
    monkeypatch.setattr(driver.PostCopyLibvirtDriver, "_uri", staticmethod(lambda: "qemu:///system"))
    data = objects.LibvirtLiveMigrateData(block_migration=False)
    monkeypatch.setattr(libvirt_driver.LibvirtDriver, "check_can_live_migrate_source", lambda *_: data)
    made = compute(("api",))
    made._host.get_guest.return_value.get_xml_desc.return_value = SRIOV
    vif = network_model.VIF(id="port", address=MAC.upper(), vnic_type=vnic_type)
    instance = Instance({})
    instance.flavor = objects.Flavor(extra_specs={"pcmig:post_copy": "required"})
    instance.info_cache = types.SimpleNamespace(network_info=[vif])
    data.vifs = [objects.VIFMigrateData(port_id=UUID, source_vif=vif), objects.VIFMigrateData(port_id=UUID)]
    data.migration = objects.Migration(uuid=UUID)
    if unplugged:
        assert made.check_can_live_migrate_source(None, instance, None) is data
    else:
        with pytest.raises(exception.MigrationPreCheckError, match="has devices that do not go with it"):
            made.check_can_live_migrate_source(None, instance, None)
        assert MAC in str(made._progress(UUID)[1])
    assert (
        made._plan(context.get_admin_context(), instance, "there", data, dict).steered is not None
    ) is unplugged


def test_so_does_a_rollback(nova: Nova) -> None:
    instance = Instance()
    compute().rollback_live_migration_at_source(None, instance, None)
    assert nova.calls == [("rollback_live_migration_at_source", {"other": "1"})]


# Progress


class Engine:
    def status(self) -> dict[str, Any]:
        return {
            "phase": "postcopy",
            "elapsed_ms": 5000,
            "passes": 2,
            "pass_permille": 0,
            "progress_permille": 700,
            "memory_total_bytes": 100,
            "memory_processed_bytes": 70,
            "memory_remaining_bytes": 30,
            "send_bps": 10,
            "dirty_pages_ps": 1,
            "postcopy_requests": 42,
            "eta": {"outlook": "range", "least_ms": 2000, "most_ms": 3000},
            "eta_ms": 3000,
            "downtime": {"ms": 61, "source": "events"},
            "downtime_ms": 0,
            "recovery": None,
        }

    def decisions(self) -> list[dict[str, Any]]:
        return [{"action": "switch", "text": "it does not converge"}]

    def ledger(self) -> dict[str, Any]:
        return {"totals": {"page_size_bytes": 4096}}


def test_what_the_driver_tells() -> None:
    made = compute()
    assert made._progress(UUID) == (None, "no live migration of this server is under way here")
    made._plans[UUID] = steer.Plan(0, None, "no post-copy: the request asks against it")
    assert made._progress(UUID) == (
        None,
        "Nova drives this migration: no post-copy: the request asks against it",
    )
    steered = steer.Steered(steer.Orders("test:///default", "passes=2", {}, 0, 1000, None), Instance())
    made._plans[UUID] = steer.Plan(0, steered, "post-copy")
    assert made._progress(UUID) == (None, "the migration is being prepared")
    steered.engine = Engine()  # type: ignore[assignment]  # played
    found, missing = made._progress(UUID)
    assert missing is None and found is not None
    assert (found["phase"], found["policy"], found["requests"]) == ("post-copy", "passes=2", 42)
    assert (found["percent"], found["reason"]) == (70, "it does not converge")
    assert (found["eta"], found["eta_ms"], found["downtime_source"]) == ("0:02-0:03", 3000, "events")


@pytest.fixture
def bus() -> Iterator[Any]:
    CONF([], project="nova", default_config_files=[])
    oslo_messaging.TransportURL.parse(CONF, "fake:/")
    CONF.set_override("transport_url", "fake:/")
    rpc.init(CONF)
    yield context.RequestContext("user", "project", roles=["admin"])
    rpc.cleanup()
    CONF.clear_override("transport_url")


def never(*_: Any) -> str | None:
    raise AssertionError("nobody asked")


def test_asked_over_the_bus(bus: Any) -> None:
    turned: list[Any] = []

    def turn_back(_context: Any, *words: Any) -> str | None:
        turned.append(words)
        return None if len(turned) == 1 else "not again"

    answers: dict[str, messages.Answer] = {
        "one": ({"phase": "pre-copy", "eta_ms": None}, None),
        "two": (None, "why"),
    }
    server = messages.serve(HOST, answers.__getitem__, lambda: "no userfaultfd", turn_back)
    try:
        client = messages.Client()
        for name, answer in answers.items():
            assert client.progress(bus, HOST, name) == answer
        found, missing = client.progress(bus, HOST, "three")  # the other end fails
        assert found is None and missing is not None
        assert missing.startswith(f"nova-compute on {HOST} cannot be asked: ")
        assert client.arrivals(bus, HOST) == "no userfaultfd"
        assert client.answers(bus, HOST, "one") and client.answers(bus, HOST, "three")
        words = turned_back.Words(destination_is_dead=True, guest_is_nowhere_else=True)
        assert [client.turn_back(bus, HOST, "one", words) for _ in range(2)] == [None, "not again"]
        assert turned == [("one", words)] * 2
    finally:
        messages.stop(server)
        server.wait()


def test_a_destination_is_told_to_look_at_its_stream(bus: Any) -> None:
    """Nobody waits for it, or hears of a failure."""
    told = threading.Event()

    def wake(uuid: str) -> None:
        assert uuid == UUID
        told.set()

    server = messages.serve(HOST, lambda _: (None, None), lambda: None, lambda *_: None, wake=wake)
    try:
        client = messages.Client()
        client.wake(bus, HOST, UUID)
        assert told.wait(60)
        with mock.patch.object(client._router, "client", side_effect=OSError):
            client.wake(bus, HOST, UUID)
    finally:
        messages.stop(server)


def test_a_destination_is_asked_for_huge_pages(bus: Any) -> None:
    """What is not known says why, whatever is the matter."""
    seen: list[Any] = [huge_pages.Seen(4096, None), huge_pages.unknown("denied")]

    def look(uuid: str) -> Any:
        assert uuid == UUID
        return seen.pop(0)

    server = messages.serve(HOST, lambda _: (None, None), lambda: None, lambda *_: None, huge_pages=look)
    try:
        client = messages.Client()

        def asked() -> huge_pages.Seen:
            return huge_pages.understand(client.huge_pages(bus, HOST, UUID))

        assert asked() == huge_pages.Seen(4096, None)
        assert asked() == huge_pages.unknown("denied")
        failed = asked()  # the other end fails
        assert failed.bytes is None and "cannot be asked: " in str(failed.why)
        messages.stop(server)
        server.wait()
        server = messages.serve(HOST, lambda _: (None, None), lambda: None, lambda *_: None)
        assert asked() == huge_pages.unknown("its huge pages are not looked at")
    finally:
        messages.stop(server)
        server.wait()


def test_a_slow_look_at_huge_pages_silences_no_host(bus: Any) -> None:
    """Whether a QEMU runs there, on which turning a guest back depends, is asked all the same."""
    client = messages.Client(lambda: 100.0)
    asked: list[str] = []
    answers: dict[str, Any] = {"huge_pages": oslo_messaging.MessagingTimeout("slow"), "process": True}

    def call(_: Any, method: str, **__: Any) -> Any:
        asked.append(method)
        if isinstance(answers[method], Exception):
            raise answers[method]
        return answers[method]

    router = mock.Mock()
    router.client.return_value.prepare.return_value.call = call
    with mock.patch.object(client, "_router", router):
        said = client.huge_pages(bus, HOST, UUID)
        assert said[0] is None and f"did not answer within {messages.HUGE_PAGES_TIMEOUT_S} s" in said[1]
        assert client.process(bus, HOST, UUID) is True
        answers["process"] = oslo_messaging.MessagingTimeout("dead")
        assert client.process(bus, HOST, UUID) is None
        assert asked == ["huge_pages", "process", "process"]
        said = client.huge_pages(bus, HOST, UUID)
    assert asked == ["huge_pages", "process", "process"], "a host that is silent is not asked"
    assert said == (
        None,
        f"nova-compute on {HOST} was not asked: it had not answered another question just before",
        False,
    )


class Old(messages.Endpoint):
    """As a host has it that does not know of ports()."""

    target = oslo_messaging.Target(version="1.3")


def test_an_older_host_answers_what_it_knows(bus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "Endpoint", Old)
    server = messages.serve("old-host", lambda _: (None, "why"), lambda: None, never, "192.0.2.7")
    now_s = [100.0]
    client = messages.Client(lambda: now_s[0])
    asked = mock.Mock(wraps=client._router.client)
    monkeypatch.setattr(client._router, "client", asked)
    try:
        assert messages.address(bus, "old-host") == "192.0.2.7"
        assert client.process(bus, "old-host", UUID) in (True, False, None) and asked.call_count == 1
        for later_s, questions in ((0, 2), (messages.OLD_S - 1, 2), (messages.OLD_S, 3)):
            now_s[0] = 100.0 + later_s
            found = client.ports(bus, "old-host", UUID)
            assert found["ready"] is None and "too old to tell" in str(found["error"])
            assert asked.call_count == questions
        assert client.huge_pages(bus, "old-host", UUID)[:2] == (
            None,
            "nova-compute on old-host has a pcmig that is too old to tell",
        )
        assert client.progress(bus, "old-host", UUID) == (None, "why")
    finally:
        messages.stop(server)
        server.wait()


def test_a_host_that_is_silent_is_left_alone_for_a_while(bus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "TIMEOUT_S", 0.2)
    now_s = [100.0]
    client = messages.Client(lambda: now_s[0])
    asked = mock.Mock(wraps=client._router.client)
    monkeypatch.setattr(client._router, "client", asked)
    for later_s, questions in ((0, 1), (messages.SILENCE_S - 1, 1), (messages.SILENCE_S, 2)):
        now_s[0] = 100.0 + later_s
        found, missing = client.progress(bus, "stock-host", "one")
        assert found is None and "did not answer" in str(missing)
        assert client.answers(bus, "stock-host", "one") is False
        assert client.arrivals(bus, "stock-host") is None
        assert asked.call_count == questions
    server = messages.serve("stock-host", lambda _: ({"phase": "pre-copy"}, None), lambda: None, never)
    try:
        now_s[0] += messages.SILENCE_S
        assert client.progress(bus, "stock-host", "one") == ({"phase": "pre-copy"}, None)
        assert client.progress(bus, "stock-host", "one") == ({"phase": "pre-copy"}, None)
    finally:
        messages.stop(server)
        server.wait()


def test_without_a_bus_the_service_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "TRANSPORT", None)
    with mock.patch.object(messages.LOG, "warning") as warned:
        server = messages.serve(HOST, lambda _: (None, None), lambda: None, never)
    assert server is None and warned.called
    messages.stop(server)
    messages.stop(mock.Mock(stop=mock.Mock(side_effect=OSError)))


@pytest.mark.parametrize(
    ("commands", "runs"),
    [
        ([b"/usr/sbin/libvirtd\0--listen"], False),
        ([b"/usr/sbin/virtqemud\0"], False),
        ([b"nova-compute\0", b"dumb-init\0"], None),  # a container's own processes
        ([b""], None),
        ([b"qemu\0-uuid\0" + UUID.encode() + b"\0"], True),
    ],
)
def test_a_qemu_that_could_not_be_seen_is_not_told_to_be_none(
    tmp_path: pathlib.Path, commands: list[bytes], runs: bool | None
) -> None:
    for pid, command in enumerate(commands, 1):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(command)
    assert messages.qemu_runs(UUID, str(tmp_path)) is runs
