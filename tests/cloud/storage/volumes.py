# SPDX-License-Identifier: Apache-2.0
"""Cinder's volumes as tests use them, and who has which image of Ceph open."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tests.cloud.api import Api, wait_until
from tests.cloud.network import management_address
from tests.cloud.server import Server
from tests.cloud.storage.ceph import SERVERS, VOLUMES, Ceph
from tests.cloud.storage.cinder import KIND

PATIENCE_S = 60.0
HOSTS = {management_address(host): host for host in "ab"}


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume of Cinder's, in Ceph."""

    api: Api
    id: str

    @property
    def image(self) -> str:
        """Ceph's name of it."""
        return f"{VOLUMES}/volume-{self.id}"

    def show(self) -> dict[str, Any]:
        return dict(self.api.get(KIND, f"/volumes/{self.id}")["volume"])

    def attached(self) -> dict[str, list[str]]:
        """By server's id, the hosts ("a", "b") of Cinder's attachments; one, if nothing is left over. What
        was begun and never completed has no host: "-"."""
        hosts = {
            str(attachment["attachment_id"]): str(attachment["host_name"]).removeprefix("pcmig-")
            for attachment in self.show()["attachments"]
        }
        found: dict[str, list[str]] = {}
        for attachment in self.api.get(KIND, f"/attachments?volume_id={self.id}")["attachments"]:
            found.setdefault(attachment["instance"], []).append(hosts.get(attachment["id"], "-"))
        return {server: sorted(of_server) for server, of_server in found.items()}

    def wait_status(self, wanted: str, patience_s: float = PATIENCE_S) -> None:
        wait_until(lambda: self.show()["status"] == wanted, patience_s, f"volume {self.id} is {wanted}")

    def delete(self) -> None:
        self.api.request("DELETE", KIND, f"/volumes/{self.id}")
        wait_until(
            lambda: self.id not in [found["id"] for found in self.api.get(KIND, "/volumes")["volumes"]],
            PATIENCE_S,
            f"volume {self.id} is gone",
        )


def create(api: Api, gib: int = 1, volume_type: str = "") -> Volume:
    """A volume, ready to be attached."""
    wanted: dict[str, Any] = {"size": gib, **({"volume_type": volume_type} if volume_type else {})}
    volume = Volume(api, api.post(KIND, "/volumes", {"volume": wanted})["volume"]["id"])
    volume.wait_status("available")
    return volume


def multi_attach_type(api: Api) -> str:
    """The name of a volume type whose volumes several servers may have at once."""
    name = "multi"
    if name not in [found["name"] for found in api.get(KIND, "/types")["volume_types"]]:
        wanted = {"name": name, "extra_specs": {"multiattach": "<is> True"}}
        api.post(KIND, "/types", {"volume_type": wanted})
    return name


def root_volume(server: Server) -> Volume:
    """The volume that a server boots from: the only one that goes with it."""
    attached = server.show()["os-extended-volumes:volumes_attached"]
    ids = [volume["id"] for volume in attached if volume["delete_on_termination"]]
    assert len(ids) == 1, attached
    return Volume(server.api, ids[0])


def disk_image(server: Server) -> str:
    """Ceph's name of a server's own first disk."""
    return f"{SERVERS}/{server.id}_disk"


def watching(ceph: Ceph, image: str) -> Sequence[str]:
    """Hosts ("a", "b") whose QEMU has an image open."""
    return sorted(HOSTS.get(address, address) for address in ceph.watchers(image))


def locking(ceph: Ceph, image: str) -> Sequence[str]:
    """Hosts that hold an image's lock."""
    return sorted(HOSTS.get(address, address) for address in ceph.lock_holders(image))
