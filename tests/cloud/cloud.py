# SPDX-License-Identifier: Apache-2.0
"""A real OpenStack with two compute hosts on one machine; see doc/develop/cloud.rst."""

from __future__ import annotations

import calendar
import contextlib
import functools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.bed import layer
from tests.bed.bed import Bed, KeptBed
from tests.bed.errors import BedError
from tests.bed.guest import GuestSpec
from tests.bed.host import Host
from tests.bed.layer import Reporter
from tests.bed.procs import ProcessId
from tests.cloud import image, install, network
from tests.cloud.api import PASSWORD, Api, wait_until
from tests.cloud.compute import Compute
from tests.cloud.config import Sections
from tests.cloud.control import ControlNode
from tests.cloud.controlplane import Away, ControlPlane, in_parallel
from tests.cloud.ovn import Ovn
from tests.cloud.server import Port, Server, command_line
from tests.cloud.service import RUN, Service, outside, tail

if TYPE_CHECKING:
    from tests.cloud.dashboard import Dashboard
    from tests.cloud.storage.storage import Storage

STORAGES = ("ceph",)
STOCK_DRIVER = "libvirt.LibvirtDriver"
PCMIG_DRIVER = "pcmig.PostCopyLibvirtDriver"
START_PATIENCE_S = 180.0
BOOT_PATIENCE_S = 120.0
MIGRATION_ENDED = ("completed", "error", "failed", "cancelled")
COLLECTOR = pathlib.Path(__file__).with_name("collector.py")
QEMU_USER = "libvirt-qemu"  # as in Debian's packages; nova-compute runs as "nova" (compute.py)


