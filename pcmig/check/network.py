# SPDX-License-Identifier: Apache-2.0
"""Rows on what of this host's network keeps a guest that arrives from being reached at once."""

from __future__ import annotations

from collections.abc import Callable

from pcmig.check.model import HERE, Facts, Row
from pcmig.check.versions import version_of
from pcmig.guest import GuestXmlError
from pcmig.ports.model import LinuxBridge, SwitchBridge
from pcmig.ports.nics import nics

AGEING_S = 300  # what Linux and Open vSwitch begin with
POLLING_S = 2  # likewise neutron's agent
SLOW_MS = 200.0  # of ovn-controller: longer than most guests' own silence at the switch
RSTP_EDGE_S = 3  # until RSTP takes a port for one with no switch behind it (IEEE 802.1D, Migrate Time)
OVN_ACTIVATES = (22, 9)  # NEWS of 22.09: activation-strategy; two hosts for one port are of 22.06


def announcements(f: Facts) -> Row | None:
    """Whether anybody announces the guest once it runs."""
    if f.network is None or f.network.nova is None:
        return None
    name, option = "announcements", "[workarounds] enable_qemu_monitor_announce_self"
    if f.network.nova.drives and f.network.switches is not None:
        return Row(
            HERE,
            name,
            "ok",
            "pcmig's driver announces guests that arrive at ports of Open vSwitch until they are heard",
        )
    if f.network.nova.announces:
        return Row(HERE, name, "ok", f"{option} is set: QEMU announces the guest at the end once more")
    return Row(
        HERE,
        name,
        "warn",
        f"{option} is not set",
        "set, on hosts where guests arrive",
        "QEMU announces a guest five times within 0.8 s, before it runs. Where the port does not forward by "
        "then nobody hears it, and the network sends to the old host until the guest itself says something: "
        f"{AGEING_S} s at the worst, as long as switches remember; Nova repeats it with this option alone, "
        "and after the last page has arrived",
        f"{option} = True in nova.conf, and restart nova-compute (libvirt then calls guests that arrive "
        "tainted)",
    )


def ports_before_the_copy(f: Facts) -> Row | None:
    """Whether Nova waits for neutron before the copy begins."""
    if f.network is None:
        return None
    name, nova = "ports before the copy", f.network.nova
    wait, timeout = "[compute] live_migration_wait_for_vif_plug", "vif_plugging_timeout"
    wanted = f"{wait} set, {timeout} of a minute or more"
    if nova is None:
        if f.network.nova_error is None:
            return None
        return Row(
            HERE,
            name,
            "unknown",
            f.network.nova_error,
            wanted,
            "Nova's options decide whether a guest is copied before its ports are there",
            "run 'pcmig check' as a user who may read nova.conf, where nova-compute has it, and with its "
            "Python",
        )
    if nova.waits and nova.timeout_s > 0:
        then = "the migration fails" if nova.fatal else "it begins nevertheless"
        return Row(HERE, name, "ok", f"Nova waits for them up to {nova.timeout_s} s; then {then}")
    off = f"{wait} = False" if not nova.waits else f"{timeout} = 0"
    return Row(
        HERE,
        name,
        "warn",
        f"{off}: Nova does not wait for them",
        wanted,
        "neutron's agent wires a port some seconds after it appeared; a small guest is copied, and runs "
        "here, before that, and nobody reaches it meanwhile",
        f"{wait} = True and {timeout} = 300 in nova.conf, on all hosts alike",
    )


def ports_at_the_switch(f: Facts) -> Row | None:
    """Whether Nova activates the bindings when the guest has stopped at the source, or when all is over.
    pcmig's driver activates them itself."""
    nova = f.network.nova if f.network is not None else None
    if nova is None or nova.events or nova.drives:
        return None
    option = "[workarounds] handle_virt_lifecycle_events"
    return Row(
        HERE,
        "ports at the switch",
        "warn",
        f"{option} = False",
        "set, as by default",
        "Nova then has neutron bind the ports to the new host only after the last page has arrived: as long "
        "as post-copy lasts, seconds to minutes, neutron takes the old host for theirs, and what it alone "
        "can change (flows, addresses that float, tunnels' ends) stays as it was",
        f"take {option} out of nova.conf, on all hosts, and restart nova-compute",
    )


