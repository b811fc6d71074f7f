# SPDX-License-Identifier: Apache-2.0
"""A guest's interfaces joined with what this host says of their ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pcmig.ports import judgement
from pcmig.ports.model import LinuxPort, Nic, Port, SwitchPort, Verdict

# Beside a guest's tap, neutron's hybrid plugging has names of its own: bridge qbrX, and a pair of devices
# from it to Open vSwitch, qvbX and qvoX.
HYBRID_BRIDGE, HYBRID_TAP, HYBRID_PORT = "qbr", "tap", "qvo"


class AsksKernel(Protocol):
    def port(self, device: str) -> LinuxPort | None: ...


class SwitchError(Exception):
    """Open vSwitch does not answer: what depends on it is not known."""


Ask = Callable[[str], SwitchPort | None]  # raises SwitchError


def look(nics: list[Nic], kernel: AsksKernel, switch: Ask) -> list[Port]:
    """A row for each of NICS."""
    return [_look(nic, kernel, switch) for nic in nics]


def _look(nic: Nic, kernel: AsksKernel, switch: Ask) -> Port:
    if (early := judgement.of_nic(nic)) is not None:
        return _row(nic, "", early)
    if nic.device is None:
        return _row(nic, "", judgement.waiting("libvirt has made no device for it yet"))
    linux = kernel.port(nic.device)
    if linux is None:
        return _row(nic, "", judgement.waiting(f"{nic.device} is not there yet"))
    if linux.master_kind == "bridge":
        return _of_bridge(nic, linux, switch)
    # The user space datapath leaves no trace in the kernel: only the database knows its ports.
    if nic.openvswitch or linux.master is None or linux.master_kind == "openvswitch":
        port, verdict = _in_switch(nic.device, switch)
        if port is not None or nic.openvswitch or linux.master is not None:
            name = "OVN" if port is not None and port.ovn else "Open vSwitch"
            return _row(nic, name, verdict, port.bridge if port is not None else None)
    return _row(nic, "", judgement.of_linux(nic, linux), linux.master)


def _of_bridge(nic: Nic, linux: LinuxPort, switch: Ask) -> Port:
    verdict = judgement.of_linux(nic, linux)
    if not (linux.device.startswith(HYBRID_TAP) and (linux.master or "").startswith(HYBRID_BRIDGE)):
        return _row(nic, "Linux bridge", verdict, linux.master)
    _, beyond = _in_switch(HYBRID_PORT + linux.device.removeprefix(HYBRID_TAP), switch)
    return _row(nic, "Linux bridge, Open vSwitch", judgement.both(verdict, beyond), linux.master)


def _in_switch(device: str, switch: Ask) -> tuple[SwitchPort | None, Verdict]:
    try:
        port = switch(device)
    except SwitchError as err:
        return None, judgement.unseen(str(err))
    if port is None:
        return None, judgement.waiting(f"Open vSwitch has no port {device} yet")
    return port, judgement.of_switch(port)


def _row(nic: Nic, switch: str, verdict: Verdict, bridge: str | None = None) -> Port:
    return Port(nic.mac, nic.kind, nic.device, switch, bridge or nic.bridge, verdict)
