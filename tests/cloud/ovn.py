# SPDX-License-Identifier: Apache-2.0
"""What neutron's OVN driver needs beside neutron: databases and ovn-northd on the control node, an
ovn-controller on each host. Open vSwitch is the hosts' own (compute.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bed import layer
from tests.bed.host import Host
from tests.bed.layer import Reporter
from tests.bed.procs import run
from tests.cloud.network import CONTROL, tunnel_address
from tests.cloud.service import RUN, Service, outside

if TYPE_CHECKING:
    from tests.cloud.controlplane import ControlPlane

LAYER = "ovn"
PORTS = {"nb": 6641, "sb": 6642}  # of the northbound and the southbound database
OVN_RUN = "/run/ovn"
PATIENCE_S = 60.0


def remote(kind: str) -> str:
    return f"tcp:{CONTROL}:{PORTS[kind]}"


class Ovn:
    """Its programs come out of the layer, with the layer's own libraries: a host may have others."""

    def __init__(self, reporter: Reporter) -> None:
        self._usr = layer.ensure(LAYER, reporter) / "usr"
        self._control: Host | None = None

    def _program(self, name: str) -> list[str]:
        libraries = f"{self._usr}/lib/x86_64-linux-gnu"
        loader = f"{libraries}/ld-linux-x86-64.so.2"
        return [loader, "--library-path", libraries, f"{self._usr}/bin/{name}"]

    def start_central(self, plane: ControlPlane) -> None:
        """Before neutron, which asks for both databases as it starts."""
        self._control = plane.node
        for kind, port in PORTS.items():
            data, socket = f"{RUN}/ovn-{kind}.db", f"{RUN}/ovn-{kind}.sock"
            schema = f"{self._usr}/share/ovn/ovn-{kind}.ovsschema"
            run(plane.node.inside(["ovsdb-tool", "create", data, schema]), "making OVN's databases")
            remotes = [f"--remote=punix:{socket}", f"--remote=ptcp:{port}:{CONTROL}"]
            argv = ["ovsdb-server", data, *remotes, f"--unixctl={RUN}/ovn-{kind}.ctl"]
            server = plane.start_service(f"ovsdb-server-{kind}", argv)
            made = outside(plane.node) / f"ovn-{kind}.sock"
            server.wait_ready(made.exists, PATIENCE_S)
            self._tell(kind, "init")
        databases = [f"--ovn{kind}-db=unix:{RUN}/ovn-{kind}.sock" for kind in PORTS]
        argv = [*self._program("ovn-northd"), *databases, f"--unixctl={RUN}/ovn-northd.ctl"]
        plane.start_service("ovn-northd", argv)

    def controller(self, host: Host, name: str, physical: str, bridge: str, env: dict[str, str]) -> Service:
        """That of HOST, which Nova calls NAME; BRIDGE leads to the network PHYSICAL. Not started. Tunnels,
        which ports have that are at two hosts at a time, go through that bridge as well: Open vSwitch in user
        space finds no way but through its own."""

        def inside(*words: str) -> None:
            run(host.inside(words), f"host {host.name}: preparing for OVN")

        inside("mkdir", "-p", OVN_RUN)
        inside("ip", "address", "add", f"{tunnel_address(host.name)}/24", "dev", bridge)
        inside("ip", "link", "set", bridge, "up")
        settings = {
            "system-id": name,
            "hostname": name,  # what neutron knows hosts by
            "ovn-remote": remote("sb"),
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": tunnel_address(host.name),
            "ovn-bridge-datapath-type": "netdev",
            "ovn-bridge-mappings": f"{physical}:{bridge}",
        }
        values = [f'external_ids:{key}="{value}"' for key, value in settings.items()]
        inside("ovs-vsctl", "--timeout=15", "set", "open", ".", *values)
        argv = [*self._program("ovn-controller"), "unix:/run/openvswitch/db.sock"]
        return Service("ovn-controller", host, argv, {**env, "OVN_RUNDIR": OVN_RUN})

    # Use

    def asked(self, port_id: str) -> str:
        """What neutron has asked OVN for, for one of its ports: options of the northbound database."""
        return self._tell("nb", "get", "logical_switch_port", port_id, "options")

    def found(self, port_id: str) -> str:
        """What has become of it: options of the southbound database."""
        return self._tell(
            "sb", "--bare", "--columns=options", "find", "port_binding", f"logical_port={port_id}"
        )

    def _tell(self, kind: str, *words: str) -> str:
        assert self._control is not None
        argv = [*self._program(f"ovn-{kind}ctl"), f"--db=unix:{RUN}/ovn-{kind}.sock", "--timeout=30", *words]
        return run(self._control.inside(argv), f"asking OVN's database {kind}").strip()
