# SPDX-License-Identifier: Apache-2.0
"""pcmig.nova.steer: what the monitor does with what the engine says.

The engine is played here, to have a save that fails, a switch that comes to nothing, and outcomes on demand;
the real one is in tests/cloud.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from nova import exception, objects
from nova.conf import CONF
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest

from pcmig import _core, huge_pages
from pcmig.ledgers.document import utc_now
from pcmig.ledgers.store import Store
from pcmig.nova import driver, interruption, keeping, ports, releases, steer
from pcmig.nova.activation import Activation
from pcmig.nova.flags import BITS
from pcmig.nova.way import Way
from pcmig.ports import waiting
from pcmig.ports.asking import Said
from pcmig.tunnel.passage import Names
from pcmig.tunnel.peer import Peer
from tests.nova_own.engine_status import MIB, PRECOPY
from tests.unit import traces
from tests.unit.patience import PATIENCE_MS, PATIENCE_S, wait_for
from tests.unit.tunnel.fake_daemon import FakeDaemon, fake_daemon

STATUS = PRECOPY | {
    "disk_total_bytes": 8 * MIB,
    "disk_processed_bytes": 2 * MIB,
    "disk_remaining_bytes": 6 * MIB,
}


class Engine:
    """Plays a list of statuses, one for each look, and notes what it is asked."""

    def __init__(self, *statuses: dict[str, Any]) -> None:
        self.statuses = [STATUS | status for status in statuses]
        self.asked: list[str] = []
        self.limits: list[int] = []  # of QEMU's downtime, as told
        self._reader, self._writer = os.pipe()
        os.write(self._writer, b"x")  # readable: there is always news

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def clear(self) -> None: ...

    def decisions(self, first: int = 0) -> list[dict[str, Any]]:
        return [{"action": "drain", "text": "pass 1 is done"}][first:]

    def status(self) -> dict[str, Any]:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def downtime_limit(self, ms: int) -> None:
        self.limits.append(ms)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name)


class Record:
    """A nova.objects.Migration whose saves can be looked at, and fail."""

    uuid = "b0a0a0a0-0000-4000-8000-000000000000"
    source_compute = "a"

    def __init__(self, fail: tuple[str, ...] = ()) -> None:
        self.status = "running"
        self.fail = fail
        self.saved: list[str] = []

    def save(self) -> None:
        if self.status in self.fail:
            raise exception.NovaException("the conductor does not answer")
        self.saved.append(self.status)


class Instance:
    uuid = "a0a0a0a0-0000-4000-8000-000000000000"
    name = "instance-00000001"
    progress = 0

    def __init__(self) -> None:
        self.saves = 0

    def save(self) -> None:
        self.saves += 1


class Guest:
    uuid = Instance.uuid

    def __init__(self) -> None:
        self.downtimes: list[int] = []

    def migrate_configure_max_downtime(self, ms: int) -> None:
        self.downtimes.append(ms)


class Ready:
    """The destination says that the ports forward."""

    target = "b"

    def take(self) -> Said:
        return Said("ready", "all ports forward")

    def stop(self) -> None: ...


CONTEXT = types.SimpleNamespace(request_id="req-1")
ORDERS = steer.Orders("test:///default", "auto", {}, 0, 1000, None)


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(libvirt_guest, "libvirt", fakelibvirt)
    CONF([], project="nova", version="test", default_config_files=[])
    yield
    CONF.clear_override("live_migration_completion_timeout", group="libvirt")
    CONF.clear_override("live_migration_timeout_action", group="libvirt")


def follow(
    engine: Engine, record: Record, steered: steer.Steered | None = None
) -> tuple[dict[str, Any], Instance, Guest]:
    instance, guest = Instance(), Guest()
    monitor = steer.Monitor(steered or steer.Steered(ORDERS, instance), CONTEXT, instance, guest, record, 1)
    status = monitor.follow(engine)  # type: ignore[arg-type]  # plays the engine
    engine.close()
    return status, instance, guest


def test_the_status_is_saved_before_the_gate_opens() -> None:
    record = Record()
    engine = Engine(
        {},
        {"gate": "wanted", "phase": "drain"},
        {"gate": "open", "phase": "postcopy"},
        {"gate": "open", "phase": "finished", "outcome": "completed"},
    )
    engine.asked = record.saved  # one list: in which order
    status, _, _ = follow(engine, record)
    assert status["outcome"] == "completed"
    first = record.saved.index("running (post-copy)")
    assert record.saved[first + 1] == "open_gate"
    assert record.status == "running (post-copy)"


def test_the_log_says_once_how_late_the_switch_was(caplog: pytest.LogCaptureFixture) -> None:
    switched = {"gate": "open", "phase": "postcopy", "switch_late_us": 17}
    with caplog.at_level("INFO", steer.LOG.logger.name):
        follow(Engine({}, switched, switched, switched | {"outcome": "completed"}), Record())
    said = [record.getMessage() for record in caplog.records if "us after" in record.getMessage()]
    assert said == ["Live migration: switched to post-copy, 17 us after the decision"]


def test_a_status_that_cannot_be_saved_keeps_the_guest_where_it_is() -> None:
    record = Record(fail=("running (post-copy)",))
    engine = Engine({"gate": "wanted", "phase": "drain"}, {"gate": "refused"}, {"outcome": "failed"})
    follow(engine, record)
    assert engine.asked == ["refuse_gate"]
    assert record.status == "running"
    assert "running (post-copy)" not in record.saved


def test_a_switch_that_could_not_be_written_down_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter(range(0, 10000, 2))
    monkeypatch.setattr(steer.time, "monotonic", lambda: float(next(now_s)))  # type: ignore[attr-defined]
    engine = Engine({"gate": "wanted", "phase": "drain"}, *[{"gate": "refused"}] * 20, {"outcome": "failed"})
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    follow(engine, Record(fail=("running (post-copy)",)), steered)
    assert engine.asked == ["refuse_gate", "switch"]


def test_a_migration_that_is_cancelled_is_not_switched_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = iter(range(0, 10000, 2))
    monkeypatch.setattr(steer.time, "monotonic", lambda: float(next(now_s)))  # type: ignore[attr-defined]
    engine = Engine({"gate": "wanted", "phase": "drain"}, *[{"gate": "refused"}] * 20, {"outcome": "failed"})
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    steered.abort_asked = True
    follow(engine, Record(fail=("running (post-copy)",)), steered)
    assert engine.asked == ["refuse_gate"]


def test_a_switch_that_comes_to_nothing_puts_the_status_back() -> None:
    record = Record()
    engine = Engine(
        {"gate": "wanted", "phase": "drain"},
        {"gate": "open", "phase": "drain"},
        {"gate": "closed", "phase": "precopy"},
        {"outcome": "completed", "phase": "finished"},
    )
    follow(engine, record)
    statuses = [status for i, status in enumerate(record.saved) if i == 0 or record.saved[i - 1] != status]
    assert statuses[-2:] == ["running (post-copy)", "running"]


@pytest.mark.parametrize("asks", [False, True])
def test_a_switch_put_off_for_another_guest_is_none_meanwhile(asks: bool) -> None:
    """The engine closes the gate that was opened too late for its turn, and wants it again."""
    record, instance = Record(), Instance()
    held = {"gate": "closed", "turn": "held"}
    engine = Engine(
        {"gate": "wanted"},
        held,
        held,
        {"gate": "wanted"},
        {"gate": "open", "phase": "postcopy"},
        {"gate": "open", "phase": "finished", "outcome": "completed"},
    )
    found: ports.Ports | None = None
    if asks:
        activation = Activation(lambda: None, instance, "b")
        found = ports.Ports(instance, activation, None, waiting.PortsWait(Ready(), 60_000, "stay"))
        found.start = lambda engine: None  # type: ignore[method-assign]
    follow(engine, record, steer.Steered(ORDERS, instance, found))
    statuses = [status for i, status in enumerate(record.saved) if i == 0 or record.saved[i - 1] != status]
    assert statuses == ["running (post-copy)", "running", "running (post-copy)"]
    assert engine.asked == ["open_gate", "open_gate"]


def test_the_end_of_a_pre_copy_is_no_post_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest stops for it, too, and for longer than between two looks on a busy machine."""
    monkeypatch.setattr(steer, "LOOK_S", 0)
    record = Record()
    follow(Engine({}, {"phase": "switchover"}, {"phase": "switchover"}, {"outcome": "completed"}), record)
    assert "running (post-copy)" not in record.saved


