# SPDX-License-Identifier: Apache-2.0
"""OpenStack's REST APIs, as far as the bed asks them itself; users' commands go through the real clients."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bed.errors import BedError
from tests.cloud.network import CONTROL, socket_in

PASSWORD = "pcmig"
TIMEOUT_S = 120.0
# Service, as in the catalog: its name, port, path, and what asks for its newest version.
SERVICES: dict[str, tuple[str, int, str, Mapping[str, str]]] = {
    "identity": ("keystone", 5000, "/v3", {}),
    "placement": ("placement", 8778, "", {"OpenStack-API-Version": "placement 1.39"}),
    "image": ("glance", 9292, "", {}),
    "network": ("neutron", 9696, "", {}),
    "compute": ("nova", 8774, "/v2.1", {"OpenStack-API-Version": "compute 2.100"}),
    "volumev3": ("cinder", 8776, "/v3", {"OpenStack-API-Version": "volume 3.71"}),  # of clouds with storage
}
USUAL = ("identity", "placement", "image", "network", "compute")  # what every cloud has, in this order


def url(service: str) -> str:
    _, port, path, _ = SERVICES[service]
    return f"http://{CONTROL}:{port}{path}"


class ApiError(BedError):
    """An API answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """Asks as the admin, or as another user of a project, from inside the control node's network."""

    def __init__(self, control_pid: int, user: str = "admin", project: str = "admin") -> None:
        self.control_pid = control_pid
        self.user = user
        self.project = project
        self._token: str | None = None

    def get(self, service: str, path: str) -> Any:
        return self.request("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        return self.request("POST", service, path, body)

    def answers(self, service: str) -> bool:
        """The service takes connections and says something, be it an error."""
        try:
            self._exchange("GET", service, "/", {}, None, timeout_s=10)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def request(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """The answer's JSON (None when it has none); bytes as a body go as they are."""
        headers = {}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/octet-stream"
        elif body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        status, content = self.exchange(method, service, path, body, headers)
        if status >= 400:
            said = content.decode(errors="replace")[:500]
            raise ApiError(status, f"{service} API, {method} {path}: {status}: {said}")
        return json.loads(content) if content.strip() else None

    def exchange(
        self, method: str, service: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and content of any answer; these headers win over those that are usual here."""
        usual = {"X-Auth-Token": self.token(), "Accept": "application/json", **SERVICES[service][3]}
        try:
            status, _, content = self._exchange(method, service, path, {**usual, **headers}, body)
        except (OSError, http.client.HTTPException) as error:
            raise BedError(f"{service} API, {method} {path}: {error}") from error
        return status, content

    def token(self) -> str:
        if self._token is None:
            user = {"name": self.user, "domain": {"id": "default"}, "password": PASSWORD}
            project = {"name": self.project, "domain": {"id": "default"}}
            identity = {"methods": ["password"], "password": {"user": user}}
            body = json.dumps({"auth": {"identity": identity, "scope": {"project": project}}}).encode()
            headers = {"Content-Type": "application/json"}
            try:
                status, got, content = self._exchange("POST", "identity", "/auth/tokens", headers, body)
            except (OSError, http.client.HTTPException) as error:
                raise BedError(f"keystone: no token: {error}") from error
            if status != 201:
                raise BedError(f"keystone: no token: {status}: {content.decode(errors='replace')[:300]}")
            self._token = got["X-Subject-Token"]
        return self._token

    def forget_token(self) -> None:
        """After a change of roles."""
        self._token = None

    def _exchange(
        self,
        method: str,
        service: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[int, Mapping[str, str], bytes]:
        _, port, prefix, _ = SERVICES[service]
        connection = http.client.HTTPConnection(CONTROL, port)
        connection.sock = socket_in(self.control_pid, (CONTROL, port), timeout_s)
        try:
            connection.request(method, prefix + path, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, dict(answer.getheaders()), content
        finally:
            connection.close()


def fill_catalog(api: Api, kinds: Sequence[str]) -> None:
    """Make these services known, and the admin one that other services believe."""
    for kind in kinds:
        if kind == "identity":
            continue  # keystone made that itself
        name = SERVICES[kind][0]
        service = api.post("identity", "/services", {"service": {"name": name, "type": kind}})["service"]
        for interface in ("public", "internal", "admin"):
            endpoint = {"interface": interface, "region_id": "RegionOne", "url": url(kind)}
            api.post("identity", "/endpoints", {"endpoint": {**endpoint, "service_id": service["id"]}})
    user = api.get("identity", "/users?name=admin")["users"][0]["id"]
    project = api.get("identity", "/projects?name=admin")["projects"][0]["id"]
    role = api.get("identity", "/roles?name=service")["roles"][0]["id"]
    api.request("PUT", "identity", f"/projects/{project}/users/{user}/roles/{role}")
    api.forget_token()


def wait_until(ready: Any, patience_s: float, what: str) -> None:
    """Ask every 0.25 s; BedError names what did not come."""
    deadline_s = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > deadline_s:
            raise BedError(f"{what}: not after {patience_s:.0f} s")
        time.sleep(0.25)