def linux_bridges(f: Facts) -> Row | None:
    """Those that lead out of the host: a guest in another one is not reached from elsewhere anyway."""
    if f.network is None:
        return None
    name, wanted = "Linux bridges", f"no spanning tree, and addresses forgotten after {AGEING_S} s"
    if f.network.bridges_error is not None:
        return Row(HERE, name, "unknown", f.network.bridges_error, wanted, _BRIDGES_WHY, "as it says")
    bridges = [bridge for bridge in f.network.bridges if bridge.leads_out]
    if not bridges:
        return None
    found = [text for bridge in bridges if (text := _of_bridge(bridge))]
    if not found:
        return Row(HERE, name, "ok", ", ".join(bridge.name for bridge in bridges) + ": forward at once")
    fixes = []
    for bridge in bridges:
        if bridge.stp:
            fixes.append(f"ip link set {bridge.name} type bridge stp_state 0 (where no loop can be)")
        if bridge.ageing_ms > AGEING_S * 1000:
            fixes.append(f"ip link set {bridge.name} type bridge ageing_time {AGEING_S * 100}")
    fix = "; ".join(fixes) + "; and for good where the bridge is made (netplan, systemd-networkd, libvirt)"
    return Row(HERE, name, "warn", "; ".join(found), wanted, _BRIDGES_WHY, fix)


_BRIDGES_WHY = (
    "a guest's device is a new port: with spanning tree it is silent for twice the forward delay, QEMU's "
    "announcements are lost in it, and other hosts then send to the old one until the guest says something "
    "or the address is forgotten"
)


def _of_bridge(bridge: LinuxBridge) -> str | None:
    texts = []
    if bridge.stp:
        silent_s = 2 * bridge.forward_delay_ms / 1000
        texts.append(f"a port of {bridge.name} forwards {silent_s:g} s after it was made (spanning tree)")
    if bridge.ageing_ms > AGEING_S * 1000:
        texts.append(f"{bridge.name} remembers addresses for {bridge.ageing_ms // 1000} s")
    return ", ".join(texts) or None


def open_vswitch(f: Facts) -> Row | None:
    if f.network is None:
        return None
    name, wanted = "Open vSwitch", f"neither STP nor RSTP, and addresses forgotten after {AGEING_S} s"
    why = (
        "a guest's device is a new port, silent while a spanning tree is worked out; QEMU's announcements "
        "are lost in it, and other hosts then send to the old one until the guest says something or the "
        "address is forgotten"
    )
    if f.network.switches_error is not None:
        fix = "run 'pcmig check' as root; is ovsdb-server running?"
        return Row(HERE, name, "unknown", f.network.switches_error, wanted, why, fix)
    if not f.network.switches:
        return None
    found = [text for bridge in f.network.switches if (text := _of_switch(bridge))]
    if not found:
        names = ", ".join(bridge.name for bridge in f.network.switches)
        return Row(HERE, name, "ok", f"{names}: no spanning tree")
    fixes = []
    for bridge in f.network.switches:
        if bridge.stp or bridge.rstp:
            which = "stp_enable" if bridge.stp else "rstp_enable"
            fixes.append(f"ovs-vsctl set bridge {bridge.name} {which}=false (where no loop can be)")
        if bridge.ageing_s > AGEING_S:
            fixes.append(f"ovs-vsctl set bridge {bridge.name} other_config:mac-aging-time={AGEING_S}")
    return Row(HERE, name, "warn", "; ".join(found), wanted, why, "; ".join(fixes))


def _of_switch(bridge: SwitchBridge) -> str | None:
    texts = []
    if bridge.stp:
        silent_s = 2 * bridge.stp_forward_delay_s
        texts.append(f"a port of {bridge.name} forwards {silent_s} s after it was made (STP)")
    elif bridge.rstp:
        silent_s = 2 * bridge.rstp_forward_delay_s
        texts.append(
            f"a port of {bridge.name} forwards {RSTP_EDGE_S} to {silent_s} s after it was made (RSTP)"
        )
    if bridge.ageing_s > AGEING_S:
        texts.append(f"{bridge.name} remembers addresses for {bridge.ageing_s} s")
    return ", ".join(texts) or None


