# SPDX-License-Identifier: Apache-2.0
"""What checks take and give: facts of hosts, rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pcmig.check.qemuconf import QemuSettings

if TYPE_CHECKING:
    from pcmig._core import HostFacts, HostProbe
    from pcmig.check.many import Many
    from pcmig.check.network_facts import Network
    from pcmig.check.novadriver import NovaDriver
    from pcmig.check.novarights import NovaRights
    from pcmig.check.tunnel import TunnelFacts

Status = Literal["ok", "warn", "fail", "unknown"]

HERE = "this host"


@dataclass(frozen=True)
class Row:
    """One check. `why` and `fix` are for people; `fix` is empty where there is nothing to do."""

    subject: str  # "this host" ("source" where --connect names another machine), "peer", "both" or "guest"
    name: str
    status: Status
    found: str
    wanted: str = ""
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Side:
    """What libvirt told of one host, or why it did not."""

    uri: str
    facts: HostFacts | None = None
    error: str | None = None
    fix: str | None = None  # of the error, where its text bears one out


@dataclass(frozen=True)
class Facts:
    """Everything that the rows judge."""

    here: Side
    probe: HostProbe | None = None  # None: `here` is another machine
    probe_error: str | None = None
    settings: QemuSettings = field(default_factory=QemuSettings)
    peer: Side | None = None
    peer_addresses: tuple[str, ...] | None = None  # of the peer's host name, resolved here; None: not tried
    net_admin: bool | None = None  # this process has CAP_NET_ADMIN; None: cannot be read
    quickack: bool | None = None  # the route to the peer has the option already; None: not known
    nova: NovaDriver | None = None  # None: there is no Nova here
    nova_rights: NovaRights | None = None  # None: no nova-compute runs here
    many: Many | None = None  # None: no Nova here
    network: Network | None = None  # None: `here` is another machine
    tunnel: TunnelFacts | None = None  # None: not asked for
    domain: str | None = None
    domain_error: str | None = None

    @property
    def subject(self) -> str:
        return "source" if self.probe is None and self.probe_error is None else HERE
