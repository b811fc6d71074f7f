# SPDX-License-Identifier: Apache-2.0
"""What a live migration left of its ports in Neutron is removed where it is in the way, and nothing else."""

from __future__ import annotations

import types
from typing import Any

import pytest
from nova.network import neutron

from pcmig.nova import bindings, keeper

BINDINGS = {
    "p1": [{"host": "a", "status": "ACTIVE"}, {"host": "b", "status": "INACTIVE"}],
    "p2": [{"host": "a", "status": "ACTIVE"}],
    "p3": [{"host": "b", "status": "ACTIVE"}, {"host": "a", "status": "INACTIVE"}],
}


class Client:
    def __init__(self) -> None:
        self.deleted: list[tuple[str, str]] = []
        self.fails = False

    def list_port_bindings(self, port: str) -> dict[str, Any]:
        if self.fails:
            raise RuntimeError("503")
        return {"bindings": BINDINGS[port]}

    def delete_port_binding(self, port: str, host: str) -> None:
        self.deleted.append((port, host))


class Instance:
    uuid = "11111111-1111-1111-1111-111111111111"
    host = "a"

    def get_network_info(self) -> list[dict[str, str]]:
        return [{"id": port} for port in BINDINGS]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(neutron, "get_client", lambda _context, admin: client)
    return client


def test_only_what_is_inactive_is_removed(client: Client) -> None:
    assert bindings.remove_inactive(None, Instance())
    assert client.deleted == [("p1", "b"), ("p3", "a")]


def test_where_the_guest_goes_on_it_stays(client: Client) -> None:
    """Neutron may not have activated it yet."""
    assert bindings.remove_inactive(None, Instance(), but="b")
    assert client.deleted == [("p3", "a")]


def test_without_a_live_migration_nothing_is_left(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BINDINGS, "p1", BINDINGS["p2"])
    monkeypatch.delitem(BINDINGS, "p3")
    assert not bindings.remove_inactive(None, Instance())
    assert client.deleted == []


def test_neutron_away_is_no_error_of_ours(client: Client) -> None:
    client.fails = True
    assert not bindings.remove_inactive(None, Instance())
    assert client.deleted == []


def test_ports_come_back_in_the_order_that_neutrons_agents_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    network_api = types.SimpleNamespace(
        migrate_instance_start=lambda _c, _i, back: calls.append(("activate", back.dest_compute)),
        setup_networks_on_host=lambda _c, _i, host, teardown: calls.append(("clear", (host, teardown))),
        setup_instance_network_on_host=lambda _c, _i, host, migration: calls.append(("bind", host)),
    )
    monkeypatch.setattr(
        bindings, "remove_inactive", lambda _c, _i, but: calls.append(("remove all but", but))
    )
    adopted: Any = types.SimpleNamespace(
        context=None, instance=None, dest="b", migration=types.SimpleNamespace(source_compute="a")
    )
    manager = types.SimpleNamespace(network_api=network_api)
    keeper.Keeper._ports_come_back(None, adopted, manager)  # type: ignore[arg-type]  # it needs nothing of it
    assert calls == [("activate", "a"), ("remove all but", "a"), ("clear", ("b", True)), ("bind", "a")]
