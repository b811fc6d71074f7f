# SPDX-License-Identifier: Apache-2.0
"""An OVN of three hosts: a and b, between which a guest moves, and c, with the databases and a client.

Two networks: "geneve", all of OVN's, over tunnels, the client at a port of host c; and "localnet", one of a
provider, the client behind a bridge of Linux's that the hosts are connected to, which learns addresses as a
rack's switch does.
"""

from __future__ import annotations

import pathlib
import time

from pcmig.ports.openvswitch import Database
from tests.bed.layer import Reporter, ensure
from tests.ovn.place import INTEGRATION, PHYSICAL, Place, until

LAYER = "ovn"
NETWORKS = ("geneve", "localnet")
MANAGEMENT, UNDERLAY = "10.79.0", "10.79.1"
NORTH, SOUTH = 6641, 6642
OUTER_MTU = 1600  # a guest's 1500 and Geneve's head
CLIENT = "client"  # device of the outside client, in host c


class Ovn:
    """`up()` makes it. NAMESPACES: paths of those of a and b that are there already; RUN_FOLDERS: where their
    sockets go."""

    def __init__(
        self,
        folder: pathlib.Path,
        network: str = NETWORKS[0],
        namespaces: dict[str, str] | None = None,
        run_folders: dict[str, pathlib.Path] | None = None,
        reporter: Reporter = lambda _: None,
    ) -> None:
        self.network = network
        layer = ensure(LAYER, reporter)
        self.places = {
            name: Place(
                name,
                (run_folders or {}).get(name, folder / name),
                layer,
                (namespaces or {}).get(name),
            )
            for name in "abc"
        }
        self.a, self.b, self.c = self.places.values()
        self.folder = folder / "central"

    # Life

    def up(self) -> None:
        for place in self.places.values():
            place.up()
        self._wire()
        self._start_central()
        for number, place in enumerate(self.places.values(), 1):
            self._start_host(place, number)
        self.nbctl("ls-add", "net")
        if self.network == "localnet":
            self.nbctl(
                *("lsp-add", "net", "physical", "--", "lsp-set-addresses", "physical", "unknown", "--"),
                *("lsp-set-type", "physical", "localnet", "--"),
                *("lsp-set-options", "physical", "network_name=phys"),
            )
        self._add_client()

    def down(self) -> None:
        for place in reversed(self.places.values()):
            place.down()

    def _wire(self) -> None:
        """Bridges of Linux's in c: mgmt0 for databases, phys0 as the switch of all hosts."""
        for bridge in ("mgmt0", "phys0"):
            self.c.ip("link", "add", bridge, "type", "bridge")
            self.c.ip("link", "set", bridge, "up")
        self.c.ip("address", "add", f"{MANAGEMENT}.3/24", "dev", "mgmt0")
        for number, place in enumerate(self.places.values(), 1):
            for bridge, device in (("mgmt0", "mgmt1"), ("phys0", "phys1")):
                if place is self.c and bridge == "mgmt0":
                    continue
                leg = f"{bridge}-{place.name}"
                place.ip(
                    *("link", "add", device, "mtu", str(OUTER_MTU), "type", "veth"),
                    *("peer", "name", leg, "mtu", str(OUTER_MTU), "netns", str(self.c.pid)),
                )
                self.c.ip("link", "set", leg, "master", bridge, "up")
                place.ip("link", "set", device, "up")
            if place is not self.c:
                place.ip("address", "add", f"{MANAGEMENT}.{number}/24", "dev", "mgmt1")

    def _start_central(self) -> None:
        place, folder = self.c, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for kind, port in (("nb", NORTH), ("sb", SOUTH)):
            data, socket = f"{folder}/{kind}.db", folder / f"{kind}.sock"
            place.run("ovsdb-tool", "create", data, f"/usr/share/ovn/ovn-{kind}.ovsschema")
            place.start_as(
                f"ovsdb-server-{kind}",
                "/usr/sbin/ovsdb-server",
                data,
                f"--remote=punix:{socket}",
                f"--remote=ptcp:{port}:{MANAGEMENT}.3",
                f"--unixctl={folder}/{kind}.ctl",
                ready=socket,
            )
            place.run(f"ovn-{kind}ctl", f"--db=unix:{socket}", "init")
        place.start(
            "/usr/bin/ovn-northd",
            f"--ovnnb-db=unix:{folder}/nb.sock",
            f"--ovnsb-db=unix:{folder}/sb.sock",
            f"--unixctl={folder}/northd.ctl",
        )

    def _start_host(self, place: Place, number: int) -> None:
        place.start_switch()
        place.add_bridge(PHYSICAL)
        place.vsctl("add-port", PHYSICAL, "phys1")
        place.add_bridge(INTEGRATION, "fail_mode=secure")
        until(lambda: f"{PHYSICAL}:" in place.run("ip", "-o", "link"), f"{PHYSICAL} of {place.name} is there")
        place.ip("link", "set", PHYSICAL, "mtu", str(OUTER_MTU), "up")
        place.ip("address", "add", f"{UNDERLAY}.{number}/24", "dev", PHYSICAL)
        settings = {
            "system-id": place.name,
            "hostname": place.name,
            "ovn-remote": f"tcp:{MANAGEMENT}.3:{SOUTH}",
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": f"{UNDERLAY}.{number}",
            "ovn-bridge-datapath-type": "netdev",
            "ovn-bridge-mappings": f"phys:{PHYSICAL}",
        }
        place.vsctl("set", "open", ".", *(f'external_ids:{key}="{value}"' for key, value in settings.items()))
        place.start("/usr/bin/ovn-controller", place.database)

    def _add_client(self) -> None:
        self.client = self.c.add_station(CLIENT)
        if self.network == "localnet":
            self.c.ip("link", "set", CLIENT, "master", "phys0")

    # Use

    def nbctl(self, *words: str) -> str:
        return self.c.run("ovn-nbctl", f"--db=unix:{self.folder}/nb.sock", "--timeout=20", *words)

    def sbctl(self, *words: str) -> str:
        return self.c.run("ovn-sbctl", f"--db=unix:{self.folder}/sb.sock", "--timeout=20", *words)

    def add_port(self, name: str, mac: str, address: str, chassis: str) -> None:
        self.nbctl(
            *("lsp-add", "net", name, "--", "lsp-set-addresses", name, f"{mac} {address}", "--"),
            *("lsp-set-options", name, f"requested-chassis={chassis}"),
        )

    def bind(self, name: str, chassis: str, strategy: str = "") -> float:
        """What neutron's server does with a port: to which hosts it belongs. How long that took, in ms, until
        the northbound database had it."""
        options = [f"requested-chassis={chassis}"]
        if strategy:
            options.append(f"activation-strategy={strategy}")
        started_s = time.monotonic()
        self.nbctl("lsp-set-options", name, *options)
        return (time.monotonic() - started_s) * 1000

    def binding(self, name: str) -> dict[str, str]:
        """The southbound database's word on a port."""
        columns = ("chassis", "additional_chassis", "up", "options")
        said = self.sbctl(
            f"--columns={','.join(columns)}", "--format=list", "find", "port_binding", f"logical_port={name}"
        )
        pairs = (line.partition(":") for line in said.splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, _, value in pairs}
        listed = self.sbctl("--format=csv", "--no-headings", "--columns=_uuid,name", "list", "chassis")
        names = dict(line.split(",") for line in listed.split())
        for key in ("chassis", "additional_chassis"):
            for uuid, chassis in names.items():
                found[key] = found.get(key, "").replace(uuid, chassis)
        return found

    def activated(self, name: str) -> bool:
        return "additional-chassis-activated" in self.binding(name).get("options", "")

    def database(self, place: Place) -> Database:
        return Database(place.database)
