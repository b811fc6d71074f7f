# SPDX-License-Identifier: Apache-2.0
"""What a nova-compute that was restarted in post-copy hands on for the migration that it adopts: all that a
migration of its own gets, and that it did not begin here."""

from __future__ import annotations

import types
from typing import Any

import pytest
from nova import exception

from pcmig import huge_pages
from pcmig.nova import adoption, keeper, recorded, records, steer
from pcmig.tunnel.passage import Passage
from tests.nova_own.test_records import UUID, entry, known
from tests.unit.patience import wait_for

__all__ = ["known"]  # a fixture

CONTEXT = types.SimpleNamespace(request_id="req-1", user_id="u", project_id="p")
INSTANCE = types.SimpleNamespace(uuid=UUID, name="instance-00000001")
MIGRATION = types.SimpleNamespace(uuid="m", dest_compute="b", source_compute="a")
TUNNEL = {"names": "of the way"}
ENGINE = {
    "flags": 3,
    "policy": "passes=3",
    "params": {"request_wait_ms": 7, "drain_max_ms": 1},
    "count_faults": True,
    "resume_uris": ["tcp://as.it.was"],
    "recover": False,
}


class Peers:
    """Other hosts' nova-computes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def wake(self, _context: Any, host: str, uuid: str) -> None:
        self.asked.append(("wake", host, uuid))

    def huge_pages(self, _context: Any, host: str, uuid: str) -> Any:
        self.asked.append(("huge pages", host, uuid))
        return (4096, None, False)


class Driver(recorded.RecordedLibvirtDriver):
    """As far as it adopts."""

    _peers = Peers()  # type: ignore[assignment]

    def __init__(self, known: records.Records) -> None:
        self._records = known
        self._plans = {}
        self.called: list[tuple[Any, ...]] = []
        self._options = types.SimpleNamespace(  # type: ignore[assignment]
            connect_timeout_ms=1234,
            journal_dir="/nonexistent",
            ledger_dir="/nonexistent",
            ledgers_kept=0,
            ledgers_days=0,
            resume_uris=lambda dest: (f"tcp://{dest}.now",),
        )
        self._host = types.SimpleNamespace(get_guest=self._no_guest)
        self._metering = types.SimpleNamespace(  # type: ignore[assignment]
            activated=lambda *told: self.called.append(("activated", *told))
        )

    def _no_guest(self, _instance: Any) -> Any:
        raise exception.InstanceNotFound(instance_id=UUID)

    def _ports(self, context: Any, instance: Any, dest: str) -> Any:
        return (context, instance, dest)

    def _count(self, *told: Any) -> None:
        self.called.append(("ended", *told))

    def _live_migration_data_gb(self, _instance: Any, _paths: Any) -> int:
        return 5


def adopted(known: records.Records, **changes: Any) -> adoption.Adopted:
    caller = {"nova": {"dest": "b", "block_migration": False}}
    record = known.add(entry(engine=ENGINE, caller=caller, **changes), "source")
    return adoption.Adopted(record, CONTEXT, INSTANCE, MIGRATION, None, None)


def orders_of(steered: steer.Steered) -> steer.Orders:
    return steered._orders


def test_one_that_is_adopted_lacks_nothing_that_another_has(known: records.Records) -> None:
    made, found = Driver(known), adopted(known)
    steered = made._steer_adopted(found)
    orders = orders_of(steered)
    assert orders.source_uri == found.record.entry.source_uri
    assert (orders.policy, orders.connect_timeout_ms) == ("passes=3", 1234)
    assert orders.resume_uris == ("tcp://b.now",)
    ports: Any = steered.ports
    assert ports == (CONTEXT, INSTANCE, "b")
    orders.wake()
    assert made._peers.asked.pop() == ("wake", "b", UUID)
    orders.crossed()
    assert found.record.entry.crossed
    orders.activated("m", 0.5)
    orders.ended("m", steered, {})
    assert made.called == [("activated", "m", 0.5), ("ended", "m", steered, {})]
    plan = made._plans[UUID]
    assert (plan.flags, plan.steered, plan.reason) == (3, steered, "adopted")


def test_its_ledger_says_that_it_began_elsewhere(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it began, that it was adopted, and that nobody saw its huge pages before."""
    found = adopted(known, started="2026-01-01T00:00:00+00:00")
    kept = orders_of(Driver(known)._steer_adopted(found)).keeping
    assert kept is not None and kept._huge_pages is not None
    begun: dict[str, Any] = {}
    monkeypatch.setattr(kept._keeping, "begin", lambda **named: begun.update(named))
    monkeypatch.setattr(huge_pages, "at_source", lambda _: pytest.fail("it is too late for that"))
    kept.begin(UUID, "source", "dest", ENGINE)
    assert (begun["adopted"], begun["begun"]) == (True, "2026-01-01T00:00:00+00:00")
    kept._huge_pages.begin()
    assert kept._huge_pages.document()["before_why"] == huge_pages.ADOPTED
    assert {"migration": "m", "request_id": "req-1"}.items() <= kept._keeping.by.items()


