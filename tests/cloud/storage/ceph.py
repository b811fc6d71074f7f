# SPDX-License-Identifier: Apache-2.0
"""A Ceph of one monitor, one manager and one OSD, in user space, on a node beside the control node."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any

from tests.bed import layer
from tests.bed.errors import BedError
from tests.bed.host import Host
from tests.bed.procs import run
from tests.cloud.config import ETC, Value, render, write
from tests.cloud.control import ControlNode
from tests.cloud.network import CONTROL
from tests.cloud.service import RUN, Service, outside

CONF = f"{ETC}/ceph/ceph.conf"
KEYRING = f"{ETC}/ceph/keyring"
DATA = f"{RUN}/ceph"
BIN = f"{RUN}/ceph-bin"
MODULES = f"{RUN}/ceph-python"
USER = "cinder"  # of Cinder and Nova, with the rights that Ceph's own page for OpenStack gives them
VOLUMES, SERVERS = "volumes", "vms"
MON_PORT, MON_PORT_V1 = 3300, 6789
BLOCK_BYTES = 16 << 30  # of the OSD's sparse file
START_PATIENCE_S = 120.0


class StorageNode(ControlNode):
    """The control node's files and network under another /usr: that of Ceph's layer."""

    UNSHARE = Host.UNSHARE

    def __init__(self, control: ControlNode) -> None:
        super().__init__(control.state)
        self.name = "storage"
        self.control = control

    def command(self, argv: Sequence[str]) -> list[str]:
        return self.control.command(argv)


def new_key() -> str:
    """A cephx key: type (1, AES), seconds and nanoseconds of its making, length, key."""
    now_ns = time.time_ns()
    head = struct.pack("<hIIh", 1, now_ns // 10**9, now_ns % 10**9, 16)
    return base64.b64encode(head + os.urandom(16)).decode()


class Ceph:
    """The cluster: its configuration before it is there, then its daemons, pools and images."""

    def __init__(self, node: StorageNode, folder: pathlib.Path) -> None:
        self.node = node
        self.layer = folder
        self.fsid = str(uuid.uuid4())
        self.key = new_key()  # of USER
        self.services: dict[str, Service] = {}

    # Configuration

    def write_server_files(self) -> None:
        """The cluster's own files, with all keys."""
        users = {
            "mon.": (new_key(), {"mon": "allow *"}),
            "client.admin": (new_key(), dict.fromkeys(("mon", "osd", "mgr"), "allow *")),
            "osd.0": (new_key(), {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"}),
            "mgr.x": (new_key(), {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}),
            f"client.{USER}": (self.key, self._user_rights()),
        }
        write(
            outside(self.node) / "etc/ceph", {"ceph.conf": render(self._conf()), "keyring": _keyring(users)}
        )
        self._copy_modules(self.node)

    def write_client_files(self, host: Host) -> None:
        """What a compute host has: where the cluster is, one user's key, and the commands that Nova calls."""
        conf = {"global": {**self._client_conf(), "keyring": KEYRING}}
        keyring = _keyring({f"client.{USER}": (self.key, {})})
        files = {"etc/ceph/ceph.conf": render(conf), "etc/ceph/keyring": keyring, **self._commands()}
        write(outside(host), files)
        for name in self._commands():
            (outside(host) / name).chmod(0o755)
        self._copy_modules(host)

    def _copy_modules(self, host: Host) -> None:
        """Those of Ceph alone: beside them are others, which would hide those of an environment."""
        target = outside(host) / pathlib.Path(MODULES).name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("rados", "rbd"):
            for module in (self.layer / "usr/lib/python3/dist-packages").glob(f"{name}.*.so"):
                shutil.copy(module, target)

    def _user_rights(self) -> dict[str, str]:
        pools = ", ".join(f"profile rbd pool={pool}" for pool in (VOLUMES, SERVERS))
        return {"mon": "profile rbd", "osd": pools, "mgr": pools}

    def _commands(self) -> dict[str, str]:
        """`ceph` and `rbd` with the layer's own libraries, for any user: the host's are of another Ceph."""
        usr = self.layer / "usr"
        libraries = usr / "lib/x86_64-linux-gnu"
        # Not by its name in lib64, which is a link to that of the host.
        loader = f"{libraries}/ld-linux-x86-64.so.2 --library-path {libraries}:{libraries}/ceph"
        folder = pathlib.Path(BIN).name
        return {
            f"{folder}/rbd": f'#!/bin/sh\nexec {loader} {usr}/bin/rbd "$@"\n',
            f"{folder}/ceph": "#!/bin/sh\n"
            f'PYTHONHOME={usr} PYTHONPATH= exec {loader} {usr}/bin/python3.11 {usr}/bin/ceph "$@"\n',
        }

    def _client_conf(self) -> dict[str, Value]:
        return {
            "fsid": self.fsid,
            "mon host": f"[v2:{CONTROL}:{MON_PORT},v1:{CONTROL}:{MON_PORT_V1}]",
            **dict.fromkeys(
                ("auth cluster required", "auth service required", "auth client required"), "cephx"
            ),
        }

    def _conf(self) -> dict[str, dict[str, Value]]:
        return {
            "global": {
                **self._client_conf(),
                "keyring": KEYRING,
                "mon initial members": "a",
                "public network": f"{CONTROL}/24",
                "auth allow insecure global id reclaim": False,
                "run dir": f"{DATA}/run",
                "admin socket": f"{DATA}/run/$cluster-$name.asok",
                "pid file": f"{DATA}/run/$name.pid",
                "log file": f"{RUN}/log/ceph-$name.log",
                "log to stderr": False,
                # One copy, and a small machine.
                "osd pool default size": 1,
                "osd pool default min size": 1,
                "osd pool default pg num": 8,
                "osd pool default pgp num": 8,
                "osd pool default pg autoscale mode": "off",
                "mon allow pool size one": True,
                "mon warn on pool no redundancy": False,
                "osd crush chooseleaf type": 0,
                "mon data avail crit": 1,
                "mon data avail warn": 2,
                # Every answer of the monitor waits for these.
                "paxos propose interval": "0.05",
                "paxos min wait": "0.01",
                "osd heartbeat interval": 1,
                "mon tick interval": 1,
                "mgr stats period": 1,
                "mgr tick period": 1,
                # Nova asks for the pools' statistics, which a manager without any of its modules has as well.
                "mgr disabled modules": _DISABLED,
                "mgr initial modules": "",
            },
            "mon.a": {"mon data": f"{DATA}/mon", "host": "storage"},
            "mgr.x": {"mgr data": f"{DATA}/mgr", "host": "storage"},
            "osd.0": {
                "osd data": f"{DATA}/osd",
                "host": "storage",
                "osd objectstore": "bluestore",
                "osd class update on start": False,
                "bluestore block size": BLOCK_BYTES,
                "bluestore cache autotune": False,
                "bluestore cache size": 32 << 20,
                "osd op num shards": 1,
                "osd op num threads per shard": 1,
                "bdev enable discard": False,
            },
        }

    # Life

    def start(self) -> None:
        """From empty folders to two pools; the node is up, and its files are written."""
        for name in ("mon", "mgr", "osd", "run"):
            (outside(self.node) / "ceph" / name).mkdir(parents=True, exist_ok=True)
        addresses = f"[v2:{CONTROL}:{MON_PORT},v1:{CONTROL}:{MON_PORT_V1}]"
        monmap = f"{DATA}/monmap"
        self._run(["monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", addresses, monmap])
        self._run(["ceph-mon", *self._daemon("a"), "--mkfs", "--monmap", monmap, "--keyring", KEYRING])
        self._start("ceph-mon", "a")
        self.ceph("auth", "import", "-i", KEYRING)
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd, "0")
        self._run(["ceph-osd", *self._daemon("0"), "--mkfs", "--osd-uuid", osd, "--keyring", KEYRING])
        self._start("ceph-osd", "0").wait_ready(
            lambda: self.ceph_json("osd", "stat").get("num_up_osds") == 1, START_PATIENCE_S
        )
        for pool in (VOLUMES, SERVERS):
            self.ceph("osd", "pool", "create", pool, "8", "8", "replicated")
            self._run(["rbd", "--conf", CONF, "pool", "init", pool])
        self._start("ceph-mgr", "x")

    def wait_statistics(self) -> None:
        """Until the manager has told the monitor of the pools, without which Nova finds them full."""
        self.services["ceph-mgr"].wait_ready(self._pools_are_told, START_PATIENCE_S)

    def _pools_are_told(self) -> bool:
        told = {pool["name"] for pool in self.ceph_json("df")["pools"]}
        return {VOLUMES, SERVERS} <= told

    def memory_mib(self) -> dict[str, int]:
        """Resident memory of each daemon."""
        found: dict[str, int] = {}
        for name, service in self.services.items():
            for pid in service.pids()[:1]:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                found[name] = int(status.partition("VmRSS:")[2].split()[0]) >> 10
        return found

    # Use

    def ceph(self, *words: str) -> str:
        return self._run(["ceph", "--conf", CONF, "--connect-timeout", "60", *words])

    def ceph_json(self, *words: str) -> Any:
        return json.loads(self.ceph(*words, "--format", "json"))

    def rbd_json(self, *words: str) -> Any:
        return json.loads(self._run(["rbd", "--conf", CONF, "--format", "json", *words]))

    def images(self, pool: str) -> list[str]:
        return list(self.rbd_json("ls", pool))

    def watchers(self, image: str) -> list[str]:
        """Addresses of those who have an image (POOL/NAME) open."""
        status = self.rbd_json("status", image)
        return sorted(_ip(watcher["address"]) for watcher in status["watchers"])

    def lock_holders(self, image: str) -> list[str]:
        """Addresses of those who hold an image's lock."""
        return sorted(_ip(lock["address"]) for lock in self.rbd_json("lock", "ls", image))

    # Parts

    @staticmethod
    def _daemon(name: str) -> list[str]:
        return ["--conf", CONF, "--id", name]

    def _start(self, program: str, name: str) -> Service:
        argv = [program, *self._daemon(name), "--foreground"]
        service = Service(program, self.node, argv, {"PATH": "/usr/sbin:/usr/bin", "HOME": f"{RUN}/home"})
        self.services[program] = service
        return service.start()

    def _run(self, argv: list[str]) -> str:
        try:
            return run(self.node.inside(argv), " ".join(argv[:6]), START_PATIENCE_S)
        except BedError as error:
            said = [f"{name}: {service.last_words()}" for name, service in self.services.items()]
            raise BedError("\n  ".join([str(error), *said])) from error


_DISABLED = (
    "balancer,crash,devicehealth,orchestrator,pg_autoscaler,progress,rbd_support,status,telemetry,volumes,"
    "iostat,restful,nfs,dashboard"
)


def _keyring(users: dict[str, tuple[str, dict[str, str]]]) -> str:
    lines: list[str] = []
    for name, (key, rights) in users.items():
        lines += [f"[{name}]", f"\tkey = {key}"]
        lines += [f'\tcaps {daemon} = "{right}"' for daemon, right in rights.items()]
    return "\n".join(lines) + "\n"


def _ip(address: str) -> str:
    """Of "10.78.0.11:0/123"."""
    return address.partition(":")[0]


def ensure_layer(reporter: layer.Reporter) -> pathlib.Path:
    return layer.ensure(layer.CEPH.name, reporter)


def define_secret(host: Host, ceph: Ceph) -> None:
    """libvirt of a host knows the key, so that QEMU can open what Nova and Cinder name."""
    xml = (
        f"<secret ephemeral='no' private='no'><uuid>{ceph.fsid}</uuid>"
        f"<usage type='ceph'><name>client.{USER} secret</name></usage></secret>\n"
    )
    write(outside(host), {"secret.xml": xml})
    host.virsh("secret-define", f"{RUN}/secret.xml")
    host.virsh("secret-set-value", ceph.fsid, ceph.key)
