# SPDX-License-Identifier: Apache-2.0
"""What the facts of a port come to: pure. The first rule that applies says why a port does not forward."""

from __future__ import annotations

import dataclasses
import shlex

from pcmig.ports.model import LinuxPort, Nic, Readiness, SwitchPort, Verdict

DISABLED, LISTENING, LEARNING, FORWARDING, BLOCKING = range(5)  # BR_STATE_* of linux/if_bridge.h
DEAD_VLAN = 4095  # where neutron's agent keeps a port that it has not wired

# What forwards by other means than a port that this host could be asked about.
NOT_SEEN = {
    "direct": "macvtap: it forwards as soon as it is there; the switch that the host is connected to may not",
    "hostdev": "a function of the network card: only the card and the switch behind it know",
    "vdpa": "vDPA: only the network card knows",
    "vhostuser": "vhost-user: the process behind the socket knows, and there is no device to ask about",
    "user": "user networking: QEMU itself forwards; its connections do not survive a migration",
}


def waiting(why: str, ready_in_ms: int | None = None, fix: str | None = None) -> Verdict:
    return Verdict(Readiness.WAITING, why, ready_in_ms, fix)


def stuck(why: str, fix: str | None = None) -> Verdict:
    return Verdict(Readiness.STUCK, why, None, fix)


def ready(why: str, *notes: str) -> Verdict:
    return Verdict(Readiness.READY, why, 0, None, notes)


def unseen(why: str) -> Verdict:
    return Verdict(Readiness.UNSEEN, why)


def of_nic(nic: Nic) -> Verdict | None:
    """What the guest's XML alone comes to; None when its port has to be asked about."""
    if nic.pulled:
        return unseen("the guest has its link down: <link state='down'/>")
    if nic.kind in NOT_SEEN:
        return unseen(NOT_SEEN[nic.kind])
    return None


def of_linux(nic: Nic, port: LinuxPort) -> Verdict:
    """A port of a Linux bridge, or a device without one."""
    device = shlex.quote(port.device)
    if not port.up:
        return stuck(f"{port.device} is down", f"ip link set {device} up")
    if port.master is None:
        if nic.bridge is None:
            return unseen(f"{port.device} is in no bridge: what routes or taps it, nothing here can tell")
        wanted = shlex.quote(nic.bridge)
        return stuck(f"{port.device} is not in {nic.bridge}", f"ip link set {device} master {wanted}")
    if not port.master_up:
        return stuck(f"{port.master} is down", f"ip link set {shlex.quote(port.master)} up")
    if port.master_kind != "bridge":
        return unseen(f"{port.device} is in {port.master}, which is no bridge ({port.master_kind})")
    verdict = _of_state(port)
    return _of_vlans(port) if verdict.readiness == Readiness.READY else verdict


def _of_state(port: LinuxPort) -> Verdict:
    stp_off = f"ip link set {shlex.quote(port.master or '')} type bridge stp_state 0"
    shorter = f"{stp_off}   (or a shorter forward_delay)"
    if port.state == FORWARDING:
        return ready("forwards")
    if port.state == LISTENING:
        left_ms = port.timer_ms + port.forward_delay_ms
        return waiting(f"{port.master} listens for spanning trees, and will learn", left_ms, shorter)
    if port.state == LEARNING:
        return waiting(f"{port.master} learns addresses before it forwards", port.timer_ms, shorter)
    if port.state == BLOCKING:
        return stuck(
            f"{port.master}'s spanning tree blocks the port: it saw a loop through the guest",
            "bridge -d link   (who sends spanning tree messages at that port?)",
        )
    if port.state == DISABLED:
        return waiting(f"{port.master} has the port disabled: nobody holds {port.device} open yet")
    return unseen(f"{port.master} does not say in which state the port is")


def _of_vlans(port: LinuxPort) -> Verdict:
    notes = []
    if port.others_forwarding == 0:
        notes.append(f"no other port of {port.master} forwards: the guest reaches this host alone")
    if not port.filtering:
        return ready("forwards", *notes)
    if not port.vlans:
        fix = f"bridge vlan add dev {shlex.quote(port.device)} vid VLAN pvid untagged"
        return stuck(f"the port belongs to no VLAN of {port.master}, which drops its frames", fix)
    if port.pvid is None:
        notes.append("frames without a VLAN's tag are dropped: the port has no PVID")
    vlans = ", ".join(map(str, port.vlans))
    return ready(f"forwards in VLAN {vlans}", *notes)


def of_switch(port: SwitchPort) -> Verdict:
    """A port of Open vSwitch."""
    if port.error:
        return stuck(f"Open vSwitch could not take {port.device}: {port.error}")
    if port.ofport is None:
        return waiting(f"ovs-vswitchd has not taken {port.device} yet")
    if port.ofport < 0:
        return stuck(f"Open vSwitch could not take {port.device}", "see ovs-vswitchd's log")
    if port.bridge is None:
        return waiting(f"{port.device} is in no bridge of Open vSwitch yet")
    if port.admin_up is False:
        return stuck(f"{port.device} is down", f"ip link set {shlex.quote(port.device)} up")
    if port.link_up is False:
        return waiting(f"{port.device} has no carrier: nobody holds it open yet")
    if port.tag == DEAD_VLAN:
        return waiting(f"neutron's agent has the port in VLAN {DEAD_VLAN}: it is not wired")
    if port.ovn and port.iface_id:
        if not port.ovn_installed:
            return waiting("ovn-controller has not installed the port's flows (ovn-installed)")
        if port.controller_answers is False:
            return waiting(
                "ovn-controller does not answer: it is busy or stopped, and may have to open the port yet",
                fix="ovn-appctl -t ovn-controller version   (does it answer?)",
            )
    elif port.plugged_by_os_vif and port.tag is None and not port.bridge.startswith("tbr-"):
        # On a trunk's own bridge the port carries all VLANs.
        return waiting("neutron's agent has not wired the port: it has no VLAN")
    return _of_trees(port)


def _of_trees(port: SwitchPort) -> Verdict:
    for tree, state in (("STP", port.stp_state), ("RSTP", port.rstp_state)):
        if state is None or state.lower() in ("forwarding", "disabled"):
            continue  # a port that takes no part in the tree is "disabled", and forwards
        why = f"{tree} of {port.bridge}: the port is {state.lower()}"
        if state.lower() == "blocking":
            return stuck(why)
        return waiting(
            why, fix=f"ovs-vsctl set bridge {shlex.quote(port.bridge or '')} {tree.lower()}_enable=false"
        )
    return ready("forwards" if port.tag is None else f"forwards in VLAN {port.tag}")


def both(first: Verdict, second: Verdict) -> Verdict:
    """Of two ports that a frame passes one after the other."""
    order = (Readiness.STUCK, Readiness.WAITING, Readiness.UNSEEN, Readiness.READY)
    worse = first if order.index(first.readiness) <= order.index(second.readiness) else second
    times = [each.ready_in_ms for each in (first, second) if each.ready_in_ms is not None]
    return dataclasses.replace(
        worse,
        ready_in_ms=max(times) if worse.ready_in_ms is not None else None,
        notes=tuple(dict.fromkeys(first.notes + second.notes)),
    )
