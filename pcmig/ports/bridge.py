# SPDX-License-Identifier: Apache-2.0
"""Network devices of this host and their places in Linux bridges, from the kernel (rtnetlink); and where its
bridges take an address to be."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pcmig.ports.model import Egress, LinuxBridge, LinuxPort

IFF_UP = 1
FORWARDING = 3  # BR_STATE_FORWARDING
CLOCK_MS = 10  # the kernel tells times in clock ticks of 1/100 s (USER_HZ)
PVID = 2  # BRIDGE_VLAN_INFO_PVID
ENDS_HERE = ("tun", "dummy")  # kinds of devices that lead to no other host
UNTAGGED = 4  # BRIDGE_VLAN_INFO_UNTAGGED
AF_BRIDGE = 7  # socket.AF_BRIDGE is not in every Python
NTF_MASTER = 4  # the bridge's own table, and not the device's
NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 2, 64, 128  # of the table: learned, put there, a device's own
PUT_THERE = NUD_NOARP | NUD_PERMANENT


class BridgeError(Exception):
    """The kernel does not say."""


class Kernel:
    """Asks about the network namespace that the process is in, until close(). Raises BridgeError."""

    def __init__(self) -> None:
        try:
            self._netlink = IPRoute()
        except OSError as err:
            raise BridgeError(f"no netlink socket: {err.strerror or err}") from err
        self._ports: dict[int, list[Any]] = {}  # of bridges that this look has asked about
        self._table: list[Any] | None = None  # of all bridges, likewise

    def begin_look(self) -> None:
        """What is asked from now on is as it is now. Which ports a bridge has, and what the bridges have
        learned, is asked once in a look: on a host of many guests the answer is long."""
        self._ports.clear()
        self._table = None

    def close(self) -> None:
        self._netlink.close()

    def port(self, device: str) -> LinuxPort | None:
        """The device with this name; None when there is none. Raises BridgeError."""
        try:
            return self._port(device)
        except (NetlinkError, OSError) as err:
            raise BridgeError(f"the kernel does not say what {device} is: {err}") from err

    def frames_from(self, device: str) -> int | None:
        """How many have come out of the device, a guest's tap for instance, since it was made; None when
        there is none. Raises BridgeError."""
        try:
            link = self._link(ifname=device)
        except (NetlinkError, OSError) as err:
            raise BridgeError(f"the kernel does not say what has come out of {device}: {err}") from err
        stats = None if link is None else link.get_attr("IFLA_STATS64")
        return None if stats is None else int(stats["rx_packets"])

    def bridges(self) -> list[LinuxBridge]:
        """All bridges of the network namespace, by name. Raises BridgeError."""
        try:
            links = list(self._netlink.get_links())
        except (NetlinkError, OSError) as err:
            raise BridgeError(f"the kernel does not say which bridges there are: {err}") from err
        outward = {
            link.get_attr("IFLA_MASTER") for link in links if _info(link, "IFLA_INFO_KIND") not in ENDS_HERE
        }
        return sorted(
            (
                _bridge(link, link["index"] in outward)
                for link in links
                if _info(link, "IFLA_INFO_KIND") == "bridge"
            ),
            key=lambda bridge: bridge.name,
        )

    def egresses(self, device: str) -> list[Egress]:
        """Where frames of the device leave its bridge: the other ports that forward. Raises BridgeError."""
        try:
            return list(self._egresses(device))
        except (NetlinkError, OSError) as err:
            raise BridgeError(f"the kernel does not say what is beside {device}: {err}") from err

    def has_moved_here(self, device: str, mac: str, vlan: int | None) -> None:
        """Has the bridge of the device take this address to be there, as if a frame had come in. What was
        put there by somebody stays: it would age from then on. Raises BridgeError."""
        if not self._was_put_there(device, mac, vlan):
            self._neighbour("replace", device, mac, vlan, NUD_REACHABLE)

    def forget(self, device: str, mac: str) -> int:
        """Has the bridge of the device forget that it has learned this address there; in how many VLANs it
        had. What somebody else has put there stays. Raises BridgeError."""
        try:
            vlans = self._learned(device, mac)
        except (NetlinkError, OSError) as err:
            raise BridgeError(f"the kernel does not say what {device}'s bridge has learned: {err}") from err
        for vlan in vlans:
            self._neighbour("del", device, mac, vlan, NUD_REACHABLE)
        return len(vlans)

    def _learned(self, device: str, mac: str) -> list[int | None]:
        link = self._link(ifname=device)
        if link is None:
            return []
        if self._table is None:
            self._table = list(self._netlink.fdb("dump"))
        return [
            entry.get_attr("NDA_VLAN")
            for entry in self._table
            if entry["ifindex"] == link["index"]
            and entry.get_attr("NDA_MASTER") == link.get_attr("IFLA_MASTER")
            and (entry.get_attr("NDA_LLADDR") or "").lower() == mac.lower()
            and not entry["state"] & PUT_THERE
        ]

    def _was_put_there(self, device: str, mac: str, vlan: int | None) -> bool:
        """Whether somebody has put this address into the bridge's table, at whichever port. This one entry is
        asked for (Linux 5.0), as a table may be long."""
        link = self._link(ifname=device)
        if link is None:
            return False
        more = {} if vlan is None else {"vlan": vlan}
        try:
            found = self._netlink.neigh(
                "get", family=AF_BRIDGE, ifindex=link["index"], lladdr=mac, flags=NTF_MASTER, **more
            )
            return any(entry["state"] & PUT_THERE for entry in found)
        except NetlinkError:  # there is none
            return False
        except OSError as err:
            raise BridgeError(f"the kernel does not say where {device}'s bridge has {mac}: {err}") from err

    def _neighbour(self, command: str, device: str, mac: str, vlan: int | None, state: int) -> None:
        link = self._link(ifname=device)
        if link is None:
            return
        more = {} if vlan is None else {"vlan": vlan}
        try:
            self._netlink.neigh(
                command,
                family=AF_BRIDGE,
                ifindex=link["index"],
                lladdr=mac,
                state=state,
                flags=NTF_MASTER,
                **more,
            )
        except NetlinkError as err:
            if command == "del" and err.code == errno.ENOENT:
                return  # it was faster
            raise BridgeError(f"{device}'s bridge does not {command} {mac}: {err}") from err
        except OSError as err:
            raise BridgeError(f"{device}'s bridge does not {command} {mac}: {err}") from err

    def _egresses(self, device: str) -> Iterator[Egress]:
        port = self._port(device)
        if port is None or port.master_kind != "bridge":
            return
        bridge = self._link(ifname=port.master)
        vlans = vlans_by_port(self._netlink.get_vlans()) if port.filtering else {}
        for link in self._ports_of(bridge["index"]) if bridge is not None else ():
            name = str(link.get_attr("IFLA_IFNAME"))
            if name == device or _state(link) != FORWARDING or not link["flags"] & IFF_UP:
                continue
            found = (
                egress_in(name, port.pvid, vlans.get(link["index"], {})) if port.filtering else Egress(name)
            )
            if found is not None:
                yield found

    def _port(self, device: str) -> LinuxPort | None:
        link = self._link(ifname=device)
        if link is None:
            return None
        up = bool(link["flags"] & IFF_UP)
        master = link.get_attr("IFLA_MASTER")
        # Should the master go meanwhile, the device has none.
        over = self._link(index=master) if master else None
        if over is None:
            return LinuxPort(device, up)
        name, kind = str(over.get_attr("IFLA_IFNAME")), _info(over, "IFLA_INFO_KIND")
        over_up = bool(over["flags"] & IFF_UP)
        if kind != "bridge":
            return LinuxPort(device, up, name, kind, over_up)
        port, bridge = _info(link, "IFLA_INFO_SLAVE_DATA"), _info(over, "IFLA_INFO_DATA")
        filtering = bool(_value(bridge, "IFLA_BR_VLAN_FILTERING"))
        vlans, pvid = self._vlans(link["index"]) if filtering else ((), None)
        state = _value(port, "IFLA_BRPORT_STATE")
        return LinuxPort(
            device,
            up,
            name,
            kind,
            over_up,
            state=state,
            stp=bool(_value(bridge, "IFLA_BR_STP_STATE")),
            timer_ms=(_value(port, "IFLA_BRPORT_FORWARD_DELAY_TIMER") or 0) * CLOCK_MS,
            forward_delay_ms=(_value(bridge, "IFLA_BR_FORWARD_DELAY") or 0) * CLOCK_MS,
            filtering=filtering,
            vlans=vlans,
            pvid=pvid,
            others_forwarding=self._others_forwarding(master, link["index"]) if state == FORWARDING else None,
        )

    def _link(self, **selector: Any) -> Any:
        with contextlib.suppress(NetlinkError):  # no such device
            for link in self._netlink.link("get", **selector):
                return link
        return None

    def _others_forwarding(self, bridge: int, port: int) -> int:
        if bridge not in self._ports:
            self._ports[bridge] = self._ports_of(bridge)
        return sum(_state(link) == FORWARDING for link in self._ports[bridge] if link["index"] != port)

    def _ports_of(self, bridge: int) -> list[Any]:
        """Kernels before 4.6 tell of all devices."""
        links = self._netlink.link("dump", master=bridge)
        return [link for link in links if link.get_attr("IFLA_MASTER") == bridge]

    def _vlans(self, index: int) -> tuple[tuple[int, ...], int | None]:
        return vlans_of(self._netlink.get_vlans(), index)


def _bridge(link: Any, leads_out: bool) -> LinuxBridge:
    data = _info(link, "IFLA_INFO_DATA")
    return LinuxBridge(
        str(link.get_attr("IFLA_IFNAME")),
        stp=bool(_value(data, "IFLA_BR_STP_STATE")),
        forward_delay_ms=(_value(data, "IFLA_BR_FORWARD_DELAY") or 0) * CLOCK_MS,
        ageing_ms=(_value(data, "IFLA_BR_AGEING_TIME") or 0) * CLOCK_MS,
        leads_out=leads_out,
    )


def _state(link: Any) -> int | None:
    """Of a bridge's port."""
    return _value(_info(link, "IFLA_INFO_SLAVE_DATA"), "IFLA_BRPORT_STATE")