def test_that_of_a_migration_of_its_own_does_not(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.add(entry(), "source")
    kept = Driver(known)._keeping(CONTEXT, INSTANCE, MIGRATION)
    begun: dict[str, Any] = {}
    monkeypatch.setattr(kept._keeping, "begin", lambda **named: begun.update(named))
    monkeypatch.setattr(huge_pages, "at_source", lambda _: huge_pages.Seen(8192, None))
    kept.begin(UUID, "source", "dest", ENGINE)
    pages = kept._huge_pages
    assert begun["adopted"] is False and pages is not None
    pages.begin()
    wait_for(lambda: pages.document()["before_bytes"] == 8192, "the look before")


class Engine:
    """Plays _core.Migration: what it was made with."""

    def __init__(self, *ends: str, **named: Any) -> None:
        self.ends, self.named, self.started = ends, named, False

    def start(self) -> None:
        self.started = True


@pytest.mark.parametrize("tunnel", [None, TUNNEL])
@pytest.mark.parametrize("crossed", [False, True])
def test_the_engine_and_who_follows_it_know_what_is_on_record(
    known: records.Records, monkeypatch: pytest.MonkeyPatch, tunnel: Any, crossed: bool
) -> None:
    made, found = Driver(known), adopted(known, tunnel=tunnel, crossed=crossed)
    passage = types.SimpleNamespace(keep=lambda: made.called.append(("keep",)))
    monkeypatch.setattr(Passage, "of_entry", lambda told: passage if told == TUNNEL else None)
    monkeypatch.setattr("pcmig._core.Migration", Engine)
    follows: dict[str, Any] = {}

    class Monitor:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            follows.update(named, arguments=arguments)

        def follow(self, engine: Any) -> dict[str, Any]:
            return {"engine": engine}

    monkeypatch.setattr(steer, "Monitor", Monitor)
    steered = made._steer_adopted(found)
    status = keeper.Keeper(made, known, None, None)._monitor(found, steered)  # type: ignore[arg-type]
    driven: Any = steered.engine
    engine: Any = status["engine"]
    assert engine.started and driven is engine
    assert engine.ends == (UUID, found.record.entry.dest_uri)
    assert engine.named == {
        "source_uri": found.record.entry.source_uri,
        "gate": True,
        "adopt": True,
        "crossed": crossed,
        "flags": 3,
        "policy": "passes=3",
        "params": {"request_wait_ms": 7},
        "count_faults": True,
        # Networks may have been added; through a tunnel none leads around it.
        "resume_uris": ["tcp://b.now"] if tunnel is None else [],
        "recover": True,
    }
    way: Any = steered.passage
    assert way is (None if tunnel is None else passage)
    assert made.called == ([] if tunnel is None else [("keep",)])
    assert follows == {"arguments": (steered, CONTEXT, INSTANCE, None, MIGRATION, 5), "crossed": crossed}
