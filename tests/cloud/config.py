# SPDX-License-Identifier: Apache-2.0
"""Configuration files of the cloud's services. Paths are as the node or host sees them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from tests.bed import network as bed_network
from tests.bed.errors import BedError
from tests.cloud.api import PASSWORD
from tests.cloud.network import CONTROL, PHYSICAL_NETWORK, management_address
from tests.cloud.ovn import remote
from tests.cloud.service import RUN

Value = str | int | bool | Sequence[str]
Sections = Mapping[str, Mapping[str, Value]]

ETC = f"{RUN}/etc"
DATABASE_SOCKET = f"{RUN}/db.sock"
TRANSPORT = f"rabbit://guest:guest@{CONTROL}:5672/"
DATABASES = ("keystone", "glance", "placement", "neutron", "nova_api", "nova_cell0", "nova_cell1")
OVSDB_PORT = 6640  # what neutron's agent and os-vif expect

AUTH: Mapping[str, Value] = {
    "auth_url": f"http://{CONTROL}:5000/v3",
    "auth_type": "password",
    "project_domain_id": "default",
    "user_domain_id": "default",
    "project_name": "admin",
    "username": "admin",
    "password": PASSWORD,
    "region_name": "RegionOne",
}
TOKENS: Mapping[str, Value] = {"www_authenticate_uri": f"http://{CONTROL}:5000/", **AUTH}
POLICY: Mapping[str, Value] = {"enforce_scope": False}
OVN: Sections = {
    "ovn": {
        "ovn_nb_connection": remote("nb"),
        "ovn_sb_connection": remote("sb"),
        "live_migration_activation_strategy": "rarp",  # neutron's default
    },
    # The guests' traffic has no rules, as the agents of a cloud without OVN have none.
    "securitygroup": {"enable_security_group": False},
}

MARIADB = f"""\
[mysqld]
datadir={RUN}/db
socket={DATABASE_SOCKET}
pid-file={RUN}/db.pid
skip-networking
user=root
character-set-server=utf8mb3
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
innodb_flush_method=nosync
innodb_buffer_pool_size=96M
innodb_log_file_size=32M
innodb_fast_shutdown=0
performance_schema=OFF
skip-name-resolve
max_connections=400
skip-log-bin
"""

RABBITMQ = f"""\
listeners.tcp.1 = {CONTROL}:5672
loopback_users = none
vm_memory_high_watermark.absolute = 1GB
log.console = true
log.file = false
"""


def database_url(name: str) -> str:
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={DATABASE_SOCKET}&charset=utf8mb3"


def render(sections: Sections) -> str:
    """A file as oslo.config reads it; a list is one line for each of its values."""
    lines: list[str] = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        for name, value in options.items():
            values = [value] if isinstance(value, (str, int)) else value
            lines += [f"{name} = {str(each).lower() if isinstance(each, bool) else each}" for each in values]
    return "\n".join(lines) + "\n"


def write(folder: pathlib.Path, files: Mapping[str, Sections | str]) -> None:
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else render(content))
    except OSError as error:
        raise BedError(f"writing the cloud's configuration: {error}") from error


def api_paste(venv: pathlib.Path, api_filter: bool) -> str:
    """nova-api's pipelines as Nova has them; with api_filter as doc/operate/asking.rst says."""
    text = (venv / "etc/nova/api-paste.ini").read_text()
    if not api_filter:
        return text
    changed = text.replace(" osapi_compute_app_v21\n", " pcmig osapi_compute_app_v21\n")
    return f"{changed}\n[filter:pcmig]\npaste.filter_factory = pcmig_api:factory\n"


