# SPDX-License-Identifier: Apache-2.0
"""`pcmig ports` on a real kernel's bridge and on a real Open vSwitch, in a network namespace of their own.
The guest is libvirt's test driver's: what is asked about is its ports, and these are real."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
GUEST = """<node><domain type='test'><name>g1</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
<memory>65536</memory><os><type>hvm</type></os><devices>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='{bridge}'/>{virtualport}
<target dev='tap1'/></interface></devices></domain></node>"""
OPENVSWITCH = "<virtualport type='openvswitch'/>"
FORWARD_DELAY_S = 2  # the least that a kernel takes
PATIENCE_S = 60.0

# As QEMU does: holds the tap open until it is told to end.
HOLD = """
import fcntl, os, struct, sys
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap1", 0x1002))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
print("held", flush=True)
for line in sys.stdin:  # frames that the guest sends
    os.write(tap, bytes.fromhex(line))
"""


HEAR = """
import socket
far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
far.bind(("far", 3))
print("listening")
while True:
    frame, address = far.recvfrom(2048)
    if address[2] != socket.PACKET_OUTGOING and frame[6:12] == bytes.fromhex("525400000001"):
        print(frame[12:14].hex())
"""
# Something that the guest sent while it was at its old host, beyond the switch.
FROM_AFAR = """
import socket
far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
far.sendto(bytes.fromhex("ffffffffffff" + "525400000001" + "88b5") + bytes(46), ("far", 0))
"""
GUEST_SAYS = "ffffffffffff" + "525400000001" + "88b5" + "00" * 46
MAC = "52:54:00:00:00:01"
# As at the destination, when it is announced.
ARRIVED = """
from pcmig.ports import bridge
bridge.Kernel().has_moved_here("tap1", "52:54:00:00:00:01", None)
"""
# As Nova's privileged daemon: root without CAP_NET_RAW (13), which may open no such socket itself.
AS_THE_DAEMON = """
import ctypes, socket, struct
from pcmig.ports import beside, frames
libc = ctypes.CDLL(None, use_errno=True)
head, kept = struct.pack("=Ii", 0x20080522, 0), 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN
assert libc.capset(head, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) == 0, ctypes.get_errno()
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
except PermissionError:
    print("may not")
for _ in range(2):
    beside.send_as_root("tap1", "52:54:00:00:00:01", frames.announcements("52:54:00:00:00:01"))
print("sent")
"""
# As at the source, when the guest has gone.
FORGET = """
from pcmig.ports import forgetting, host, model
nic = model.Nic("52:54:00:00:00:01", "bridge", "tap1", None, openvswitch={openvswitch})
with host.Host({ovsdb!r}) as here:
    print(forgetting.forget([nic], here))