class Cloud(Bed):
    """`with Cloud() as cloud:` has OpenStack up, and takes everything down at its end.

    stack, rate_mbit, qemu_conf, keep, reporter: as for Bed; the limit is that of the migration link alone
    driver:    compute_driver of both hosts; for one of pcmig's, this checkout's wheel is installed there
    nova_conf: more of both hosts' nova.conf, which wins: {"libvirt": {"option": value}}, or lines as they are
    eventlet:  Nova's services run with eventlet instead of native threads
    storage:   "ceph": servers' disks are in a Ceph of its own, and Cinder makes volumes there
    ovn:       neutron has its OVN driver, in place of its Open vSwitch agents
    hybrid:    neutron's Open vSwitch agents want a Linux bridge before each port ("hybrid plugging")
    api_filter: nova-api has pcmig's filter; not said: where the driver is one of pcmig's
    Where pcmig has the driver or the filter, the wheel is in the clients' environment as well.
    """

    def __init__(
        self,
        stack: str = "forky",
        rate_mbit: float | None = 100,
        *,
        driver: str = STOCK_DRIVER,
        nova_conf: Sections | str = "",
        eventlet: bool = False,
        api_filter: bool | None = None,
        storage: str = "",
        ovn: bool = False,
        hybrid: bool = False,
        qemu_conf: str = "",
        keep: bool = False,
        reporter: Reporter = lambda _: None,
    ) -> None:
        super().__init__(
            stack, rate_mbit, qemu_user=QEMU_USER, qemu_conf=qemu_conf, keep=keep, reporter=reporter
        )
        self.driver = driver
        self.nova_conf = nova_conf
        self.eventlet = eventlet
        self.api_filter = driver.startswith("pcmig.") if api_filter is None else api_filter
        self.control = ControlNode(self.state / "control")
        if storage not in ("", *STORAGES):
            raise BedError(f"unknown storage {storage!r}: use {' or '.join(STORAGES)}")
        self._wants_storage = bool(storage)
        self.storage: Storage | None = None
        self._wants_ovn = ovn
        self._hybrid = hybrid
        self.ovn: Ovn | None = None
        self.computes: dict[str, Compute] = {}
        self.servers: list[Server] = []
        self.api: Api
        self._plane: ControlPlane | None = None
        self._venv: pathlib.Path | None = None
        self._network = ""
        self._images: dict[str, str] = {}
        self._flavors: dict[str, str] = {}
        self._ports = 0
        self._dashboard: Dashboard | None = None

    # Life

    def up(self) -> None:
        folder = install.ensure_venv(self.reporter)
        of_pcmig = self.driver.startswith("pcmig.")
        host_wheels = install.ensure_wheels(
            install.ON_COMPUTE_HOSTS if of_pcmig else (), folder, self.reporter
        )
        wheels = install.ensure_wheels(
            install.ON_CONTROL_NODE if of_pcmig or self.api_filter else (), folder, self.reporter
        )
        self._guest_folder = image.ensure_images(self.reporter)
        self._venv = folder / "venv"
        if self._wants_storage:
            from tests.cloud.storage.storage import Storage  # clouds without it need none of its packages

            self.storage = Storage(self.control, self.stack, self.reporter)
            self.stack += layer.RBD_SUFFIX
        storage = self.storage
        if self._wants_ovn:
            self.ovn = Ovn(self.reporter)
        nova_env = {"OS_NOVA_DISABLE_EVENTLET_PATCHING": "false"} if self.eventlet else {}
        started_s = time.monotonic()

        def say(text: str) -> None:
            self.reporter(f"[{time.monotonic() - started_s:3.0f} s] {text}")

        super().up()
        self.control.up(self.state / "control/empty", self._guest_folder, stay=self.keep)
        assert self.control.holder is not None
        if storage is not None:
            storage.up(self._guest_folder, stay=self.keep)
        self._save()
        network.connect(self.control.holder.pid, self.network.namespaces)
        say("two hosts and the control node are there")
        self._plane = ControlPlane(
            self.control,
            folder,
            nova_env,
            say,
            wheels=wheels,
            api_filter=self.api_filter,
            cinder=storage.cinder if storage else None,
            ovn=self.ovn,
        )
        more = storage.nova_sections if storage else None
        self.computes = {
            host.name: Compute(host, folder, dict(nova_env), more, self.ovn, self._hybrid)
            for host in self.hosts
        }
        for compute in self.computes.values():
            compute.configure(self.driver, self.nova_conf)
        found: list[Api] = []
        plane = self._plane
        in_parallel(
            [
                lambda: found.append(plane.start()),
                *(lambda c=c: self._prepare(c, host_wheels) for c in self.computes.values()),
                *([storage.start_ceph] if storage else []),
            ]
        )
        self.api = found[0]
        if storage is not None:
            storage.start_cinder(plane)
        self._start_heartbeat_collector()
        # The agents come before nova-compute: a port is only bound on a host whose agent has reported.
        for compute in self.computes.values():
            compute.start_agent()
            compute.start_nova()
        for name in ("placement", "image", "network", "compute"):
            plane.wait_api(name)
        say("all APIs answer")
        in_parallel([self._upload_kernel, self._make_network])
        if storage is not None:
            storage.wait(plane, self.api)
        for compute in self.computes.values():
            self._wait_compute(compute)
        wait_until(self._cell_knows_computes, START_PATIENCE_S, "the scheduler has both computes in its cell")
        self._save()
        say("both computes are up")

    def down(self) -> None:
        if self.storage is not None:
            self.storage.down()
        self.control.down()
        super().down()

    def _prepare(self, compute: Compute, wheels: Sequence[pathlib.Path]) -> None:
        compute.prepare(wheels)
        if self.storage is not None:
            self.storage.prepare_host(compute)
        compute.start_network()

    def restart_compute(
        self, host: str, driver: str | None = None, nova_conf: Sections | str | None = None, wait: bool = True
    ) -> Service:
        """End nova-compute of a host and start it, with another driver or configuration if told.

        With wait, BedError with the end of its log when it does not come up. Without, the service, started:
        for configurations that are refused.
        """
        compute = self.computes[host]
        compute.nova.stop()
        if driver is not None or nova_conf is not None:
            extra = self.nova_conf if nova_conf is None else nova_conf
            compute.configure(driver or self.driver, extra)
        service = compute.start_nova()
        if wait:
            self._wait_compute(compute)
        return service

    def configure(self, nova_conf: Sections) -> None:
        """Both nova-computes from now on have these options besides the bed's own, and restart for them."""
        if nova_conf == self.nova_conf:
            return
        self.use(self.driver, nova_conf)

    def use(self, driver: str, nova_conf: Sections) -> None:
        """Both nova-computes from now on have this driver and these options, and restart for them."""
        self.driver, self.nova_conf = driver, nova_conf
        in_parallel(
            [
                functools.partial(self.restart_compute, name, driver=driver, nova_conf=nova_conf)
                for name in self.computes
            ]
        )

    def restart_api(self, *, api_filter: bool = True, policy: str = "") -> None:
        """End nova-api and start it, with pcmig's filter or without; policy: lines of its policy.yaml."""
        assert self._plane is not None
        self._plane.restart_nova_api(api_filter, policy)

    def api_away(self, name: str, how: Away = "refused") -> contextlib.AbstractContextManager[None]:
        """`with cloud.api_away("network"):` has one that answers nobody, or answers "503", or "hangs"; it is
        back afterwards."""
        assert self._plane is not None
        return self._plane.api_away(name, how)

    def start_dashboard(self) -> Dashboard:
        """Horizon with pcmig's plugin, on the control node; about 20 s, and once is enough."""
        if self._dashboard is None:
            from tests.cloud.dashboard import Dashboard  # its browser's packages are those of tests alone

            self._dashboard = Dashboard(self.control, self.reporter).start()
        return self._dashboard

    # Use

    def cli(self, *words: str, timeout_s: float = 300.0, check: bool = True) -> str:
        """Output of a client's command as a user types it: cli("nova", "live-migration", server.id)."""
        done = subprocess.run(
            self.control.inside(words),
            # Each client has a newest version of its own: `nova` takes it by itself, `openstack` the oldest.
            env={
                **self.client_env(),
                **({"OS_COMPUTE_API_VERSION": "2.100"} if words[0] == "openstack" else {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise BedError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done.stdout + ("" if check else done.stderr)

    def client_env(self) -> dict[str, str]:
        """Environment of clients; they run on the control node: control.inside(...)."""
        assert self._venv is not None
        return client_environment(self._venv)

    def boot(
        self,
        spec: GuestSpec | None = None,
        *,
        host: str = "a",
        vcpus: int = 1,
        flavor_specs: Mapping[str, str] | None = None,
        image_properties: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        disk_gib: int = 0,
        volumes: Sequence[str] = (),
        root_volume: bool = False,
        ports: int = 1,
        wait: bool = True,
    ) -> Server:
        """Boot a server on a host with what is to run in it, and wait for its heartbeats (10-20 s).

        spec: memory and work of the guest, as for the two-host bed; its name is the server's
        disk_gib: size of its first disk; 0: that of the image, 1 MiB
        volumes: Cinder's ids of its further disks
        root_volume: its first disk is a volume too, made from the image
        ports: of neutron; the guest uses the first
        wait: false when it is only to be asked for
        """
        spec = spec or GuestSpec()
        spec.check()
        port, *more_ports = [self._make_port() for _ in range(ports)]
        image_id = self._image(spec, image_properties or {})
        body: dict[str, Any] = {
            "name": spec.name,
            "imageRef": "" if root_volume else image_id,
            "flavorRef": self._flavor(spec.memory_mib, vcpus, flavor_specs or {}, disk_gib),
            "networks": [{"port": each.id} for each in (port, *more_ports)],
            "host": self.computes[host].name,
            "metadata": dict(metadata or {}),
        }
        if volumes or root_volume:
            body["block_device_mapping_v2"] = block_devices(image_id, volumes, root_volume, disk_gib)
        started_s = time.monotonic()
        id_ = self.api.post("compute", "/servers", {"server": body})["server"]["id"]
        log = outside(self.control) / "heartbeats" / f"{port.address}.log"
        server = Server(self.api, id_, spec, port, log, more_ports)
        self.servers.append(server)
        self._save()
        if wait:
            # Cinder makes a volume of its own in that time, too.
            server.wait_status("ACTIVE", BOOT_PATIENCE_S * (2 if root_volume else 1))
            try:
                server.wait_heartbeats(5, since_s=started_s, patience_s=90)
            except BedError as error:
                console = self.computes[host].instances / id_ / "console.log"
                switch = self.computes[host].switch_report()
                raise BedError(
                    f"{error}\n  its console:\n  {tail(console)}\n  the host's switch:\n{switch}"
                ) from error
        return server

    def delete(self, server: Server, patience_s: float = 60.0) -> None:
        """Delete a server and its port, and wait until they are gone."""
        self.api.request("DELETE", "compute", f"/servers/{server.id}")
        path = f"/servers?all_tenants=1&uuid={server.id}"
        wait_until(
            lambda: not self.api.get("compute", path)["servers"], patience_s, f"server {server.name} is gone"
        )
        for port in server.ports:
            self.api.request("DELETE", "network", f"/v2.0/ports/{port.id}")
        self.servers.remove(server)

    def live_migrate(
        self, server: Server, host: str | None = None, block_migration: bool | str = "auto"
    ) -> None:
        """Ask for a live migration by the API alone, which takes 0.1 s where the clients take seconds."""
        name = self.computes[host].name if host else None
        action = {"os-migrateLive": {"host": name, "block_migration": block_migration}}
        self.api.post("compute", f"/servers/{server.id}/action", action)

    def force_complete(self, server: Server) -> None:
        """Ask for the switch of a server's newest live migration to post-copy. Raises ApiError when Nova
        refuses."""
        path = f"/servers/{server.id}/migrations/{self.migrations(server)[0]['id']}/action"
        self.api.post("compute", path, {"force_complete": None})

    def migrations(self, server: Server) -> list[dict[str, Any]]:
        """Nova's migration records of a server, the newest first."""
        records = self.api.get("compute", f"/os-migrations?instance_uuid={server.id}")["migrations"]
        return sorted(records, key=lambda record: -int(record["id"]))

    def wait_migration(self, server: Server, count: int = 1, patience_s: float = 180.0) -> dict[str, Any]:
        """Wait until a server has so many migration records and the newest has ended; returns that one."""
        deadline_s = time.monotonic() + patience_s
        while True:
            records = self.migrations(server)
            if len(records) >= count and records[0]["status"] in MIGRATION_ENDED:
                return records[0]
            if time.monotonic() > deadline_s:
                status = records[0]["status"] if records else "not there"
                raise BedError(f"migration of {server.name} is {status} after {patience_s:.0f} s")
            time.sleep(0.2)

    def server_migration(self, server: Server) -> dict[str, Any] | None:
        """The migration under way, with its progress; None without one, and in stock Nova's post-copy."""
        records = self.api.get("compute", f"/servers/{server.id}/migrations")["migrations"]
        return dict(records[0]) if records else None

    def port_bindings(self, server: Server) -> dict[str, str]:
        """Host ("a", "b") to the status of the port's binding there: ACTIVE, INACTIVE."""
        return self.all_port_bindings(server)[0]

    def all_port_bindings(self, server: Server) -> list[dict[str, str]]:
        """The same of each of its ports."""
        paths = [f"/v2.0/ports/{port.id}/bindings" for port in server.ports]
        return [
            {each["host"].removeprefix("pcmig-"): each["status"] for each in found["bindings"]}
            for found in (self.api.get("network", path) for path in paths)
        ]

    def placement_allocations(self, consumer: Server | str) -> dict[str, dict[str, int]]:
        """Host to the resources that placement holds there for a server, or a migration's UUID."""
        names = {
            provider["uuid"]: provider["name"].removeprefix("pcmig-")
            for provider in self.api.get("placement", "/resource_providers")["resource_providers"]
        }
        id_ = consumer.id if isinstance(consumer, Server) else consumer
        allocations = self.api.get("placement", f"/allocations/{id_}")["allocations"]
        return {names[id_]: dict(allocation["resources"]) for id_, allocation in allocations.items()}

    def nova_db(self, sql: str, database: str = "nova_cell1") -> list[dict[str, str | None]]:
        """Rows of an SQL statement, every value as text."""
        assert self._plane is not None
        return self._plane.sql(database, sql)

    def compute_log(self, host: str) -> str:
        """All that nova-compute of a host has said so far."""
        return self.computes[host].nova.log.read_text(errors="replace")

    def reaches(self, server: Server) -> bool:
        """A connection to the guest is answered (with a refusal): packets find it as well as leave it."""
        assert self.control.holder is not None
        try:
            network.socket_in(self.control.holder.pid, (server.port.address, 9), 3).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    def save_logs(self, folder: pathlib.Path) -> None:
        """Copy the logs of all services, libvirtds and QEMUs."""
        for node in (self.control, *self.hosts):
            target = folder / node.name
            for source in (outside(node) / "log", node.state / "log"):
                with contextlib.suppress(OSError):
                    for path in source.rglob("*.log"):
                        target.mkdir(parents=True, exist_ok=True)
                        (target / path.name).write_bytes(path.read_bytes())

    # Parts

    def _start_heartbeat_collector(self) -> None:
        folder = outside(self.control) / "heartbeats"
        folder.mkdir(parents=True, exist_ok=True)
        ports = [f"{host.name}={network.FLAT}-{host.name}" for host in self.hosts]
        python = str(pathlib.Path(sys.executable).resolve())
        where = [f"{RUN}/heartbeats", network.COLLECTOR, str(network.COLLECTOR_PORT)]
        argv = [python, "-I", "-S", str(COLLECTOR), *where, *ports]
        collector = Service("collector", self.control, argv, {"PATH": "/usr/bin:/bin"})
        collector.start().wait_ready(lambda: "ready" in collector.log.read_text(), 15)

    def computes_up(self) -> bool:
        """Whether Nova would send a guest to either of the hosts."""
        services = self.api.get("compute", "/os-services?binary=nova-compute")["services"]
        return [service["state"] for service in services] == ["up"] * len(self.computes)

    def _wait_compute(self, compute: Compute) -> None:
        def up() -> bool:
            services = self.api.get("compute", "/os-services?binary=nova-compute")["services"]
            reported = [
                _utc(service["updated_at"])
                for service in services
                if service["host"] == compute.name and service["state"] == "up" and service["updated_at"]
            ]
            # Of whole seconds: in that of the start the one before may have reported for the last time.
            return any(time_s > int(compute.started_at) for time_s in reported) and self._has_inventory(
                compute
            )

        compute.nova.wait_ready(up, START_PATIENCE_S)
        compute.agent.wait_ready(lambda: self._agent_reported(compute), START_PATIENCE_S)

    def _has_inventory(self, compute: Compute) -> bool:
        found = self.api.get("placement", f"/resource_providers?name={compute.name}&resources=VCPU:1")
        return bool(found["resource_providers"])

    def _agent_reported(self, compute: Compute) -> bool:
        agents = self.api.get("network", f"/v2.0/agents?host={compute.name}")["agents"]
        return any(agent["alive"] for agent in agents)

    def _cell_knows_computes(self) -> bool:
        return len(self.nova_db("select host from host_mappings", "nova_api")) == len(self.computes)

    def _upload_kernel(self) -> None:
        self._kernel = self._upload("kernel", "aki", (self._guest_folder / "vmlinuz").read_bytes(), {})
        self._ramdisk = self._upload("ramdisk", "ari", (self._guest_folder / "initramfs").read_bytes(), {})

    def _upload(self, name: str, kind: str, content: bytes, properties: Mapping[str, str]) -> str:
        container = "bare" if kind == "raw" else kind
        record = {"name": name, "disk_format": kind, "container_format": container, **properties}
        id_ = str(self.api.post("image", "/v2/images", record)["id"])
        self.api.request("PUT", "image", f"/v2/images/{id_}/file", content)
        return id_

    def _image(self, spec: GuestSpec, properties: Mapping[str, str]) -> str:
        """An image of its own for each worker and set of properties; kernel and initramfs are shared."""
        wanted = {
            "kernel_id": self._kernel,
            "ramdisk_id": self._ramdisk,
            "os_command_line": command_line(spec),
            **properties,
        }
        key = json.dumps(wanted, sort_keys=True)
        if key not in self._images:
            self._images[key] = self._upload("guest", "raw", bytes(1 << 20), wanted)
        return self._images[key]

    def _flavor(self, memory_mib: int, vcpus: int, specs: Mapping[str, str], disk_gib: int = 0) -> str:
        key = json.dumps([memory_mib, vcpus, dict(specs), disk_gib], sort_keys=True)
        if key not in self._flavors:
            name = f"f{len(self._flavors)}"
            flavor = {"name": name, "ram": memory_mib, "vcpus": vcpus, "disk": disk_gib}
            id_ = str(self.api.post("compute", "/flavors", {"flavor": flavor})["flavor"]["id"])
            if specs:
                self.api.post("compute", f"/flavors/{id_}/os-extra_specs", {"extra_specs": dict(specs)})
            self._flavors[key] = id_
        return self._flavors[key]

    def _make_network(self) -> None:
        flat = {
            "name": "flat",
            "provider:network_type": "flat",
            "provider:physical_network": network.PHYSICAL_NETWORK,
            "shared": True,
            "mtu": 1500,
        }
        self._network = self.api.post("network", "/v2.0/networks", {"network": flat})["network"]["id"]
        subnet = {
            "network_id": self._network,
            "ip_version": 4,
            "cidr": network.FLAT_CIDR,
            "enable_dhcp": False,
            "gateway_ip": network.COLLECTOR,
        }
        self.api.post("network", "/v2.0/subnets", {"subnet": subnet})

    def _make_port(self) -> Port:
        number = network.FIRST_GUEST + self._ports
        self._ports += 1
        mac, address = network.guest_mac(number), network.guest_address(number)
        wanted = {"network_id": self._network, "mac_address": mac, "fixed_ips": [{"ip_address": address}]}
        port = self.api.post("network", "/v2.0/ports", {"port": wanted})["port"]
        return Port(port["id"], mac, address)

    def _processes(self) -> list[ProcessId]:
        found = super()._processes()
        nodes = [self.control, *([self.storage.node] if self.storage else [])]
        return [*found, *(node.holder for node in nodes if node.holder)]

    def _more_state(self) -> dict[str, object]:
        control = self.control.holder
        return {
            "cloud": {
                "driver": self.driver,
                "venv": str(self._venv),
                "control": [control.pid, control.start_ticks] if control else None,
                "servers": {server.name: [server.id, server.port.address] for server in self.servers},
            }
        }


class KeptCloud(KeptBed):
    """A cloud as another process left it."""

    @property
    def cloud(self) -> Mapping[str, Any] | None:
        content = self.content.get("cloud")
        return content if isinstance(content, dict) else None

    @property
    def control(self) -> ControlNode:
        node = ControlNode(self.state / "control")
        if self.cloud and self.cloud["control"]:
            node.holder = ProcessId(*self.cloud["control"])
        return node

    def node(self, name: str) -> Host:
        return self.control if name == "control" else self.host(name)

    def client_env(self) -> dict[str, str]:
        assert self.cloud is not None
        return client_environment(pathlib.Path(self.cloud["venv"]))


def client_environment(venv: pathlib.Path) -> dict[str, str]:
    names = {
        "AUTH_URL": f"http://{network.CONTROL}:5000/v3",
        "USERNAME": "admin",
        "PASSWORD": PASSWORD,
        "PROJECT_NAME": "admin",
        "USER_DOMAIN_ID": "default",
        "PROJECT_DOMAIN_ID": "default",
        "REGION_NAME": "RegionOne",
        "IDENTITY_API_VERSION": "3",
    }
    own = {"PATH": f"{venv}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": f"{RUN}/home", "LC_ALL": "C.UTF-8"}
    return {**own, "PYTHONWARNINGS": "ignore", "no_proxy": "*", **{f"OS_{k}": v for k, v in names.items()}}


def block_devices(
    image_id: str, volumes: Sequence[str], root_volume: bool, root_gib: int
) -> list[dict[str, Any]]:
    """For a server's block_device_mapping_v2: the first disk, local or a volume of its own, and volumes."""
    root = {"uuid": image_id, "source_type": "image", "boot_index": 0, "delete_on_termination": True}
    if root_volume:
        root |= {"destination_type": "volume", "volume_size": max(1, root_gib)}
    else:
        root["destination_type"] = "local"
    more = {"source_type": "volume", "destination_type": "volume", "boot_index": -1}
    return [root, *({"uuid": id_, **more} for id_ in volumes)]


def _utc(text: str) -> float:
    return calendar.timegm(time.strptime(text.partition(".")[0], "%Y-%m-%dT%H:%M:%S"))
