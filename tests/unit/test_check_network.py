# SPDX-License-Identifier: Apache-2.0
"""The rows on the network, from files as a host has them, and from what kernel and switches say."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
from typing import Any

import pytest

from pcmig.check import Facts, Row, Side, network, network_facts
from pcmig.check.network_facts import Controller, Network
from pcmig.ports.model import LinuxBridge, SwitchBridge
from tests.unit.patience import PATIENCE_S
from tests.unit.ports.control_socket import controller
from tests.unit.test_check import a_guest, a_host, a_network

BRIDGE = LinuxBridge("br0", False, 15_000, 300_000, True)
SWITCH = SwitchBridge("br-int", False, False, 15, 15, 300)


def rows(found: Network) -> dict[str, Row]:
    facts = Facts(here=Side("qemu:///system"), network=found)
    return {row.name: row for check in network.NETWORK if (row := check(facts)) is not None}


def of_nova(root: pathlib.Path, text: str) -> Network:
    """What nova.conf with TEXT comes to."""
    (root / "etc/nova").mkdir(parents=True)
    (root / "etc/nova/nova.conf").write_text(text)
    return network_facts.gather(str(root), with_nova=True, ovsdb="unix:/nowhere")


def test_nothing_is_slow() -> None:
    found = rows(a_network())
    assert {row.status for row in found.values()} == {"ok"} and len(found) == 6
    assert found["ovn-controller"].found == "OVN 23.03.1, connected"


def test_where_there_is_no_network_to_speak_of() -> None:
    assert rows(Network(bridges=(dataclasses.replace(BRIDGE, stp=True, leads_out=False),))) == {}
    assert network.guest_interfaces(Facts(here=Side("qemu:///system", a_host(guest=a_guest())))) is None


def test_novas_own_defaults(tmp_path: pathlib.Path) -> None:
    found = rows(of_nova(tmp_path, "[DEFAULT]\n"))
    assert found["announcements"].status == "warn" and "300 s" in found["announcements"].why
    assert found["ports before the copy"].found == (
        "Nova waits for them up to 300 s; then the migration fails"
    )
    assert "ports at the switch" not in found


@pytest.mark.parametrize(
    ("text", "name", "status", "said"),
    [
        ("[workarounds]\nenable_qemu_monitor_announce_self = yes\n", "announcements", "ok", "is set"),
        ("[DEFAULT]\nvif_plugging_timeout: 0\n", "ports before the copy", "warn", "vif_plugging_timeout = 0"),
        ("[compute]\nlive_migration_wait_for_vif_plug=0\n", "ports before the copy", "warn", "vif_plug = Fa"),
        ("[DEFAULT]\nvif_plugging_is_fatal=false\n", "ports before the copy", "ok", "begins nevertheless"),
        ("[DEFAULT]\nvif_plugging_timeout = soon\n", "ports before the copy", "unknown", "soon"),
        ("no section's line\n", "ports before the copy", "unknown", "nova.conf"),
        ("[workarounds]\nhandle_virt_lifecycle_events = 0\n", "ports at the switch", "warn", "= False"),
    ],
)
def test_nova(tmp_path: pathlib.Path, text: str, name: str, status: str, said: str) -> None:
    found = rows(of_nova(tmp_path, text))[name]
    assert found.status == status and said in found.found, found
    assert bool(found.fix and found.why and found.wanted) == (status != "ok")


def test_a_nova_whose_files_are_elsewhere(tmp_path: pathlib.Path) -> None:
    found = rows(network_facts.gather(str(tmp_path), with_nova=True, ovsdb="unix:/nowhere"))
    assert found["ports before the copy"].status == "unknown" and "announcements" not in found


def test_pcmigs_driver_binds_ports_itself(tmp_path: pathlib.Path) -> None:
    text = "[DEFAULT]\ncompute_driver = pcmig.PostCopyLibvirtDriver\n"
    found = of_nova(tmp_path, text + "[workarounds]\nhandle_virt_lifecycle_events = 0\n")
    assert "ports at the switch" not in rows(found)


def test_pcmigs_driver_announces_what_is_in_open_vswitch(tmp_path: pathlib.Path) -> None:
    found = of_nova(tmp_path, "[DEFAULT]\ncompute_driver = pcmig.PostCopyLibvirtDriver\n")
    assert found.switches is None and rows(found)["announcements"].status == "warn"
    row = rows(dataclasses.replace(found, switches=()))["announcements"]
    assert row.status == "ok" and "announces guests that arrive" in row.found


def test_the_environment_of_who_asks_is_not_novas(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_DEFAULT__VIF_PLUGGING_TIMEOUT", "0")
    nova = of_nova(tmp_path, "").nova
    assert nova is not None and nova.timeout_s == 300


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        ({"stp": True}, "br0 forwards 30 s after", "ip link set br0 type bridge stp_state 0"),
        ({"stp": True, "forward_delay_ms": 2000}, "br0 forwards 4 s after", "stp_state 0"),
        ({"ageing_ms": 900_000}, "br0 remembers addresses for 900 s", "ageing_time 30000"),
    ],
)
def test_linux_bridges(change: dict[str, Any], said: str, fix: str) -> None:
    other = dataclasses.replace(BRIDGE, name="br1")
    found = rows(Network(bridges=(dataclasses.replace(BRIDGE, **change), other)))["Linux bridges"]
    assert found.status == "warn" and said in found.found and fix in found.fix
    assert "br1" not in found.found + found.fix


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        ({"stp": True}, "br-int forwards 30 s after", "ovs-vsctl set bridge br-int stp_enable=false"),
        ({"stp": True, "stp_forward_delay_s": 4}, "br-int forwards 8 s after", "stp_enable=false"),
        ({"rstp": True}, "br-int forwards 3 to 30 s after", "rstp_enable=false"),
        ({"ageing_s": 3600}, "br-int remembers addresses for 3600 s", "other_config:mac-aging-time=300"),
    ],
)
def test_open_vswitch(change: dict[str, Any], said: str, fix: str) -> None:
    found = rows(Network(switches=(dataclasses.replace(SWITCH, **change),)))["Open vSwitch"]
    assert found.status == "warn" and said in found.found and fix in found.fix


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (Network(bridges_error="no pyroute2"), "Linux bridges"),
        (Network(switches_error="refused"), "Open vSwitch"),
        (Network(polling_error="denied"), "neutron's agent"),
    ],
)
def test_what_cannot_be_read_is_said(found: Network, name: str) -> None:
    (row,) = rows(found).values()
    assert (row.name, row.status) == (name, "unknown") and row.wanted and row.why and row.fix


@pytest.mark.parametrize(
    ("controller", "status", "said"),
    [
        (Controller("24.09.2", "connected", 1.0, 199.0), "ok", "OVN 24.09.2, connected"),
        (Controller(None, "connected"), "ok", "does not tell"),
        (Controller("22.09.0", "connected"), "ok", ""),
        (Controller("22.06.1", "connected"), "warn", "OVN 22.06.1"),
        (Controller("23.03.1", "connected", 1.0, 1250.0), "warn", "longer than 1250 ms"),
        (Controller("23.03.1", "not connected"), "fail", "southbound database is not reached"),
        (Controller(error="no answer in 2 s"), "warn", "no answer"),
    ],
)
def test_ovn_controller(controller: Controller, status: str, said: str) -> None:
    found = rows(Network(controller=controller))["ovn-controller"]
    assert found.status == status and said in found.found
    assert bool(found.fix) == (status != "ok")


@pytest.mark.parametrize(("seconds", "status"), [(1, "ok"), (2, "ok"), (10, "warn")])
def test_neutrons_agent(tmp_path: pathlib.Path, seconds: int, status: str) -> None:
    folder = tmp_path / "etc/neutron/plugins/ml2"
    folder.mkdir(parents=True)
    (folder / "openvswitch_agent.ini").write_text(f"[agent]\npolling_interval = {seconds}\n")
    found = network_facts.gather(str(tmp_path), with_nova=False, ovsdb="unix:/nowhere")
    assert rows(found)["neutron's agent"].status == status
    (folder / "ml2_conf.ini").write_text("[agent]\npolling_interval = x\n")
    (folder / "openvswitch_agent.ini").write_text("")
    found = network_facts.gather(str(tmp_path), with_nova=False, ovsdb="unix:/nowhere")
    assert rows(found)["neutron's agent"].status == "unknown"


@pytest.mark.parametrize(
    ("kinds", "status", "said"),
    [
        ("bridge ethernet", "ok", "2: QEMU"),
        ("bridge user", "warn", "one is user"),
        ("vhostuser", "warn", "vhostuser"),
    ],
)
def test_a_guests_interfaces(kinds: str, status: str, said: str) -> None:
    devices = "".join(f"<interface type='{kind}'/>" for kind in kinds.split())
    facts = Facts(here=Side("qemu:///system", a_host(guest=a_guest(devices=devices))), domain="g1")
    found = network.guest_interfaces(facts)
    assert found is not None and found.status == status and said in found.found


# --- ovn-controller's control socket ------------------------------------------------------------------------

STOPWATCH = """Statistics for 'flow-generation'
  Total samples: 40
  Maximum: 900 msec
  Minimum: 0 msec
  95th percentile: 310.500000 msec
  Short term average: 12.000000 msec