def control_files(
    venv: pathlib.Path, api_filter: bool = False, *, ovn: bool = False
) -> dict[str, Sections | str]:
    """The control node's files, by their name below ETC."""
    log: Mapping[str, Value] = {"use_stderr": True}
    nova = {
        **_nova_common("control", CONTROL),
        "api": {},
        "database": {"connection": database_url("nova_cell1")},
        "api_database": {"connection": database_url("nova_api")},
        "conductor": {"workers": 1},
        # New computes are taken into the cell by themselves.
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 2},
        "filter_scheduler": {"enabled_filters": "ComputeFilter"},
    }
    return {
        "my.cnf": MARIADB,
        "rabbitmq/rabbitmq.conf": RABBITMQ,
        "rabbitmq/enabled_plugins": "[].\n",
        "keystone/keystone.conf": {
            "DEFAULT": log,
            "database": {"connection": database_url("keystone")},
            "token": {"provider": "fernet", "expiration": 86400},
            "fernet_tokens": {"key_repository": f"{ETC}/keystone/fernet"},
            "fernet_receipts": {"key_repository": f"{ETC}/keystone/fernet"},
            "credential": {"key_repository": f"{ETC}/keystone/credential"},
            "identity": {"password_hash_algorithm": "pbkdf2_sha512", "password_hash_rounds": 1000},
            "oslo_policy": POLICY,
        },
        "placement/placement.conf": {
            "DEFAULT": log,
            "api": {"auth_strategy": "keystone"},
            "placement_database": {"connection": database_url("placement")},
            "keystone_authtoken": TOKENS,
        },
        "glance/glance-api.conf": {
            "DEFAULT": {**log, "enabled_backends": "fs:file", "bind_host": CONTROL},
            "database": {"connection": database_url("glance")},
            "glance_store": {"default_backend": "fs"},
            "fs": {"filesystem_store_datadir": f"{RUN}/images"},
            "os_glance_staging_store": {"filesystem_store_datadir": f"{RUN}/glance-staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": f"{RUN}/glance-tasks"},
            "paste_deploy": {
                "flavor": "keystone",
                "config_file": f"{venv}/etc/glance/glance-api-paste.ini",
            },
            "keystone_authtoken": TOKENS,
            "oslo_policy": POLICY,
        },
        "neutron/neutron.conf": {
            "DEFAULT": {
                **log,
                "core_plugin": "ml2",
                "service_plugins": "",
                "transport_url": TRANSPORT,
                "auth_strategy": "keystone",
                "notify_nova_on_port_status_changes": True,
                "notify_nova_on_port_data_changes": True,
                "send_events_interval": 1,
                "api_paste_config": f"{venv}/etc/neutron/api-paste.ini",
                "state_path": f"{RUN}/neutron",
                "rpc_workers": 1,
                "rpc_state_report_workers": 0,
            },
            "database": {"connection": database_url("neutron")},
            "keystone_authtoken": TOKENS,
            "nova": AUTH,
            "oslo_concurrency": {"lock_path": f"{RUN}/neutron/lock"},
            "oslo_policy": POLICY,
            "ml2": {
                "type_drivers": "flat",
                "tenant_network_types": "",
                "mechanism_drivers": "ovn" if ovn else "openvswitch",
                "extension_drivers": "",
            },
            **(OVN if ovn else {}),
            "ml2_type_flat": {"flat_networks": PHYSICAL_NETWORK},
        },
        "nova/nova.conf": nova,
        "nova/api-paste.ini": api_paste(venv, api_filter),
    }