def vlans_of(dump: Any, index: int) -> tuple[tuple[int, ...], int | None]:
    """The VLANs of port INDEX in a dump of all bridge ports, and the one of frames without a tag."""
    vlans = vlans_by_port(dump).get(index, {})
    return tuple(sorted(vlans)), next((vlan for vlan, flags in vlans.items() if flags & PVID), None)


def egress_in(device: str, vlan: int | None, vlans: dict[int, int]) -> Egress | None:
    """How frames of a VLAN leave a port with these VLANs, which has flags for each; None: they do not."""
    if vlan is None or vlan not in vlans:
        return None
    return Egress(device, None if vlans[vlan] & UNTAGGED else vlan)


def vlans_by_port(dump: Any) -> dict[int, dict[int, int]]:
    """Of each port in a dump of all bridge ports: its VLANs, and their flags."""
    ports: dict[int, dict[int, int]] = {}
    for message in dump:
        spec = message.get_attr("IFLA_AF_SPEC")
        for vlan in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec is not None else ():
            ports.setdefault(message["index"], {})[vlan["vid"]] = vlan["flags"]
    return ports


def _info(link: Any, name: str) -> Any:
    info = link.get_attr("IFLA_LINKINFO")
    return None if info is None else info.get_attr(name)


def _value(attributes: Any, name: str) -> int | None:
    """An attribute of a device's kind, which an old kernel may not know."""
    value = attributes.get_attr(name) if hasattr(attributes, "get_attr") else None
    return value if isinstance(value, int) else None