"""
SAYS: dict[str, str | bytes] = {
    "version": "ovn-controller 23.03.1\nOpen vSwitch Library 3.1.0\n",
    "connection-status": "connected\n",
    "stopwatch/show": STOPWATCH,
}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's controller answers as soon as a busy machine lets it."""
    monkeypatch.setattr(network_facts, "CONTROLLER_PATIENCE_S", PATIENCE_S)


def test_what_a_controller_says(tmp_path: pathlib.Path) -> None:
    with controller(tmp_path / "c", SAYS):
        found = network_facts.ask_controller(str(tmp_path / "c"))
    assert (found.version, found.connection, found.slow_ms, found.error) == (
        "23.03.1",
        "connected",
        310.5,
        None,
    )


def test_an_older_controller(tmp_path: pathlib.Path) -> None:
    with controller(tmp_path / "c", {**SAYS, "stopwatch/show": ""}):
        found = network_facts.ask_controller(str(tmp_path / "c"))
    assert found.version == "23.03.1" and found.slow_ms is None and found.error is None


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "ended the connection"),
        (b"[]", "something else"),
        (b'{"result": ', "ended the connection"),
        ("", "unknown"),
        (b"[" * 100_000, "ended the connection"),
    ],
)
def test_a_controller_that_makes_no_sense(tmp_path: pathlib.Path, said: str | bytes, error: str) -> None:
    with controller(tmp_path / "c", {"version": said}):
        found = network_facts.ask_controller(str(tmp_path / "c"))
    assert found.error is not None and error in found.error, found


def test_a_controller_that_stands_still(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_facts, "CONTROLLER_PATIENCE_S", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c"))
        listener.listen()  # the kernel takes the connection, and nobody reads
        assert "no answer in 0.2 s" in str(network_facts.ask_controller(str(tmp_path / "c")).error)


def test_of_several_sockets_the_one_that_answers_counts(tmp_path: pathlib.Path) -> None:
    assert "does not run" in str(network_facts._controller(tmp_path).error)
    folder = tmp_path / "run/ovn"
    folder.mkdir(parents=True)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "ovn-controller.9.ctl"))
    dead.close()
    assert "refused" in str(network_facts._controller(tmp_path).error)
    with controller(folder / "ovn-controller.8.ctl", SAYS):
        assert network_facts._controller(tmp_path).version == "23.03.1"
