# SPDX-License-Identifier: Apache-2.0
"""A server of the cloud: Nova's record of it, and the heartbeats of the guest inside."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from tests.bed.errors import BedError
from tests.bed.guest import Guest, GuestSpec
from tests.cloud.api import Api

CMDLINE = "console=ttyS0 quiet mitigations=off random.trust_cpu=on no_timer_check"


@dataclasses.dataclass(frozen=True)
class Port:
    """A neutron port with the MAC and address that the guest takes."""

    id: str
    mac: str
    address: str


def command_line(spec: GuestSpec) -> str:
    """For the image's os_command_line; what follows "--" the kernel hands to /init."""
    return f"{CMDLINE} -- {spec.options()}"


class Server(Guest):
    """Heartbeats and verdicts are those of Guest; hosts in them are the bed's, "a" and "b"."""

    def __init__(
        self,
        api: Api,
        id_: str,
        spec: GuestSpec,
        port: Port,
        log: pathlib.Path,
        more_ports: Sequence[Port] = (),
    ) -> None:
        super().__init__(spec, log)
        self.api = api
        self.id = id_
        self.port = port
        self.ports = [port, *more_ports]

    def show(self) -> dict[str, Any]:
        """Nova's record, as the API gives it."""
        return dict(self.api.get("compute", f"/servers/{self.id}")["server"])

    @property
    def status(self) -> str:
        return str(self.show()["status"])

    @property
    def nova_host(self) -> str | None:
        """Where Nova believes it to be: "a" or "b"."""
        name = self.show()["OS-EXT-SRV-ATTR:host"]
        return name.removeprefix("pcmig-") if name else None

    @property
    def domain(self) -> str:
        """libvirt's name of it."""
        return str(self.show()["OS-EXT-SRV-ATTR:instance_name"])

    def wait_status(self, wanted: str, patience_s: float = 120.0) -> dict[str, Any]:
        """Wait for a status with no task under way; ERROR, when not wanted, is an error at once."""
        deadline_s = time.monotonic() + patience_s
        while True:
            record = self.show()
            if record["status"] == wanted and record["OS-EXT-STS:task_state"] is None:
                return record
            if record["status"] == "ERROR" and wanted != "ERROR":
                fault = record.get("fault", {}).get("message", "no fault is recorded")
                raise BedError(f"server {self.name} is in ERROR: {fault}")
            if time.monotonic() > deadline_s:
                task = record["OS-EXT-STS:task_state"]
                raise BedError(
                    f"server {self.name} is {record['status']} ({task or 'no task'}) and not {wanted} "
                    f"after {patience_s:.0f} s"
                )
            time.sleep(0.25)
