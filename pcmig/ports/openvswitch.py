# SPDX-License-Identifier: Apache-2.0
"""Ports of Open vSwitch, from its database on this host; what is read is kept up to date by the database
itself."""

from __future__ import annotations

import logging
from typing import Any

from ovs.db import idl
from ovsdbapp import exceptions
from ovsdbapp.backend.ovs_idl import connection, idlutils

from pcmig.ports.looking import SwitchError
from pcmig.ports.model import SwitchBridge, SwitchPort

TIMEOUT_S = 3

# Without counters, which the database would send anew every few seconds.
COLUMNS = {
    "Open_vSwitch": ("external_ids",),
    "Bridge": ("name", "ports", "stp_enable", "rstp_enable", "other_config"),
    "Port": ("interfaces", "tag", "status", "rstp_status"),
    "Interface": ("name", "ofport", "link_state", "admin_state", "error", "external_ids"),
}


class Database:
    """A connection to the database at WHERE, until close(). Raises SwitchError."""

    def __init__(self, where: str) -> None:
        logging.getLogger("ovsdbapp").setLevel(logging.CRITICAL)  # what goes wrong is raised
        try:
            helper = idlutils.get_schema_helper(where, "Open_vSwitch")
            for table, columns in COLUMNS.items():
                helper.register_columns(table, list(columns))
            self._idl = idl.Idl(where, helper)
            self._connection = connection.Connection(self._idl, TIMEOUT_S)
            self._connection.start()
        except (OSError, ValueError, exceptions.OvsdbAppException) as err:
            raise SwitchError(f"Open vSwitch's database at {where} does not answer: {err}") from err
        except Exception as err:  # ovsdbapp and ovs raise plain ones when there is nobody
            if type(err) is not Exception:
                raise
            raise SwitchError(f"Open vSwitch's database at {where} does not answer: {err}") from err

    def close(self) -> None:
        self._connection.stop(TIMEOUT_S)

    def port(self, device: str) -> SwitchPort | None:
        """The interface with this name; None when there is none. While the database does not answer, as it
        was last: Open vSwitch forwards without it."""
        with self._connection.lock:  # a thread of the connection's writes what we read
            interface = next((row for row in self._rows("Interface") if row.name == device), None)
            return None if interface is None else self._port(interface)

    def bridges(self) -> list[SwitchBridge]:
        """All bridges, by name."""
        with self._connection.lock:
            return sorted(map(_bridge, self._rows("Bridge")), key=lambda bridge: bridge.name)

    def has_ovn(self) -> bool:
        """Whether this host is one of OVN's."""
        with self._connection.lock:
            return any("ovn-remote" in row.external_ids for row in self._rows("Open_vSwitch"))

    def _rows(self, table: str) -> list[Any]:
        return list(self._idl.tables[table].rows.values())

    def _port(self, interface: Any) -> SwitchPort:
        port = next((row for row in self._rows("Port") if interface in row.interfaces), None)
        bridge = next((row for row in self._rows("Bridge") if port is not None and port in row.ports), None)
        ours: dict[str, str] = {}
        switch = next((row.external_ids for row in self._rows("Open_vSwitch")), ours)
        name = bridge.name if bridge is not None else None
        trees = (None, None)
        if port is not None and bridge is not None:
            trees = (
                port.status.get("stp_state") if bridge.stp_enable else None,
                port.rstp_status.get("rstp_port_state") if bridge.rstp_enable else None,
            )
        return SwitchPort(
            interface.name,
            name,
            ofport=_one(interface.ofport),
            link_up=_up(interface.link_state),
            admin_up=_up(interface.admin_state),
            error=_one(interface.error),
            tag=_one(port.tag) if port is not None else None,
            stp_state=trees[0],
            rstp_state=trees[1],
            iface_id=interface.external_ids.get("iface-id"),
            plugged_by_os_vif="vm-uuid" in interface.external_ids,
            ovn="ovn-remote" in switch and name == switch.get("ovn-bridge", "br-int"),
            ovn_installed=interface.external_ids.get("ovn-installed") == "true",
        )


def _bridge(row: Any) -> SwitchBridge:
    """With the defaults of ovs-vswitchd.conf.db(5)."""

    def seconds(key: str, default: int) -> int:
        text = row.other_config.get(key, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default

    return SwitchBridge(
        row.name,
        row.stp_enable,
        row.rstp_enable,
        stp_forward_delay_s=seconds("stp-forward-delay", 15),
        rstp_forward_delay_s=seconds("rstp-forward-delay", 15),
        ageing_s=seconds("mac-aging-time", 300),
    )


def _one(column: list[Any]) -> Any:
    """A column of at most one value is a list of at most one."""
    return column[0] if column else None


def _up(column: list[str]) -> bool | None:
    return column[0] == "up" if column else None
