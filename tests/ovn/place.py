# SPDX-License-Identifier: Apache-2.0
"""A host of OVN's: a network namespace, and in it Open vSwitch and ovn-controller, out of the layer."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from tests.bed.errors import BedError
from tests.bed.procs import run

PATIENCE_S = 20.0
INTEGRATION, PHYSICAL = "br-int", "br-phys"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
VSWITCHD = "/usr/lib/openvswitch-switch/ovs-vswitchd"  # in /usr/sbin only once installed
LAY_OVER = 'mount -t overlay pcmig -o "ro,lowerdir=$0/usr:/usr" /usr && echo up && exec cat'


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BedError(f"waited {patience_s:.0f} s in vain until {what}")
        time.sleep(0.01)


def _is_up(ready: pathlib.Path) -> bool:
    """Whether the file is there, or somebody listens at the socket."""
    if not ready.is_socket():
        return ready.exists()
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(ready)) == 0


class Place:
    """NAMESPACE: the path of one that is there, or None for a new one. RUN_FOLDER: for sockets, databases
    and logs. All that it starts ends with this process."""

    def __init__(
        self, name: str, run_folder: pathlib.Path, layer: pathlib.Path, namespace: str | None
    ) -> None:
        self.name = name
        self.run_folder = run_folder
        self.layer = layer
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._namespace = namespace
        self.pid = 0

    # Life

    def up(self) -> None:
        self.run_folder.mkdir(parents=True, exist_ok=True)
        enter = ["nsenter", f"--net={self._namespace}", "--"] if self._namespace else []
        space = ["unshare", "--mount", "--propagation", "private", *([] if self._namespace else ["--net"])]
        holder = self._spawn("holder", [*enter, *space, "--", "sh", "-c", LAY_OVER, str(self.layer)])
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "up":
            raise BedError(f"host {self.name} of OVN could not be made (unshare, mount)")
        # Not the child itself: nsenter and unshare have become sh, which has become cat.
        self.pid = holder.pid
        self.ip("link", "set", "lo", "up")

    def down(self) -> None:
        for name in reversed(list(self._children)):
            self.end(name)

    def end(self, name: str) -> None:
        """One of the daemons, without a good-bye."""
        child = self._children.pop(name)
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _spawn(self, name: str, argv: Sequence[str]) -> subprocess.Popen[str]:
        with (self.run_folder / f"{name}.out").open("w") as out:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name == "holder" else out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self._children[name] = child
        return child

    # Use

    @property
    def namespace(self) -> str:
        return f"/proc/{self.pid}/ns/net"

    def inside(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "--mount", "--net", "--", *words]

    def run(self, *words: str, timeout_s: float = 30.0) -> str:
        return run(self.inside(*words), f"host {self.name}: {' '.join(words[:2])}", timeout_s)

    def ip(self, *words: str) -> None:
        self.run("ip", *words)

    def start(self, program: str, *arguments: str, ready: pathlib.Path | None = None) -> None:
        """A daemon of Open vSwitch's kind, its files in the folder. READY: what it makes when it is up."""
        self.start_as(pathlib.Path(program).name, program, *arguments, ready=ready)

    def start_as(self, name: str, program: str, *arguments: str, ready: pathlib.Path | None = None) -> None:
        ready = ready or self.run_folder / f"{name}.pid"
        folders = [
            f"{each}={self.run_folder}" for each in ("OVS_RUNDIR", "OVN_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")
        ]
        own = [f"--pidfile={self.run_folder}/{name}.pid", "-vconsole:warn", "-vsyslog:off"]
        child = self._spawn(name, self.inside("env", *folders, program, *arguments, *own))
        until(lambda: _is_up(ready) or child.poll() is not None, f"{name} of host {self.name} is up")
        if child.poll() is not None:
            said = (self.run_folder / f"{name}.out").read_text().strip().splitlines()[-3:]
            raise BedError(f"{name} of host {self.name} ended:\n  " + "\n  ".join(said))

    @contextlib.contextmanager
    def stopped(self, program: str) -> Iterator[None]:
        """The daemon stands still for the length of the block."""
        self.pause(program)
        try:
            yield
        finally:
            self.go_on(program)

    def pause(self, program: str) -> None:
        self._children[program].send_signal(signal.SIGSTOP)

    def go_on(self, program: str) -> None:
        self._children[program].send_signal(signal.SIGCONT)

    # Open vSwitch

    @property
    def database(self) -> str:
        return f"unix:{self.run_folder}/db.sock"

    def vsctl(self, *words: str) -> str:
        return self.run("ovs-vsctl", f"--db={self.database}", "--timeout=10", *words)

    def start_switch(self) -> None:
        """Open vSwitch with the datapath in user space: Geneve included, no module of the kernel's."""
        data = f"{self.run_folder}/conf.db"
        self.run("ovsdb-tool", "create", data, SCHEMA)
        self.start(
            "/usr/sbin/ovsdb-server",
            data,
            f"--remote=punix:{self.run_folder}/db.sock",
            ready=self.run_folder / "db.sock",
        )
        self.vsctl("--no-wait", "init")
        self.start(VSWITCHD, self.database)

    def add_bridge(self, name: str, *settings: str) -> None:
        self.vsctl(
            "--may-exist", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", *settings
        )

    def plug(self, device: str, port: str) -> None:
        """DEVICE becomes OVN's PORT, as os-vif and libvirt do it."""
        ids = ["set", "interface", device, f"external_ids:iface-id={port}"]
        self.vsctl("--may-exist", "add-port", INTEGRATION, device, "--", *ids)

    def unplug(self, device: str) -> None:
        self.vsctl("--if-exists", "del-port", INTEGRATION, device)

    def add_station(self, device: str) -> str:
        """A pair of devices, the first of which is for a bridge; the name of the other."""
        far = f"{device}-in"
        self.ip("link", "add", device, "type", "veth", "peer", "name", far)
        for each in (device, far):
            self.run("sysctl", "-qw", f"net.ipv6.conf.{each}.disable_ipv6=1")  # it says nothing by itself
            self.ip("link", "set", each, "mtu", "1400", "up")
        return far
