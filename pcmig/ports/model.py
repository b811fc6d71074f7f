# SPDX-License-Identifier: Apache-2.0
"""What is known of a guest's ports: values, no behaviour."""

from __future__ import annotations

import dataclasses
import enum


@dataclasses.dataclass(frozen=True)
class Nic:
    """An interface of the guest, as its live XML has it."""

    mac: str
    kind: str  # of <interface type=...>: "bridge", "network", "direct", "hostdev", ...
    device: str | None  # on the host; None before libvirt has made one
    bridge: str | None
    openvswitch: bool  # it says so: <virtualport type='openvswitch'>
    pulled: bool = False  # <link state='down'>: the guest itself has no cable
    addresses: tuple[str, ...] = ()  # IPv4 and IPv6, where libvirt was told


@dataclasses.dataclass(frozen=True)
class LinuxPort:
    """A network device of this host, and its place in a bridge, as the kernel says."""

    device: str
    up: bool
    master: str | None = None
    master_kind: str | None = None  # "bridge", "openvswitch", "bond", ...
    master_up: bool = False
    state: int | None = None  # BR_STATE_* of linux/if_bridge.h
    stp: bool = False
    timer_ms: int = 0  # until the next state
    forward_delay_ms: int = 0
    filtering: bool = False  # the bridge minds VLANs
    vlans: tuple[int, ...] = ()
    pvid: int | None = None  # VLAN of frames without a tag
    others_forwarding: int | None = None  # ports of the bridge, without this one; None = not known


@dataclasses.dataclass(frozen=True)
class Egress:
    """A port where another one's frames leave a Linux bridge."""

    device: str
    vlan: int | None = None  # they leave it with a tag


@dataclasses.dataclass(frozen=True)
class SwitchPort:
    """A port of Open vSwitch, as its database says. None: the column is empty."""

    device: str
    bridge: str | None
    ofport: int | None
    link_up: bool | None
    admin_up: bool | None
    error: str | None = None
    tag: int | None = None
    stp_state: str | None = None  # of a bridge with stp_enable
    rstp_state: str | None = None  # of one with rstp_enable
    iface_id: str | None = None  # the port's id in neutron or OVN
    plugged_by_os_vif: bool = False  # for neutron
    ovn: bool = False  # an ovn-controller looks after the bridge
    ovn_installed: bool = False
    controller_answers: bool | None = None  # ovn-controller; None: it cannot be asked


@dataclasses.dataclass(frozen=True)
class LinuxBridge:
    """A bridge of this host, as the kernel says."""

    name: str
    stp: bool
    forward_delay_ms: int
    ageing_ms: int
    leads_out: bool  # a port of it is no guest's tap: who is plugged here may be reached from elsewhere


@dataclasses.dataclass(frozen=True)
class SwitchBridge:
    """A bridge of Open vSwitch, as its database says."""

    name: str
    stp: bool
    rstp: bool
    stp_forward_delay_s: int
    rstp_forward_delay_s: int
    ageing_s: int


class Readiness(enum.StrEnum):
    READY = "ready"
    WAITING = "waiting"  # it becomes ready by itself
    STUCK = "stuck"  # it does not
    UNSEEN = "unseen"  # nothing here can tell: it holds nothing


@dataclasses.dataclass(frozen=True)
class Verdict:
    readiness: Readiness
    why: str
    ready_in_ms: int | None = None  # at the earliest, where the switch has a timer for it
    fix: str | None = None  # a command, or what to look at
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Port:
    """A row: one interface of the guest, and what its port comes to."""

    mac: str
    kind: str
    device: str | None
    switch: str  # "Linux bridge", "Open vSwitch", "OVN", ""
    bridge: str | None
    verdict: Verdict

    @property
    def forwards(self) -> bool:
        """As far as this host can tell."""
        return self.verdict.readiness in (Readiness.READY, Readiness.UNSEEN)


def held_up(ports: list[Port]) -> list[Port]:
    """Those that do not forward."""
    return [port for port in ports if not port.forwards]
