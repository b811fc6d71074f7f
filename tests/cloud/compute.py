# SPDX-License-Identifier: Apache-2.0
"""What makes a host of the bed a compute host: Open vSwitch, neutron's agent, nova-compute and its driver."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence

from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.procs import run
from tests.cloud import config, install
from tests.cloud.config import ETC, OVSDB_PORT, Sections
from tests.cloud.controlplane import START_PATIENCE_S, environment
from tests.cloud.network import CONTROL, FLAT, PHYSICAL_NETWORK, management_address
from tests.cloud.ovn import Ovn
from tests.cloud.service import RUN, Service, outside

HYBRID = pathlib.Path(__file__).parent / "hybrid"  # what the agent imports of it
OVS_RUN = "/run/openvswitch"
# With the rights that a distribution's package gives it: its own user, libvirt's group, and sudo for
# the helper of its privileged daemons.
NOVA = "nova"
AS_NOVA = ["setpriv", f"--reuid={NOVA}", f"--regid={NOVA}", "--init-groups", "--"]
NOVAS = ("home", "instances", "nova")  # folders below RUN
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
# libvirt sets a new tap up while Open vSwitch, which switches in user space here, makes it promiscuous. Both
# read its flags and write them back, so that now and then the second takes "up" away again, and the guest
# stays deaf and dumb. The kernel's own way, which ip(8) takes, changes one flag alone.
KEEP_TAPS_UP = r"""
while sleep 0.5; do
    ip -o link show | sed -nE '/[<,]UP[,>]/! s/^[0-9]+: (tap[^:@]+).*/\1/p' | while read -r tap; do
        ip link set "$tap" up && echo "$tap was down"
    done
