# SPDX-License-Identifier: Apache-2.0
"""A Compute API on a port of this machine that answers what a test tells it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.test import RequestFactory
from keystoneauth1 import session, token_endpoint
from novaclient import client as nova_client
from openstack_dashboard.api import _nova

SERVER = "6f2b57a9-5cf5-42bd-9230-669d0b641065"


class Compute:
    """Answers by path: (status, JSON); remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any, str]] = []  # method, path, body, microversion
        compute = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                version = self.headers.get("OpenStack-API-Version", "")
                compute.asked.append((self.command, self.path, body, version))
                missing = {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}
                status, content = compute.answers.get(self.path, (404, missing))
                data = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v2.1"

    def show(self, **what: Any) -> None:
        """What os-pcmig says of SERVER."""
        answer = {"post_copy": {"may_ask": True, "forbidden": None, "required": None}, "migration": None}
        self.answers[f"/v2.1/servers/{SERVER}/os-pcmig"] = (200, {"pcmig": {**answer, **what}})

    def fault(self, path: str, status: int, name: str, message: str) -> None:
        self.answers[path] = (status, {name: {"code": status, "message": message}})


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compute]:
    compute = Compute()
    thread = threading.Thread(target=compute.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    # The real client; only where it takes the endpoint and the token from is not keystone.
    def client(_request: Any, version: Any = None) -> Any:
        auth = token_endpoint.Token(compute.url, "a token")
        return nova_client.Client(str(version or 2), session=session.Session(auth=auth))

    monkeypatch.setattr(_nova, "novaclient", client)
    yield compute
    compute.server.shutdown()
    thread.join()
    compute.server.server_close()


class User:
    """Somebody who is logged in, as far as views look."""

    is_authenticated = True
    is_active = True
    id = username = "admin"
    tenant_id = "p"

    def has_perms(self, _permissions: Any) -> bool:
        return True


@pytest.fixture
def request_of() -> Any:
    """A maker of requests as Horizon's middleware passes them to views, with the messages they collect."""

    def make(method: str = "get", path: str = "/", data: Any = None, ajax: bool = True) -> Any:
        more = {"HTTP_X_REQUESTED_WITH": "XMLHttpRequest"} if ajax else {}
        request = getattr(RequestFactory(), method)(path, data or {}, **more)
        request.user = User()
        request.session = SessionStore()
        request.horizon = {"dashboard": None, "panel": None, "async_messages": []}
        return request

    return make
