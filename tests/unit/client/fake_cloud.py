# SPDX-License-Identifier: Apache-2.0
"""keystone and nova-api as far as the clients ask them, over real HTTP; a test says what they answer."""

from __future__ import annotations

import copy
import http.server
import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

SERVER_ID = "6b6d9d4e-7c0c-4c43-a5ac-0e7b1f2f1c11"
SECOND_ID = "6b6d9d4e-7c0c-4c43-a5ac-0e7b1f2f1c22"
PROJECT_ID = "0123456789abcdef0123456789abcdef"
NOT_ALLOWED = (
    "Invalid input for field/attribute os-migrateLive. Value: {}. "
    "Additional properties are not allowed ('post_copy' was unexpected)"
)


def progress(phase: str, percent: int, **more: Any) -> dict[str, Any]:
    return {
        "phase": phase,
        "policy": "auto",
        "reason": "two passes were as long as the first",
        "passes": 2,
        "percent": percent,
        "elapsed_ms": 12345,
        "remaining_bytes": 120 << 20,
        "total_bytes": 1 << 30,
        "transferred_bytes": 900 << 20,
        "rate_bytes_per_s": 11 << 20,
        "dirty_bytes_per_s": 20 << 20,
        "requests": 31,
        "eta_ms": None,
        "downtime_ms": 14,
        **more,
    }


def migration(id_: int, status: str, *, in_progress: bool, **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "uuid": f"00000000-0000-4000-8000-{id_:012}",
        "status": status,
        "in_progress": in_progress,
        "source_compute": "host-a",
        "dest_compute": "host-b",
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:15Z",
        "memory_total_bytes": 1 << 30,
        "memory_processed_bytes": 512 << 20,
        "memory_remaining_bytes": 256 << 20,
        "disk_total_bytes": 0,
        "disk_processed_bytes": 0,
        "disk_remaining_bytes": 0,
        "progress": None,
        **more,
    }


def state(of: dict[str, Any] | None = None, **may: Any) -> dict[str, Any]:
    return {"post_copy": {"may_ask": True, "forbidden": None, "required": None, **may}, "migration": of}