def host_files(
    venv: pathlib.Path,
    host: str,
    driver: str,
    extra: Sections | str,
    hostname: str,
    more: Sections | None = None,
    hybrid: bool = False,
) -> dict[str, Sections | str]:
    """A compute host's files, by their name below ETC; `more` adds to nova.conf, what `extra` says wins.
    HYBRID: neutron's agent wants a Linux bridge before each port."""
    files = compute_config_files()
    helper = " ".join(["sudo", "-n", f"{venv}/bin/privsep-helper", *files])
    agent_files = f"--config-file {ETC}/neutron/agent.conf"
    agent_helper = {"helper_command": f"{venv}/bin/privsep-helper {agent_files}"}
    nova = _nova_common(hostname, management_address(host))
    nova["DEFAULT"] = {
        **nova["DEFAULT"],
        "instances_path": f"{RUN}/instances",
        "compute_driver": driver,
        "reserved_host_memory_mb": 0,
        "force_config_drive": False,
        "vif_plugging_is_fatal": True,
        "vif_plugging_timeout": 60,
        "debug": True,
        "default_log_levels": ",".join(
            f"{logger}=WARN"
            for logger in ("amqp", "urllib3", "keystoneauth", "keystonemiddleware", "ovsdbapp")
        )
        + ",oslo.messaging=INFO,oslo_messaging=INFO,oslo.privsep.daemon=INFO,oslo_policy=INFO,stevedore=INFO"
        + ",oslo_concurrency.lockutils=INFO,oslo_service=INFO,glanceclient=WARN",
    }
    nova["libvirt"] = {
        "virt_type": "qemu",
        "cpu_mode": "none",
        "live_migration_scheme": "tcp",
        "live_migration_inbound_addr": bed_network.address(host),
    }
    nova["compute"] = {"live_migration_wait_for_vif_plug": False}
    # On the destination nova's image inspection takes a bare kernel for a broken partition table.
    nova["workarounds"] = {"disable_deep_image_inspection": True}
    for section in (
        "nova_sys_admin",
        "privsep_osbrick",
        "vif_plug_ovs_privileged",
        "vif_plug_linux_bridge_privileged",
    ):
        nova[section] = {"helper_command": helper}
    for section, options in (more or {}).items():
        nova[section] = {**nova.get(section, {}), **options}
    agent: dict[str, Mapping[str, Value]] = {
        "DEFAULT": {
            "use_stderr": True,
            "host": hostname,
            "transport_url": TRANSPORT,
            "state_path": f"{RUN}/neutron",
        },
        "ovs": {
            "bridge_mappings": f"{PHYSICAL_NETWORK}:br-ex",
            "datapath_type": "netdev",  # switching in user space: the kernel's module is not needed
            "ovsdb_connection": f"tcp:127.0.0.1:{OVSDB_PORT}",
        },
        "agent": {"tunnel_types": "", "extensions": "", "root_helper": "env", "polling_interval": 1},
        "securitygroup": {
            "enable_security_group": False,
            "firewall_driver": "hybrid_firewall.Hybrid" if hybrid else "noop",
        },
        "oslo_concurrency": {"lock_path": f"{RUN}/neutron/lock"},
    }
    for section in ("", "_dhcp_release", "_ovs_vsctl", "_namespace", "_conntrack", "_link"):
        agent[f"privsep{section}"] = agent_helper
    return {
        "nova/nova.conf": nova,
        "nova/extra.conf": extra,
        "neutron/agent.conf": agent,
    }


def compute_config_files() -> list[str]:
    """Options that name a compute's files, later ones before earlier ones."""
    return ["--config-file", f"{ETC}/nova/nova.conf", "--config-file", f"{ETC}/nova/extra.conf"]


def _nova_common(hostname: str, address: str) -> dict[str, Mapping[str, Value]]:
    return {
        "DEFAULT": {
            "use_stderr": True,
            "transport_url": TRANSPORT,
            "state_path": f"{RUN}/nova",
            "my_ip": address,
            "host": hostname,
            "graceful_shutdown_timeout": 3,
            "manager_shutdown_timeout": 1,
            "report_interval": 2,  # its first report is what the bed waits for
            "service_down_time": 60,
        },
        "keystone_authtoken": TOKENS,
        "service_user": {"send_service_user_token": True, **AUTH},
        "placement": AUTH,
        "glance": {"region_name": "RegionOne"},
        "neutron": AUTH,
        "cinder": {"os_region_name": "RegionOne"},
        "oslo_concurrency": {"lock_path": f"{RUN}/nova/lock"},
        "oslo_policy": POLICY,
        "vnc": {"enabled": False},
    }