"""


class Place:
    """A network namespace, and what runs in it; all of it ends with this process."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.socket = folder / "db.sock"
        self._children: list[subprocess.Popen[str]] = []
        self._space = self._spawn(["unshare", "--net", "sh", "-c", "echo up; cat"])
        self._expect(self._space, "up")
        self.run("ip", "link", "set", "lo", "up")

    def _spawn(self, argv: list[str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._children.append(child)
        return child

    @staticmethod
    def _expect(child: subprocess.Popen[str], word: str) -> None:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == word, child.args

    def inside(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self._space.pid), "--net", "--", *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.inside(*words), capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def hold_tap(self) -> subprocess.Popen[str]:
        holder = self._spawn(self.inside(sys.executable, "-c", HOLD))
        self._expect(holder, "held")
        return holder

    def hear(self) -> subprocess.Popen[str]:
        """Says what comes out of the far end of the switch."""
        listener = self._spawn(self.inside(sys.executable, "-u", "-c", HEAR))
        self._expect(listener, "listening")
        return listener

    def make_far(self) -> None:
        """What is beyond the switch: a device `far`, whose other end, `uplink`, is to be plugged into it."""
        self.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
        for device in ("uplink", "far"):
            self.run("ip", "link", "set", device, "up")

    def python(self, text: str) -> str:
        return self.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-c", text)

    def announce(self, bridge: str, virtualport: str = "") -> subprocess.Popen[str]:
        """`pcmig ports --follow --announce` of a guest that runs."""
        return self._spawn(self.inside(*self.command(bridge, virtualport, "--follow", "--announce")))

    def start_switch(self) -> None:
        """ovsdb-server and ovs-vswitchd, as the machine has them, with the user space datapath."""
        database = str(self.folder / "conf.db")
        self.run("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
        for program, argv in (
            ("ovsdb-server", [database, f"--remote=punix:{self.socket}"]),
            ("ovs-vswitchd", [f"unix:{self.socket}"]),
        ):
            self._spawn(self.inside("env", f"OVS_RUNDIR={self.folder}", program, *argv, "--pidfile"))
            until(self.socket.exists, "the database's socket")
            if program == "ovsdb-server":
                self.vsctl("--no-wait", "init")
        self.vsctl("add-br", "ovs0", "--", "set", "bridge", "ovs0", "datapath_type=netdev")

    def vsctl(self, *words: str) -> str:
        return self.run("ovs-vsctl", f"--db=unix:{self.socket}", "--timeout=10", *words)

    def follow(self, bridge: str, virtualport: str = "") -> Iterator[dict[str, Any]]:
        """What `pcmig ports --follow` says of a guest whose only interface is tap1 in BRIDGE."""
        child = self._spawn(self.inside(*self.command(bridge, virtualport, "--follow", "--json")))
        assert child.stdout is not None
        for line in child.stdout:
            yield json.loads(line)

    def command(self, bridge: str, virtualport: str, *options: str) -> list[str]:
        guest = self.folder / "guest.xml"
        guest.write_text(GUEST.format(bridge=bridge, virtualport=virtualport))
        pcmig = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "pcmig.cli.main", "ports", "g1"]
        return [*pcmig, "-c", f"test://{guest}", "--ovsdb", f"unix:{self.socket}", *options]

    def end(self) -> None:
        for child in reversed(self._children):
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def until(condition: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


def expect(answers: Iterator[dict[str, Any]], readiness: str, why: str) -> dict[str, Any]:
    """The next answer that says so."""
    end_s, said = time.monotonic() + PATIENCE_S, []
    for answer in answers:
        (port,) = answer["ports"]
        verdict: dict[str, Any] = port["verdict"]
        if verdict["readiness"] == readiness and why in verdict["why"]:
            assert answer["ready"] == (readiness in ("ready", "unseen"))
            return verdict
        said.append(verdict["why"])
        assert time.monotonic() < end_s, f"no {readiness!r} with {why!r}, but {said}"
    raise AssertionError(f"it ended; it said {said}")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


def test_a_bridge_with_spanning_tree(place: Place) -> None:
    """Each state of the port, as it comes; the time that is told is the time that it takes."""
    delay = str(FORWARD_DELAY_S * 100)
    place.run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "1", "forward_delay", delay)
    place.run("ip", "link", "set", "br0", "up")
    answers = place.follow("br0")
    expect(answers, "waiting", "tap1 is not there yet")
    place.run("ip", "tuntap", "add", "tap1", "mode", "tap")
    expect(answers, "stuck", "tap1 is down")
    place.run("ip", "link", "set", "tap1", "up")
    assert expect(answers, "stuck", "tap1 is not in br0")["fix"] == "ip link set tap1 master br0"
    place.run("ip", "link", "set", "tap1", "master", "br0")
    expect(answers, "waiting", "nobody holds tap1 open")
    place.hold_tap()
    told = expect(answers, "waiting", "br0 listens")
    heard_s = time.monotonic()
    assert FORWARD_DELAY_S * 1000 < told["ready_in_ms"] <= 2 * FORWARD_DELAY_S * 1000
    expect(answers, "waiting", "br0 learns")
    assert "this host alone" in expect(answers, "ready", "forwards")["notes"][0]
    took_ms = (time.monotonic() - heard_s) * 1000
    assert told["ready_in_ms"] - 300 < took_ms
    place.run("ip", "link", "set", "tap1", "down")
    expect(answers, "stuck", "tap1 is down")


def test_open_vswitch(place: Place) -> None:
    """The user space datapath, of which the kernel knows nothing."""
    answers = place.follow("ovs0", OPENVSWITCH)
    place.run("ip", "tuntap", "add", "tap1", "mode", "tap")
    place.run("ip", "link", "set", "tap1", "up")
    assert "does not run here" in expect(answers, "unseen", "Open vSwitch")["why"]
    place.start_switch()
    expect(answers, "waiting", "Open vSwitch has no port tap1 yet")
    place.vsctl("add-port", "ovs0", "tap1", "tag=4095")
    expect(answers, "waiting", "no carrier")
    place.hold_tap()
    expect(answers, "waiting", "VLAN 4095")
    place.vsctl("set", "port", "tap1", "tag=7")
    expect(answers, "ready", "forwards in VLAN 7")
    place.vsctl("set", "bridge", "ovs0", "stp_enable=true")
    expect(answers, "waiting", "STP of ovs0: the port is listening")
    place.vsctl("set", "bridge", "ovs0", "stp_enable=false")
    expect(answers, "ready", "forwards in VLAN 7")
    # As os-vif and neutron's agent, and as OVN: what they write is in the database.
    place.vsctl("remove", "port", "tap1", "tag", "7")
    ids = ("set", "interface", "tap1", "external_ids:iface-id=7a1b", "external_ids:vm-uuid=c7a5")
    place.vsctl(*ids)
    expect(answers, "waiting", "neutron's agent has not wired the port")
    place.vsctl("set", "open", ".", "external_ids:ovn-remote=unix:/nowhere", "external_ids:ovn-bridge=ovs0")
    expect(answers, "waiting", "ovn-controller has not installed")
    place.vsctl("set", "interface", "tap1", "external_ids:ovn-installed=true")
    expect(answers, "ready", "forwards")


def until_announced(place: Place, bridge: str, virtualport: str = "") -> None:
    """A guest that was beyond the switch is announced here; after a second it speaks, and that is the end."""
    guest, listener = place.hold_tap(), place.hear()
    expect(place.follow(bridge, virtualport), "ready", "forwards")
    announcer = place.announce(bridge, virtualport)
    assert listener.stdout is not None and guest.stdin is not None
    heard = [listener.stdout.readline().strip() for _ in range(5)]
    assert heard == ["8035"] * 5  # the fifth after 1.7 s: nobody was heard yet
    guest.stdin.write(f"{GUEST_SAYS}\n")
    guest.stdin.flush()
    said, _ = announcer.communicate(timeout=PATIENCE_S)
    assert announcer.returncode == 0, said
    assert re.search(r"^tap1: announced \d times from \d+ ms on, heard after \d{4} ms$", said, re.M), said


def make_bridge(place: Place) -> None:
    """With the guest's port and an uplink."""
    place.run("ip", "link", "add", "br0", "type", "bridge")
    place.run("ip", "tuntap", "add", "tap1", "mode", "tap")
    place.make_far()
    for device in ("br0", "tap1", "uplink"):
        place.run("ip", "link", "set", device, "up")
    for device in ("tap1", "uplink"):
        place.run("ip", "link", "set", device, "master", "br0")


def test_announced_by_root_that_may_open_no_packet_socket(place: Place) -> None:
    make_bridge(place)
    place.hold_tap()
    listener = place.hear()
    place.python(FROM_AFAR)
    assert place.python(AS_THE_DAEMON).split("\n")[:2] == ["may not", "sent"]
    assert listener.stdout is not None
    assert [listener.stdout.readline().strip() for _ in range(2)] == ["8035"] * 2
    entries = place.run("bridge", "fdb", "show", "br", "br0").splitlines()
    assert [row.split()[2] for row in entries if row.startswith(MAC)] == ["tap1"]


def test_announced_on_a_bridge(place: Place) -> None:
    make_bridge(place)

    def entries() -> list[str]:
        rows = place.run("bridge", "fdb", "show", "br", "br0").splitlines()
        return [row for row in rows if row.startswith(MAC)]

    def learned() -> list[str]:
        return [row.split()[2] for row in entries()]

    place.python(FROM_AFAR)
    assert learned() == ["uplink"]
    until_announced(place, "br0")
    assert learned() == ["tap1"]
    forgotten = place.python(FORGET.format(openvswitch=False, ovsdb="unix:/nowhere"))
    assert "known=True, problem=None" in forgotten and learned() == []
    # What somebody has put there is not ours.
    place.run("bridge", "fdb", "add", MAC, "dev", "tap1", "master", "static")
    assert "known=False" in place.python(FORGET.format(openvswitch=False, ovsdb="unix:/nowhere"))
    place.python(ARRIVED)
    assert learned() == ["tap1"] and "static" in entries()[0].split()
    place.run("bridge", "fdb", "del", MAC, "dev", "tap1", "master")
    place.python(ARRIVED)
    assert learned() == ["tap1"] and "static" not in entries()[0].split()


def test_announced_on_open_vswitch(place: Place) -> None:
    place.start_switch()
    place.run("ip", "tuntap", "add", "tap1", "mode", "tap")
    place.make_far()
    place.run("ip", "link", "set", "tap1", "up")
    for device in ("tap1", "uplink"):
        place.vsctl("add-port", "ovs0", device, "tag=7")

    def learned() -> list[str]:
        """Numbers of ports, in the VLAN."""
        rundir = f"OVS_RUNDIR={place.folder}"
        rows = [
            row.split() for row in place.run("env", rundir, "ovs-appctl", "fdb/show", "ovs0").splitlines()
        ]
        return [row[0] for row in rows if row[1:3] == ["7", MAC]]

    def number(device: str) -> str:
        return place.vsctl("get", "interface", device, "ofport").strip()

    place.python(FROM_AFAR)
    until(lambda: learned() == [number("uplink")], "the guest is learned beyond the switch")
    until_announced(place, "ovs0", OPENVSWITCH)
    assert learned() == [number("tap1")]
    forgotten = place.python(FORGET.format(openvswitch=True, ovsdb=f"unix:{place.socket}"))
    assert "known=True, problem=None" in forgotten and learned() == []


def test_once(place: Place) -> None:
    """The exit code, and what it says to people."""

    def once() -> subprocess.CompletedProcess[str]:
        words = place.inside(*place.command("br0", ""))
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)

    place.run("ip", "link", "add", "br0", "type", "bridge")
    done = once()
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout == "waiting  52:54:00:00:00:01  tap1  br0  bridge  tap1 is not there yet\n"
    place.run("ip", "link", "set", "br0", "up")
    place.run("ip", "link", "add", "tap1", "type", "veth", "peer", "name", "far")
    for device in ("tap1", "far"):
        place.run("ip", "link", "set", device, "up")
        place.run("ip", "link", "set", device, "master", "br0")
    done = once()
    assert done.returncode == 0, done
    assert done.stdout == "ready  52:54:00:00:00:01  tap1  br0  Linux bridge  forwards\n"