class FakeCloud:
    """One server (or two) on host-a. `actions` has the bodies that came, `requests` all of "METHOD path"."""

    def __init__(self) -> None:
        self.filter = True
        self.legacy_v2 = False
        self.refusal: tuple[int, str, str] | None = None  # of os-migrateLive: status, key, message
        self.metadata: dict[str, str] = {}
        self.metadata_is_locked = False
        self.servers = {SERVER_ID: "g1"}
        self.running: list[dict[str, Any]] = []  # of GET /os-migrations
        # What GET os-pcmig says, in turn; the last stays. (state, status of the server)
        self.states: list[tuple[dict[str, Any], str]] = [(state(), "ACTIVE")]
        self.after_action: list[tuple[dict[str, Any], str]] | None = None
        self.requests: list[str] = []
        self.actions: list[dict[str, Any]] = []
        self.metadata_at_action: list[dict[str, str]] = []
        self.microversions: list[str | None] = []
        cloud = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                parts = urlsplit(self.path)
                status, content = cloud.route(
                    self.command, parts.path.rstrip("/"), parse_qs(parts.query), body, self.headers
                )
                data = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Subject-Token", "token")
                self.send_header("x-openstack-request-id", "req-1")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PUT = answer

            def log_message(self, *args: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def compute_url(self) -> str:
        return f"{self.url}/v2" if self.legacy_v2 else f"{self.url}/v2.1"

    def route(self, method: str, path: str, query: Any, body: Any, headers: Any) -> tuple[int, Any]:
        if path == "/v3":
            link = [{"rel": "self", "href": f"{self.url}/v3/"}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": link}}
        if path == "/v3/auth/tokens":
            return 201, {"token": self._token()}
        if path in ("/v2.1", "/v2"):
            return 200, {"version": self._version()}
        self.requests.append(f"{method} {path.partition('/v2.1')[2] or path.partition('/v2')[2]}")
        return self._nova(
            method, path.partition("/v2.1")[2] or path.partition("/v2")[2], query, body, headers
        )

    def _token(self) -> dict[str, Any]:
        def service(kind: str, url: str) -> dict[str, Any]:
            endpoint = {"interface": "public", "region": "One", "region_id": "One", "url": url, "id": kind}
            return {"type": kind, "name": kind, "id": kind, "endpoints": [endpoint]}

        domain = {"id": "default", "name": "Default"}
        return {
            "methods": ["password"],
            "user": {"id": "u", "name": "admin", "domain": domain},
            "project": {"id": PROJECT_ID, "name": "admin", "domain": domain},
            "roles": [{"id": "r", "name": "admin"}],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "catalog": [service("compute", self.compute_url), service("identity", f"{self.url}/v3")],
        }

    def _version(self) -> dict[str, Any]:
        link = [{"rel": "self", "href": f"{self.compute_url}/"}]
        if self.legacy_v2:
            return {"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "links": link}
        return {"id": "v2.1", "status": "CURRENT", "version": "2.100", "min_version": "2.1", "links": link}

    def _nova(self, method: str, path: str, query: Any, body: Any, headers: Any) -> tuple[int, Any]:
        if path in ("/servers", "/servers/detail"):
            wanted = (query.get("name") or [""])[0].strip("^$")
            if "status" in query and query["status"][0] != self.states[0][1]:
                return 200, {"servers": []}
            ids = [id_ for id_, name in self.servers.items() if re.search(wanted, name)]
            return 200, {"servers": [self._record(id_) for id_ in ids]}
        if path.startswith("/os-hypervisors"):
            servers = [{"uuid": id_, "name": name} for id_, name in self.servers.items()]
            row = {"id": "1", "hypervisor_hostname": "host-a", "state": "up", "status": "enabled"}
            return 200, {"hypervisors": [{**row, "servers": servers}]}
        if path == "/os-migrations":
            id_ = query["instance_uuid"][0]
            return 200, {"migrations": [row for row in self.running if row["instance_uuid"] == id_]}
        found = re.fullmatch(r"/servers/([^/]+)(/.*)?", path)
        if not found or found[1] not in self.servers:
            return 404, {"itemNotFound": {"code": 404, "message": "Instance could not be found."}}
        return self._of_server(method, found[1], found[2] or "", body, headers)

    def _of_server(self, method: str, id_: str, path: str, body: Any, headers: Any) -> tuple[int, Any]:
        if path == "" and method == "GET":
            return 200, {"server": self._record(id_)}
        if path == "/os-pcmig" and self.filter:
            answer = self.states[0][0]
            if len(self.states) > 1:
                self.states.pop(0)
            return 200, {"pcmig": copy.deepcopy(answer)}
        if path == "/action":
            return self._action(body, headers)
        if path.startswith("/metadata"):
            return self._metadata(method, path, body)
        return 404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}

    def _action(self, body: Any, headers: Any) -> tuple[int, Any]:
        self.actions.append(body)
        self.metadata_at_action.append(dict(self.metadata))
        self.microversions.append(headers.get("X-OpenStack-Nova-API-Version"))
        if "post_copy" in body.get("os-migrateLive", {}) and not self.filter and not self.legacy_v2:
            return 400, {"badRequest": {"code": 400, "message": NOT_ALLOWED.format(body["os-migrateLive"])}}
        if self.refusal is not None:
            status, key, message = self.refusal
            return status, {key: {"code": status, "message": message}}
        if self.after_action is not None:
            self.states = self.after_action
        return 202, None

    def _metadata(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        key = path.removeprefix("/metadata").lstrip("/").replace("%3A", ":")
        if method == "POST":
            if self.metadata_is_locked:
                return 403, {"forbidden": {"code": 403, "message": "Policy doesn't allow it"}}
            self.metadata.update(body["metadata"])
            return 200, {"metadata": self.metadata}
        if key not in self.metadata:
            return 404, {"itemNotFound": {"code": 404, "message": "Metadata item was not found"}}
        if method == "DELETE":
            del self.metadata[key]
            return 204, None
        return 200, {"meta": {key: self.metadata[key]}}

    def _record(self, id_: str) -> dict[str, Any]:
        link = [{"rel": "self", "href": f"{self.compute_url}/servers/{id_}"}]
        return {
            "id": id_,
            "name": self.servers[id_],
            "status": self.states[0][1],
            "links": link,
            "metadata": dict(self.metadata),
            "tenant_id": PROJECT_ID,
        }
