# SPDX-License-Identifier: Apache-2.0
"""Cinder on the bed's Ceph: API and scheduler on the control node, its volume service where Ceph is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tests.bed.host import Host
from tests.cloud.api import Api
from tests.cloud.config import AUTH, ETC, POLICY, TOKENS, TRANSPORT, Sections, database_url
from tests.cloud.network import CONTROL
from tests.cloud.service import RUN
from tests.cloud.storage import ceph

if TYPE_CHECKING:
    from tests.cloud.controlplane import ControlPlane

KIND = "volumev3"  # of its service in the catalog, which is what Nova asks for
BACKEND = "ceph"
CONF = f"{ETC}/cinder/cinder.conf"
FILES = ["--config-file", CONF]
START_PATIENCE_S = 120.0


class Cinder:
    """What the control plane has more with volumes; the attributes in capitals are what it asks for."""

    KIND = KIND
    DATABASE = "cinder"

    def __init__(self, folder: pathlib.Path, fsid: str) -> None:
        self.venv = folder / "venv"
        self.fsid = fsid

    @property
    def packages(self) -> list[str]:
        """Names and versions of all that is installed: the databases' tables depend on them."""
        return sorted(path.name for path in self.venv.glob("lib/*/site-packages/*.dist-info"))

    @property
    def database_commands(self) -> list[list[str]]:
        return [[f"{self.venv}/bin/cinder-manage", *FILES, "db", "sync"]]

    def files(self) -> Mapping[str, Sections | str]:
        """The control node's files, by their name below ETC."""
        return {
            "cinder/cinder.conf": {
                "DEFAULT": {
                    "use_stderr": True,
                    "transport_url": TRANSPORT,
                    "auth_strategy": "keystone",
                    "my_ip": CONTROL,
                    "host": "storage",
                    "state_path": f"{RUN}/cinder",
                    "image_conversion_dir": f"{RUN}/cinder/conversion",
                    "api_paste_config": f"{self.venv}/etc/cinder/api-paste.ini",
                    "resource_query_filters_file": f"{self.venv}/etc/cinder/resource_filters.json",
                    "enabled_backends": BACKEND,
                    "report_interval": 2,
                    "service_down_time": 60,
                    "graceful_shutdown_timeout": 3,
                },
                BACKEND: {
                    "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
                    "volume_backend_name": BACKEND,
                    "rbd_pool": ceph.VOLUMES,
                    "rbd_ceph_conf": ceph.CONF,
                    "rbd_user": ceph.USER,
                    "rbd_secret_uuid": self.fsid,
                    "rados_connect_timeout": 10,
                },
                "cinder_sys_admin": {"helper_command": f"{self.venv}/bin/privsep-helper {' '.join(FILES)}"},
                "database": {"connection": database_url(self.DATABASE)},
                "keystone_authtoken": TOKENS,
                "service_user": {"send_service_user_token": True, **AUTH},
                "nova": AUTH,
                "oslo_concurrency": {"lock_path": f"{RUN}/cinder/lock"},
                "coordination": {"backend_url": f"file://{RUN}/cinder/coordination"},
                "oslo_policy": POLICY,
            }
        }

    def start(self, plane: ControlPlane, node: ceph.StorageNode) -> None:
        """Its services; message queue, database and keystone are there."""
        env = {"PATH": f"{self.venv}/bin:{plane.env['PATH']}"}
        plane.start_api(KIND, self.venv, "cinder.wsgi.api:application", 4, env, FILES)
        plane.start_service("cinder-scheduler", [f"{self.venv}/bin/cinder-scheduler", *FILES], env)
        volume = [f"{self.venv}/bin/cinder-volume", *FILES]
        modules = {"PYTHONPATH": ceph.MODULES}
        plane.start_service("cinder-volume", volume, {**env, **modules}, node)

    def wait(self, plane: ControlPlane, api: Api) -> None:
        """Until it would make a volume."""
        plane.wait_api(KIND)

        def up() -> bool:
            services = api.get(KIND, "/os-services")["services"]
            return {"cinder-scheduler", "cinder-volume"} <= {
                service["binary"] for service in services if service["state"] == "up"
            } and bool(api.get(KIND, "/scheduler-stats/get_pools")["pools"])

        plane.services["cinder-volume"].wait_ready(up, START_PATIENCE_S)


def nova_sections(fsid: str) -> Sections:
    """More for nova.conf of compute hosts: disks of servers in Ceph, and Cinder asked in Nova's own name."""
    return {
        "libvirt": {
            "images_type": "rbd",
            "images_rbd_pool": ceph.SERVERS,
            "images_rbd_ceph_conf": ceph.CONF,
            "rbd_user": ceph.USER,
            "rbd_secret_uuid": fsid,
        },
        "cinder": {**AUTH, "os_region_name": "RegionOne"},
    }


def host_env(path: str) -> dict[str, str]:
    """What nova-compute's environment has more: Ceph's commands and modules."""
    return {"PATH": f"{ceph.BIN}:{path}", "PYTHONPATH": ceph.MODULES}


def prepare_host(host: Host, cluster: ceph.Ceph) -> None:
    """All that a compute host needs to use the cluster."""
    cluster.write_client_files(host)
    ceph.define_secret(host, cluster)
