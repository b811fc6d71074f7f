# SPDX-License-Identifier: Apache-2.0
"""This host's answers: the kernel's, and Open vSwitch's once a port needs it; and what its switches are told
of a guest that comes or goes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from pcmig.ports import ovn_controller, vswitchd
from pcmig.ports.looking import SwitchError, look
from pcmig.ports.model import Nic, Port, SwitchPort

if TYPE_CHECKING:
    from pcmig.ports.openvswitch import Database

OVSDB = f"unix:{os.environ.get('OVS_RUNDIR', '/run/openvswitch')}/db.sock"  # as Open vSwitch's own tools
PacketOut = Callable[[str, str, int, list[bytes]], None]  # vswitchd.send
Beside = Callable[[str, str, list[bytes]], None]  # beside.send, without the kernel
LINUX_BRIDGE, OPEN_VSWITCH = "Linux bridge", ("Open vSwitch", "OVN")  # as Port.switch begins


class HostError(Exception):
    """This host cannot be asked at all."""


class Host:
    """`with Host() as host:` keeps what it has opened; OVSDB: where Open vSwitch's database listens;
    PACKET_OUT, BESIDE: who hands frames to ovs-vswitchd and to a Linux bridge's other ports, as root may."""

    def __init__(
        self, ovsdb: str = OVSDB, *, packet_out: PacketOut = vswitchd.send, beside: Beside | None = None
    ) -> None:
        try:
            from pcmig.ports import beside as own
            from pcmig.ports import bridge
        except ImportError as err:
            raise HostError(f"{err}: install pyroute2, which pip has as 'pcmig[ports]'") from err
        self.ovsdb = ovsdb
        self._packet_out = packet_out
        self._beside = beside or (lambda *words: own.send(self._kernel, *words))
        self._bridge = bridge
        try:
            self._kernel = bridge.Kernel()
        except bridge.BridgeError as err:
            raise HostError(str(err)) from err
        self._database: Database | None = None
        self._asked = False
        self._answers: bool | None = None  # ovn-controller, in this look

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._kernel.close()
        self._drop_database()

    def look(self, nics: list[Nic]) -> list[Port]:
        """Raises HostError."""
        self._asked = False
        self._kernel.begin_look()
        try:
            return look(nics, self._kernel, self._switch_port)
        except self._bridge.BridgeError as err:
            raise HostError(str(err)) from err

    def announce(self, port: Port, frames: list[bytes]) -> None:
        """Sends FRAMES into the network as if the guest had sent them at PORT: a frame that is sent on its
        device would go to the guest. Raises HostError."""
        if port.device is None:
            raise HostError("it has no device")
        if port.switch.startswith(LINUX_BRIDGE):
            self._beside(port.device, port.mac, frames)
        elif port.switch in OPEN_VSWITCH:
            found = self._in_switch(port.device)
            if found is None or found.bridge is None or not found.ofport or found.ofport < 0:
                raise HostError(f"Open vSwitch does not have {port.device}")
            try:
                self._packet_out(self._folder, found.bridge, found.ofport, frames)
            except vswitchd.VswitchdError as err:
                raise HostError(str(err)) from err
        else:
            raise HostError("nothing but QEMU (announce-self) can announce a guest there")

    def frames_from(self, device: str) -> int | None:
        """How many the guest, or QEMU for it, has sent at this device; None where nobody counts them."""
        try:
            return self._kernel.frames_from(device)
        except self._bridge.BridgeError:
            return None

    def forget(self, port: Port) -> bool:
        """Has the switch that the guest's port was in forget that the guest is there; whether it knew. Raises
        HostError."""
        if port.device is None:
            return False
        if port.switch.startswith(LINUX_BRIDGE):
            try:
                return self._kernel.forget(port.device, port.mac) > 0
            except self._bridge.BridgeError as err:
                raise HostError(str(err)) from err
        if port.switch not in OPEN_VSWITCH:
            return False
        found = self._in_switch(port.device)
        if found is None or found.bridge is None or not found.ofport:
            return False
        place = (found.device, found.ofport)
        try:
            return vswitchd.forget(self._folder, found.bridge, place, port.mac, found.tag or 0)
        except vswitchd.VswitchdError as err:
            raise HostError(str(err)) from err

    @property
    def _folder(self) -> str:
        """Where ovs-vswitchd has its sockets: beside the database's, where that is one."""
        _, _, path = (self.ovsdb if self.ovsdb.startswith("unix:") else OVSDB).partition(":")
        return os.path.dirname(path)

    def _in_switch(self, device: str) -> SwitchPort | None:
        try:
            return self._switch_port(device)
        except SwitchError as err:
            raise HostError(str(err)) from err

    def _switch_port(self, device: str) -> SwitchPort | None:
        if self._database is None:
            self._database = _open(self.ovsdb)
        try:
            port = self._database.port(device)
        except SwitchError:
            self._drop_database()  # the next look opens it anew
            raise
        if port is None or not (port.ovn and port.ovn_installed):
            return port
        return dataclasses.replace(port, controller_answers=self._controller_answers())

    def _controller_answers(self) -> bool | None:
        """Asked once in a look: it may take its time."""
        if not self._asked:
            sockets = ovn_controller.sockets(ovn_controller.folders_beside(self.ovsdb))
            self._asked, self._answers = True, ovn_controller.answers(sockets)
        return self._answers

    def _drop_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(Exception):  # it is of no use any more
                database.close()


def _open(where: str) -> Database:
    kind, _, path = where.partition(":")
    if kind == "unix" and not os.path.exists(path):
        raise SwitchError(f"Open vSwitch does not run here: there is no {path}")
    try:
        from pcmig.ports.openvswitch import Database
    except ImportError as err:
        raise SwitchError(f"{err}: install ovsdbapp, which pip has as 'pcmig[ports]'") from err
    return Database(where)