def test_a_switch_that_nobody_wrote_down_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer, "LOOK_S", 0)
    record = Record()
    follow(Engine({}, {"phase": "postcopy"}, {"phase": "postcopy"}, {"outcome": "completed"}), record)
    assert "running (post-copy)" in record.saved


def test_statistics_are_saved_as_nova_does() -> None:
    record = Record()
    _, instance, _ = follow(Engine({}, {"outcome": "completed", "phase": "finished"}), record)
    fields = ("memory_total", "memory_processed", "memory_remaining", "disk_total", "disk_processed")
    assert [getattr(record, field) // MIB for field in fields] == [100, 30, 75, 8, 2]
    assert instance.progress == 25
    assert instance.saves >= 1


def test_statistics_that_cannot_be_saved_end_nothing() -> None:
    record = Record(fail=("running",))
    status, _, _ = follow(Engine({}, {}, {"outcome": "completed", "phase": "finished"}), record)
    assert status["outcome"] == "completed"


def test_downtime_steps_go_to_the_guest_in_precopy_only_and_the_engine_hears_of_them() -> None:
    engine = Engine({}, {"outcome": "completed", "phase": "finished"})
    _, _, guest = follow(engine, Record())
    assert guest.downtimes == [
        CONF.libvirt.live_migration_downtime // CONF.libvirt.live_migration_downtime_steps
    ]
    assert engine.limits == guest.downtimes
    _, _, guest = follow(Engine({"phase": "postcopy"}, {"outcome": "completed"}), Record())
    assert guest.downtimes == []


@pytest.mark.parametrize(("action", "asked"), [("abort", "abort"), ("force_complete", "switch")])
def test_the_timeout_does_what_is_configured(
    action: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    CONF.set_override("live_migration_completion_timeout", 1, group="libvirt")
    CONF.set_override("live_migration_timeout_action", action, group="libvirt")
    now_s = iter(range(0, 1000, 2))
    monkeypatch.setattr(steer.time, "monotonic", lambda: float(next(now_s)))  # type: ignore[attr-defined]
    engine = Engine({}, {}, {}, {"outcome": "failed", "phase": "finished"})
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    follow(engine, Record(), steered)
    assert engine.asked == [asked]


def test_no_timeout_in_post_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    CONF.set_override("live_migration_completion_timeout", 1, group="libvirt")
    now_s = iter(range(0, 1000, 2))
    monkeypatch.setattr(steer.time, "monotonic", lambda: float(next(now_s)))  # type: ignore[attr-defined]
    record = Record()
    record.status = "running (post-copy)"
    engine = Engine({"phase": "postcopy"}, {"phase": "postcopy"}, {"outcome": "completed"})
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    follow(engine, record, steered)
    assert engine.asked == []


def test_what_is_asked_before_the_engine_is_there_is_not_lost() -> None:
    steered = steer.Steered(ORDERS, Instance())
    steered.abort()
    done = threading.Thread(
        target=steered.migrate, args=("test:///nowhere",), kwargs={"domain": "nobody"}, daemon=True
    )
    done.start()
    monitor = steer.Monitor(steered, CONTEXT, Instance(), Guest(), Record(), 1)
    engine = monitor.wait_for_engine(threading.Event())
    assert engine is not None and engine.join(PATIENCE_MS)
    assert engine.status()["outcome"] == "failed"
    assert steered.abort_asked
    steered.end()
    done.join(PATIENCE_S)
    assert not done.is_alive()


def test_an_abort_that_comes_too_late_is_libvirts_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Nova's code expects it: after an error of the monitor it asks for one, whatever has happened."""
    engine = Engine({})
    monkeypatch.setattr(libvirt_driver, "libvirt", fakelibvirt)

    def abort() -> None:
        raise _core.Error("the migration is not running")

    monkeypatch.setattr(engine, "abort", abort, raising=False)
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    keeper = types.SimpleNamespace(keeps=lambda _: False)
    host = types.SimpleNamespace(_keeper=keeper, _steered=lambda _: steered)
    with pytest.raises(fakelibvirt.libvirtError, match="is not running"):
        driver.PostCopyLibvirtDriver.live_migration_abort(host, Instance())  # type: ignore[arg-type]
    engine.close()


def test_an_operation_that_fails_before_the_engine_is_noticed() -> None:
    ended = threading.Event()
    ended.set()
    monitor = steer.Monitor(steer.Steered(ORDERS, Instance()), CONTEXT, Instance(), Guest(), Record(), 1)
    assert monitor.wait_for_engine(ended) is None


class Told:
    """What the driver tells Nova."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def post(self) -> None:
        self.calls.append(("post", {}))

    def recover(self, **kwargs: Any) -> None:
        self.calls.append(("recover", kwargs))


@pytest.mark.parametrize(
    ("outcome", "aborted", "calls"),
    [
        ("completed", False, [("post", {})]),
        ("failed", False, [("recover", {})]),
        ("failed", True, [("recover", {"migration_status": "cancelled"})]),
    ],
)
def test_nova_is_told_the_outcome(outcome: str, aborted: bool, calls: list[Any]) -> None:
    told, steered = Told(), steer.Steered(ORDERS, Instance())
    steered.abort_asked = aborted
    driver._tell_outcome(
        STATUS | {"outcome": outcome},
        steered,
        CONTEXT,
        Instance(),
        text="",
        post=told.post,
        recover=told.recover,
    )
    assert told.calls == calls


@pytest.mark.parametrize("outcome", ["needs-operator", "detached"])
def test_without_a_clear_outcome_nothing_is_rolled_back(
    outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's fault says it."""
    faults: list[objects.InstanceFault] = []
    monkeypatch.setattr(objects.InstanceFault, "create", lambda fault: faults.append(fault))
    told, steered = Told(), steer.Steered(ORDERS, Instance())
    status = STATUS | {"outcome": outcome}
    text = "virsh resume-it  # both halves wait"
    with pytest.raises(steer.PostCopyInterrupted):
        driver._tell_outcome(
            status, steered, CONTEXT, Instance(), text=text, post=told.post, recover=told.recover
        )
    assert told.calls == []
    (fault,) = faults
    assert fault.message == "The live migration of the server cannot be completed without an operator."
    # What administrators read begins with what helps.
    assert fault.details.splitlines()[0].endswith("Explained: virsh resume-it  # both halves wait")


WHAT = ("waiting to be resumed", "resuming, attempt 1", "resuming, attempt 2")
INTERRUPTED: dict[str, Any] = {
    "gate": "open",
    "phase": "paused",
    "recovery": {
        "state": "waiting",
        "attempts": 0,
        "permille": 432,
        "since_ms": 7000,
        "next_ms": None,
        "text": "post-copy interrupted at 43 %, waiting until compute-0042 answers",
    },
}


def resuming(attempt: int) -> dict[str, Any]:
    text = f"post-copy interrupted at 43 %, resuming, attempt {attempt} over compute-0042"
    return INTERRUPTED | {
        "recovery": INTERRUPTED["recovery"] | {"state": "resuming", "attempts": attempt, "text": text}
    }


class Events:
    """Stands in for objects.InstanceActionEvent."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.said: list[tuple[str, str]] = []
        self.details: list[str] = []

    def _note(self, what: str, name: str) -> None:
        if self.fail:
            raise exception.NovaException("the conductor does not answer")
        self.said.append((what, name))

    def __call__(self, _context: Any, **fields: Any) -> Any:
        def create(_uuid: str, _request_id: str) -> None:
            self._note("start", fields["event"])
            self.details.append(fields["details"])

        return types.SimpleNamespace(create=create)

    def event_finish(self, _context: Any, _uuid: str, name: str, want_result: bool) -> None:
        self._note("finish", name)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    events = Events()
    monkeypatch.setattr(interruption.objects, "InstanceActionEvent", events)  # type: ignore[attr-defined]
    monkeypatch.setattr(interruption, "AFTER_SWITCH_S", 0.0)
    monkeypatch.setattr(interruption, "SAVE_S", 0.0)
    return events


def changes(saved: list[str]) -> list[str]:
    return [status for i, status in enumerate(saved) if i == 0 or saved[i - 1] != status]


def test_an_interruption_is_told_and_taken_back(events: Events) -> None:
    record = Record()
    postcopy = {"gate": "open", "phase": "postcopy"}
    follow(
        Engine(
            {"gate": "wanted", "phase": "drain"},
            postcopy,
            INTERRUPTED,
            resuming(1),
            resuming(2),
            postcopy,
            postcopy | {"outcome": "completed"},
        ),
        record,
    )
    texts = [step["recovery"]["text"] for step in (INTERRUPTED, resuming(1), resuming(2))]
    assert events.details == texts
    first, second, third = (f"post-copy interrupted at 43 %, {what}" for what in WHAT)
    assert changes(record.saved)[-5:] == [
        "running (post-copy)", first, second, third, "running (post-copy)",
    ]  # fmt: skip
    assert events.said == [(what, text) for text in (first, second, third) for what in ("start", "finish")]


def test_an_interruption_is_told_before_both_hosts_have_answered(events: Events) -> None:
    record = Record()
    record.status = "running (post-copy)"
    paused = {"gate": "open", "phase": "paused"}
    postcopy = {"gate": "open", "phase": "postcopy"}
    follow(
        Engine(postcopy, paused, resuming(1), paused, postcopy, postcopy | {"outcome": "completed"}), record
    )
    early = "post-copy interrupted at 25 %, finding out how it stands"
    assert [text for what, text in events.said if what == "start"] == [
        early,
        "post-copy interrupted at 43 %, resuming, attempt 1",
    ]
    assert early in record.saved
    assert record.status == "running (post-copy)"


def test_the_status_that_the_event_handler_looks_for_stands_for_a_while(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "AFTER_SWITCH_S", 60.0)
    record = Record()
    follow(Engine({"gate": "wanted", "phase": "drain"}, INTERRUPTED, {"outcome": "completed"}), record)
    assert record.status == "running (post-copy)"
    assert len(events.said) == 2


def test_news_that_cannot_be_told_end_nothing(events: Events) -> None:
    events.fail = True
    record = Record(fail=(INTERRUPTED["recovery"]["text"],))
    record.status = "running (post-copy)"
    status, _, _ = follow(Engine(INTERRUPTED, INTERRUPTED, {"outcome": "completed", "gate": "open"}), record)
    assert status["outcome"] == "completed"
    assert record.status == "running (post-copy)"


def test_no_timeout_while_post_copy_is_interrupted(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    CONF.set_override("live_migration_completion_timeout", 1, group="libvirt")
    now_s = iter(range(0, 1000, 2))
    monkeypatch.setattr(steer.time, "monotonic", lambda: float(next(now_s)))  # type: ignore[attr-defined]
    engine = Engine(INTERRUPTED, INTERRUPTED, INTERRUPTED, {"outcome": "completed", "gate": "open"})
    steered = steer.Steered(ORDERS, Instance())
    steered.engine = engine  # type: ignore[assignment]
    follow(engine, Record(), steered)
    assert engine.asked == []


def test_the_ledger_is_kept(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "host_facts", lambda uri, **_: {"hostname": uri})
    instance = Instance()
    kept = keeping.Keeping(Store(tmp_path), instance, {"migration": Record.uuid}, 1000)
    orders = dataclasses.replace(ORDERS, keeping=kept)
    steered = steer.Steered(orders, instance)
    steered._begins(Instance.uuid, "qemu+tcp://b/system", {"flags": 1, "policy": "auto", "params": {}})
    engine = Engine(
        {"elapsed_ms": 1000},
        {"elapsed_ms": 2000, "phase": "postcopy"},
        {"elapsed_ms": 3000, "phase": "finished", "outcome": "completed"},
    )
    engine.ledger = _core.Migration("g1", "test:///default").ledger  # type: ignore[attr-defined]
    follow(engine, Record(), steered)
    wait_for(lambda: Store(tmp_path).paths(), "the ledger")
    ((one,), errors) = Store(tmp_path).all()
    assert errors == []
    found = one.document
    assert found["guest"] == {"name": Instance.name, "uuid": Instance.uuid}
    assert found["by"] == {"program": "nova-compute", "migration": Record.uuid}
    assert (found["outcome"], found["flags"]) == ("completed", ["VIR_MIGRATE_LIVE"])
    assert found["samples"]["t_ms"] == [1000, 2000]


def arrived(steered: steer.Steered) -> None:
    """By post-copy, as a ledger of the core tells it."""
    engine = Engine({"phase": "postcopy"}, {"phase": "finished", "outcome": "completed"})
    ledger = _core.ledger_from_trace(traces.recorded())
    engine.ledger = lambda: ledger  # type: ignore[attr-defined]
    follow(engine, Record(), steered)


def test_huge_pages_come_into_the_ledger_later(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova has gone on with the server by then."""
    monkeypatch.setattr(_core, "host_facts", lambda uri, **_: {"hostname": uri})
    go_on = threading.Event()
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        assert len(waited) == 1 or go_on.wait(PATIENCE_S)

    monkeypatch.setattr(keeping, "time", types.SimpleNamespace(sleep=wait))
    seen = [huge_pages.Seen(2 << 20, None), huge_pages.unknown("away"), huge_pages.Seen(6 << 20, None)]
    pages = huge_pages.HugePages(
        lambda: huge_pages.Seen(8 << 20, None), lambda: seen.pop(0), "nobody has looked yet"
    )
    kept = keeping.Keeping(Store(tmp_path), Instance(), {}, 1000, huge_pages=pages)
    steered = steer.Steered(dataclasses.replace(ORDERS, keeping=kept), Instance())
    steered._begins(Instance.uuid, "qemu+tcp://b/system", {})
    wait_for(lambda: pages.document()["before_bytes"], "the source")
    arrived(steered)

    def found() -> Any:
        kept, _ = Store(tmp_path).all()
        return kept and kept[0].document["huge_pages"]

    wait_for(lambda: found() and found()["what"] == "read", "the first look")
    first = found()
    assert (first["before_bytes"], first["readings"][0]["bytes"]) == (8 << 20, 2 << 20)
    assert first["readings"][1]["why"] == "nobody has looked yet"
    go_on.set()
    wait_for(lambda: found()["readings"][2]["bytes"] == 6 << 20, "the last look")
    assert found()["readings"][1] | {"t_ms": 0} == {"at_s": 10, "t_ms": 0, "bytes": None, "why": "away"}
    assert len(waited) == 3 and waited[1] <= 10 and waited[2] <= 30


def test_no_look_at_huge_pages_of_one_that_did_not_arrive_by_post_copy(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "host_facts", lambda uri, **_: {"hostname": uri})
    pages = mock.Mock()
    kept = keeping.Keeping(Store(tmp_path), Instance(), {}, 1000, huge_pages=pages)
    steered = steer.Steered(dataclasses.replace(ORDERS, keeping=kept), Instance())
    steered._begins(Instance.uuid, "qemu+tcp://b/system", {})
    follow(ends({}), Record(), steered)
    wait_for(lambda: Store(tmp_path).paths(), "the ledger")
    assert [call[0] for call in pages.method_calls] == ["begin"]
    assert Store(tmp_path).all()[0][0].document["huge_pages"] is None


def test_a_ledger_that_cannot_be_kept_ends_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_core, "host_facts", lambda uri, **_: {"hostname": uri})
    (tmp_path / "file").write_text("")
    kept = keeping.Keeping(Store(tmp_path / "file"), Instance(), {}, 1000)
    steered = steer.Steered(dataclasses.replace(ORDERS, keeping=kept), Instance())
    steered._begins(Instance.uuid, "qemu+tcp://b/system", {})
    engine = Engine({}, {"phase": "finished", "outcome": "completed"})
    engine.ledger = _core.Migration("g1", "test:///default").ledger  # type: ignore[attr-defined]
    status, _, _ = follow(engine, Record(), steered)
    assert status["outcome"] == "completed"
    wait_for(lambda: "The ledger of the live migration is lost" in caplog.text, "the warning")


def begun(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, passage: Any = None) -> steer.Steered:
    """One whose ledger is to be kept in FOLDER."""
    monkeypatch.setattr(_core, "host_facts", lambda uri, **_: {"hostname": uri})
    kept = keeping.Keeping(Store(folder), Instance(), {}, 1000)
    steered = steer.Steered(dataclasses.replace(ORDERS, keeping=kept), Instance())
    steered._begins(Instance.uuid, "qemu+tcp://b/system", {})
    steered.passage = passage
    return steered


def ends(*statuses: dict[str, Any], outcome: str = "completed") -> Engine:
    engine = Engine(*statuses, {"phase": "finished", "outcome": outcome})
    engine.ledger = _core.Migration("g1", "test:///default").ledger  # type: ignore[attr-defined]
    return engine


def test_nova_does_not_wait_for_the_ledger(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_on, written = threading.Event(), threading.Event()
    add = Store.add

    def slow(store: Store, document: Any) -> Any:
        assert handed_on.wait(PATIENCE_S)
        path = add(store, document)
        written.set()
        return path

    monkeypatch.setattr(Store, "add", slow)
    monkeypatch.setattr(releases, "off_hub", lambda call: call())  # as without eventlet
    status, _, _ = follow(ends({}), Record(), begun(tmp_path, monkeypatch))
    assert status["outcome"] == "completed"
    # What is written is of the end, whatever becomes of the engine.
    before = utc_now()
    handed_on.set()
    assert written.wait(PATIENCE_S)
    ((one,), _) = Store(tmp_path).all()
    assert one.document["outcome"] == "completed" and one.document["ended"] <= before
    assert [each["action"] for each in one.document["decisions"]] == ["drain"]


def test_what_is_left_to_libvirt_is_written_before_the_process_ends(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered = begun(tmp_path, monkeypatch)
    steered.detached = True
    follow(ends({}, outcome="detached"), Record(), steered)
    ((one,), _) = Store(tmp_path).all()
    assert one.document["outcome"] == "detached"


class Odd:
    """A defect of whatever kind, of a passage or an engine."""

    closed = 0

    def accounting(self) -> Any:
        raise KeyError("what nobody thought of")

    def keep(self) -> None: ...

    def close(self) -> None:
        self.closed += 1
        raise OSError("the daemon's socket is odd")


def test_no_defect_of_the_ledger_reaches_the_migration(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(*_: Any) -> Any:
        raise KeyError("what nobody thought of")

    passage = Odd()
    steered = begun(tmp_path, monkeypatch, passage)
    kept = steered._orders.keeping
    assert kept is not None
    monkeypatch.setattr(kept._keeping, "look", odd)
    engine = ends({}, {})
    engine.ledger = odd  # type: ignore[attr-defined]
    status, instance, _ = follow(engine, Record(), steered)
    assert (status["outcome"], passage.closed) == ("completed", 1)
    assert instance.saves >= 1  # Nova's statistics
    for text in (
        "will lack figures over time",
        "What went through the tunnel is not known",
        "The ledger of the live migration is lost: KeyError",
        "The way through the tunnel stays open: the daemon's socket is odd",
    ):
        assert caplog.text.count(text) == 1, text


@pytest.mark.parametrize("which", ["arrived_by_postcopy", "utc_now", "_WRITER"])
def test_no_defect_at_the_end_of_the_ledger_leaves_the_tunnel_open(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    passage = Odd()
    steered = begun(tmp_path, monkeypatch, passage)

    def breaks(*_: Any) -> None:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr(keeping, which, breaks)
    status, instance, _ = follow(ends({}, {}), Record(), steered)
    assert (status["outcome"], passage.closed) == ("completed", 1)
    assert instance.saves >= 1
    assert caplog.text.count("The ledger of the live migration is lost: ") == 1


def tunnelled(daemon: FakeDaemon, noted: list[Any]) -> steer.Orders:
    return dataclasses.replace(ORDERS, way=Way(control=daemon.control), note=lambda *what: noted.extend(what))


def test_a_migration_goes_through_the_tunnel(tmp_path: pathlib.Path) -> None:
    noted: list[Any] = []
    with fake_daemon(tmp_path) as daemon:
        steered = steer.Steered(tunnelled(daemon, noted), Instance())
        flags = BITS["VIR_MIGRATE_NON_SHARED_INC"]
        words = {
            "domain": "nobody",
            "migrate_uri": "tcp://10.0.0.2",
            "flags": flags,
            "migrate_disks": ["vda"],
        }
        work = threading.Thread(target=steered.migrate, args=("test:///nowhere",), kwargs=words, daemon=True)
        work.start()
        monitor = steer.Monitor(steered, CONTEXT, Instance(), Guest(), Record(), 1)
        engine = monitor.wait_for_engine(threading.Event())
        assert engine is not None and engine.join(PATIENCE_MS)
        _, _, arguments, passage = noted
        assert set(daemon.names.values()) == {"10.0.0.2 16516"} and len(daemon.names) == 2
        assert arguments["migrate_uri"] == f"unix://{tmp_path}/{passage.names.memory}"
        assert arguments["disks_uri"] == f"unix://{tmp_path}/{passage.names.disks}"
        # There is no such guest: it failed, and what was opened for it is closed.
        assert monitor.follow(engine)["outcome"] == "failed"
        assert not daemon.names
        steered.end()
        work.join(PATIENCE_S)


def test_no_way_no_migration(tmp_path: pathlib.Path) -> None:
    noted: list[Any] = []
    with fake_daemon(tmp_path) as daemon:
        daemon.refusal = "the certificate is for c"
        steered = steer.Steered(tunnelled(daemon, noted), Instance())
        with pytest.raises(exception.MigrationError, match="the certificate is for c"):
            steered.migrate("test:///nowhere", domain="nobody", migrate_uri="tcp://10.0.0.2")
        assert (steered.engine, noted, daemon.names) == (None, [], {})


def test_what_cannot_be_noted_leaves_nothing_open(tmp_path: pathlib.Path) -> None:
    def full(*_: Any) -> None:
        raise exception.MigrationError(reason="no space left")

    with fake_daemon(tmp_path) as daemon:
        orders = dataclasses.replace(tunnelled(daemon, []), note=full)
        with pytest.raises(exception.MigrationError, match="no space left"):
            steer.Steered(orders, Instance()).migrate(
                "test:///nowhere", domain="nobody", migrate_uri="tcp://10.0.0.2"
            )
        assert not daemon.names


def test_an_adopted_one_is_told_to_the_daemon_again(tmp_path: pathlib.Path) -> None:
    with fake_daemon(tmp_path) as daemon:
        names = Names.new(Peer("b"), disks=False, control=daemon.control)
        steered = steer.Steered(dataclasses.replace(ORDERS, resume_uris=("tcp://b",)), Instance())
        uri = f"unix://{tmp_path}/{names.memory}"
        uuid = "aaaaaaaa-0000-4000-8000-000000000001"
        engine = steered.adopt(uuid, "test:///nowhere", {"migrate_uri": uri}, names.as_entry())
        wait_for(lambda: daemon.names)
        assert daemon.names == {names.memory: "b 16516"}
        engine.detach()
        engine.join(PATIENCE_MS)