def ovn_controller(f: Facts) -> Row | None:
    """It installs the flows of a port that arrives, and opens it when it sees the announcement."""
    if f.network is None or f.network.controller is None:
        return None
    name, here = "ovn-controller", f.network.controller
    wanted = f"connected, OVN 22.09 or newer, no more than {SLOW_MS:g} ms for a round"
    why = (
        "a guest's port gets its flows from ovn-controller, and with activation by RARP, neutron's default, "
        "frames pass only once ovn-controller has seen QEMU's announcement: what it takes for a round is "
        "silence at the switch"
    )
    if here.error is not None:
        fix = "systemctl status ovn-controller; while it is stopped or busy, move no guests here"
        return Row(HERE, name, "warn", here.error, wanted, why, fix)
    if here.connection != "connected":
        return Row(
            HERE,
            name,
            "fail",
            f"{here.connection or 'unknown'}: OVN's southbound database is not reached",
            wanted,
            "without the database it hears of no port that is to come: a guest that arrives is not reached "
            "by anybody; guests that are here go on",
            "ovs-vsctl get open . external_ids:ovn-remote (is it right, and reached from here?)",
        )
    version = version_of(here.version or "")
    if version is not None and version < OVN_ACTIVATES:
        return Row(
            HERE,
            name,
            "warn",
            f"OVN {here.version}",
            wanted,
            "before 22.09 a port is at one host at a time: what is sent to the guest goes to the old host "
            "until Nova has had neutron bind the port here, after the switch, and flows are installed then",
            "upgrade OVN, and neutron to a release that binds a port to both hosts",
        )
    if here.slow_ms is not None and here.slow_ms > SLOW_MS:
        return Row(
            HERE,
            name,
            "warn",
            f"5 of 100 of its rounds take longer than {here.slow_ms:.0f} ms",
            wanted,
            why,
            "ovn-appctl -t ovn-controller inc-engine/show-stats tells what it works out anew; or take it out "
            "of the way: live_migration_activation_strategy = (empty) in [ovn] of neutron-server's "
            "ml2_conf.ini, which costs some duplicate packets",
        )
    return Row(HERE, name, "ok", f"OVN {here.version or 'of a version that it does not tell'}, connected")


def neutron_agent(f: Facts) -> Row | None:
    """Neutron's Open vSwitch agent, by its files."""
    if f.network is None:
        return None
    name, wanted = "neutron's agent", f"[agent] polling_interval of {POLLING_S} s or less"
    why = (
        "that often at most it looks at ports: a guest's port is wired that much later, before the copy and, "
        "where its binding changes, at the switch once more"
    )
    if f.network.polling_error is not None:
        fix = "run 'pcmig check' as a user who may read the agent's files"
        return Row(HERE, name, "unknown", f.network.polling_error, wanted, why, fix)
    if f.network.polling_s is None:
        return None
    found = f"looks at ports every {f.network.polling_s} s (polling_interval)"
    if f.network.polling_s <= POLLING_S:
        return Row(HERE, name, "ok", found)
    fix = f"polling_interval = {POLLING_S} in [agent] of openvswitch_agent.ini, and restart the agent"
    return Row(HERE, name, "warn", found, wanted, why, fix)


# Kinds of interfaces whose guests are reached late, or whose connections break: why, and what helps.
LATE = {
    "vhostuser": (
        "QEMU's announcement leaves a vhost-user port only if the process behind the socket sends it; with "
        "OVN's activation by RARP the port then stays shut until Nova has bound it, after the switch",
        "live_migration_activation_strategy = (empty) in [ovn] of neutron-server's ml2_conf.ini",
    ),
    "user": (
        "QEMU itself ends all connections of the guest, and the new QEMU knows none of them",
        "a bridge or Open vSwitch in place of <interface type='user'>",
    ),
}


def guest_interfaces(f: Facts) -> Row | None:
    if f.here.facts is None or f.here.facts["guest"] is None:
        return None
    name = "interfaces"
    try:
        found = nics(f.here.facts["guest"]["xml"])
    except GuestXmlError:
        return None  # another row says so
    if not found:
        return None
    late = [nic for nic in found if nic.kind in LATE]
    if not late:
        return Row("guest", name, "ok", f"{len(found)}: QEMU announces each of them")
    kinds = sorted({nic.kind for nic in late})
    return Row(
        "guest",
        name,
        "warn",
        ", ".join(f"{nic.mac or 'one'} is {nic.kind}" for nic in late),
        "a tap in a bridge or in Open vSwitch",
        "; ".join(LATE[kind][0] for kind in kinds),
        "; ".join(LATE[kind][1] for kind in kinds),
    )


NETWORK: tuple[Callable[[Facts], Row | None], ...] = (
    announcements, ports_before_the_copy, ports_at_the_switch, linux_bridges, open_vswitch, ovn_controller,
    neutron_agent,
)  # fmt: skip
