# SPDX-License-Identifier: Apache-2.0
"""The guest's networks: a switch that both hosts' bridges are plugged into, a client on it, and a neighbour
of the guest's on each host. Each is a network namespace without a name, which ends with this process."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from tests.bed import Bed, BedError, Host
from tests.bed.procs import run
from tests.bench.ports.ways import SetUp

OVS_FOLDER = "/run/openvswitch"  # as a host sees it
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
PATIENCE_S = 60.0
CLIENT, NEIGHBOUR, GUEST = 1, {"a": 2, "b": 3}, 100


def address(network: int, machine: int) -> str:
    return f"10.88.{network}.{machine}"


def address6(network: int, machine: int) -> str:
    return f"fd00:88:{network + 1}::{machine}"


def mac(network: int) -> str:
    return f"52:54:00:88:{network:02x}:64"


def bridge(network: int) -> str:
    """On each host."""
    return f"br{network}"


class Space:
    """A network namespace."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "sh", "-c", "echo up; cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "up":
            raise BedError("no network namespace could be made")
        self.ip("link", "set", "lo", "up")

    def inside(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.process.pid), "--net", "--", *words]

    def ip(self, *words: str) -> str:
        return run(self.inside("ip", *words), f"ip {' '.join(words)}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Wiring:
    """`with Wiring(bed, setup):` on a bed that is up."""

    def __init__(self, bed: Bed, setup: SetUp) -> None:
        self.bed = bed
        self.setup = setup
        self._spaces: list[Space] = []
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Wiring:
        try:
            self._make()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def pinger(self, host: Host | None) -> Pinger:
        """The client's, or that of the neighbour on HOST, of all of the guest's addresses."""
        return self.pingers[host.name if host is not None else ""]

    def vsctl(self, host: Host, *words: str) -> str:
        return run(host.inside(["ovs-vsctl", "--timeout=20", *words]), f"ovs-vsctl on host {host.name}")

    def _make(self) -> None:
        self.switch, self.client = self._space(), self._space()
        self.neighbours = {host.name: self._space() for host in self.bed.hosts}
        if self.setup.openvswitch:
            for host in self.bed.hosts:
                self._start_openvswitch(host)
        for network in range(self.setup.nics):
            self.switch.ip("link", "add", f"sw{network}", "type", "bridge")
            self.switch.ip("link", "set", f"sw{network}", "up")
            self._plug(self.client, "client", network, CLIENT)
            for host in self.bed.hosts:
                self._make_bridge(host, network)
        self._wait_until_forwarding()
        self.pingers = {"": Pinger(self.client, self.setup.nics)}
        for name, space in self.neighbours.items():
            self.pingers[name] = Pinger(space, self.setup.nics)

    def _space(self) -> Space:
        self._spaces.append(Space())
        return self._spaces[-1]

    def _plug(self, space: Space, name: str, network: int, machine: int) -> None:
        """SPACE into the switch, as a machine with addresses."""
        port = f"{name}{network}"
        veth = ("link", "add", port, "type", "veth", "peer", "name", f"net{network}")
        self.switch.ip(*veth, "netns", str(space.process.pid))
        self.switch.ip("link", "set", port, "master", f"sw{network}", "up")
        self._give_addresses(space, network, machine)

    @staticmethod
    def _give_addresses(space: Space, network: int, machine: int) -> None:
        device = f"net{network}"
        space.ip("address", "add", f"{address(network, machine)}/24", "dev", device)
        space.ip("address", "add", f"{address6(network, machine)}/64", "dev", device, "nodad")
        space.ip("link", "set", device, "up")

    def _make_bridge(self, host: Host, network: int) -> None:
        """A bridge on HOST, which is plugged into the switch and has a neighbour of the guest's in it."""
        name, up, near = bridge(network), f"up{network}", f"near{network}"
        pid, neighbour = str(self._pid(host)), self.neighbours[host.name]
        far = f"{host.name}{network}"
        self.switch.ip("link", "add", far, "type", "veth", "peer", "name", up, "netns", pid)
        self.switch.ip("link", "set", far, "master", f"sw{network}", "up")
        neighbour.ip("link", "add", f"net{network}", "type", "veth", "peer", "name", near, "netns", pid)
        self._give_addresses(neighbour, network, NEIGHBOUR[host.name])
        for device in (up, near):
            self._ip(host, "link", "set", device, "up")
        if self.setup.openvswitch:
            self.vsctl(host, "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev")
            for device in (up, near):
                self.vsctl(host, "add-port", name, device)
            return
        delay_s = self.setup.forward_delay_s
        options = ("stp_state", "1", "forward_delay", str(delay_s * 100)) if delay_s else ()
        self._ip(host, "link", "add", name, "type", "bridge", *options)
        for device in (up, near):
            self._ip(host, "link", "set", device, "master", name)
        self._ip(host, "link", "set", name, "up")

    @staticmethod
    def _pid(host: Host) -> int:
        assert host.holder is not None
        return host.holder.pid

    @staticmethod
    def _ip(host: Host, *words: str) -> str:
        return run(host.command(["ip", *words]), f"ip {' '.join(words)} on host {host.name}")

    def _start_openvswitch(self, host: Host) -> None:
        (host.state / OVS_FOLDER.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        database, socket = f"{OVS_FOLDER}/conf.db", f"{OVS_FOLDER}/db.sock"
        run(host.inside(["ovsdb-tool", "create", database, SCHEMA]), "making Open vSwitch's database")
        self._spawn(host, "ovsdb-server", [database, f"--remote=punix:{socket}"])
        until(lambda: (host.state / socket.removeprefix("/")).exists(), "Open vSwitch's database")
        self.vsctl(host, "--no-wait", "init")
        self._spawn(host, "ovs-vswitchd", [f"unix:{socket}"])

    def _spawn(self, host: Host, program: str, words: list[str]) -> None:
        argv = host.inside([program, *words, f"--pidfile={OVS_FOLDER}/{program}.pid"])
        with (host.state / "log" / f"{program}.out").open("w") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True
            )
        self._children.append(child)

    def _wait_until_forwarding(self) -> None:
        def forwards() -> bool:
            return all(
                port["linkinfo"]["info_slave_data"]["state"] == "forwarding"
                for host in self.bed.hosts
                for port in json.loads(self._ip(host, "-json", "-details", "link", "show"))
                if port.get("linkinfo", {}).get("info_slave_kind") == "bridge"
            )

        until(forwards, "the hosts' bridges forward")

    def _end(self) -> None:
        for pinger in getattr(self, "pingers", {}).values():
            pinger.end()
        for child in reversed(self._children):
            child.kill()  # nsenter; what it started goes with its host
            child.wait()
        for space in self._spaces:
            space.end()


class Pinger:
    """pinger.py in a namespace."""

    def __init__(self, space: Space, nics: int) -> None:
        addresses = [each(network, GUEST) for network in range(nics) for each in (address, address6)]
        program = str(pathlib.Path(__file__).with_name("pinger.py"))
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *space.inside(sys.executable, "-I", "-S", program)]
        self._process = subprocess.Popen(
            [*argv, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def take(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """What it has seen since it was asked last."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BedError("a pinger has ended")
        found: dict[str, dict[str, list[tuple[int, float]]]] = json.loads(line)
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end_s:
            raise BedError(f"waited {patience_s:.0f} s in vain until {what}")
        time.sleep(0.1)