done
"""


class Compute:
    """A compute host: `name` is its name in OpenStack, host.name ("a" or "b") that in the bed."""

    def __init__(
        self,
        host: Host,
        folder: pathlib.Path,
        nova_env: dict[str, str],
        more: Sections | None = None,
        ovn: Ovn | None = None,
        hybrid: bool = False,
    ) -> None:
        self.host = host
        self.name = f"pcmig-{host.name}"
        self.venv = folder / "venv"
        self.env = environment(self.venv)
        self.nova_env = nova_env
        self.more = more or {}  # sections of nova.conf beside the bed's own
        self.ovn = ovn  # in place of neutron's own agent
        self.hybrid = hybrid
        self.services: dict[str, Service] = {}
        self.started_at = 0.0  # of nova-compute, by time.time()
        self.as_root = False  # from its next start on

    def configure(self, driver: str, nova_conf: Sections | str) -> None:
        files = config.host_files(
            self.venv, self.host.name, driver, nova_conf, self.name, self.more, self.hybrid
        )
        config.write(outside(self.host) / "etc", files)

    def prepare(self, wheels: Sequence[pathlib.Path]) -> None:
        """Folders, names, the driver: what needs no other service."""
        run_folder = outside(self.host)
        for name in ("home", "instances", "nova/lock", "neutron/lock", "log"):
            (run_folder / name).mkdir(parents=True, exist_ok=True)
        hosts = run_folder / "hosts"
        names = {"127.0.0.1": "localhost", CONTROL: "control"}
        names.update({management_address(host): f"pcmig-{host}" for host in "ab"})
        hosts.write_text("".join(f"{address} {name}\n" for address, name in names.items()))
        self._inside(["cp", f"{RUN}/hosts", "/etc/hosts"], "naming the hosts")
        sudoers = run_folder / "sudoers"
        sudoers.write_text(f"{NOVA} ALL = (root) NOPASSWD: {self.venv}/bin/privsep-helper\n")
        rights = ["install", "-m", "440", f"{RUN}/sudoers", "/etc/sudoers.d/nova"]
        self._inside(rights, "giving nova its rights")
        folders = [f"{RUN}/{name}" for name in NOVAS]
        self._inside(["chown", "-R", f"{NOVA}:", *folders], "giving nova its folders")
        if wheels:
            install.install_wheels(self.host, self.venv, wheels)

    def start_network(self) -> None:
        """Open vSwitch's daemons, switching in user space, and br-ex on the flat network."""
        host = self.host
        if not pathlib.Path(SCHEMA).exists():
            raise BedError("Open vSwitch is not installed (run: tools/bootstrap cloud)")
        (host.state / OVS_RUN.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        database = f"{RUN}/ovs.db"
        self._inside(["ovsdb-tool", "create", database, SCHEMA], "making Open vSwitch's database")
        remotes = [f"--remote=punix:{OVS_RUN}/db.sock", f"--remote=ptcp:{OVSDB_PORT}:127.0.0.1"]
        server = self._start("ovsdb-server", ["ovsdb-server", database, *remotes])
        server.wait_ready(lambda: (host.state / "run/openvswitch/db.sock").exists(), 15)
        self._inside(["ovs-vsctl", "--timeout=15", "--no-wait", "init"], "starting Open vSwitch")
        self._start("ovs-vswitchd", ["ovs-vswitchd", f"unix:{OVS_RUN}/db.sock"])
        bridge = ["add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev"]
        self._inside(["ovs-vsctl", "--timeout=20", *bridge, "--", "add-port", "br-ex", FLAT], "making br-ex")
        self._start("taps", ["sh", "-c", KEEP_TAPS_UP])

    def switch_report(self) -> str:
        """Ports of Open vSwitch: tag 4095 is one that neutron's agent has not wired yet."""
        tables = (("port", "name,tag"), ("interface", "name,link_state,error,statistics"))
        return "".join(
            self._inside(
                ["ovs-vsctl", "--timeout=15", "--format=table", f"--columns={columns}", "list", table],
                "asking Open vSwitch",
            )
            for table, columns in tables
        )

    def ports_of(self, bridge: str) -> list[str]:
        """Devices in a Linux bridge."""
        found = self._inside(["ip", "-json", "link", "show", "master", bridge], f"asking what is in {bridge}")
        return [str(link["ifname"]) for link in json.loads(found)]

    def start_agent(self) -> None:
        """Who wires neutron's ports on this host."""
        if self.ovn is not None:
            agent = self.ovn.controller(self.host, self.name, PHYSICAL_NETWORK, "br-ex", self.env)
            self.services[agent.name] = agent.start()
            return
        argv = [f"{self.venv}/bin/neutron-openvswitch-agent", "--config-file", f"{ETC}/neutron/agent.conf"]
        own = {"PYTHONPATH": str(HYBRID)} if self.hybrid else None
        self._start("neutron-openvswitch-agent", argv, own)

    def start_nova(self) -> Service:
        self.started_at = time.time()
        argv = [
            *([] if self.as_root else AS_NOVA),
            f"{self.venv}/bin/nova-compute",
            *config.compute_config_files(),
        ]
        return self._start("nova-compute", argv, self.nova_env)

    @property
    def agent(self) -> Service:
        """Who wires neutron's ports on this host."""
        return self.services["neutron-openvswitch-agent" if self.ovn is None else "ovn-controller"]

    @property
    def nova(self) -> Service:
        return self.services["nova-compute"]

    @property
    def instances(self) -> pathlib.Path:
        """Nova's folder of instances, as the machine sees it."""
        return outside(self.host) / "instances"

    def connections(self) -> str:
        """Its TCP connections, with their processes and timers."""
        return self._inside(["ss", "--tcp", "--numeric", "--processes", "--options"], "listing connections")

    # Parts

    def _start(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> Service:
        service = Service(name, self.host, argv, {**self.env, **(env or {})})
        self.services[name] = service
        return service.start()

    def _inside(self, argv: list[str], what: str) -> str:
        return run(self.host.inside(argv), f"host {self.host.name}: {what}", START_PATIENCE_S)
