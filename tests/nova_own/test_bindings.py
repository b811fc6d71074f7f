# SPDX-License-Identifier: Apache-2.0
"""What a live migration left of its ports in Neutron is removed where it stands in the way, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from nova.network import neutron

from pcmig.nova import bindings

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

    def get_network_info(self) -> list[dict[str, str]]:
        return [{"id": port} for port in BINDINGS]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(neutron, "get_client", lambda _context, admin: client)
    return client


def test_only_what_is_inactive_is_removed(client: Client) -> None:
    bindings.remove_inactive(None, Instance())
    assert client.deleted == [("p1", "b"), ("p3", "a")]


def test_neutron_away_is_no_error_of_ours(client: Client) -> None:
    client.fails = True
    bindings.remove_inactive(None, Instance())
    assert client.deleted == []
